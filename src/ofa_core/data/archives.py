"""Archives of pictures (.zip, .tar, .tar.gz), which are read where they are and never unpacked into a directory."""

from __future__ import annotations

import gzip
import lzma
import os
import posixpath
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from ..errors import OFAError, shortened
from ..utils.input_files import MAX_MEMBERS, MAX_PICTURE, check_growth

GZIP_MAGIC = b"\x1f\x8b"
#: Errors in which reading a damaged archive can end.
_DAMAGED = (
    OSError,
    EOFError,
    KeyError,
    IndexError,
    ValueError,
    RuntimeError,
    OverflowError,
    MemoryError,  # of a size that a damaged header tells
    struct.error,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
)
#: Bytes of a header in a tar, the names of its files included.
_MAX_HEADER = 1024**2


def path_tails(name: str) -> list[str]:
    """``a/b/x.jpg``, ``b/x.jpg`` and ``x.jpg`` of a path a/b/x.jpg, nothing of it above the root."""
    parts = PurePosixPath(name.lstrip("/")).parts
    inside = parts[len(parts) - parts[::-1].index("..") :] if ".." in parts else parts
    return ["/".join(inside[index:]) for index in range(len(inside))]


def only_one(found: Iterable[str], name: str, root: Path) -> str | None:
    """The one path that was found under a file name, or None.

    Raises:
        OFAError: there are several.
    """
    paths = sorted(found)
    if len(paths) > 1:
        raise OFAError(f"image {shortened(name)} could be {shortened(paths[0])} or {shortened(paths[1])} in {root}")
    return paths[0] if paths else None


class _Members(Protocol):
    """The content of an archive by the names of its files."""

    names: list[str]

    def read(self, name: str) -> bytes: ...

    def close(self) -> None: ...


class Archive:
    """The index of an archive, built once. Nothing is written anywhere, so no name in it can lead outside.

    Raises:
        OFAError: it is no archive, damaged, or larger than any that is meant.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        try:
            self._members = _members(root)
        except OFAError:
            raise
        except _DAMAGED as error:
            raise OFAError(
                f"images {root} cannot be read as a directory, a .zip, .tar or .tar.gz archive: {_reason(error)}"
            ) from None
        # of one path, the last, as unpacked
        self._by_path = {posixpath.normpath(name): name for name in self._members.names}
        self._by_file: dict[str, list[str]] = {}
        for path in self._by_path:
            self._by_file.setdefault(posixpath.basename(path), []).append(path)

    def find(self, name: str) -> bytes | None:
        """The encoded picture of a name, None where there is none.

        Raises:
            OFAError: it cannot be read, or could be one of several.
        """
        tails = path_tails(name)
        path = next((tail for tail in tails if tail in self._by_path), None)
        if path is None and tails:
            path = only_one(self._by_file.get(tails[-1], []), name, self._root)
        if path is None:
            return None
        try:
            return self._members.read(self._by_path[path])
        except OFAError as error:
            raise OFAError(f"image {shortened(path)} in {self._root} {error}") from None
        except _DAMAGED as error:
            raise OFAError(f"image {shortened(path)} in {self._root} cannot be read: {_reason(error)}") from None

    def close(self) -> None:
        """Let go of the file."""
        self._members.close()


def _reason(error: BaseException) -> str:
    """The message of an error in one line, or else its name."""
    return shortened(" ".join(str(error).split()), 200) or type(error).__name__


def _members(root: Path) -> _Members:
    with root.open("rb") as file:
        compressed = file.read(2) == GZIP_MAGIC
    if zipfile.is_zipfile(root) and not _is_tar(root):
        return _Zip(root)
    return _Tar(root, compressed)


def _is_tar(path: Path) -> bool:
    """Tell whether a file is a tar that is not compressed, by its first header."""
    with path.open("rb") as file:
        return file.read(265)[257:262] == b"ustar"


def _check_member(size: int) -> None:
    if size > MAX_PICTURE.most:
        raise OFAError(f"has {size:,} bytes, more than {MAX_PICTURE.most:,}; {MAX_PICTURE.advice}")


def _check_count(path: Path, count: int) -> None:
    if count > MAX_MEMBERS.most:
        raise OFAError(f"images {path} holds more than {MAX_MEMBERS.most:,} files; {MAX_MEMBERS.advice}")


class _Zip:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._open()
        try:
            _check_count(path, len(self._file.infolist()))
        except BaseException:
            self._file.close()
            raise
        self.names = [entry.filename for entry in self._file.infolist() if not entry.is_dir()]

    def _open(self) -> None:
        self._file = zipfile.ZipFile(self._path)
        self._owner = os.getpid()

    def read(self, name: str) -> bytes:
        _check_member(self._file.getinfo(name).file_size)  # the library reads no more than what the entry tells
        if os.getpid() != self._owner:  # a forked process shares the parent's position in the file
            self._open()
        return self._file.read(name)

    def close(self) -> None:
        self._file.close()


class _Headers:
    """A file as the library reads headers from it, one at a time; what a damaged one calls its size is no matter."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header says that it has {size} bytes")
        return self._file.read(size)


class _Tar:
    """Files of a .tar by where they lie in it; they are read without moving a position that others share."""

    def __init__(self, path: Path, compressed: bool) -> None:
        self._file = _uncompressed(path) if compressed else path.open("rb")
        self._spans: dict[str, tuple[int, int]] = {}  # start and length
        self._links: dict[str, str] = {}
        try:
            with tarfile.open(fileobj=_Headers(self._file), mode="r:") as tar:  # type: ignore[call-overload]
                while (member := tar.next()) is not None:
                    self._add(member)
                    tar.members.clear()  # which the library keeps, a kilobyte each
                    _check_count(path, len(self._spans) + len(self._links))
        except BaseException:
            self._file.close()
            raise
        self.names = [*self._spans, *self._links]

    def _add(self, member: tarfile.TarInfo) -> None:
        name = posixpath.normpath(member.name)
        if member.islnk():
            self._links[name] = posixpath.normpath(member.linkname)
        elif member.issym():
            self._links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
        elif member.isreg() and not member.issparse():
            self._spans[name] = (member.offset_data, member.size)

    def read(self, name: str) -> bytes:
        target = name if name in self._spans else self._links[name]
        if target not in self._spans:
            raise OSError(f"it is a link to {shortened(target)}, which is no file of the archive")
        start, length = self._spans[target]
        _check_member(length)
        data = os.pread(self._file.fileno(), length, start)
        if len(data) < length:
            raise OSError("the archive ends before the picture does")
        return data

    def close(self) -> None:
        self._file.close()


def _uncompressed(path: Path) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115, it lives as long as the archive
    try:
        with path.open("rb") as packed, gzip.GzipFile(fileobj=packed) as source:
            while piece := source.read(1 << 20):
                file.write(piece)
                check_growth(path, packed.tell(), file.tell())
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file
