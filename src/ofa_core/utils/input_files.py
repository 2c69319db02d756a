"""Files that nobody vouches for, read within limits: none of them can take all memory, all disk or all time."""

from __future__ import annotations

import json
import os
import select
import stat
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from ..errors import OFAError


@dataclass(frozen=True)
class InputLimit:
    """The most of something that is read, which an environment variable may raise."""

    variable: str
    default: int

    @property
    def most(self) -> int:
        """The limit in force.

        Raises:
            OFAError: the variable is not a positive number.
        """
        text = os.environ.get(self.variable) or str(self.default)
        if not text.isdecimal() or int(text) == 0:
            raise OFAError(f"${self.variable} should be a positive whole number, not {text[:40]!r}")
        return int(text)

    @property
    def advice(self) -> str:
        """The way around it, for messages."""
        return f"set ${self.variable} to more if it is meant"


#: Bytes of a vocabulary or settings file; official ones have 1 MB, and parsed JSON takes twenty times its bytes.
MAX_TEXT = InputLimit("OFA_MAX_TEXT_BYTES", 16 * 1024**2)
#: Bytes of a line of a dataset file, which may hold a picture; those of phones have 3 to 12 MB.
MAX_LINE = InputLimit("OFA_MAX_LINE_BYTES", 32 * 1024**2)
#: Bytes of a data set in one JSON file or pickle; COCO's largest has 450 MB.
MAX_TABLE = InputLimit("OFA_MAX_TABLE_BYTES", 1024**3)
#: Bytes of a picture in an archive, encoded.
MAX_PICTURE = InputLimit("OFA_MAX_PICTURE_BYTES", 128 * 1024**2)
#: Files in an archive; the largest public set of photos has 9 million in a hundred of them.
MAX_MEMBERS = InputLimit("OFA_MAX_ARCHIVE_FILES", 1_000_000)
#: Bytes that one of a gzip file may become. Text becomes 3 to 20, photos 1; the format's own limit is about 1,030.
MAX_GROWTH = InputLimit("OFA_MAX_GZIP_GROWTH", 200)
#: Unpacked bytes that harm nobody, whatever they were packed into.
_HARMLESS = 4 * 1024**2

#: Seconds in which the first byte of a named pipe must come.
_PIPE_SECONDS = 5.0

#: Kinds of files of which reading may never end.
_ENDLESS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_regular(path: Path, name: str = "") -> None:
    """Refuse what is there but cannot be read to an end, before it is opened, which alone could wait for ever.

    Args:
        path: the file or directory; none need be there.
        name: the file as messages call it, by default its path.

    Raises:
        OFAError: it is a pipe, a socket or a device.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return
    kind = next((kind for is_kind, kind in _ENDLESS if is_kind(mode)), None)
    if kind is not None:
        raise OFAError(f"{name or path} is {kind}; a file is expected here")


def open_stream(path: Path, name: str = "") -> BufferedReader:
    """Open a file that is read once from its beginning, so that a named pipe will do if somebody writes to it.

    Args:
        path: the file.
        name: the file as messages call it, by default its path.

    Raises:
        OFAError: it is a socket or a device, or a pipe to which nobody writes.
    """
    if not path.is_fifo():
        check_regular(path, name)
        return path.open("rb")
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # otherwise opening alone could wait for ever
    if not select.select([handle], [], [], _PIPE_SECONDS)[0]:
        os.close(handle)
        raise OFAError(f"{name or path} is a named pipe to which nobody writes")
    os.set_blocking(handle, True)
    return os.fdopen(handle, "rb")


def read_whole(path: Path, limit: InputLimit = MAX_TEXT) -> bytes:
    """Read a file of which all is needed, such as a vocabulary or settings.

    Args:
        path: the file.
        limit: the most bytes that it may have.

    Raises:
        OFAError: it is missing, no regular file or too large.
    """
    check_regular(path)
    most = limit.most
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise OFAError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > most:
        raise OFAError(f"{path}: has more than {most:,} bytes; {limit.advice}")
    return content


def read_text_file(path: Path) -> str:
    """Read a whole file of UTF-8.

    Raises:
        OFAError: as :func:`read_whole`, or it is not UTF-8.
    """
    try:
        return read_whole(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise OFAError(f"{path}: not UTF-8 at byte {error.start}") from None


def parse_json(text: str | bytes, **options: Any) -> Any:
    """Parse JSON, as :func:`json.loads` with ``options``.

    Raises:
        ValueError: it is none, or nests too deeply, or holds a number of thousands of digits.
    """
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def check_growth(path: Path, packed: int, unpacked: int) -> None:
    """Refuse a gzip file that becomes far more than anything that is meant.

    Args:
        path: the file.
        packed: bytes of it that were read so far.
        unpacked: bytes that became of them.

    Raises:
        OFAError: it grows too much.
    """
    if unpacked > _HARMLESS and unpacked > packed * MAX_GROWTH.most:
        raise OFAError(
            f"{path}: {packed:,} bytes of gzip become more than {unpacked:,}, over {MAX_GROWTH.most} times as many, as "
            f"nothing meant does; {MAX_GROWTH.advice}"
        )
