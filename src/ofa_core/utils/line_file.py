"""Files of lines that grow batch by batch: a process that is killed leaves whole lines, and one cut off at most."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from .atomic_write import naming_errors
from .scratch import lock_file


class LineFile:
    """A file that lines are appended to, in a directory that is made if need be; close it, or use it as a context.

    It is locked while it is open. What stands in it is kept as far as :meth:`keep` says, by default not at all.

    Raises:
        OFAError: another process is writing it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        # without a buffer, which would be written once more behind an error
        self._file = path.open("r+b" if path.exists() else "xb", buffering=0)
        self._length = 0
        try:
            lock_file(self._file.fileno(), path)
        except BaseException:
            self._file.close()
            raise

    def keep(self, length: int) -> None:
        """Keep the first ``length`` bytes, and drop all behind them."""
        self._length = length
        self._file.truncate(length)

    def append(self, text: str) -> None:
        """Append whole lines, and return when they are on the disk."""
        content, file = text.encode(), self._file.fileno()
        with naming_errors(self.path):
            try:
                written = 0
                while written < len(content):
                    written += os.pwrite(file, content[written:], self._length + written)
                os.fsync(file)
            except BaseException:
                os.ftruncate(file, self._length)  # whole lines alone are left, on a full disk too
                raise
        self._length += len(content)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> LineFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1, without a last one that was cut off."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n"):
                yield number, line
