"""InViG: dialogs about a region, a row for each, or a row for each picture with all of its dialogs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from ..read_options import ReadOptions
from ..records import (
    BadRow,
    Coordinates,
    Identifier,
    Record,
    RowPart,
    Text,
    check_one_unit,
    fields_of,
    id_of_place,
    parsed,
    read_box,
    was_clipped_from,
)
from .layout import ImageField, Layout, kept_fields, listed, numbered, picture_of

#: Turns of a dialog that stay at least: a query and what was said about it.
_FEWEST_TURNS = 2
#: Marks of a question, the Chinese one too.
_QUESTION_MARKS = ("?", "？")

Pairs = list[Annotated[list[Text | None], Field(min_length=2, max_length=2)]]


class _Dialogs(RowPart):
    dialog: Pairs | None = None
    dialog_cn: Pairs | None = None


class _Reference(_Dialogs):
    """A region of a picture and the dialog about it."""

    bbox: Coordinates
    id: Identifier | None = None
    category: Text | None = None


class _Dialog(_Reference):
    """A row with one dialog."""

    image_path: Text | None = None
    image: ImageField = None
    image_id: Identifier | None = None
    caption: Text | list[Text] | None = None
    captions: Text | list[Text] | None = None


class _ImageInfo(RowPart):
    file_name: Text | None = None
    width: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]
    id: Identifier | None = None


class _Picture(RowPart):
    """A row with all dialogs about a picture."""

    ref_list: Annotated[list[Any], Field(min_length=1)]
    image_info: _ImageInfo
    image: ImageField = None


def _dialog_row(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    data = parsed(_Dialog, row, place)
    captions = [*listed(data.caption), *listed(data.captions)]
    # a picture that only its id names, as OpenImages names its files
    named = (data.image_path, f"{data.image_id}.jpg" if data.image_id and data.image is None else None)
    record = Record(
        id=data.id or id_of_place(place),
        **picture_of(data.image, *named, place=place, name="image_path"),
        text=captions[0] if captions else "",
        references=tuple(captions[1:] and captions),
        kept=kept_fields(row, place, "captions"),
        place=place,
    )
    return [_with_reference(record, data, None, options)]


def _picture_row(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    data = parsed(_Picture, row, place)
    info = data.image_info
    picture = picture_of(data.image, info.file_name, place=place, name="image_info.file_name")
    found = [parsed(_Reference, one, place, f"ref_list.{index}") for index, one in enumerate(data.ref_list)]
    check_one_unit([one.bbox for one in found], place, "ref_list", options.boxes)
    return [
        _with_reference(Record(id, **picture, place=place), one, (info.width, info.height), options)
        for one, id in zip(found, numbered([one.id for one in found], id_of_place(place)), strict=True)
    ]


def _with_reference(record: Record, data: _Reference, size: tuple[int, int] | None, options: ReadOptions) -> Record:
    box, in_fractions = read_box(data.bbox, size, record.place, "bbox", options.boxes)
    return replace(
        record,
        box=box,
        in_fractions=in_fractions,
        clipped=was_clipped_from(data.bbox, box, size),
        turns=_turns(data, record.place, options),
        category=data.category or "",
        size=size,
    )


def _turns(data: _Dialogs, place: str, options: ReadOptions) -> tuple[str, ...]:
    """The turns of the dialog in the language that was asked for."""
    name = "dialog_cn" if options.language == "cn" else "dialog"
    pairs = data.dialog_cn if options.language == "cn" else data.dialog
    if pairs is None:
        raise BadRow(place, f"{name}: the row has none")
    turns = alternating([text or "" for pair in pairs for text in pair], place, name)
    return turns if options.keep_last_turn else up_to_last_question(turns)


def up_to_last_question(turns: tuple[str, ...]) -> tuple[str, ...]:
    """The dialog without its last pair, if the agent asks nothing in it, as TiO's benchmark takes it."""
    last = len(turns) - 1 - len(turns) % 2  # the last turn at an odd place, which are the agent's
    if len(turns) < _FEWEST_TURNS or any(mark in turns[last] for mark in _QUESTION_MARKS):
        return turns
    return turns[:last]


def alternating(texts: Sequence[str], place: str, name: str = "dialog") -> tuple[str, ...]:
    """The turns of a dialog, the person's query first.

    Only the first text (nothing was asked before the query) and the last ones (nobody answered) may be empty: without
    one in between, everything after it would be in the mouth of the wrong speaker.
    """
    said = [bool(text.strip()) for text in texts]
    if not any(said[:2]):
        raise BadRow(place, f"{name}: it does not begin with a query")
    first, last = said.index(True), len(said) - said[::-1].index(True)
    if not all(said[first:last]):
        gap = said.index(False, first)
        raise BadRow(place, f"{name}: pair {gap // 2} holds an empty text, and the dialog goes on after it")
    return tuple(texts[first:last])


LAYOUTS = (
    Layout("InViG by picture", ("ref_list", "image_info"), _picture_row, fields_of(_Picture)),
    Layout(
        "InViG by dialog",
        ("dialog|dialog_cn",),
        _dialog_row,
        fields_of(_Dialog),
        never=("box", "anns_id", "raw_objects"),
        keeps_raw=True,
    ),
)
