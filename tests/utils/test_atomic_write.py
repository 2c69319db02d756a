"""Files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from ofa_core.utils.atomic_write import atomic_path, atomic_write_text


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
