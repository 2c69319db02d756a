"""Every file of a run is looked at before a model is loaded."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import pytest
from training.made import settings

from ofa_core import OFAError
from ofa_core.demo.files import write_dataset
from ofa_core.training import run as run_module
from ofa_core.training.run import make_trainer

GAMES = "guesswhat.test.jsonl.gz"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "data", 3)
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def _nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "_begin", lambda _: pytest.fail("a model was loaded"))


def damaged(path: Path) -> Path:
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content)[:-20])
    return path


def without_pictures(data: Path) -> Path:
    for path in (data / "images").iterdir():
        path.unlink()
    return data / GAMES


BENCHMARKS: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"path": "{data}/none.jsonl"}, r"data .*none\.jsonl does not exist"),
    "of another kind": ({"path": "{data}/names.tsv"}, r"names\.tsv: guesswhat rows come in \.jsonl"),
    "of another format": (
        {"path": "{data}/invig.test.jsonl"},
        r"invig\.test\.jsonl holds no sample of guesswhat_oracle that can be used; the first problem is .*:1: dialog",
    ),
    "no pictures' directory": ({"images": "{data}/none"}, r"images .*none does not exist"),
    "no archive": ({"images": "{data}/names.tsv"}, r"names\.tsv cannot be read as a directory, a \.zip, \.tar"),
    "without pictures": (
        {"images": None},
        "no sample .* that can be used; the first problem is .*0.*png does not exist",
    ),
}


@pytest.mark.parametrize("case", BENCHMARKS)
def test_a_benchmark_that_could_not_be_run_is_refused_at_once(data: Path, tmp_path: Path, case: str) -> None:
    changes, said = BENCHMARKS[case]
    given = {"task": "guesswhat_oracle", "path": data / GAMES, "images": data / "images"} | {
        name: value and value.format(data=data) for name, value in changes.items()
    }
    with pytest.raises(OFAError, match=said):
        make_trainer(settings(tmp_path / "run", evaluation=[given]))


def test_a_benchmark_that_is_damaged_further_on_is_refused_at_once(data: Path, tmp_path: Path) -> None:
    given = {"task": "guesswhat_oracle", "path": damaged(data / GAMES), "images": data / "images"}
    with pytest.raises(OFAError, match=r"cannot be read on after line \d+: Compressed file ended"):
        make_trainer(settings(tmp_path / "run", evaluation=[given]))


@pytest.mark.parametrize("skip_bad", [False, True])
def test_rows_to_learn_from_are_looked_at_until_a_picture_is_found(data: Path, tmp_path: Path, skip_bad: bool) -> None:
    source = {"task": "guesswhat_oracle", "path": data / GAMES, "images": data / "images", "skip_bad": skip_bad}

    def said() -> str:
        with pytest.raises((OFAError, pytest.fail.Exception)) as found:
            make_trainer(settings(tmp_path / "run", data=[source]))
        return str(found.value)

    assert said() == "a model was loaded"
    first = min((data / "images").iterdir())
    first.write_bytes(b"no picture")
    assert (said() == "a model was loaded") == skip_bad
    without_pictures(data)
    assert re.search("holds no rows to learn from; the first problem is " if skip_bad else "does not exist", said())


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": {"answers": "none.txt"}},
        {"data": [{"task": "caption", "path": "none.txt"}]},
        {"data": [{"task": "shapes"}, {"task": "vqa", "path": "none.txt"}]},
    ],
    ids=["answers", "data", "second source"],
)
def test_other_files_are_looked_at_too(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(OFAError, match=r"none\.txt does not exist"):
        make_trainer(settings(tmp_path / "run", **changes))
