"""Ref-L4: long phrases for objects of COCO and Objects365, in parquet or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from ..read_options import ReadOptions
from ..records import Identifier, NonEmptyText, Record, RowPart, Text, clip_box, fields_of, parsed, was_clipped
from .layout import ImageField, Layout, picture_of


class _Phrase(RowPart):
    id: Identifier
    caption: NonEmptyText
    bbox: Annotated[list[float], Field(min_length=4, max_length=4)]  # x, y, width, height
    ori_category_id: Identifier
    width: Annotated[int | None, Field(gt=0)] = None
    height: Annotated[int | None, Field(gt=0)] = None
    file_name: Text | None = None
    image: ImageField = None
    split: Text = ""


def _record(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    """The category is the original data set's id, by which classes are averaged."""
    data = parsed(_Phrase, row, place)
    size = None if data.width is None or data.height is None else (data.width, data.height)
    x, y, width, height = data.bbox
    box = clip_box((x, y, x + width, y + height), size, place, "bbox")
    return [
        Record(
            id=data.id,
            **picture_of(data.image, data.file_name, place=place, name="file_name"),
            box=box,
            text=data.caption,
            category=data.ori_category_id,
            size=size,
            split=data.split,
            clipped=size is not None and was_clipped((x, y, x + width, y + height), box),
            place=place,
        )
    ]


LAYOUTS = (Layout("Ref-L4", ("caption", "bbox", "ori_category_id"), _record, fields_of(_Phrase)),)
