"""Default paths: what a directory or the user's settings name for a format, in which order, and what is wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from reference import ROOT

from ofa_core.data.default_paths import PICTURES, ROWS, DefaultData, default_data, settings_path, ways_to_name
from ofa_core.data.records import Format
from ofa_core.errors import OFAError


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("OFA_DATA", "OFA_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def touched(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def settings(directory: Path, text: str) -> Path:
    path = directory / "config" / "ofa_core.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_nothing_is_named_unless_it_was(tmp_path: Path) -> None:
    assert [default_data(format) for format in get_args(Format)] == [None] * len(get_args(Format))


@pytest.mark.parametrize(
    ("format", "names", "taken"),
    [
        ("invig", ["invig.jsonl"], "invig.jsonl"),
        ("invig", ["invig/invig.jsonl", "invig/other.txt"], "invig/invig.jsonl"),
        ("invig", ["invig.jsonl", "invig/invig.test.jsonl"], "invig/invig.test.jsonl"),
        ("invig", ["invig/data/test-00000-of-00001.parquet"], "invig/data/test-00000-of-00001.parquet"),
        ("invig", ["invig/part-0.parquet"], "invig"),
        ("guesswhat", ["guesswhat.jsonl", "guesswhat.test.jsonl.gz"], "guesswhat.test.jsonl.gz"),
        ("refcoco", ["refcoco/refs(unc).p"], "refcoco/refs(unc).p"),
        ("sst2", ["sst2.tsv"], "sst2.tsv"),
    ],
)
def test_the_first_name_of_the_table_that_is_there_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: Any, names: list[str], taken: str
) -> None:
    touched(*(tmp_path / name for name in names), tmp_path / "unknown.jsonl")
    monkeypatch.setenv("OFA_DATA", str(tmp_path))
    assert default_data(format) == DefaultData(format, tmp_path / taken, None, "$OFA_DATA")


@pytest.mark.parametrize("pictures", ["openimages", "invig/openimages.zip", "invig/images", "invig/images.zip"])
def test_pictures_come_with_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: str) -> None:
    touched(tmp_path / "invig.jsonl", tmp_path / pictures, tmp_path / "images.zip")
    monkeypatch.setenv("OFA_DATA", str(tmp_path))
    found = default_data("invig")
    assert found is not None
    assert found.images == tmp_path / pictures
    assert str(found) == f"invig rows: {tmp_path / 'invig.jsonl'}, pictures {tmp_path / pictures} (from $OFA_DATA)"


def test_a_directory_that_is_none_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFA_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(OFAError, match=r"\$OFA_DATA is .*nowhere, which is no directory"):
        default_data("invig")


def test_settings_name_rows_and_pictures_from_where_they_stand(tmp_path: Path) -> None:
    path = settings(
        tmp_path, f'[data]\ninvig = "mine.jsonl"\nsst2 = "{tmp_path}/x.tsv"\n[images]\ninvig = "../photos"\n'
    )
    touched(path.parent / "mine.jsonl", tmp_path / "x.tsv", tmp_path / "photos" / "1.png")
    images = path.parent / "../photos"
    assert default_data("invig") == DefaultData("invig", path.parent / "mine.jsonl", images, str(path))
    assert default_data("sst2") == DefaultData("sst2", tmp_path / "x.tsv", None, str(path))
    assert default_data("refcoco") is None


def test_a_home_may_be_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    settings(tmp_path, '[data]\ninvig = "~/mine.jsonl"\n')
    touched(tmp_path / "mine.jsonl")
    found = default_data("invig")
    assert found is not None
    assert found.path == tmp_path / "mine.jsonl"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert settings_path() == tmp_path / ".config" / "ofa_core.toml"


def test_the_directory_comes_before_the_settings_which_fill_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = settings(tmp_path, '[data]\ninvig = "a.jsonl"\nsst2 = "b.tsv"\n')
    touched(path.parent / "a.jsonl", path.parent / "b.tsv", tmp_path / "data" / "invig.jsonl")
    monkeypatch.setenv("OFA_DATA", str(tmp_path / "data"))
    assert [found.source for format in ("invig", "sst2") if (found := default_data(format))] == ["$OFA_DATA", str(path)]


def test_a_variable_names_other_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings(tmp_path, '[data]\ninvig = "nowhere"\n')
    monkeypatch.setenv("OFA_CONFIG", str(tmp_path / "other.toml"))
    with pytest.raises(OFAError, match=r"\$OFA_CONFIG is .*other.toml, which does not exist"):
        default_data("invig")
    (tmp_path / "other.toml").write_text('[data]\ninvig = "there.jsonl"\n')
    touched(tmp_path / "there.jsonl")
    found = default_data("invig")
    assert found is not None
    assert found.path == tmp_path / "there.jsonl"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[data]\ninvig = "nowhere.jsonl"', r"\[data\] names nowhere.jsonl for invig, which does not exist"),
        (
            '[data]\ninvig = "ofa_core.toml"\n[images]\ninvig = "no"',
            r"\[images\] names no for invig, which does not exist",
        ),
        ('[data]\nchess = "x"', r"\[data\] names 'chess'; formats are guesswhat, invig"),
        ("[images]\nchess = 3", r"\[images\] names 'chess'"),
        ("data = 3", "data: "),
        ("[data]\ninvig = 3", r"data\.invig"),
        ("[date]\n", "date: there is no such setting"),
        ("[data", "cannot be read"),
        ("", ""),
    ],
)
def test_settings_that_are_wrong_are_named(tmp_path: Path, text: str, problem: str) -> None:
    path = settings(tmp_path, text)
    if not problem:
        assert default_data("invig") is None
        return
    with pytest.raises(OFAError, match=f"^{re.escape(str(path))}.*{problem}") as error:
        default_data("invig")
    assert "\n" not in str(error.value)


def test_both_ways_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = ways_to_name("invig")
    assert told.startswith("$OFA_DATA (a directory with invig.test.jsonl or")
    assert told.endswith(f'or invig = "PATH" under [data] in {tmp_path}/config/ofa_core.toml')
    monkeypatch.setenv("OFA_DATA", str(tmp_path))
    assert ways_to_name("invig").startswith(f"$OFA_DATA ({tmp_path} holds no invig.test.jsonl or")


def test_the_table_is_in_the_documentation() -> None:
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    for table in (ROWS, PICTURES):
        for format, names in table.items():
            (line,) = re.findall(rf"^\| `{format}` \| `.*$", text, flags=re.MULTILINE)
            assert all(f"`{name}`" in line for name in names), line
