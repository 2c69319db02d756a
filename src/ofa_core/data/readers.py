"""Data sets as people have them: rows of every published layout, told by their content and read one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from ..errors import OFAError
from ..heads.glue import takes_two
from ..heads.tasks import GLUE, TASKS
from .containers import CONTAINERS, Container, shards_of
from .documents import DOCUMENTS, METADATA, document_rows
from .formats import COLUMN_FIELDS, is_looked_at, parse_columns, parse_row
from .read_options import USUAL, ReadOptions
from .records import BadRow, Format, Record
from .templates import templates_of

#: The columns of OFA's tab-separated files in their usual order.
COLUMNS: Mapping[Format, tuple[str, ...]] = {
    "refcoco": ("uniq-id", "image-id", "text", "region-coord", "image"),
    "caption": ("uniq-id", "image-id", "text", "-", "image"),
    "vqa": ("uniq-id", "image-id", "text", "answer", "objects", "image"),
    "snli_ve": ("uniq-id", "image-id", "image", "text", "caption", "label"),
    "image_classify": ("image", "-", "label"),
    "image_gen": ("uniq-id", "codes", "text"),
    "ocr": ("uniq-id", "image", "text"),
    "gigaword": ("text", "summary"),
    **{name: ("text", "text2", "label") if takes_two(TASKS[name]) else ("text", "label") for name in GLUE},
    "matching": ("uniq-id", "image-id", "image", "text", "label"),
    "answer_matching": ("uniq-id", "image-id", "image", "text", "answer", "label"),
    "pretrain": ("uniq-id", "image", "caption", "question", "refs", "objects", "dataset", "type"),
    "pretrain_text": ("text",),
    "pretrain_image": ("-", "image", "codes"),
    "pretrain_detection": ("-", "image", "label"),
}
#: Columns that a file may lack, besides a picture or its name, of which one must be there.
OPTIONAL = {"objects", "caption", "image", "image-id"}
#: The name of a column that is skipped.
SKIPPED = "-"

#: A file, a directory, or rows that are in memory already, such as a ``datasets.Dataset``.
Source = Path | Iterable[Mapping[str, Any]]


def read_records(
    format: Format,
    source: Source,
    *,
    columns: Sequence[str] | None = None,
    options: ReadOptions = USUAL,
    on_bad: Callable[[BadRow], None] | None = None,
) -> Iterator[Record]:
    """The records of a data set in their order, one at a time; of files of rows, nothing of what was read is kept.

    Rows come in .jsonl, .jsonl.gz, .parquet, .arrow (what ``datasets`` writes), a directory of parquet shards or
    one of ``Dataset.save_to_disk``, a folder of pictures with metadata.jsonl, and OFA's in .tsv or .tsv.gz. A layout is
    told by the fields of a row; :mod:`~.formats` has them all, :mod:`~.documents` the files that are read as a whole.
    Parquet and Arrow need the extra ``bench``. Of GuessWhat?! only successful games are given. Empty lines are skipped.

    Args:
        format: what the rows are about.
        source: a path, or rows that are mappings.
        columns: for .tsv, the names of the file's columns in their order, from :data:`COLUMNS`, without none but those
            of :data:`OPTIONAL`; ``-`` for one that is skipped.
        options: what no file tells by itself.
        on_bad: is called with every row that cannot be used, which is then skipped.

    Returns:
        The records.

    Raises:
        OFAError: at once: no such file or directory, or of a kind or with columns that the format does not have.
            While reading: the file is damaged, or holds several splits of which none was asked for.
        BadRow: while reading, without ``on_bad``: a row is not what it should be.
    """
    if format not in get_args(Format):
        raise OFAError(f"a format of rows is {', '.join(get_args(Format))}, not {format!r}")
    if format == "custom":
        templates_of(options)
    names = _checked_columns(format, columns)
    rows = _rows_of(format, source, names, options)
    return _of_split(_records(rows, on_bad), options, source)


@dataclass(frozen=True)
class _Rows:
    """Rows with their places, and what makes records of one."""

    rows: Iterable[tuple[str, Any]]
    parse: Callable[[Any, str], list[Record]]


def _rows_of(format: Format, source: Source, columns: Sequence[str], options: ReadOptions) -> _Rows:
    if not isinstance(source, str | Path):
        rows = ((f"row:{number}", row) for number, row in enumerate(source, 1))
        return _Rows(rows, lambda row, place: parse_row(format, row, place, options))
    path = Path(source)
    if not path.exists():
        raise OFAError(f"data {path} does not exist")
    document = next((document for document in DOCUMENTS if document.takes(format, path)), None)
    if document is not None:
        return _Rows(document_rows(document, format, path), lambda row, place: parse_row(format, row, place, options))
    folder = path / METADATA
    files = [folder] if folder.is_file() else shards_of(path) if path.is_dir() else [path]
    container = _container(format, files[0])

    def parse(content: Any, place: str) -> list[Record]:
        row = container.parse(content, place, columns)
        return parse_columns(format, row, place) if container.columns else parse_row(format, row, place, options)

    takes = partial(is_looked_at, format)
    return _Rows((row for file in files for row in container.rows(file, takes)), parse)


def _records(rows: _Rows, on_bad: Callable[[BadRow], None] | None) -> Iterator[Record]:
    for number, (place, content) in enumerate(rows.rows, 1):
        try:
            records = rows.parse(content, place)
        except BadRow as bad:
            if on_bad is None:
                raise
            on_bad(bad)
            continue
        for record in records:
            yield replace(record, row=number)


def _of_split(records: Iterator[Record], options: ReadOptions, source: Source) -> Iterator[Record]:
    """The records of the splits that are wanted; several are never mixed unless that was asked for."""
    name = source if isinstance(source, str | Path) else "the data"
    seen: dict[str, None] = {}
    for record in records:
        seen.setdefault(record.split)
        if options.split is None and len(seen) > 1:
            raise OFAError(f"{name} holds the splits {', '.join(seen)}, ...: pass --split NAME, or all for all of them")
        if options.splits and not record.split:
            raise OFAError(f"{record.place}: the row names no split, so --split {options.split} has no use here")
        if options.wants(record.split):
            yield record
    missing = [split for split in options.splits if split not in seen]
    if missing and seen:
        raise OFAError(f"{name} holds no split {missing[0]}; it holds {', '.join(seen)}")


def _checked_columns(format: Format, columns: Sequence[str] | None) -> Sequence[str]:
    if columns is None:
        return COLUMNS.get(format, ())
    if format not in COLUMNS:
        raise OFAError(f"columns have an order in {', '.join(COLUMNS)} rows alone; {format} rows have names")
    usual = [name for name in COLUMNS[format] if name != SKIPPED]
    known = [*usual, *sorted(COLUMN_FIELDS[format] - set(usual))]
    names = [name for name in columns if name != SKIPPED]
    wrong = [name for name in names if name not in known or names.count(name) > 1]
    missing = [name for name in known if name not in OPTIONAL and name not in names]
    if "image" in known and not {"image", "image-id"} & set(names):
        missing.append("image or image-id")
    if wrong or missing:
        problem = f"{wrong[0]!r} is none of them or comes twice" if wrong else f"{missing[0]} is missing"
        raise OFAError(f"columns are {', '.join(known)} in the file's order, {SKIPPED} for others; {problem}")
    return list(columns)


def _container(format: Format, path: Path) -> Container:
    known = [suffix for suffix, container in CONTAINERS.items() if not container.columns or format in COLUMNS]
    for suffix in known:
        if path.name.lower().endswith(suffix):
            return CONTAINERS[suffix]
    fitting = [document for document in DOCUMENTS if not document.formats or format in document.formats]
    whole = [f"{document.name} ({document.files})" for document in fitting]
    directory = "a directory of parquet or Arrow files"
    raise OFAError(f"{path}: {format} rows come in {', '.join([*known, *whole])} or {directory}")
