"""Pictures of records: inline, in a directory, or in an archive that is never unpacked."""

from __future__ import annotations

import gzip
import os
import posixpath
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Protocol

from PIL import Image

from ..errors import OFAError
from ..vision.images import open_image
from .records import Record

GZIP_MAGIC = b"\x1f\x8b"


class Images:
    """Loads the pictures of records, from ``Images.open(root)``; a context manager.

    They are read as the original reads them: as they lie, since the boxes of datasets do so too.

    A picture is looked for inline, then at the row's own path, then under the root: at that path or an ever shorter
    tail of it (``b/x.jpg``, ``x.jpg`` for ``a/b/x.jpg``), then by its file name in the root's direct subdirectories,
    or anywhere in an archive. A file name that fits several pictures is an error, not a choice.

    One object may be used by several threads and, after a fork, by several processes; sent to a process that was not
    forked it opens the root anew.
    """

    def __init__(self, root: Path | None, place: _Place | None) -> None:
        self._root = root
        self._place = place

    @classmethod
    def open(cls, root: Path | None) -> Images:
        """The pictures under ``root``: a directory, a .zip, .tar or .tar.gz archive, or None for none.

        An archive's names are read once. The content of a .tar.gz, in which nothing can be found without reading all
        before it, is kept uncompressed in a temporary file until the object is closed.

        Raises:
            OFAError: there is no such root, or it is of another kind or damaged.
        """
        if root is None:
            return cls(None, None)
        root = Path(root)
        if not root.exists():
            raise OFAError(f"images {root} does not exist; it should be a directory, a .zip, .tar or .tar.gz archive")
        return cls(root, _Directory(root) if root.is_dir() else _archive(root))

    def load(self, record: Record) -> Image.Image:
        """The picture of a record, RGB at its own size.

        Raises:
            BadRow: its size or the record's box shows that it is not the picture the row speaks of.
            OFAError: it is missing or cannot be read; the message names the row and the picture.
        """
        try:
            picture = self._read(record)
        except OFAError as error:
            raise OFAError(f"{record.place}: {error}" if record.place else str(error)) from None
        record.fit_to(picture.size)
        return picture

    def _read(self, record: Record) -> Image.Image:
        if record.inline is not None:
            return open_image(record.inline, like_original=True, name=f"the inline image of {record.id}")
        if not record.image:
            raise OFAError("the row names no image and holds none")
        if os.path.isfile(record.image):  # False too for what cannot be a path
            return open_image(Path(record.image), like_original=True)
        if self._place is None:
            raise OFAError(f"image {record.image} does not exist, and no directory or archive of images was given")
        data = self._place.find(record.image)
        if data is None:
            raise OFAError(f"image {record.image} does not exist, nor is it in {self._root}")
        name = "" if isinstance(data, Path) else f"image {record.image} in {self._root}"
        return open_image(data, like_original=True, name=name)

    def close(self) -> None:
        """Let go of the archive; nothing can be loaded from it afterwards."""
        if self._place is not None:
            self._place.close()

    def __enter__(self) -> Images:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[[Path | None], Images], tuple[Path | None]]:
        return Images.open, (self._root,)


class _Place(Protocol):
    """A place where pictures are looked for: :meth:`find` gives a path or the encoded picture."""

    def find(self, name: str) -> Path | bytes | None: ...

    def close(self) -> None: ...


def _tails(name: str) -> list[str]:
    """``a/b/x.jpg``, ``b/x.jpg`` and ``x.jpg`` of a path a/b/x.jpg, nothing of it above the root."""
    parts = PurePosixPath(name.lstrip("/")).parts
    inside = parts[len(parts) - parts[::-1].index("..") :] if ".." in parts else parts
    return ["/".join(inside[index:]) for index in range(len(inside))]


def _only(found: Iterable[str], name: str, root: Path) -> str | None:
    """The one path that was found under a file name, or None."""
    paths = sorted(found)
    if len(paths) > 1:
        raise OFAError(f"image {name} could be {paths[0]} or {paths[1]} in {root}")
    return paths[0] if paths else None


class _Directory:
    def __init__(self, root: Path) -> None:
        self._root = root
        with os.scandir(root) as entries:
            self._children = [entry.name for entry in entries if entry.is_dir()]

    def find(self, name: str) -> Path | None:
        tails = _tails(name)
        for tail in tails:
            if os.path.isfile(self._root / tail):
                return self._root / tail
        below = [f"{child}/{tails[-1]}" for child in self._children] if tails else []
        only = _only((path for path in below if os.path.isfile(self._root / path)), name, self._root)
        return None if only is None else self._root / only

    def close(self) -> None:
        """Nothing is held open."""


class _Members(Protocol):
    """The content of an archive by the names of its files."""

    names: list[str]

    def read(self, name: str) -> bytes: ...

    def close(self) -> None: ...


class _Archive:
    """The index of an archive, built once. Nothing is written anywhere, so no name in it can lead outside."""

    def __init__(self, root: Path, members: _Members) -> None:
        self._root = root
        self._members = members
        self._by_path = {posixpath.normpath(name): name for name in members.names}  # of one path, the last, as unpacked
        self._by_file: dict[str, list[str]] = {}
        for path in self._by_path:
            self._by_file.setdefault(posixpath.basename(path), []).append(path)

    def find(self, name: str) -> bytes | None:
        tails = _tails(name)
        path = next((tail for tail in tails if tail in self._by_path), None)
        if path is None and tails:
            path = _only(self._by_file.get(tails[-1], []), name, self._root)
        if path is None:
            return None
        try:
            return self._members.read(self._by_path[path])
        except (OSError, EOFError, KeyError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
            raise OFAError(f"image {path} in {self._root} cannot be read: {error}") from None

    def close(self) -> None:
        self._members.close()


def _archive(root: Path) -> _Archive:
    try:
        with root.open("rb") as file:
            compressed = file.read(2) == GZIP_MAGIC
        if zipfile.is_zipfile(root) and not tarfile.is_tarfile(root):
            return _Archive(root, _Zip(root))
        return _Archive(root, _Tar(root, compressed))
    except (OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile) as error:
        raise OFAError(
            f"images {root} cannot be read as a directory, a .zip, .tar or .tar.gz archive: {error}"
        ) from None


class _Zip:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._open()
        self.names = [entry.filename for entry in self._file.infolist() if not entry.is_dir()]

    def _open(self) -> None:
        self._file = zipfile.ZipFile(self._path)
        self._owner = os.getpid()

    def read(self, name: str) -> bytes:
        if os.getpid() != self._owner:  # a forked process shares the parent's position in the file
            self._open()
        return self._file.read(name)

    def close(self) -> None:
        self._file.close()


class _Tar:
    """Files of a .tar by where they lie in it; they are read without moving a position that others share."""

    def __init__(self, path: Path, compressed: bool) -> None:
        self._file = _uncompressed(path) if compressed else path.open("rb")
        self._spans: dict[str, tuple[int, int]] = {}  # start and length
        self._links: dict[str, str] = {}
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as tar:
                for member in tar:
                    self._add(member)
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
        elif member.isreg():
            self._spans[name] = (member.offset_data, member.size)

    def read(self, name: str) -> bytes:
        target = name if name in self._spans else self._links[name]
        if target not in self._spans:
            raise OSError(f"it is a link to {target}, which is no file of the archive")
        start, length = self._spans[target]
        data = os.pread(self._file.fileno(), length, start)
        if len(data) < length:
            raise OSError("the archive ends before the picture does")
        return data

    def close(self) -> None:
        self._file.close()


def _uncompressed(path: Path) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115, it lives as long as the archive
    try:
        with gzip.open(path, "rb") as source:
            shutil.copyfileobj(source, file, 1 << 20)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file
