"""All formats of rows: the layouts in which each was published, and the record that a row becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import shortened
from ..heads.tasks import GLUE
from . import records, task_records
from .layouts import coco, conversation, guesswhat, invig, plain, ref_l4, refcoco, snli_ve, vqa
from .layouts.layout import Layout
from .read_options import ReadOptions
from .records import BadRow, Format, Record

#: The records of OFA's tab-separated rows, and the fields of them that are looked at.
_COLUMN_RECORDS: Mapping[Format, Callable[[Mapping[str, Any], str], Record | None]] = {
    **records.RECORDS,
    **task_records.RECORDS,
}
COLUMN_FIELDS: Mapping[Format, frozenset[str]] = {**records.FIELDS, **task_records.FIELDS}


def _named_columns(format: Format, *marks: str) -> tuple[Layout, ...]:
    """Rows of text alone, whose columns have the same names in every file."""

    def read(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
        return parse_columns(format, row, place)

    return (Layout("plain rows", marks, read, COLUMN_FIELDS[format]),)


#: The layouts of each format, those that say most about a row first.
LAYOUTS: Mapping[Format, tuple[Layout, ...]] = {
    "invig": (*invig.LAYOUTS, plain.DIALOG),
    "guesswhat": (*guesswhat.LAYOUTS, plain.GAME),
    "refcoco": (*refcoco.LAYOUTS, *ref_l4.LAYOUTS, plain.PHRASE),
    "ref_l4": ref_l4.LAYOUTS,
    "grefcoco": (*refcoco.GREFCOCO_LAYOUTS, plain.PHRASES),
    "caption": (*coco.CAPTION_LAYOUTS, plain.CAPTION),
    "vqa": (*vqa.LAYOUTS, plain.QUESTION),
    "snli_ve": (*snli_ve.LAYOUTS, plain.HYPOTHESIS),
    "image_classify": (plain.CLASS,),
    "ocr": (plain.WRITING,),
    "matching": (plain.MATCH,),
    "answer_matching": (plain.ANSWER_MATCH,),
    "conversation": conversation.LAYOUTS,
    "pretrain_detection": (*coco.INSTANCE_LAYOUTS, plain.THINGS),
    "custom": (plain.OWN,),
    "asked": (plain.ASKED,),
    "gigaword": _named_columns("gigaword", "text", "summary"),
    "pretrain_text": _named_columns("pretrain_text", "text"),
    **{name: _named_columns(name, "text", "label") for name in GLUE},
}


def is_looked_at(format: Format, column: str) -> bool:
    """Tell whether any layout of a format looks at a column of a table."""
    return any(layout.takes(column) for layout in LAYOUTS.get(format, ()))


def parse_columns(format: Format, row: object, place: str) -> list[Record]:
    """The record of a tab-separated row, whose fields have the names of its columns.

    Raises:
        BadRow: a field is not what it should be.
    """
    record = _COLUMN_RECORDS[format](_mapping(row, place), place)
    return [] if record is None else [record]


def parse_row(format: Format, row: object, place: str, options: ReadOptions) -> list[Record]:
    """The records of a row; none where it is right but no part of the benchmark (a game that was not won).

    Raises:
        BadRow: the row is of no layout of the format, or a field is missing or not what it should be.
    """
    fields = _mapping(row, place)
    against: list[str] = []
    for layout in LAYOUTS.get(format, ()):
        reason = layout.reason_against(fields)
        if reason is None:
            return layout.read(fields, place, options)
        against.append(f"{layout.name}: {reason}")
    raise BadRow(place, f"the row is in no layout of {format} ({_tried(against)})")


def _tried(against: Sequence[str]) -> str:
    return shortened("; ".join(against) or "which comes in .tsv alone")


def _mapping(row: object, place: str) -> Mapping[str, Any]:
    if not isinstance(row, Mapping):
        raise BadRow(place, f"a row is an object with fields, not {type(row).__name__}")
    return row
