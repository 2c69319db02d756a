"""Rows and drawn pictures in each of the formats and containers that benchmarks read."""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from PIL import Image, ImageDraw

SIZE = (90, 60)
BOX = (10.0, 20.0, 40.0, 50.0)


def drawn(number: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """A square on a plain ground, of another colour for every number."""
    image = Image.new("RGB", size, (number * 37 % 256, 200, 90))
    ImageDraw.Draw(image).rectangle(BOX, fill=(250, 20, number * 11 % 256))
    return image


def encoded(number: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    drawn(number).save(file, kind)
    return file.getvalue()


def changed(row: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``row`` with fields replaced; a field that becomes ... is left out."""
    return {name: value for name, value in (row | changes).items() if value is not ...}


def game(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A game of GuessWhat?! as it was released."""
    row = {
        "id": number,
        "image": {"id": 7, "file_name": f"{number}.png", "width": SIZE[0], "height": SIZE[1], "coco_url": "-"},
        "objects": [
            {"id": 4, "category": "circle", "category_id": 2, "bbox": [0, 0, 9.5, 9], "area": 80.0, "segment": [[0]]},
            {"id": 5, "category": "square", "category_id": 3, "bbox": [10, 20, 30, 30], "area": 900.0, "segment": []},
        ],
        "object_id": 5,
        "qas": [
            {"id": 1, "question": "is it a circle?", "answer": "No"},
            {"id": 2, "question": "Is it red?", "answer": "Yes"},
            {"id": 3, "question": "is it loud?", "answer": "N/A"},
        ],
        "status": "success",
        "questioner_id": 3,
    }
    return changed(row, changes)


def dialog(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A row of InViG."""
    row = {
        "id": f"i{number}",
        "global_image_id": f"openimages.{number}",
        "image_path": f"{number}.png",
        "bbox": list(BOX),
        "dialog": [["", "the Square"], ["which one?", "the red one"], ["this?", "yes"]],
        "category": "square",
        "caption": "a red square",
        "note": "whatever",
    }
    return changed(row, changes)


def phrase(number: int = 1, **changes: str) -> dict[str, str]:
    """The columns of a RefCOCO row by name."""
    row = {
        "uniq-id": f"r{number}",
        "image-id": f"{number}",
        "text": 'the "red" square',
        "region-coord": "10.0,20.0,40.0,50.0",
        "image": base64.urlsafe_b64encode(encoded(number)).decode(),
    }
    return changed(row, changes)


def json_lines(rows: Sequence[Any]) -> bytes:
    return b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)


def tab_lines(rows: Sequence[Mapping[str, str]]) -> bytes:
    return b"".join("\t".join(row.values()).encode() + b"\n" for row in rows)


def written(path: Path, content: bytes) -> Path:
    """``content`` in a file, compressed where its name says so."""
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], **options: Any) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path, **options)
    return path


def write_arrow(path: Path, rows: Sequence[Mapping[str, Any]], rows_a_batch: int = 1000) -> Path:
    """An Arrow stream, as ``datasets`` writes it."""
    table = pyarrow.Table.from_pylist(list(rows))
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows_a_batch)
    return path


def save_to_disk(directory: Path, shards: Sequence[Sequence[Mapping[str, Any]]], **state: Any) -> Path:
    """What ``Dataset.save_to_disk`` leaves, with entries of its state replaced."""
    directory.mkdir(parents=True)
    names = [f"data-{index:05d}-of-{len(shards):05d}.arrow" for index in range(len(shards))]
    for name, rows in zip(names, shards, strict=True):
        write_arrow(directory / name, rows)
    content = {"_data_files": [{"filename": name} for name in names], "_split": None, "_format_type": None} | state
    (directory / "state.json").write_text(json.dumps(content))
    (directory / "dataset_info.json").write_text("{}")
    return directory


def write_zip(path: Path, files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, files: Mapping[str, bytes], links: Mapping[str, tuple[bytes, str]] = {}) -> Path:
    """A .tar, or .tar.gz where its name says so; ``links`` holds type and target by name."""
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, (kind, target) in links.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    return path
