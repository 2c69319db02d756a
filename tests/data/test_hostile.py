"""Hostile input files are refused in one line, within seconds, and without much memory or disk."""

from __future__ import annotations

import gzip
import io
import os
import resource
import shutil
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bench.files import BOX, dialog, encoded, json_lines, write_tar, write_zip

from ofa_core import OFAError, Tokenizer
from ofa_core.data.images import Images
from ofa_core.data.readers import read_records
from ofa_core.data.records import Record
from ofa_core.text import small_vocabulary_dir
from ofa_core.training.settings import TrainingSettings
from ofa_core.utils import input_files

MEBIBYTE = 1024**2


def peak_memory() -> int:
    """The most memory that this process had resident, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def refused(message: str, seconds: float = 5, memory: int = 200 * MEBIBYTE) -> Iterator[None]:
    """Expect one line in little time and memory."""
    start, before = time.perf_counter(), peak_memory()
    with pytest.raises(OFAError, match=message) as caught:
        yield
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert time.perf_counter() - start < seconds
    assert peak_memory() - before < memory


def gzip_of(start: bytes, byte: bytes, mebibytes: int) -> bytes:
    """``start`` and as many MiB of one byte, in gzip, which may be put together of parts."""
    return gzip.compress(start) + gzip.compress(byte * 64 * MEBIBYTE, 1) * (mebibytes // 64)


def load(root: Path | None, name: str = "1.png") -> None:
    with Images.open(root) as images:
        images.load(Record(id="7", image=name, box=BOX, place="rows.jsonl:3"))


# --- sizes ---------------------------------------------------------------------------------------------------------


def test_a_member_of_a_zip_of_one_gigabyte(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("2.png", encoded(2))
        with archive.open("1.png", "w") as member:
            for _ in range(1024):
                member.write(bytes(MEBIBYTE))
    assert path.stat().st_size < 8 * MEBIBYTE
    with refused(
        r"image 1\.png in .*x\.zip has 1,073,741,824 bytes, more than 134,217,728; set \$OFA_MAX_PICTURE_BYTES"
    ):
        load(path)
    load(path, "2.png")  # one member spoils no other


def test_a_member_of_a_tar_gz_of_three_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = tarfile.TarInfo("1.png")
    header.size = 3 * 1024**3
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip_of(header.tobuf(), b"\0", 3 * 1024))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    written = 0
    write = input_files.check_growth

    def watched(path: Path, packed: int, unpacked: int) -> None:
        nonlocal written
        written = unpacked
        write(path, packed, unpacked)

    monkeypatch.setattr("ofa_core.data.archives.check_growth", watched)
    with refused(r"x\.tar\.gz: [0-9,]+ bytes of gzip become more than [0-9,]+, over 200 times as many"):
        load(path)
    assert written < 20 * MEBIBYTE
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_member_of_a_tar_of_one_gigabyte(tmp_path: Path) -> None:
    header = tarfile.TarInfo("1.png")
    header.size = 1024**3
    path = tmp_path / "x.tar"
    path.write_bytes(header.tobuf())
    os.truncate(path, 1024**3 + 512 + 1024)
    with refused(r"image 1\.png in .*x\.tar has 1,073,741,824 bytes, more than 134,217,728"):
        load(path)


def test_a_header_of_a_tar_of_one_gigabyte(tmp_path: Path) -> None:
    header = tarfile.TarInfo("1.png")
    header.type, header.size = tarfile.XHDTYPE, 1024**3
    path = tmp_path / "x.tar"
    path.write_bytes(header.tobuf())
    os.truncate(path, 1024**3 + 512 + 1024)
    with refused(r"images .*x\.tar cannot be read .*: a header says that it has 1073741824 bytes"):
        load(path)


@pytest.mark.parametrize("make", [write_zip, write_tar], ids=["zip", "tar"])
def test_an_archive_of_too_many_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[..., Path]
) -> None:
    path = make(tmp_path / f"x.{make.__name__.removeprefix('write_')}", {f"{n}.png": encoded(n) for n in range(5)})
    load(path)
    monkeypatch.setenv("OFA_MAX_ARCHIVE_FILES", "4")
    with refused(r"images .* holds more than 4 files; set \$OFA_MAX_ARCHIVE_FILES to more if it is meant"):
        load(path)


@pytest.mark.parametrize(("name", "format"), [("x.jsonl.gz", "invig"), ("x.tsv.gz", "caption")])
def test_a_line_of_two_gigabytes(tmp_path: Path, name: str, format: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip_of(b"", b"x", 2 * 1024))
    assert path.stat().st_size < 20 * MEBIBYTE
    with refused(rf"{name}:1: the line has more than 33,554,432 bytes; set \$OFA_MAX_LINE_BYTES to more"):
        list(read_records(format, path))  # type: ignore[arg-type]


def test_two_gigabytes_of_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip_of(json_lines([dialog(1)]), b"\n", 2 * 1024))
    with refused(r"x\.jsonl\.gz:100002: there are more than 100,000 empty lines in a row"):
        list(read_records("invig", path))


def test_a_limit_can_be_raised_as_the_message_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(tmp_path / "x.zip", {"1.png": encoded(1)})
    rows = tmp_path / "x.jsonl"
    rows.write_bytes(json_lines([dialog(1)]))
    for variable in ("OFA_MAX_PICTURE_BYTES", "OFA_MAX_LINE_BYTES"):
        monkeypatch.setenv(variable, "50")
    with refused("image 1.png in .* has [0-9]+ bytes, more than 50"):
        load(path)
    with refused("x.jsonl:1: the line has more than 50 bytes"):
        list(read_records("invig", rows))
    for variable in ("OFA_MAX_PICTURE_BYTES", "OFA_MAX_LINE_BYTES"):
        monkeypatch.setenv(variable, "100000")
    load(path)
    assert len(list(read_records("invig", rows))) == 1
    monkeypatch.setenv("OFA_MAX_LINE_BYTES", "many")
    with refused(r"\$OFA_MAX_LINE_BYTES should be a positive whole number, not 'many'"):
        list(read_records("invig", rows))


# --- nesting and numbers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a":' * 10**5, "[" + "9" * 10**5 + "]"], ids=["[", "{", "9"])
def test_json_that_python_cannot_read(tmp_path: Path, text: str) -> None:
    directory = Path(shutil.copytree(small_vocabulary_dir(), tmp_path / "vocabulary"))
    (directory / "encoder.json").write_text(text)
    with refused(r"encoder\.json: not JSON that can be read \("):
        Tokenizer.from_dir(directory)
    (tmp_path / "x.jsonl").write_text(text)
    with refused(r"x\.jsonl:1: not JSON"):
        list(read_records("invig", tmp_path / "x.jsonl"))
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "state.json").write_text(text)
    with refused(r"state\.json is not what Dataset\.save_to_disk writes"):
        list(read_records("invig", shards))


def test_a_vocabulary_file_of_a_gigabyte(tmp_path: Path) -> None:
    directory = Path(shutil.copytree(small_vocabulary_dir(), tmp_path / "vocabulary"))
    os.truncate(directory / "dict.txt", 1024**3)
    with refused(r"dict\.txt: has more than 16,777,216 bytes; set \$OFA_MAX_TEXT_BYTES to more if it is meant"):
        Tokenizer.from_dir(directory)


# --- what never ends -----------------------------------------------------------------------------------------------


def test_named_pipes_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_files, "_PIPE_SECONDS", 0.1)
    for name in ("x.png", "x.jsonl", "x.parquet", "x.arrow", "x.zip", "x.toml"):
        os.mkfifo(tmp_path / name)
    message = r"x\.[a-z]+ is a named pipe"
    for kind in ("jsonl", "parquet", "arrow"):
        with refused(message):
            list(read_records("invig", tmp_path / f"x.{kind}"))
    with refused(message):
        load(tmp_path / "x.zip")
    with refused("image x.png"):
        load(tmp_path, "x.png")
    with refused(message):
        TrainingSettings.from_toml(tmp_path / "x.toml")


def test_a_named_pipe_to_which_somebody_writes_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jsonl")
    rows = json_lines([dialog(number) for number in range(3)])
    writer = threading.Thread(target=lambda: (tmp_path / "x.jsonl").write_bytes(rows))
    writer.start()
    assert [record.id for record in read_records("invig", tmp_path / "x.jsonl")] == ["i0", "i1", "i2"]
    writer.join(20)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no /dev/zero")
def test_devices_are_not_read() -> None:
    with refused("is a device; a file is expected here"):
        load(Path("/dev/zero"))
    with refused("is a device"):
        TrainingSettings.from_toml(Path("/dev/zero"))


def test_a_sparse_member_of_a_tar_is_no_picture(tmp_path: Path) -> None:
    """Its bytes lie apart, with holes between them."""
    header = tarfile.TarInfo("1.png")
    header.type, header.size = tarfile.GNUTYPE_SPARSE, 512
    content = io.BytesIO(header.tobuf(tarfile.GNU_FORMAT) + bytes(512 + 1024))
    (tmp_path / "x.tar").write_bytes(content.getvalue())
    with refused(r"image 1\.png does not exist, nor is it in"):
        load(tmp_path / "x.tar")
