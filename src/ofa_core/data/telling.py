"""The formats that a file could be of, told by its first row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import OFAError
from .read_options import ReadOptions
from .readers import read_records
from .records import BadRow, Format

#: Ends of the names of files whose rows have no names for their fields, so that nothing in them tells a format.
_UNTOLD = (".tsv", ".tsv.gz")


def told_formats(path: Path, formats: Sequence[Format], options: ReadOptions) -> Mapping[Format, str]:
    """The formats with the reason why a file is not of them, "" where it may be; empty where no content could tell.

    Args:
        path: the file or directory.
        formats: those that come into question.
        options: what no file tells by itself.

    Returns:
        A reason, or "", for each of ``formats``.
    """
    if path.name.lower().endswith(_UNTOLD) or path.is_fifo():
        return {}
    return {format: _reason_against(path, format, replace(options, split=None)) for format in formats}


def _reason_against(path: Path, format: Format, options: ReadOptions) -> str:
    try:
        next(read_records(format, path, options=options), None)
    except BadRow as bad:
        return bad.reason
    except OFAError as error:
        return str(error).removeprefix(f"{path}: ")
    return ""
