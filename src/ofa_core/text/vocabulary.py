"""The id layout of OFA: four control ids, the lines of dict.txt, `<mask>`, image codes, box bins, extra tokens."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ..config import LIMITS, check_limit
from ..errors import OFAError, shown
from ..utils.input_files import read_text_file

_CONTROL = ("<s>", "<pad>", "</s>", "<unk>")
#: Ids that are the same in every vocabulary.
BOS, PAD, EOS, UNK = range(4)


@dataclass(frozen=True)
class Vocabulary:
    """Ids of symbols. Ranges are half-open; nothing is assumed about the sizes of the parts.

    | ids                        | symbols                                             |
    |----------------------------|-----------------------------------------------------|
    | 0, 1, 2, 3                 | `<s>`, `<pad>`, `</s>`, `<unk>`                      |
    | 4 .. mask                  | `symbols`, the first column of dict.txt in its order |
    | mask                       | `<mask>`                                            |
    | code_start .. code_end     | `<code_0>` ...                                      |
    | bin_start .. bin_end       | `<bin_0>` ...                                       |
    | bin_end .. len(vocabulary) | `extra_tokens`, the answers of some fine-tunes       |
    """

    symbols: Sequence[str]
    code_dict_size: int = 8192
    num_bins: int = 1000
    extra_tokens: Sequence[str] = ()
    _table: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    bos: ClassVar[int] = BOS
    pad: ClassVar[int] = PAD
    eos: ClassVar[int] = EOS
    unk: ClassVar[int] = UNK

    def __post_init__(self) -> None:
        for name, size in (("code_dict_size", self.code_dict_size), ("num_bins", self.num_bins)):
            if size < 0:
                raise OFAError(f"{name} must not be negative, it is {size}")
            try:
                check_limit(size, LIMITS[name])
            except ValueError as error:
                raise OFAError(f"{name}: {error}") from None
        for token in self.extra_tokens:
            if token.split() != [token]:
                raise OFAError(f"extra token {shown(token)} is empty or holds white space, which separates symbols")
        codes = (f"<code_{index}>" for index in range(self.code_dict_size))
        bins = (f"<bin_{index}>" for index in range(self.num_bins))
        table = (*_CONTROL, *self.symbols, "<mask>", *codes, *bins, *self.extra_tokens)
        ids: dict[str, int] = {}
        for index, symbol in enumerate(table):
            if ids.setdefault(symbol, index) != index:
                raise OFAError(f"symbol {shown(symbol)} would have two ids, {ids[symbol]} and {index}")
        # object.__setattr__ is how a frozen dataclass completes itself.
        object.__setattr__(self, "symbols", tuple(self.symbols))
        object.__setattr__(self, "extra_tokens", tuple(self.extra_tokens))
        object.__setattr__(self, "_table", table)
        object.__setattr__(self, "_ids", ids)

    @classmethod
    def from_dict_file(
        cls, path: Path, *, code_dict_size: int = 8192, num_bins: int = 1000, extra_tokens: Sequence[str] = ()
    ) -> Vocabulary:
        """Read dict.txt.

        Args:
            path: the file, one `symbol count` a line; the counts are not used. One symbol may be empty, as in the
                dictionary of the Chinese models; it has an id like any other.
            code_dict_size: number of image codes behind the symbols.
            num_bins: number of bins behind the codes.
            extra_tokens: names of tokens behind the bins.

        Returns:
            The vocabulary.

        Raises:
            OFAError: the file is missing or broken.
        """
        symbols: dict[str, int] = {}  # symbol -> line
        lines = read_text_file(path).split("\n")
        for number, line in enumerate(lines, start=1):
            if number == len(lines) and not line:
                continue
            symbol, _, count = line.rstrip("\r").rpartition(" ")
            if (not symbol and not line.startswith(" ")) or not count.isdecimal():
                raise OFAError(f"{path}:{number}: expected a symbol, a space and a count, found {shown(line)}")
            if symbols.setdefault(symbol, number) != number:
                raise OFAError(f"{path}:{number}: symbol {shown(symbol)} stands on line {symbols[symbol]} already")
        try:
            return cls(tuple(symbols), code_dict_size, num_bins, extra_tokens)
        except OFAError as error:
            raise OFAError(f"{path}: {error}") from None

    def __len__(self) -> int:
        return len(self._table)

    @property
    def mask(self) -> int:
        """The id of `<mask>`."""
        return len(_CONTROL) + len(self.symbols)

    @property
    def code_start(self) -> int:
        """The id of `<code_0>`."""
        return self.mask + 1

    @property
    def code_end(self) -> int:
        """One past the last image code."""
        return self.code_start + self.code_dict_size

    @property
    def bin_start(self) -> int:
        """The id of `<bin_0>`."""
        return self.code_end

    @property
    def bin_end(self) -> int:
        """One past the last bin; extra tokens begin here."""
        return self.bin_start + self.num_bins

    @property
    def bin_ids(self) -> range:
        """The ids of the bins."""
        return range(self.bin_start, self.bin_end)

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._ids

    def id_of(self, symbol: str) -> int:
        """Return the id of a whole symbol, `unk` when there is none."""
        return self._ids.get(symbol, self.unk)

    def symbol_of(self, token: int) -> str:
        """Return the symbol of an id."""
        if not 0 <= token < len(self):
            raise OFAError(f"token id {token} is outside the vocabulary, whose ids are 0..{len(self) - 1}")
        return self._table[token]

    def bin_of(self, token: int) -> int | None:
        """Return the bin number of an id, None when the id is not a bin."""
        return token - self.bin_start if self.bin_start <= token < self.bin_end else None

    def bins_to_ids(self, bins: Sequence[int]) -> list[int]:
        """Return the ids of bin numbers, each in 0..num_bins-1."""
        ids = []
        for number in bins:
            try:
                index = operator.index(number)  # numpy and tensor integers pass, 3.7 does not
            except TypeError:
                raise OFAError(f"a bin is a whole number, not {shown(number)}") from None
            if not 0 <= index < self.num_bins:
                raise OFAError(f"bin {index} is outside 0..{self.num_bins - 1}")
            ids.append(self.bin_start + index)
        return ids
