"""Rows of a dataset file in any order, with what stands inline in them kept on the disk."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any

import torch
from PIL import Image

from ..errors import OFAError
from ..text.normalize import SEVERAL
from ..utils.atomic_write import naming_errors
from ..utils.printable import printable
from .images import Images
from .loading import DataFiles
from .read_options import USUAL, ReadOptions
from .readers import Source, read_records
from .records import BadRow, Format, Record


class ShuffledRecords:
    """The records of a file, shuffled anew for every epoch; row ``index`` is always the same.

    All rows are read and checked once at the start, their pictures when they are due. Pictures that stand inline in
    them go to a temporary file, so that memory holds only texts and boxes.

    Raises:
        OFAError: the file cannot be read or holds no rows.
        BadRow: a row is wrong, and ``skip_bad`` is off.
    """

    def __init__(
        self,
        format: Format,
        path: Source,
        images: Path | None,
        *,
        columns: Sequence[str] | None = None,
        skip_bad: bool = False,
        seed: int = 0,
        allow_outside: bool = False,
        options: ReadOptions = USUAL,
    ) -> None:
        self.seed = seed
        self.images: Images = Images.open(DataFiles(path, images).folder, allow_outside)
        self._inline = _InlineFile()
        self._records: list[Record] = []
        self._places: list[tuple[int, int]] = []
        for record in read_records(
            format, path, columns=columns, options=options, on_bad=_report if skip_bad else None
        ):
            self._places.append(self._inline.add(record.inline or b""))
            self._records.append(replace(record, inline=None, kept={}, object_boxes=()))
        if not self._records:
            raise OFAError(f"{DataFiles(path).name} holds no rows to learn from")
        self._inline.close()
        self._skip_bad = skip_bad
        self._failures: list[str] = []
        self._epoch = -1
        self._order: list[int] = []

    def __len__(self) -> int:
        return len(self._records)

    @property
    def references(self) -> list[tuple[str, ...]]:
        """The captions of each picture, once where several records hold the same ones."""
        groups = dict.fromkeys(record.references or (record.text,) for record in self._records)
        return [tuple(one for text in group for one in text.split(SEVERAL)) for group in groups]

    def row(self, index: int) -> tuple[Record, Image.Image | None]:
        """A record and its picture, RGB at its own size, in which its box lies; None for text alone.

        With ``skip_bad``, the next row takes the place of one whose picture cannot be used: a batch is as large as
        ever, and the same whenever it is made.

        Raises:
            OFAError: the picture, with ``skip_bad`` that of every row, cannot be used.
        """
        for further in range(len(self) - 1 if self._skip_bad else 0):
            try:
                return self._row(index + further)
            except OFAError as error:
                self._failures.append(str(error))
        return self._row(index + len(self) - 1 if self._skip_bad else index)

    def take_failures(self) -> list[str]:
        """Errors of the rows whose places others took since this was last asked."""
        failures, self._failures = self._failures, []
        return failures

    def _row(self, index: int) -> tuple[Record, Image.Image | None]:
        epoch, place = divmod(index, len(self))
        if epoch != self._epoch:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(self.seed + epoch))
            self._epoch, self._order = epoch, order.tolist()
        number = self._order[place]
        record = replace(self._records[number], inline=self._inline.read(*self._places[number]) or None)
        if not record.has_picture:
            return record, None
        image = self.images.load(record)
        return record.fit_to(image.size), image


class _InlineFile:
    """Pieces of bytes in a temporary file without a name: however its processes end, nothing of it is left.

    It is read without moving a position, which processes share; one that was not forked is handed the open file.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115, kept open
        self._size = 0

    def add(self, content: bytes) -> tuple[int, int]:
        """Add ``content``; returns its start and its length."""
        start = self._size
        with naming_errors(Path(tempfile.gettempdir())):
            self._file.write(content)
        self._size += len(content)
        return start, len(content)

    def close(self) -> None:
        """Nothing more is added."""
        with naming_errors(Path(tempfile.gettempdir())):
            self._file.flush()

    def read(self, start: int, length: int) -> bytes:
        """Return what was added there."""
        return os.pread(self._file.fileno(), length, start)

    def __getstate__(self) -> tuple[Any, int]:
        return DupFd(self._file.fileno()), self._size

    def __setstate__(self, state: tuple[Any, int]) -> None:
        descriptor, self._size = state
        self._file = open(descriptor.detach(), "rb")  # noqa: SIM115, kept open


def _report(bad: BadRow) -> None:
    print(printable(f"skipped: {bad}"), file=sys.stderr, flush=True)
