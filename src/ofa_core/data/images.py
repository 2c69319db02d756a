"""Pictures of records: inline, in a directory, or in an archive that is never unpacked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol

from PIL import Image

from ..errors import OFAError, shortened
from ..utils.input_files import check_regular
from ..vision.images import open_image
from .archives import Archive, only_one, path_tails
from .records import Record


class Images:
    """Loads the pictures of records, from ``Images.open(root)``; a context manager.

    They are read as the original reads them: as they lie, since the boxes of datasets do so too. With ``upright`` they
    are turned as their EXIF data say, as everything that people hand in is.

    A picture is looked for inline, then at the row's own path, then under the root: at that path or an ever shorter
    tail of it (``b/x.jpg``, ``x.jpg`` for ``a/b/x.jpg``), then by its file name in the root's direct subdirectories,
    or anywhere in an archive. A file name that fits several pictures is an error, not a choice.

    The row's own path counts only where it lies within the root, or the current directory where there is no root: a
    file of rows from somebody else cannot make a report of any picture on this machine. Links in there lead wherever
    their owner wants.

    One object may be used by several threads and, after a fork, by several processes; sent to a process that was not
    forked it opens the root anew.
    """

    def __init__(self, root: Path | None, place: _Place | None, allow_outside: bool, upright: bool = False) -> None:
        self._root = root
        self._place = place
        self._allow_outside = allow_outside
        self._like_original = not upright

    @classmethod
    def open(cls, root: Path | None, allow_outside: bool = False, upright: bool = False) -> Images:
        """The pictures under ``root``: a directory, a .zip, .tar or .tar.gz archive, or None for none.

        An archive's names are read once. The content of a .tar.gz, in which nothing can be found without reading all
        before it, is kept uncompressed in a temporary file until the object is closed.

        Args:
            root: where the pictures are.
            allow_outside: whether rows may name files anywhere, as those that one wrote oneself do.
            upright: whether pictures are turned as their EXIF data say.

        Returns:
            The pictures.

        Raises:
            OFAError: there is no such root, or it is of another kind or damaged.
        """
        if root is None:
            return cls(None, None, allow_outside, upright)
        root = Path(root)
        if not root.exists():
            raise OFAError(f"images {root} does not exist; it should be a directory, a .zip, .tar or .tar.gz archive")
        check_regular(root, f"images {root}")
        return cls(root, _Directory(root) if root.is_dir() else Archive(root), allow_outside, upright)

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
            return open_image(
                record.inline, like_original=self._like_original, name=f"the inline image of {shortened(record.id)}"
            )
        if not record.image:
            raise OFAError("the row names no image and holds none")
        name = shortened(record.image)
        own = os.path.abspath(record.image)  # without ".." that a link could lead elsewhere
        there = os.path.isfile(own)  # False too for what cannot be a path
        if there and (self._allow_outside or self._is_inside(own)):
            return open_image(Path(own), like_original=self._like_original)
        data = self._place.find(record.image) if self._place is not None else None
        if data is not None:
            called = "" if isinstance(data, Path) else f"image {name} in {self._root}"
            return open_image(data, like_original=self._like_original, name=called)
        if there:
            within, way = (self._root, "") if self._root is not None else ("the current directory", "--images DIR or ")
            raise OFAError(
                f"image {name} lies outside of {within}, where rows may not lead; pass {way}--allow-outside "
                "(in a recipe, allow_outside = true) if you trust them"
            )
        if self._place is None:
            raise OFAError(f"image {name} does not exist, and no directory or archive of images was given")
        raise OFAError(f"image {name} does not exist, nor is it in {self._root}")

    def _is_inside(self, path: str) -> bool:
        """Tell whether a file is within the root, by its name or by where links lead; nothing is within an archive."""
        root = Path.cwd() if self._root is None else self._root
        return Path(path).is_relative_to(os.path.abspath(root)) or Path(path).resolve().is_relative_to(root.resolve())

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

    def __reduce__(self) -> tuple[Callable[[Path | None, bool, bool], Images], tuple[Path | None, bool, bool]]:
        return Images.open, (self._root, self._allow_outside, not self._like_original)


class _Place(Protocol):
    """A place where pictures are looked for: :meth:`find` gives a path or the encoded picture."""

    def find(self, name: str) -> Path | bytes | None: ...

    def close(self) -> None: ...


class _Directory:
    def __init__(self, root: Path) -> None:
        self._root = root
        with os.scandir(root) as entries:
            self._children = [entry.name for entry in entries if entry.is_dir()]

    def find(self, name: str) -> Path | None:
        tails = path_tails(name)
        for tail in tails:
            if os.path.isfile(self._root / tail):
                return self._root / tail
        below = [f"{child}/{tails[-1]}" for child in self._children] if tails else []
        only = only_one((path for path in below if os.path.isfile(self._root / path)), name, self._root)
        return None if only is None else self._root / only

    def close(self) -> None:
        """Nothing is held open."""
