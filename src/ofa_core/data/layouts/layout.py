"""A layout: the fields by which rows of a data set are told, and the records that a row becomes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any

from PIL import Image
from pydantic import BeforeValidator, Field

from ..read_options import ReadOptions
from ..records import BadRow, Record, RowPart, Text

#: A function from a row with its place to its records; none where it is right but no part of the benchmark.
Read = Callable[[Mapping[str, Any], str, ReadOptions], list[Record]]

#: The beginning of the names of columns that are kept for results as they are.
RAW = "raw_"


@dataclass(frozen=True)
class Layout:
    """One way in which rows of a format were published."""

    name: str
    #: Fields that every row has, with ``|`` between those of which one is enough.
    marks: tuple[str, ...]
    read: Read
    #: The fields of a row that are looked at.
    fields: frozenset[str]
    #: Fields that no row has.
    never: tuple[str, ...] = ()
    #: Columns that begin with ``raw_`` are kept.
    keeps_raw: bool = False
    #: Any column may be looked at.
    takes_all: bool = False

    def reason_against(self, row: Mapping[str, Any]) -> str | None:
        """The reason why a row is not of this layout; None if it is."""
        for mark in self.marks:
            if not any(name in row for name in mark.split("|")):
                return f"no {mark.replace('|', ' or ')}"
        return next((f"it has {name}" for name in self.never if name in row), None)

    def takes(self, column: str) -> bool:
        """Tell whether a column is looked at."""
        return self.takes_all or column in self.fields or (self.keeps_raw and column.startswith(RAW))


def encoded_image(value: object) -> object:
    """A decoded picture, as ``datasets`` gives it, in PNG, which loses nothing."""
    if not isinstance(value, Image.Image):
        return value
    file = io.BytesIO()
    picture = value if value.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else value.convert("RGB")
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


class StoredImage(RowPart):
    """A picture as the library ``datasets`` stores it."""

    encoded: Annotated[bytes | None, Field(alias="bytes")] = None
    path: Text | None = None


#: A picture in a row: stored, encoded, decoded, or the path of its file.
ImageField = Annotated[StoredImage | bytes | Text | None, BeforeValidator(encoded_image)]


def picture_of(image: StoredImage | bytes | str | None, *paths: str | None, place: str, name: str) -> dict[str, Any]:
    """The fields ``image`` and ``inline`` of the record of a row that holds ``image`` or names one of ``paths``.

    Raises:
        BadRow: it names no picture and holds none; ``name`` is the field to blame.
    """
    inline = image.encoded if isinstance(image, StoredImage) else image
    named = image.path if isinstance(image, StoredImage) else image
    known = [path for path in (*paths, named) if isinstance(path, str) and path.strip()]
    encoded = inline if isinstance(inline, bytes) and inline else None
    if not known and encoded is None:
        raise BadRow(place, f"{name}: the row names no picture and holds none")
    return {"image": known[0] if known else "", "inline": encoded}


def file_of_url(url: object) -> str:
    """The file name of an address of a picture; "" where it has none."""
    name = PurePosixPath(url.partition("?")[0]).name if isinstance(url, str) else ""
    return name if PurePosixPath(name).suffix else ""


def kept_fields(row: Mapping[str, Any], place: str, *names: str) -> dict[str, Any]:
    """The fields ``names`` and all ``raw_`` fields of a row, for results.

    Raises:
        BadRow: one of them cannot be written as JSON.
    """
    found = {name: row[name] for name in row if (name in names or name.startswith(RAW)) and row[name] is not None}
    for name, value in found.items():
        try:
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError):
            raise BadRow(place, f"{name}: it cannot be kept, since it is nothing that JSON can say") from None
    return found


def listed(given: str | list[str] | None) -> list[str]:
    """The texts of one or several that are not empty."""
    return [text for text in ([given] if isinstance(given, str) else given or []) if text.strip()]


def numbered(ids: list[str | None], base: str) -> Iterator[str]:
    """An id for each record of a row: its own, or ``base`` with its number where it has none or another's."""
    for number, own in enumerate(ids, 1):
        yield own if own is not None and ids.count(own) == 1 else f"{own or base}/{number}" if len(ids) > 1 else base
