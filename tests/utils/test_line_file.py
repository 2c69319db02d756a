"""Files of lines: whole lines stay, whatever ends the process that writes them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ofa_core import OFAError
from ofa_core.utils.line_file import LineFile, whole_lines


def test_lines_are_appended_behind_what_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "inner" / "a.jsonl"
    with LineFile(path) as file:
        file.append("one\ntwo\n")
        file.append("thr\n")
    path.write_bytes(path.read_bytes() + b"cut o")
    assert list(whole_lines(path)) == [(1, b"one\n"), (2, b"two\n"), (3, b"thr\n")]
    with LineFile(path) as file:
        file.keep(8)
        file.append("drei\n")
    assert path.read_bytes() == b"one\ntwo\ndrei\n"


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    with LineFile(tmp_path / "a"), pytest.raises(OFAError, match="a"):
        LineFile(tmp_path / "a")


def test_a_full_disk_leaves_whole_lines_and_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite

    def write_half(file: int, content: bytes, place: int) -> int:
        if len(content) < 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, content[: len(content) // 2], place)

    with LineFile(tmp_path / "a") as file:
        file.append("one\n")
        monkeypatch.setattr(os, "pwrite", write_half)
        with pytest.raises(OSError, match="No space left") as caught:
            file.append("a line that is longer\n")
    assert caught.value.filename == str(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"one\n"
