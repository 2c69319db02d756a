"""The tour notebook runs, and shows everything that OFA can do."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from reference import ROOT, script

from checkpoints_convert import convert
from ofa_core import OFA
from ofa_core.checkpoint.names import DEMO_CHECKPOINT

NOTEBOOK = ROOT / "examples" / "tour.ipynb"
#: Public methods that the tour leaves out, and why.
NOT_SHOWN = {
    "head_probabilities": "the demo model has no classification head",
    "refresh": "it shows nothing",
    **dict.fromkeys(
        ("imagine", "infill", "encode_image", "decode_codes"), "the demo model has no network of image codes"
    ),
    "push_to_hub": "it needs an account",
}


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.fixture
def demo_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `make demo` writes, in a working directory of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    directory = tmp_path / "demo_output"
    directory.mkdir()
    demo = script("demo")
    demo.draw_picture().save(directory / "picture.png")
    convert(DEMO_CHECKPOINT, directory / "ofa")
    return directory


def test_every_cell_of_the_tour_runs(demo_output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, Any] = {}
    for number, source in enumerate(code_cells()):
        exec(compile(source, f"cell {number} of {NOTEBOOK.name}", "exec"), namespace)
        printed = capsys.readouterr().out
        assert bool(printed.strip()) == ("print(" in source), f"cell {number}"
    assert isinstance(namespace["ofa"], OFA)


def test_the_tour_shows_every_method() -> None:
    source = "\n".join(code_cells())
    public = {name for name, _ in inspect.getmembers(OFA, inspect.isfunction) if not name.startswith("_")}
    assert set(NOT_SHOWN) <= public
    missing = {name for name in public - set(NOT_SHOWN) if not re.search(rf"\bofa\.{name}\(", source)}
    assert not missing
    shown = {name for name in NOT_SHOWN if f"ofa.{name}(" in source}
    assert not shown, "listed as left out"


def test_the_tour_names_what_make_demo_writes(demo_output: Path) -> None:
    named = set(re.findall(r"\"(demo_output/[^\"]+)\"", "\n".join(code_cells())))
    assert named
    for path in named:
        assert (demo_output.parent / path).exists(), path


def test_the_notebook_is_stored_without_results() -> None:
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
