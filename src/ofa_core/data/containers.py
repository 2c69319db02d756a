"""Kinds of files that hold rows, one after the other: JSON lines, tab-separated columns, parquet and Arrow."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import OFAError
from ..utils.input_files import MAX_LINE, check_regular, open_stream, parse_json, read_text_file
from .archives import GZIP_MAGIC
from .records import BadRow

#: Empty lines in a row; in a gzip file of few megabytes there may be billions, which take an hour to read.
_MAX_EMPTY_LINES = 100_000

#: Rows that are turned into Python objects at once; with inline pictures, a few megabytes.
ROWS_AT_ONCE = 32

#: A function that tells which columns of a table are looked at.
Takes = Callable[[str], bool]


# Lines


def _lines(path: Path, takes: Takes) -> Iterator[tuple[str, bytes]]:
    """Place and content of the lines that are not empty; gzip is told by its first bytes."""
    number, empty, limit = 0, 0, MAX_LINE.most
    try:
        with open_stream(path, f"data {path}") as raw, _unzipped(raw) as file:
            while line := file.readline(limit + 1):
                number += 1
                if len(line) > limit:
                    raise OFAError(f"{path}:{number}: the line has more than {limit:,} bytes; {MAX_LINE.advice}")
                text = line.rstrip(b"\r\n")
                if number == 1:
                    text = text.removeprefix(b"\xef\xbb\xbf")
                if text.strip():
                    empty = 0
                    yield f"{path}:{number}", text
                elif (empty := empty + 1) > _MAX_EMPTY_LINES:
                    raise OFAError(f"{path}:{number}: there are more than {_MAX_EMPTY_LINES:,} empty lines in a row")
    except (OSError, EOFError, zlib.error) as error:
        raise OFAError(f"{path} cannot be read on after line {number}: {error}") from None


def _unzipped(raw: Any) -> BinaryIO | gzip.GzipFile:
    return gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == GZIP_MAGIC else raw


def _text(line: bytes, place: str) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise BadRow(place, f"byte {error.start + 1} of the line is not UTF-8") from None


def _json_row(line: bytes, place: str, columns: Sequence[str]) -> object:
    text = _text(line, place)
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        raise BadRow(place, f"not JSON at character {error.pos + 1}: {error.msg}") from None
    except ValueError as error:  # a number of thousands of digits, lists in lists in lists
        raise BadRow(place, f"not JSON that can be read: {error}") from None


def _tsv_row(line: bytes, place: str, columns: Sequence[str]) -> object:
    cells = _text(line, place).split("\t")
    if len(cells) != len(columns):
        raise BadRow(place, f"the line has {len(cells)} columns, not {len(columns)} ({', '.join(columns)})")
    return dict(zip(columns, cells, strict=True))


# Tables


def _parquet_rows(path: Path, takes: Takes) -> Iterator[tuple[str, Any]]:
    check_regular(path, f"data {path}")
    arrow, parquet = _pyarrow(path)
    number = 0
    try:
        with parquet.ParquetFile(path, memory_map=True) as file:
            names = [name for name in file.schema_arrow.names if takes(name)]
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=names):
                batch.validate(full=True)
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", row
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(path, number, error) from None


def _arrow_rows(path: Path, takes: Takes) -> Iterator[tuple[str, Any]]:
    """The rows of an Arrow stream, which is what ``datasets`` writes; mapped, so that only what is used is read."""
    check_regular(path, f"data {path}")
    arrow, _ = _pyarrow(path)
    number = 0
    try:
        with arrow.memory_map(str(path)) as source, arrow.ipc.open_stream(source) as stream:
            names = [name for name in stream.schema.names if takes(name)]
            for batch in stream:
                for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                    rows = batch.select(names).slice(start, ROWS_AT_ONCE)
                    rows.validate(full=True)  # the library trusts offsets, and reads memory that is not the file's
                    for row in rows.to_pylist():
                        number += 1
                        yield f"{path}:{number}", row
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(path, number, error) from None


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise OFAError(f"{path} needs pyarrow: pip install pyarrow") from None
    return pyarrow, pyarrow.parquet


def _damaged(path: Path, number: int, error: Exception) -> OFAError:
    return OFAError(f"{path} cannot be read on after row {number}: {str(error).splitlines()[0]}")


def _as_it_is(row: object, place: str, columns: Sequence[str]) -> object:
    return row


# Which is which


@dataclass(frozen=True)
class Container:
    """A kind of file: its rows with their places, and what makes fields of a row's content."""

    rows: Callable[[Path, Takes], Iterator[tuple[str, Any]]]
    parse: Callable[[Any, str, Sequence[str]], object]
    #: Its columns have no names but those that a reader gives them.
    columns: bool = False


#: Containers by the ends of files' names.
CONTAINERS: Mapping[str, Container] = {
    ".jsonl": Container(_lines, _json_row),
    ".jsonl.gz": Container(_lines, _json_row),
    ".parquet": Container(_parquet_rows, _as_it_is),
    ".arrow": Container(_arrow_rows, _as_it_is),
    ".tsv": Container(_lines, _tsv_row, columns=True),
    ".tsv.gz": Container(_lines, _tsv_row, columns=True),
}


def shards_of(directory: Path) -> list[Path]:
    """The files of a directory in their order.

    Raises:
        OFAError: there are none, or of several splits, which are never mixed.
    """
    names = sorted(path.name for path in directory.iterdir())
    splits = [name for name in names if (directory / name).is_dir()]
    if "dataset_dict.json" in names and splits:
        raise OFAError(f"{directory} holds the splits {', '.join(splits)}: name one, such as {directory / splits[0]}")
    if "state.json" in names:
        return _saved_shards(directory)
    for suffix in (".parquet", ".arrow"):
        shards = [name for name in names if name.endswith(suffix)]
        splits = sorted({re.sub(r"[-_.]?\d+([-_.]of[-_.]\d+)?$", "", name.removesuffix(suffix)) for name in shards})
        if len(splits) > 1:
            raise OFAError(f"{directory} holds the splits {', '.join(map(repr, splits))}: name a file of one of them")
        if shards:
            return [directory / name for name in shards]
    raise OFAError(f"{directory} holds no .parquet or .arrow files")


def _saved_shards(directory: Path) -> list[Path]:
    """The files that ``Dataset.save_to_disk`` lists."""
    state_file = directory / "state.json"
    try:
        state = parse_json(read_text_file(state_file))
        names = [Path(entry["filename"]).name for entry in state["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise OFAError(f"{state_file} is not what Dataset.save_to_disk writes: {error}") from None
    if state.get("_indices_data_files"):
        raise OFAError(f"{directory} holds a selection of rows: call flatten_indices() before saving it")
    missing = [name for name in names if not (directory / name).is_file()]
    if missing or not names:
        raise OFAError(f"{directory} is not whole: {missing[0] if missing else 'a data file'} is missing")
    return [directory / name for name in names]
