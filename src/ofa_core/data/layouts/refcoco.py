"""RefCOCO, RefCOCO+ and RefCOCOg: the hub's table, and the originals' references with what ``instances.json`` knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from ..read_options import ReadOptions
from ..records import (
    BadRow,
    Coordinates,
    Identifier,
    NonEmptyText,
    Record,
    RowPart,
    Text,
    clip_box,
    fields_of,
    id_of_place,
    parsed,
    read_box,
    was_clipped,
)
from .layout import ImageField, Layout, numbered, picture_of


class _Sentence(RowPart):
    sent: Text | None = None
    raw: Text | None = None
    sent_id: Identifier | None = None


class _HubReference(RowPart):
    """A region and the phrases for it, as the hub's table has them."""

    bbox: Coordinates
    captions: list[Text] | None = None
    sentences: list[_Sentence] | None = None
    sent_ids: list[Identifier] | None = None
    ref_id: Identifier | None = None
    image_path: Text | None = None
    file_name: Text | None = None
    image: ImageField = None
    split: Text = ""
    raw_anns: Text | None = None


class JoinedReference(RowPart):
    """A region of ``refs(...).p`` with its picture and boxes out of ``instances.json``."""

    ref_id: Identifier
    split: NonEmptyText
    sentences: Annotated[list[_Sentence], Field(min_length=1)]
    file_name: NonEmptyText
    width: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]
    annotation_boxes: list[Annotated[list[float], Field(min_length=4, max_length=4)]]  # x, y, width, height
    category: Text = ""


def _hub(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    data = parsed(_HubReference, row, place)
    if data.captions is not None:
        phrases = [(text, id) for text, id in zip(data.captions, _ids(data), strict=True)]
    else:
        phrases = [((one.sent or one.raw or ""), one.sent_id) for one in data.sentences or []]
    box, in_fractions = read_box(_corners(data, place), None, place, "bbox", options.boxes)
    record = Record(
        id="",
        **picture_of(data.image, data.image_path, data.file_name, place=place, name="image_path"),
        box=box,
        in_fractions=in_fractions,
        split=data.split,
        place=place,
    )
    return _phrases(record, phrases, data.ref_id)


def _ids(data: _HubReference) -> list[str | None]:
    """The ids of sentences, where there is one for each caption."""
    captions, ids = data.captions or [], data.sent_ids or []
    return list(ids) if len(ids) == len(captions) else [None] * len(captions)


def _corners(data: _HubReference, place: str) -> list[float]:
    """The box as x0, y0, x1, y1: so the hub has it, unless the annotation that is kept beside it shows otherwise."""
    try:
        kept = json.loads(data.raw_anns or "{}")
        x, y, width, height = (float(value) for value in kept["bbox"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return data.bbox
    corners = [x, y, x + width, y + height]
    for told in (corners, [x, y, width, height]):
        if all(abs(a - b) < 0.01 for a, b in zip(data.bbox, told, strict=True)):
            return corners
    return data.bbox if max(data.bbox) <= 1 else _unlike(data, corners, place)


def _unlike(data: _HubReference, corners: list[float], place: str) -> list[float]:
    shown = [", ".join(f"{value:g}" for value in box) for box in (data.bbox, corners)]
    raise BadRow(place, f"bbox: ({shown[0]}) is another box than that of raw_anns, ({shown[1]})")


def _joined(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    """The phrases of a region; of gRefCOCO each with all boxes that it means, of which there may be none."""
    data = parsed(JoinedReference, row, place)
    size = (data.width, data.height)
    told = [(x, y, x + width, y + height) for x, y, width, height in data.annotation_boxes]
    boxes = tuple(clip_box(box, size, place, "bbox") for box in told)
    record = Record(
        id="",
        image=data.file_name,
        boxes=boxes,
        category=data.category,
        split=data.split,
        size=size,
        clipped=any(was_clipped(before, after) for before, after in zip(told, boxes, strict=True)),
        place=place,
    )
    return _phrases(record, [(one.sent or one.raw or "", one.sent_id) for one in data.sentences], data.ref_id)


def _joined_one(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    records = _joined(row, place, options)
    if any(len(record.boxes) != 1 for record in records):
        raise BadRow(
            place, f"ann_id: the phrase means {len(records[0].boxes)} boxes, one should be; gRefCOCO has others"
        )
    return [replace(record, box=record.boxes[0], boxes=()) for record in records]


def _phrases(record: Record, phrases: list[tuple[str, str | None]], ref_id: str | None) -> list[Record]:
    """A record for each phrase; of those of one id, or none, each is known by its region and number."""
    if not phrases:
        raise BadRow(record.place, "sentences: the row holds no phrase")
    if empty := [number for number, (text, _) in enumerate(phrases) if not text.strip()]:
        raise BadRow(record.place, f"sentences.{empty[0]}: it is empty")
    ids = numbered([id for _, id in phrases], ref_id or id_of_place(record.place))
    return [replace(record, id=id, text=text) for (text, _), id in zip(phrases, ids, strict=True)]


_MARKS = ("annotation_boxes",)
JOINED_FIELDS = fields_of(JoinedReference)
LAYOUTS = (
    Layout("RefCOCO with instances.json", _MARKS, _joined_one, JOINED_FIELDS),
    Layout("RefCOCO of the hub", ("captions|sentences", "bbox"), _hub, fields_of(_HubReference)),
)
GREFCOCO_LAYOUTS = (Layout("gRefCOCO with instances.json", _MARKS, _joined, JOINED_FIELDS),)
