"""BERT's uncased WordPiece, with which the Chinese models were trained: text -> words -> pieces of vocab.txt.

A text is cut at white space, around punctuation and around every Chinese character; a word is then spelled by the
longest pieces that fit, from the left. Case, accents and white space do not come back.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from ..errors import OFAError, shown
from ..utils.input_files import read_text_file

_UNKNOWN = "[UNK]"
#: Tokens that stand for no text; in raw prompts they may be typed.
_SPECIAL = re.compile(r"\[(?:PAD|UNK|CLS|SEP|MASK)\]")
_CONTINUES = "##"
_MAX_WORD_LENGTH = 100

#: The characters that are words by themselves: ideographs, but neither kana nor hangul.
_IDEOGRAPHS = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)
_CJK_PUNCTUATION = (0x3000, 0x303F)
_CHINESE = (*_IDEOGRAPHS, _CJK_PUNCTUATION)
#: CJK punctuation, vertical forms, full-width and half-width forms.
_WIDE_FORMS = (_CJK_PUNCTUATION, (0xFE30, 0xFE4F), (0xFF00, 0xFFEF))
#: Punctuation that Chinese shares with other scripts.
_SHARED_PUNCTUATION = frozenset("“”‘’…—·")
#: Patterns that lose their white space in decoded text, in this order.
_TIGHTENED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


def bert_words(text: str) -> list[str]:
    """Cut a text into the words that are spelled separately: lower case, without accents and control characters."""
    # Punctuation is looked for last: a character may decompose into some.
    decomposed = unicodedata.normalize("NFD", "".join(map(_cleaned, text)))
    return "".join(map(_set_apart, decomposed)).split()


class WordPiece:
    """A WordPiece encoder: `tokens` as in vocab.txt, the id of each is its place.

    Nothing in a text is special: `[MASK]` is three words, of which `[` is the first.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tuple(tokens)
        self._ids = {token: index for index, token in enumerate(self._tokens)}
        if len(self._ids) < len(self._tokens) or "" in self._ids:
            raise OFAError("the WordPiece tokens must be distinct and not empty")
        if _UNKNOWN not in self._ids:
            raise OFAError(f"none of the {len(self)} WordPiece tokens is {_UNKNOWN}, which stands for unknown words")
        self._longest = max(map(len, self._tokens))

    @classmethod
    def from_file(cls, vocab_txt: Path) -> WordPiece:
        """Read a vocab.txt: one token a line."""
        tokens = _read_tokens(vocab_txt)
        try:
            return cls(tokens)
        except OFAError as error:
            raise OFAError(f"{vocab_txt}: {error}") from None

    def __len__(self) -> int:
        return len(self._tokens)

    def dictionary_symbols(self) -> dict[int, str]:
        """Name each token as dict.txt does: by itself."""
        return dict(enumerate(self._tokens))

    def continues_word(self, token: int) -> bool:
        """Tell whether a piece stands within a word."""
        return self._tokens[token].startswith(_CONTINUES)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, by line of vocab.txt; a word that cannot be spelled is one `[UNK]`."""
        return [token for word in bert_words(text) for token in self._spell(word)]

    def encode_typed(self, text: str) -> list[int]:
        """Return the ids of a text in which a typed `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]` or `[MASK]` is that token.

        So do the original's raw prompts; texts that were lower-cased before hold none.
        """
        ids: list[int] = []
        start = 0
        for match in _SPECIAL.finditer(text):
            if match[0] in self._ids:
                ids += [*self.encode(text[start : match.start()]), self._ids[match[0]]]
                start = match.end()
        return ids + self.encode(text[start:])

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids.

        A `##` piece is glued to what stands before it, other pieces are separated by a space. As in the text that the
        original shows, there is no space between Chinese characters, around full-width and other CJK punctuation, and
        between quotes, dashes, `…`, `·` and such characters or each other; nor before `.`, `?`, `!`, `,` and in `it's`
        or `isn't`. Between Chinese and Latin letters or digits the space stays.
        """
        words: list[str] = []
        for token in ids:
            if not 0 <= token < len(self):
                raise OFAError(f"WordPiece id {token} is not one of the {len(self)} tokens")
            piece = self._tokens[token]
            if words and piece.startswith(_CONTINUES):
                words[-1] += piece.removeprefix(_CONTINUES)
            else:
                words.append(piece)
        parts = words[:1]
        for left, right in pairwise(words):
            parts += ["" if _touch(left[-1], right[0]) else " ", right]
        text = "".join(parts)
        for spaced in _TIGHTENED:
            text = text.replace(spaced, spaced.strip())
        return text

    def _spell(self, word: str) -> list[int]:
        unknown = [self._ids[_UNKNOWN]]
        if len(word) > _MAX_WORD_LENGTH:
            return unknown
        ids: list[int] = []
        start = 0
        while start < len(word):
            prefix = _CONTINUES if start else ""
            ends = range(min(len(word), start + self._longest), start, -1)
            end = next((end for end in ends if prefix + word[start:end] in self._ids), None)
            if end is None:
                return unknown
            ids.append(self._ids[prefix + word[start:end]])
            start = end
        return ids


@lru_cache(maxsize=1 << 14)
def _cleaned(character: str) -> str:
    """Ideographs between spaces, nothing for control characters unless they are white space, the rest in lower case.

    Character by character a capital sigma is never the final one, in the original too.
    """
    if character in "\t\n\r":
        return " "
    if unicodedata.category(character)[0] == "C" or character == "\ufffd":
        return ""
    return f" {character} " if _is_in(character, _IDEOGRAPHS) else character.lower()


@lru_cache(maxsize=1 << 14)
def _set_apart(character: str) -> str:
    """Punctuation between spaces, nothing for accents."""
    category = unicodedata.category(character)
    if category == "Mn":
        return ""
    # In ASCII the symbols ($, +, <, =, >, ^, `, |, ~) count as well.
    is_punctuation = category[0] == "P" or (character.isascii() and category[0] == "S")
    return f" {character} " if is_punctuation else character


def _touch(left: str, right: str) -> bool:
    """Tell whether two neighbouring characters of different words are written without a space."""
    return _is_wide_punctuation(left) or _is_wide_punctuation(right) or (_is_chinese(left) and _is_chinese(right))


def _is_wide_punctuation(character: str) -> bool:
    return _is_in(character, _WIDE_FORMS) and not character.isalnum()


def _is_chinese(character: str) -> bool:
    # Letters and numbers of the punctuation block, such as 々 and 〇, are written like ideographs.
    return character in _SHARED_PUNCTUATION or _is_in(character, _CHINESE)


def _is_in(character: str, ranges: Sequence[tuple[int, int]]) -> bool:
    return any(first <= ord(character) <= last for first, last in ranges)


def _read_tokens(path: Path) -> list[str]:
    tokens: dict[str, int] = {}  # token -> line
    lines = read_text_file(path).split("\n")
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line:
            continue
        token = line.rstrip("\r")
        if not token:
            raise OFAError(f"{path}:{number}: expected a token, found an empty line")
        if tokens.setdefault(token, number) != number:
            raise OFAError(f"{path}:{number}: token {shown(token)} stands on line {tokens[token]} already")
    if not tokens:
        raise OFAError(f"{path}: expected one token a line, found an empty file")
    return list(tokens)
