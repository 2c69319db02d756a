"""COCO: captions, and the objects of pictures, each in one JSON file of pictures and annotations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ...vision.boxes import Box
from ..read_options import ReadOptions
from ..records import (
    BadRow,
    Identifier,
    NonEmptyText,
    Record,
    RowPart,
    Text,
    clip_box,
    fields_of,
    parsed,
    was_clipped,
)
from .layout import Layout, file_of_url
from .whole_files import rows_under


class _Picture(RowPart):
    file_name: Text | None = None
    width: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]


class _Caption(RowPart):
    id: Identifier
    caption: NonEmptyText


class _Thing(RowPart):
    bbox: Annotated[list[float], Field(min_length=4, max_length=4)]  # x, y, width, height
    category_id: Identifier
    iscrowd: int = 0
    area: Annotated[float | None, Field(ge=0)] = None


class _Captioned(RowPart):
    """A picture and all its captions, joined."""

    picture: dict[str, Any]
    captions: list[Any]


class _Shown(RowPart):
    """A picture and all that is in it, joined."""

    picture: dict[str, Any]
    things: list[Any]
    names: dict[str, str]


def caption_rows(path: Path, content: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each picture that has captions, with them."""
    for place, picture, said in _joined(path, content):
        if said:
            yield place, {"picture": picture, "captions": said}


def instance_rows(path: Path, content: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each picture, with what is in it."""
    names = {str(one.get("id")): str(one.get("name")) for _, one in rows_under(path, content, "categories")}
    for place, picture, things in _joined(path, content):
        yield place, {"picture": picture, "things": things, "names": names}


def _joined(path: Path, content: Any) -> Iterator[tuple[str, Mapping[str, Any], list[Mapping[str, Any]]]]:
    by_picture: dict[str, list[Mapping[str, Any]]] = {}
    for _, annotation in rows_under(path, content, "annotations"):
        by_picture.setdefault(str(annotation.get("image_id")), []).append(annotation)
    for place, picture in rows_under(path, content, "images"):
        yield place, picture, by_picture.get(str(picture.get("id")), [])


def _file_name(picture: _Picture, row: Mapping[str, Any], place: str) -> str:
    name = (picture.file_name or "").strip() or file_of_url(row.get("coco_url"))
    if not name:
        raise BadRow(place, "file_name: it is empty or missing, and coco_url names no picture")
    return name


def _captions(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    """A record for each caption, with all of them as references."""
    data = parsed(_Captioned, row, place)
    picture = parsed(_Picture, data.picture, place)
    said = [parsed(_Caption, one, place, f"captions.{index}") for index, one in enumerate(data.captions)]
    texts = tuple(one.caption for one in said)
    name, size = _file_name(picture, data.picture, place), (picture.width, picture.height)
    record = Record("", name, references=texts, size=size, place=place, row_id=str(data.picture.get("id") or name))
    return [replace(record, id=one.id, text=one.caption) for one in said]


def _shown(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    """All objects of a picture, and apart from them the groups that are no one's box."""
    data = parsed(_Shown, row, place)
    picture = parsed(_Picture, data.picture, place)
    size = (picture.width, picture.height)
    found: dict[bool, list[tuple[Box, str, float]]] = {False: [], True: []}
    clipped = False
    for index, one in enumerate(data.things):
        thing = parsed(_Thing, one, place, f"annotations.{index}")
        if thing.category_id not in data.names:
            raise BadRow(place, f"annotations.{index}.category_id: there is no category {thing.category_id}")
        x, y, width, height = thing.bbox
        box = clip_box((x, y, x + width, y + height), size, place, f"annotations.{index}.bbox")
        clipped = clipped or was_clipped((x, y, x + width, y + height), box)
        area = width * height if thing.area is None else thing.area
        found[bool(thing.iscrowd)].append((box, data.names[thing.category_id], area))
    return [
        Record(
            str(data.picture.get("id")),
            _file_name(picture, data.picture, place),
            things=tuple((box, name) for box, name, _ in found[False]),
            areas=tuple(area for *_, area in found[False]),
            crowds=tuple(found[True]),
            size=size,
            clipped=clipped,
            place=place,
        )
    ]


CAPTION_LAYOUTS = (Layout("COCO captions", ("picture", "captions"), _captions, fields_of(_Captioned)),)
INSTANCE_LAYOUTS = (Layout("COCO instances", ("picture", "things"), _shown, fields_of(_Shown)),)
