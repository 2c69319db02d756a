"""Files appear whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from reference import quick_config, random_state

from ofa_core import Tokenizer
from ofa_core.checkpoint.model_dir import save_directory
from ofa_core.text import small_vocabulary_dir
from ofa_core.training.state import save_state
from ofa_core.utils.atomic_write import atomic_path, atomic_write_text

CONFIG = quick_config()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.txt"
    atomic_write_text(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    with pytest.raises(UnicodeEncodeError):
        atomic_write_text(path, "half \ud800")
    assert path.read_bytes() == "é\n".encode()
    assert [p.name for p in path.parent.iterdir()] == ["x.txt"]


def test_what_is_written_beside_takes_its_place_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_text("old")
    with atomic_path(path) as temporary:
        assert temporary.parent.parent == tmp_path, "of one file system, so that it can be renamed"
        assert temporary.suffix == ".png", "libraries tell formats by it"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    with pytest.raises(UnicodeEncodeError), atomic_path(path) as temporary:
        temporary.write_text("half \ud800", encoding="utf-8")
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.png"]


@pytest.fixture(params=[0o022, 0o002, 0o077], ids="{:03o}".format)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_readable_as_the_umask_says(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "x.bin"
    for old in (None, 0o600):
        if old is not None:
            path.chmod(old)
        with atomic_path(path) as temporary:
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))  # as some libraries do
        assert permissions(path) == 0o666 & ~umask
    save_state(tmp_path / "state.safetensors", {"model": {"x": torch.zeros(2)}}, {})
    atomic_write_text(tmp_path / "new" / "x.txt", "x")
    assert permissions(tmp_path / "state.safetensors") == permissions(tmp_path / "new" / "x.txt") == 0o666 & ~umask
    assert permissions(tmp_path / "new") == 0o777 & ~umask


def test_a_model_directory_is_readable_as_the_umask_says(tmp_path: Path, umask: int) -> None:
    tokenizer = Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=0)
    for overwrite in (False, True):
        save_directory(tmp_path / "model", random_state(CONFIG), CONFIG, tokenizer, {}, overwrite=overwrite)
        assert permissions(tmp_path / "model") == 0o777 & ~umask
        assert {permissions(path) for path in (tmp_path / "model").iterdir()} == {0o666 & ~umask}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
