"""Digests of what a run reads, by which a resumed run knows that it would read the same.

Data files and vocabularies are told by their content (sha256), and so are pictures where that is a second's work: where
all of them are no more than :data:`READ_AT_MOST` bytes, and in a zip, whose directory has a checksum of every file. A
larger directory is told by the names, sizes and times of its files, another archive by its size and time.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from ..checkpoint.digests import sha256
from ..checkpoint.lora import ADAPTER_FILES
from ..checkpoint.model_dir import load_config
from ..data.documents import METADATA, files_beside
from ..data.loading import DataFiles
from ..data.read_options import USUAL
from ..data.readers import Source, read_records
from ..data.records import Format
from ..errors import OFAError
from ..text.tokenizer import VOCABULARY_KINDS

#: Bytes, and files, of pictures that are read to tell whether they changed.
READ_AT_MOST = 512 << 20
FILES_AT_MOST = 20_000
#: Files of a directory of rows that rows are in, or are listed in.
_SHARDS = (".parquet", ".arrow")
_LISTS = ("state.json", METADATA)


def data_inputs(data: DataFiles, format: Format) -> dict[str, str]:
    """Digests of rows and of files that are read with them, the order of columns, options of reading and pictures.

    Raises:
        OFAError: something cannot be read.
    """
    try:
        inputs: dict[str, str] = {}
        for number, source in enumerate(data.sources, 1):
            name = "data" if number == 1 else f"data {number}"
            inputs[name] = _digest_of_source(source, data, format)
            if isinstance(source, Path):
                inputs |= {f"{name}'s {other.name}": sha256(other) for other in files_beside(format, source)}
        if data.columns is not None:
            inputs["columns"] = ",".join(data.columns)
        inputs |= {name: f"{value}" for name, value in asdict(data.options).items() if value != getattr(USUAL, name)}
        if data.folder is not None:
            inputs["images"] = _digest_of_pictures(data.folder)
    except OSError as error:
        raise OFAError(f"{error.filename or data.name} cannot be read: {error.strerror or error}") from None
    return inputs


def model_inputs(directory: Path, player: str, adapter: Path | None = None) -> dict[str, str]:
    """Digests of a model directory's configuration and vocabulary files, and of an adapter of the model.

    They are named after the ``player``.
    """
    # as it is understood, however it is written
    config = load_config(directory).model_dump_json(exclude_defaults=True)
    inputs = {f"{player}'s configuration": _hexdigest([config.encode()])}
    for name in sorted({name for names in VOCABULARY_KINDS.values() for name in names}):
        if (directory / name).is_file():
            inputs[f"{player}'s {name}"] = sha256(directory / name)
    if adapter is not None:
        there = (adapter / name for name in ADAPTER_FILES)
        inputs |= {f"{player}'s adapter's {path.name}": sha256(path) for path in there if path.is_file()}
    return inputs


def changed_inputs(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The names of what a run would read otherwise ``now``; none where a file does not tell what it was ``then``."""
    if not then or not now:
        return []
    return [name for name in {**then, **now} if then.get(name) != now.get(name)]


def _digest_of_source(source: Source, data: DataFiles, format: Format) -> str:
    """The digest of a file or directory; of rows in memory that of the records that they become."""
    if isinstance(source, str | Path):
        return _digest_of_rows(Path(source))
    records = read_records(format, source, options=data.options, on_bad=lambda bad: None)
    return _hexdigest(repr(record).encode("utf-8", "surrogateescape") + (record.inline or b"") for record in records)


def _digest_of_rows(path: Path) -> str:
    if not path.is_dir():
        return sha256(path)
    names = sorted(entry.name for entry in path.iterdir() if entry.suffix in _SHARDS or entry.name in _LISTS)
    return _hexdigest(f"{name}\0{sha256(path / name)}\n".encode() for name in names)


def _digest_of_pictures(root: Path) -> str:
    if not root.is_dir():
        return _digest_of_archive(root)
    files = sorted(_files_below(root))
    if sum(size for _, size, _ in files) <= READ_AT_MOST and len(files) <= FILES_AT_MOST:
        return _hexdigest(f"{name}\0{sha256(root / name)}\n".encode("utf-8", "surrogateescape") for name, *_ in files)
    return "listing:" + _hexdigest(repr(file).encode("utf-8", "surrogateescape") for file in files)


def _digest_of_archive(path: Path) -> str:
    status = path.stat()
    if status.st_size <= READ_AT_MOST:
        return sha256(path)
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                entries = [(entry.filename, entry.CRC, entry.file_size) for entry in archive.infolist()]
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise OFAError(f"images {path} cannot be read as an archive: {error}") from None
        return "directory:" + _hexdigest(repr(entry).encode("utf-8", "surrogateescape") for entry in entries)
    return f"size and time:{status.st_size}, {status.st_mtime_ns}"


def _files_below(root: Path) -> Iterator[tuple[str, int, int]]:
    """Path below ``root``, size and time of every file that may be a picture; results may stand beside them."""
    waiting, seen = [""], set()
    while waiting:
        inside = waiting.pop()
        status = os.stat(root / inside)
        if (place := (status.st_dev, status.st_ino)) in seen:  # links may lead in a circle
            continue
        seen.add(place)
        for entry in _listed(root / inside):
            name = f"{inside}/{entry.name}" if inside else entry.name
            if entry.is_dir():
                waiting.append(name)
            elif entry.is_file() and _may_be_picture(entry.name):
                status = entry.stat()
                yield name, status.st_size, status.st_mtime_ns


def _listed(directory: Path) -> list[os.DirEntry[str]]:
    """The entries of a directory; nothing where no picture can be read either."""
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except PermissionError:
        return []


def _may_be_picture(name: str) -> bool:
    suffix = os.path.splitext(name)[1].lower()
    return not name.startswith(".") and (not suffix or suffix in Image.registered_extensions())


def _hexdigest(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
