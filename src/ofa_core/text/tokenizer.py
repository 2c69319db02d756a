"""Text to token ids and back: a text encoder for plain words, the vocabulary for whole symbols such as `<bin_3>`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from ..errors import OFAError
from .bpe import ByteLevelBPE
from .vocabulary import BOS, EOS, PAD, Vocabulary
from .wordpiece import WordPiece

Kind = Literal["gpt2", "bert"]

#: The files of each kind of vocabulary, the one that tells it from the others first.
VOCABULARY_KINDS: dict[Kind, tuple[str, ...]] = {
    "gpt2": ("encoder.json", "vocab.bpe", "dict.txt"),
    "bert": ("vocab.txt", "dict.txt"),
}
#: Those of the English models.
FILES = VOCABULARY_KINDS["gpt2"]

#: A symbol of a raw prompt, between white space.
_PROMPT_SYMBOL = re.compile(r"(?<!\S)<(?:bin|code)_[0-9]+>(?!\S)")
_ANGLED = re.compile(r"<[^\s<>]+>")


def small_vocabulary_dir() -> Path:
    """Return the directory of the project's own small vocabulary, for tests, demos and small models."""
    return Path(__file__).parent / "small_vocabulary"


class TextEncoder(Protocol):
    """An encoder of plain text into ids of its own, and back."""

    def encode(self, text: str) -> list[int]:
        """Return the encoder's own ids."""

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of the encoder's own ids."""

    def dictionary_symbols(self) -> Mapping[int, str]:
        """Name each of its ids as dict.txt does."""


class Tokenizer:
    """Text <-> token ids of the model.

    `files` are the raw vocabulary files, name to content, that `save` writes; `from_dir` fills them in.
    """

    def __init__(self, vocabulary: Vocabulary, bpe: TextEncoder, files: Mapping[str, bytes] | None = None) -> None:
        self.vocabulary = vocabulary
        self.bpe = bpe
        self._files = dict(files or {})
        # Tokens of the text encoder that dict.txt does not list are absent here and become <unk>.
        self._token_of = {
            own: vocabulary.id_of(symbol) for own, symbol in bpe.dictionary_symbols().items() if symbol in vocabulary
        }
        self._own_of = {token: own for own, token in self._token_of.items()}
        self._symbol_pattern = _symbol_pattern(vocabulary.extra_tokens)

    @classmethod
    def from_dir(
        cls,
        directory: str | PathLike[str],
        *,
        code_dict_size: int = 8192,
        num_bins: int = 1000,
        extra_tokens: Sequence[str] = (),
    ) -> Tokenizer:
        """Read a vocabulary from a directory.

        Args:
            directory: where encoder.json, vocab.bpe and dict.txt are, or vocab.txt and dict.txt.
            code_dict_size: number of image codes.
            num_bins: number of bins for coordinates.
            extra_tokens: names of tokens behind the bins.

        Returns:
            The tokenizer.

        Raises:
            OFAError: a file is missing or broken.
        """
        kind, paths = _find_files(Path(directory))
        *own, dict_txt = paths
        bpe: TextEncoder = ByteLevelBPE.from_files(*own) if kind == "gpt2" else WordPiece.from_file(*own)
        vocabulary = Vocabulary.from_dict_file(
            dict_txt, code_dict_size=code_dict_size, num_bins=num_bins, extra_tokens=extra_tokens
        )
        return cls(vocabulary, bpe, {path.name: path.read_bytes() for path in paths})

    @property
    def kind(self) -> Kind:
        """The encoder of plain text: "gpt2" for byte-level BPE, "bert" for the WordPiece of the Chinese models."""
        return "bert" if isinstance(self.bpe, WordPiece) else "gpt2"

    def save(self, directory: str | PathLike[str]) -> None:
        """Write the vocabulary files, byte for byte as they were read, so that `from_dir` finds them there."""
        if not self._files:
            raise OFAError("this tokenizer was not read from files, so it has none to save")
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in self._files.items():
            (directory / name).write_bytes(content)

    def __len__(self) -> int:
        return len(self.vocabulary)

    def encode(
        self,
        text: str,
        *,
        symbols: bool = False,
        keep_spaces: bool = False,
        add_special_tokens: bool = False,
        max_tokens: int | None = None,
        truncate_left: bool = False,
    ) -> list[int]:
        """Turn a text into ids.

        Args:
            text: any text. `<s>`, `<pad>`, `</s>`, `<unk>` and a `<bin_1000>` of 1000 bins in it are always plain text.
            symbols: read `<mask>`, codes, bins and extra tokens as whole symbols where they stand in the text, and drop
                all white space directly around each of them, as the dialog models were trained. Otherwise they are
                plain text too.
            keep_spaces: with `symbols`, keep the white space around them.
            add_special_tokens: put `<s>` in front and `</s>` behind, not counted in `max_tokens`.
            max_tokens: keep so many tokens, the first ones; None keeps all.
            truncate_left: with `max_tokens`, keep the last ones.

        Returns:
            The ids.

        Raises:
            OFAError: `max_tokens` is negative.
        """
        ids = self._encode_symbols_in(text, keep_spaces) if symbols else self._encode_plain(text)
        if max_tokens is not None:
            if max_tokens < 0:
                raise OFAError(f"max_tokens must not be negative, it is {max_tokens}")
            ids = ids[max(len(ids) - max_tokens, 0) :] if truncate_left else ids[:max_tokens]
        return [self.vocabulary.bos, *ids, self.vocabulary.eos] if add_special_tokens else ids

    def encode_prompt(self, text: str) -> list[int]:
        """Turn a raw prompt into ids: `<bin_3>` and `<code_7>` that stand alone as words are symbols.

        White space directly before a symbol is dropped, as the original reads its prompts: word by word, each with one
        space in front. A number that the vocabulary does not have is plain text.
        """
        ids: list[int] = []
        start = 0
        for match in _PROMPT_SYMBOL.finditer(text):
            if match[0] in self.vocabulary:
                ids += [*self.encode_typed(text[start : match.start()].rstrip()), self.vocabulary.id_of(match[0])]
                start = match.end()
        return ids + self.encode_typed(text[start:])

    def encode_typed(self, text: str) -> list[int]:
        """Return the ids of a raw prompt: plain text, in which a bert vocabulary reads `[MASK]` and such as one."""
        own = self.bpe.encode_typed(text) if isinstance(self.bpe, WordPiece) else self.bpe.encode(text)
        return [self._token_of.get(token, self.vocabulary.unk) for token in own]

    def begins_word(self, token: int) -> bool:
        """Tell whether a token begins a word: it has a space in front, continues no piece, or is no text at all."""
        own = self._own_of.get(token)
        if own is None:
            return True
        if isinstance(self.bpe, WordPiece):
            return not self.bpe.continues_word(own)
        return self.bpe.decode([own]).startswith(" ")

    def encode_symbols(self, text: str) -> list[int]:
        """Return the ids of whole symbols separated by white space, `<unk>` for what is none."""
        return [self.vocabulary.id_of(symbol) for symbol in text.split()]

    def decode(self, ids: Sequence[int] | Tensor, *, skip_special_tokens: bool = True) -> str:
        """Turn ids into text.

        Runs of text decode together. Everything else (bins, codes, `<mask>`, `<unk>`, unused lines of dict.txt, extra
        tokens; `<s>`, `<pad>`, `</s>` unless skipped) shows as its symbol, with a space between it and its neighbours
        where the text has no white space there: ` region: <bin_1> <bin_2>`.

        Args:
            ids: any ids of the vocabulary.
            skip_special_tokens: leave out `<s>`, `<pad>` and `</s>`.

        Returns:
            The text.
        """
        vocabulary = self.vocabulary
        dropped = {vocabulary.bos, vocabulary.pad, vocabulary.eos} if skip_special_tokens else set()
        parts: list[tuple[bool, str]] = []  # (is a symbol, text)
        run: list[int] = []
        for token in _integers(ids):
            if token in dropped:
                continue
            if token in self._own_of:
                run.append(self._own_of[token])
                continue
            if run:
                parts.append((False, self.bpe.decode(run)))
                run = []
            parts.append((True, vocabulary.symbol_of(token)))
        if run:
            parts.append((False, self.bpe.decode(run)))
        return _join(parts)

    def bins(self, ids: Sequence[int] | Tensor) -> list[int] | None:
        """Return the bin numbers of ids that are bins only; None if there are none, or anything else among them.

        A `<s>` in front and any `</s>` and `<pad>` behind do not count.
        """
        tokens = _integers(ids)
        if tokens[:1] == [BOS]:
            del tokens[0]
        while tokens and tokens[-1] in (EOS, PAD):
            tokens.pop()
        numbers = [number for number in map(self.vocabulary.bin_of, tokens) if number is not None]
        return numbers if numbers and len(numbers) == len(tokens) else None

    def pad(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Return sequences of ids as one int64 tensor [B, longest], padded on the right."""
        if len(sequences) == 0:
            raise OFAError("there is nothing to pad: no sequence was given")
        longest = max(len(sequence) for sequence in sequences)
        batch = torch.full((len(sequences), longest), self.vocabulary.pad, dtype=torch.int64)
        for row, sequence in zip(batch, sequences, strict=True):
            row[: len(sequence)] = torch.tensor(_integers(sequence), dtype=torch.int64)
        return batch

    def _encode_plain(self, text: str) -> list[int]:
        unk = self.vocabulary.unk
        return [self._token_of.get(own, unk) for own in self.bpe.encode(text)]

    def _encode_symbols_in(self, text: str, keep_spaces: bool) -> list[int]:
        ids: list[int] = []
        start = 0  # of the text not encoded yet; a symbol stands before it unless it is 0
        for match in self._symbol_pattern.finditer(text):
            if match[0] not in self.vocabulary or self.vocabulary.id_of(match[0]) < self.vocabulary.mask:
                continue
            between = text[start : match.start()]
            if not keep_spaces:
                between = between.rstrip() if start == 0 else between.strip()
            ids += self._encode_plain(between)
            ids.append(self.vocabulary.id_of(match[0]))
            start = match.end()
        rest = text[start:]
        return ids + self._encode_plain(rest if keep_spaces or start == 0 else rest.lstrip())


def _find_files(directory: Path) -> tuple[Kind, list[Path]]:
    """Return the kind of vocabulary that a directory holds and its files, in the order of the table."""
    either = ", or ".join(", ".join(names) for names in VOCABULARY_KINDS.values())
    if not directory.is_dir():
        raise OFAError(f"{directory}: no such directory; it should hold {either}")
    found = [kind for kind, names in VOCABULARY_KINDS.items() if (directory / names[0]).is_file()]
    if len(found) > 1:
        both = " and ".join(VOCABULARY_KINDS[kind][0] for kind in found)
        raise OFAError(f"{directory} holds {both}, which belong to different vocabularies; it should hold {either}")
    kind = found[0] if found else "gpt2"
    for name in VOCABULARY_KINDS[kind]:
        if not (directory / name).is_file():
            wanted = ", ".join(VOCABULARY_KINDS[kind]) if found else either
            raise OFAError(f"{name} is missing from {directory}, which should hold {wanted}")
    return kind, [directory / name for name in VOCABULARY_KINDS[kind]]


def _symbol_pattern(extra_tokens: Iterable[str]) -> re.Pattern[str]:
    """Match whatever may be a whole symbol: anything in angle brackets, and extra tokens that are not.

    An extra token that begins or ends like a word is not found inside a longer word.
    """
    others = sorted((token for token in extra_tokens if not _ANGLED.fullmatch(token)), key=len, reverse=True)
    alternatives = [
        (r"(?<!\w)" if re.match(r"\w", token) else "")
        + re.escape(token)
        + (r"(?!\w)" if re.search(r"\w\Z", token) else "")
        for token in others
    ]
    return re.compile("|".join([*alternatives, _ANGLED.pattern]))


def _integers(ids: Sequence[int] | Tensor) -> list[int]:
    if isinstance(ids, Tensor):
        if ids.dim() != 1 or ids.is_floating_point():
            raise OFAError(f"token ids must be a 1-D integer tensor, not {ids.dtype} of shape {tuple(ids.shape)}")
        return [int(token) for token in ids.tolist()]
    return [int(token) for token in ids]


def _join(parts: Sequence[tuple[bool, str]]) -> str:
    """Join texts and symbols with one space at each border of a symbol that has no white space yet."""
    pieces: list[str] = []
    previous = ""  # a space at the very start or after white space is not needed
    for index, (is_symbol, text) in enumerate(parts):
        at_symbol = index > 0 and (is_symbol or parts[index - 1][0])
        if at_symbol and not previous[-1:].isspace() and not text[:1].isspace():
            pieces.append(" ")
        pieces.append(text)
        previous = text
    return "".join(pieces)
