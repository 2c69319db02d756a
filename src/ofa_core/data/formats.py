"""All formats of rows: what of them is looked at, and the record that each becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import records, task_records
from .records import BadRow, Format, Record

_RECORDS: Mapping[Format, Callable[[Mapping[str, Any], str], Record | None]] = {
    **records.RECORDS,
    **task_records.RECORDS,
}

#: The fields of a row that are looked at.
FIELDS: Mapping[Format, frozenset[str]] = {**records.FIELDS, **task_records.FIELDS}


def parse_record(format: Format, row: object, place: str) -> Record | None:
    """The record of a row, or None where the row is right but no part of the benchmark (a game that was not won).

    Raises:
        BadRow: a field is missing or not what it should be.
    """
    if not isinstance(row, Mapping):
        raise BadRow(place, f"a row is an object with fields, not {type(row).__name__}")
    return _RECORDS[format](row, place)
