"""JSON that is read as a whole, within a limit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import OFAError
from ...utils.input_files import MAX_TABLE, parse_json, read_whole


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        OFAError: it cannot be read, or is no JSON.
    """
    try:
        return parse_json(read_whole(path, MAX_TABLE))
    except OFAError:
        raise
    except ValueError as error:
        raise OFAError(f"{path}: not JSON that can be read: {error}") from None


def rows_under(path: Path, content: Any, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The objects of the list ``name`` of a JSON file, each with its place.

    Raises:
        OFAError: it holds no such list, or other things than objects.
    """
    found = content.get(name) if isinstance(content, Mapping) else None
    if not isinstance(found, list):
        raise OFAError(f"{path}: it holds no list {name}")
    for number, row in enumerate(found, 1):
        if not isinstance(row, Mapping):
            raise OFAError(f"{path}: {name}.{number - 1} is no object with fields")
        yield f"{path}:{number}", row
