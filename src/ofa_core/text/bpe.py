"""GPT-2 byte-level BPE: text -> words -> UTF-8 bytes -> merged tokens, and back without loss.

The files name bytes by printable characters (`_BYTE_SYMBOLS`); past the constructor everything is ids and bytes.
"""

from __future__ import annotations

import heapq
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import OFAError, shown
from ..utils.input_files import parse_json, read_text_file

# The cache of encoded words is emptied when it is full; a longer word is seldom seen twice and is not kept.
_CACHE_WORDS = 1 << 16
_CACHE_WORD_LENGTH = 64


def _byte_symbols() -> list[str]:
    """Return the printable character that stands for each byte in the vocabulary files.

    Visible Latin-1 characters stand for themselves; the other 68 bytes take the code points from 256 on, in order.
    """
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    symbols, free = [], 0x100
    for byte in range(256):
        symbols.append(chr(byte if byte in visible else free))
        free += byte not in visible
    return symbols


_BYTE_SYMBOLS = _byte_symbols()
_SYMBOL_BYTES = {symbol: byte for byte, symbol in enumerate(_BYTE_SYMBOLS)}


def byte_symbols(text: bytes) -> str:
    """Write bytes the way the vocabulary files do, e.g. b" a" as "Ġa"."""
    return "".join(_BYTE_SYMBOLS[byte] for byte in text)


# Words are found in the *shape* of a text: the same text with every character replaced by an ASCII one of its class.
# `re` then needs no Unicode classes of its own, whose \w and \s are not the L*, N* and White_Space that GPT-2 asks for.
_LETTER, _NUMBER, _SPACE, _OTHER = "a", "0", "\t", "!"
_WORD = re.compile(
    r"'(?:[stmd]|re|ve|ll)"  # contractions, lower case only
    r"| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+"  # a word takes one space (U+0020) with it
    r"|\s+(?!\S)|\s",  # white space, leaving its last character to the word that follows
    re.ASCII,
)


class _Shapes(dict[int, str]):
    """The table for `str.translate`: ASCII is held, the rest is asked of unicodedata (and not held: 10^6 points)."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if category[0] == "L":
            return _LETTER
        if category[0] == "N":
            return _NUMBER
        return _SPACE if character.isspace() else _OTHER


_SHAPES = _Shapes({code: chr(code) for code in range(0x80)})
# str.isspace disagrees with White_Space on the four separators U+001C..U+001F: they are no white space to GPT-2.
_SHAPES.update(dict.fromkeys(range(0x1C, 0x20), _OTHER))


def split_words(text: str) -> Iterator[str]:
    """Cut a text into the words that are merged separately; joined again they are the text. Linear in its length."""
    for match in _WORD.finditer(text.translate(_SHAPES)):
        yield text[match.start() : match.end()]


def _joined_surrogates(text: str) -> str:
    """Return a text that UTF-8 can hold: surrogate pairs joined, lone surrogates as U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


class ByteLevelBPE:
    """A byte-level BPE: `token_ids` as in encoder.json, `merges` as in vocab.bpe, the most urgent first."""

    def __init__(self, token_ids: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> None:
        self._token_bytes = _token_bytes(token_ids)
        missing = [symbol for symbol in _BYTE_SYMBOLS if symbol not in token_ids]
        if missing:
            raise OFAError(f"the BPE tokens lack {len(missing)} of the 256 byte symbols, the first is {missing[0]!r}")
        self._byte_ids = [token_ids[symbol] for symbol in _BYTE_SYMBOLS]
        self._merges: dict[tuple[int, int], tuple[int, int]] = {}  # (left, right) -> (rank, merged)
        for rank, (left, right) in enumerate(merges):
            for symbol in (left, right, left + right):
                if symbol not in token_ids:
                    raise OFAError(
                        f"BPE merge {rank + 1} ({shown(left)} + {shown(right)}) needs {shown(symbol)}, which has no id"
                    )
            self._merges.setdefault((token_ids[left], token_ids[right]), (rank, token_ids[left + right]))
        self._cache: dict[str, list[int]] = {}

    @classmethod
    def from_files(cls, encoder_json: Path, vocab_bpe: Path) -> ByteLevelBPE:
        """Read the two files of a GPT-2 vocabulary.

        Args:
            encoder_json: tokens and their ids.
            vocab_bpe: merges in their order; a first line `#version: ...` is skipped.

        Returns:
            The encoder.

        Raises:
            OFAError: a file is missing or broken, or the two do not belong together.
        """
        token_ids, merges = _read_token_ids(encoder_json), read_merges(vocab_bpe)
        try:
            return cls(token_ids, merges)
        except OFAError as error:
            raise OFAError(f"{encoder_json} and {vocab_bpe.name}: {error}") from None

    def __len__(self) -> int:
        return len(self._token_bytes)

    def dictionary_symbols(self) -> dict[int, str]:
        """Name each token as dict.txt does: by its own id in decimal."""
        return {token: str(token) for token in self._token_bytes}

    def encode(self, text: str) -> list[int]:
        """Return the GPT-2 ids of a text. Nothing in it is special: `<|endoftext|>` is plain characters."""
        ids: list[int] = []
        for word in split_words(_joined_surrogates(text)):
            found = self._cache.get(word)
            ids.extend(self._encode_word(word) if found is None else found)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of GPT-2 ids; bytes that are not UTF-8 become U+FFFD."""
        parts = []
        for token in ids:
            if token not in self._token_bytes:
                raise OFAError(f"BPE id {token} is not one of the {len(self)} tokens")
            parts.append(self._token_bytes[token])
        return b"".join(parts).decode("utf-8", "replace")

    def _encode_word(self, word: str) -> list[int]:
        ids = self._merge([self._byte_ids[byte] for byte in word.encode("utf-8")])
        if len(word) <= _CACHE_WORD_LENGTH:
            if len(self._cache) >= _CACHE_WORDS:
                self._cache.clear()
            self._cache[word] = ids
        return ids

    def _merge(self, ids: list[int]) -> list[int]:
        """Merge the lowest-ranked pair, leftmost first, until none is left: O(n log n).

        GPT-2 merges all occurrences of a pair before it looks for the next. That differs only where a merge comes
        before the merge that makes one of its parts, which training never writes.
        The tokens are a doubly linked list over the positions of `ids`; a token that was taken into the one on its
        left is -1. The heap may hold pairs that are gone: they are recognised by not matching the list any more.
        """
        end = len(ids)
        after, before = list(range(1, end + 1)), list(range(-1, end - 1))
        heap: list[tuple[int, int, int, int, int]] = []  # rank, position, left, right, merged

        def offer(position: int) -> None:
            left, right = ids[position], ids[after[position]]
            if (left, right) in self._merges:
                rank, merged = self._merges[left, right]
                heapq.heappush(heap, (rank, position, left, right, merged))

        for position in range(end - 1):
            offer(position)
        while heap:
            _, position, left, right, merged = heapq.heappop(heap)
            gone = after[position]
            if ids[position] != left or gone == end or ids[gone] != right:
                continue
            ids[position], ids[gone] = merged, -1
            after[position] = after[gone]
            if after[position] < end:
                before[after[position]] = position
                offer(position)
            if before[position] >= 0:
                offer(before[position])
        return [token for token in ids if token >= 0]


def _token_bytes(token_ids: Mapping[str, int]) -> dict[int, bytes]:
    """Return the bytes of each id; an error where two tokens share one or a token is not in byte symbols."""
    table: dict[int, bytes] = {}
    for token, number in token_ids.items():
        if number < 0 or number in table:
            raise OFAError(f"BPE token {shown(token)} has the id {shown(number)}, which is negative or another token's")
        try:
            table[number] = bytes(_SYMBOL_BYTES[symbol] for symbol in token)
        except KeyError as error:
            raise OFAError(f"BPE token {shown(token)} holds {shown(error.args[0])}, which stands for no byte") from None
    return table


def _read_token_ids(path: Path) -> dict[str, int]:
    try:
        token_ids = parse_json(read_text_file(path))
    except json.JSONDecodeError as error:
        raise OFAError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    except OFAError:
        raise
    except ValueError as error:
        raise OFAError(f"{path}: not JSON that can be read ({error})") from None
    if not isinstance(token_ids, dict) or not all(type(number) is int for number in token_ids.values()):
        raise OFAError(f"{path}: expected one JSON object from token to integer id")
    return token_ids


def read_merges(path: Path) -> list[tuple[str, str]]:
    """Read vocab.bpe (merges.txt elsewhere): a pair of symbols a line, the most urgent first."""
    lines = read_text_file(path).split("\n")  # not splitlines: it also cuts at characters that are no line ends here
    merges = []
    for number, line in enumerate(lines, start=1):
        if number == 1 and line.startswith("#version:"):
            continue
        if number == len(lines) and not line:
            continue
        pair = line.rstrip("\r").split(" ")
        if len(pair) != 2 or not all(pair):
            raise OFAError(f"{path}:{number}: expected two symbols separated by a space, found {shown(line)}")
        merges.append((pair[0], pair[1]))
    return merges
