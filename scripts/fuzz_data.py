"""Mutations of dataset files: every format of rows in every container that it comes in."""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from fuzzing import CHANGES, observe
from PIL import Image

from ofa_core import OFAError
from ofa_core.data.images import Images
from ofa_core.data.readers import COLUMNS, read_records
from ofa_core.data.records import BadRow, Format

ROWS = 6
VALUES: tuple[Any, ...] = (
    -1, 0, 10**30, 0.5, 1e308, float("nan"), True, None, "", "x" * 10_000, "\ud800", "\0", [], [[]], {}, ["a", None],
    [1, 2, 3, 4], [0.1, 0.1, 0.2, 0.2], "1,2,3", "1,2,3,1e400", "../../x.png", "/dev/zero", "=" * 9, "99|!+x&&|!+",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Rows of a format in a container."""

    format: Format
    path: Path
    rows: Sequence[dict[str, Any]]


def picture() -> bytes:
    """A small picture."""
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((60, 50)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def rows_of(format: Format) -> list[dict[str, Any]]:
    """Right rows of a format."""
    return [_ROWS[format](number) for number in range(ROWS)]


def _game(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "image": {"file_name": f"{number}.png", "width": 60, "height": 50},
        "objects": [{"id": 5, "category": "dog", "bbox": [8.0, 16.0, 32.0, 32.0]}],
        "object_id": 5,
        "qas": [{"question": "is it red?", "answer": "Yes"}, {"question": "is it a cat?", "answer": "N/A"}],
        "status": "success",
    }


def _dialog(number: int) -> dict[str, Any]:
    return {
        "id": f"i{number}",
        "image_path": "",
        "image": {"bytes": picture(), "path": f"{number}.png"},
        "bbox": [8.0, 16.0, 40.0, 48.0],
        "dialog": [["", "the red one"], ["which one?", "the left one"]],
        "category": "dog",
        "caption": "a dog",
    }


def _columns(number: int, **more: str) -> dict[str, Any]:
    row = {"uniq-id": str(number), "image-id": f"{number}.png", "text": "a red dog", **more}
    return row | {"image": base64.b64encode(picture()).decode()}


_ROWS: Mapping[Format, Callable[[int], dict[str, Any]]] = {
    "guesswhat": _game,
    "invig": _dialog,
    "refcoco": lambda number: _columns(number, **{"region-coord": "8,16,40,48"}),
    "caption": lambda number: _columns(number, **{"-": "dog"}),
    "vqa": lambda number: _columns(number, answer="0.5|!+cat&&0.9|!+dog", objects="dog&&grass"),
}


def prepare(directory: Path) -> list[Case]:
    """A file of every format in every container."""
    directory.mkdir(parents=True)
    cases = []
    for format in _ROWS:
        for suffix in ("tsv", "tsv.gz") if format in COLUMNS else ("jsonl", "jsonl.gz", "parquet", "arrow", "saved"):
            path = directory / f"{format}.{suffix}"
            write(path, rows_of(format))
            cases.append(Case(format, path, rows_of(format)))
    return cases


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Rows in the container that the name tells."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".arrow":
        table = pyarrow.Table.from_pylist(list(rows))
        with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    elif path.suffix == ".saved":
        path.mkdir()
        write(path / "data.arrow", rows)
        (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    else:
        line = _tab_line if ".tsv" in path.name else _json_line
        content = b"".join(map(line, rows))
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def _json_line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, default=lambda value: None).encode() + b"\n"


def _tab_line(row: dict[str, Any]) -> bytes:
    return "\t".join(map(str, row.values())).encode("utf-8", "replace") + b"\n"


def damaged_bytes(case: Case, path: Path, rng: random.Random) -> None:
    """The file, or one of a directory, with its bytes changed."""
    target = path
    if case.path.is_dir():
        shutil.copytree(case.path, path, dirs_exist_ok=True)
        target = rng.choice(sorted(path.iterdir()))
        data = target.read_bytes()
    else:
        data = case.path.read_bytes()
    target.write_bytes(rng.choice(CHANGES)(data, rng))


def damaged_lines(case: Case, path: Path, rng: random.Random) -> None:
    """The content of a compressed file changed before it was compressed; of others, their bytes."""
    if path.suffix != ".gz":
        damaged_bytes(case, path, rng)
        return
    path.write_bytes(gzip.compress(rng.choice(CHANGES)(gzip.decompress(case.path.read_bytes()), rng), 1))


def other_fields(case: Case, path: Path, rng: random.Random) -> None:
    """Rows with other values in some fields, at any depth."""
    rows = [json.loads(json.dumps(row, default=lambda value: None)) for row in case.rows]
    if case.path.suffix in (".parquet", ".arrow", ".saved"):  # where all values of a column are of one type
        name, value = rng.choice(list(rows[0])), rng.choice(VALUES)
        rows = [row | {name: value} for row in rows]
    else:
        for row in rng.sample(rows, rng.randint(1, ROWS)):
            _change(row, rng)
    try:
        write(path, rows)
    except (pyarrow.ArrowException, UnicodeEncodeError, OverflowError):  # no file can hold these
        damaged_bytes(case, path, rng)


def _change(part: Any, rng: random.Random) -> None:
    """Change one value somewhere in a dict or a list."""
    names = list(part) if isinstance(part, dict) else list(range(len(part)))
    if not names:
        return
    name = rng.choice(names)
    if isinstance(part[name], dict | list) and rng.random() < 0.6:
        _change(part[name], rng)
    elif isinstance(part, dict) and rng.random() < 0.1:
        del part[name]
    else:
        part[name] = rng.choice(VALUES)


def damaged_pictures(case: Case, path: Path, rng: random.Random) -> None:
    """Right rows with pictures that were damaged."""
    rows = [dict(row) for row in case.rows]
    for row in rows:
        data = rng.choice(CHANGES)(picture(), rng)
        if isinstance(row["image"], str):
            row["image"] = base64.b64encode(data).decode()
        elif "bytes" in row["image"]:
            row["image"] = {"bytes": data, "path": "x.png"}
    write(path, rows)


MUTATIONS = (damaged_bytes, damaged_bytes, damaged_lines, other_fields, other_fields, damaged_pictures)


def use(format: Format, path: Path) -> None:
    """Read all rows and the pictures in them."""
    bad: list[BadRow] = []
    wrong: list[OFAError] = []
    with Images.open(None) as images:
        for record in read_records(format, path, on_bad=bad.append):
            try:
                images.load(record)
            except OFAError as error:
                wrong.append(error)
    if bad or wrong:
        raise max([*bad, *wrong], key=lambda error: len(str(error)))


def findings(whole: list[Case], number: int, directory: Path) -> list[str]:
    """Findings of mutation ``number`` of a dataset file, usually none."""
    rng = random.Random(number)
    case = whole[number % len(whole)]
    mutation = rng.choice(MUTATIONS)
    path = directory / case.path.name
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
    mutation(case, path, rng)
    return [f"{mutation.__name__} of {path.name} {number}: {what}" for what in observe(lambda: use(case.format, path))]
