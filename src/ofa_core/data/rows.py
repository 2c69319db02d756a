"""Rows of a dataset file in any order, with what stands inline in them kept on the disk."""

from __future__ import annotations

import sys
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from ..errors import OFAError
from .images import Images
from .readers import read_records
from .records import BadRow, Format, Record


class ShuffledRecords:
    """The records of a file, shuffled anew for every epoch; row ``index`` is always the same.

    All rows are read and checked once at the start. Pictures that stand inline in them go to a temporary file, so that
    memory holds only texts and boxes.

    Raises:
        OFAError: the file cannot be read or holds no rows.
        BadRow: a row is wrong, and ``skip_bad`` is off.
    """

    def __init__(
        self,
        format: Format,
        path: Path,
        images: Path | None,
        *,
        columns: Sequence[str] | None = None,
        skip_bad: bool = False,
        seed: int = 0,
    ) -> None:
        self.seed = seed
        self.images = Images.open(images)
        self._inline = _InlineFile()
        self._records: list[Record] = []
        self._places: list[tuple[int, int]] = []
        for record in read_records(format, path, columns=columns, on_bad=_report if skip_bad else None):
            self._places.append(self._inline.add(record.inline or b""))
            self._records.append(replace(record, inline=None))
        if not self._records:
            raise OFAError(f"{path} holds no rows to learn from")
        self._inline.close()
        self._epoch = -1
        self._order: list[int] = []

    def __len__(self) -> int:
        return len(self._records)

    def row(self, index: int) -> tuple[Record, Image.Image | None]:
        """A record and its picture, RGB at its own size, in which its box lies; None for text alone."""
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
    """Pieces of bytes in a temporary file, which is removed with this object; processes read it on their own."""

    def __init__(self) -> None:
        self._file = tempfile.NamedTemporaryFile(prefix="ofa_core.", delete=False)  # noqa: SIM115, kept open
        self.path = Path(self._file.name)
        self._size = 0
        self._finalizer = weakref.finalize(self, self.path.unlink, missing_ok=True)

    def add(self, content: bytes) -> tuple[int, int]:
        """Add ``content``; returns its start and its length."""
        start = self._size
        self._file.write(content)
        self._size += len(content)
        return start, len(content)

    def close(self) -> None:
        """Nothing more is added."""
        self._file.close()

    def read(self, start: int, length: int) -> bytes:
        """Return what was added there."""
        if not length:
            return b""
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(length)


def _report(bad: BadRow) -> None:
    print(f"skipped: {bad}", file=sys.stderr, flush=True)
