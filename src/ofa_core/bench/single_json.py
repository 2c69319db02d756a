"""A finished run as one JSON file: ``{"format": ..., "summary": {...}, "header": {...}, "samples": [...]}``.

It takes the place of a results file and its summary, ``<task>/<comment>/<time>.json``. A sample stands on a line, but
the file may be formatted in any way, and its members may come in any order behind ``format``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import OFAError, first_problem
from ..utils.atomic_write import atomic_path
from ..utils.input_files import MAX_TABLE, read_whole
from .results import Header, Row, StrictModel, row_json

SINGLE_FORMAT = "ofa_core.bench.single/1"
_BEGINNING = re.compile(r'\s*{\s*"format"\s*:\s*"' + re.escape(SINGLE_FORMAT) + '"')
#: Characters in which the beginning stands.
_LOOKED_AT = 256
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def is_single(path: Path) -> bool:
    """Tell whether a file is in this form, by its beginning."""
    try:
        with path.open("rb") as file:
            return is_single_text(file.read(_LOOKED_AT).decode("utf-8", "replace"))
    except FileNotFoundError:
        return False


def is_single_text(text: str) -> bool:
    """Tell whether the content of a file is in this form, by its beginning."""
    return _BEGINNING.match(text) is not None


def write_single(path: Path, header: Header, summary: StrictModel, rows: Iterable[Row]) -> None:
    """Write a finished run to ``path``, whole or not at all; the rows are read once and not kept."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(f'{{"format": "{SINGLE_FORMAT}",\n"summary": {summary.model_dump_json()},\n')
        file.write(f'"header": {header.model_dump_json()},\n"samples": [')
        for number, row in enumerate(rows):
            file.write(f"{',' * bool(number)}\n{row_json(row)}")
        file.write("\n]}\n")
        file.flush()
        os.fsync(file.fileno())  # what it was made of is removed next


def read_single(path: Path) -> tuple[Header, Iterator[Row]]:
    """The header and the rows, as they are asked for, of a run in this form.

    Raises:
        OFAError: the file is damaged, or a row (named by number) is none; the latter while iterating.
    """
    text = _text(path)
    try:
        header = Header.model_validate(member(path, text, "header"))
    except ValidationError as error:
        raise OFAError(f"{path}: {first_problem(error, 'header')}") from None
    return header, _rows(path, text)


def member(path: Path, text: str, name: str) -> Any:
    """The value of a member of the file's object; nothing behind it is looked at.

    Raises:
        OFAError: there is none, or the file is damaged before it.
    """
    return _decoded(path, text, _start_of(path, text, name))[0]


def _rows(path: Path, text: str) -> Iterator[Row]:
    for number, value in enumerate(_elements(path, text, _start_of(path, text, "samples"))):
        try:
            yield Row.model_validate(value)
        except ValidationError as error:
            raise OFAError(f"{path}: samples.{number}: {first_problem(error, 'row')}") from None


def _text(path: Path) -> str:
    try:
        return read_whole(path, MAX_TABLE).decode("utf-8")
    except UnicodeDecodeError as error:
        raise OFAError(f"{path}: not UTF-8 at byte {error.start}") from None


# JSON of any formatting, of which no more is held as values than one at a time


def _start_of(path: Path, text: str, name: str) -> int:
    """The place of a member's value."""
    at = _expected(path, text, 0, "{")
    while True:
        key, at = _decoded(path, text, at)
        at = _expected(path, text, at, ":")
        if key == name:
            return at
        _, at = _decoded(path, text, at)
        if text.startswith("}", _skipped(text, at)):
            raise OFAError(f"{path}: there is no {name} in it")
        at = _expected(path, text, at, ",")


def _elements(path: Path, text: str, at: int) -> Iterator[Any]:
    """The elements of the list that begins there."""
    at = _expected(path, text, at, "[")
    if text.startswith("]", _skipped(text, at)):
        return
    while True:
        value, at = _decoded(path, text, at)
        yield value
        at = _skipped(text, at)
        if text.startswith("]", at):
            return
        at = _expected(path, text, at, ",")


def _decoded(path: Path, text: str, at: int) -> tuple[Any, int]:
    """The value that begins there, and the place behind it."""
    try:
        return _DECODER.raw_decode(text, _skipped(text, at))
    except (ValueError, RecursionError) as error:
        raise OFAError(f"{path}: damaged or cut off: {error}") from None


def _expected(path: Path, text: str, at: int, mark: str) -> int:
    """The place behind a mark that is due."""
    at = _skipped(text, at)
    if not text.startswith(mark, at):
        raise OFAError(f"{path}: damaged or cut off: {mark} is due at character {at}")
    return at + 1


def _skipped(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return at if space is None else space.end()
