"""The tour notebook runs, and shows everything that OFA can do."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from reference import ROOT

from ofa_core import OFA

NOTEBOOK = ROOT / "examples" / "tour.ipynb"
#: Public methods that the tour leaves out, and why.
NOT_SHOWN = {
    "to": "there is one device",
    "head_probabilities": "the demo model has no classification head",
    **dict.fromkeys(("refresh", "warm_up"), "they show nothing"),
    **dict.fromkeys(
        ("imagine", "infill", "encode_image", "decode_codes"), "the demo model has no network of image codes"
    ),
    "push_to_hub": "it needs an account",
}


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_every_cell_of_the_tour_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
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


def test_the_notebook_is_stored_with_what_it_prints() -> None:
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    for cell in cells:
        if cell["cell_type"] == "code" and "print(" in "".join(cell["source"]):
            assert cell["outputs"], "run `make notebooks`"
