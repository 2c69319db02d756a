"""The notebooks run in any directory, and are stored with what they show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from reference import ROOT, script

EXAMPLES = ROOT / "examples"
NOTEBOOKS = ("first_steps", "dialog", "fine_tuning", "benchmark", "drawing")
#: What is shorter in tests: the notebook shows what training teaches, here it only has to run.
SHORTER = {
    "STEPS = 120": "STEPS = 2",
    "range(1000, 1500)": "range(1000, 1040)",
    "range(100)": "range(12)",
    "count=60": "count=12",
}


def cells(name: str) -> list[dict[str, Any]]:
    stored: list[dict[str, Any]] = json.loads((EXAMPLES / f"{name}.ipynb").read_text("utf-8"))["cells"]
    return stored


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_in_an_empty_directory(name: str, tmp_path: Path) -> None:
    pytest.importorskip("nbclient", reason="nbclient is not installed: pip install nbclient ipykernel")
    content = script("run_notebooks").run(EXAMPLES / f"{name}.ipynb", tmp_path, SHORTER)
    assert all(cell.execution_count for cell in content.cells if cell.cell_type == "code")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_stored_with_what_it_shows(name: str) -> None:
    code = [cell for cell in cells(name) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "run `make notebooks`"
    for cell in code:
        source = "".join(cell["source"])
        shows = "print(" in source.rpartition("def ")[2] or source.splitlines()[-1].startswith(("picture", "draw_box"))
        assert not shows or cell["outputs"], source
        assert not any(output["output_type"] == "error" for output in cell["outputs"])
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell["outputs"])


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_says_what_the_demo_model_is_and_how_to_take_another(name: str) -> None:
    first = "".join(cells(name)[0]["source"])
    assert "drawn shapes" in first
    assert '`"demo"`' in first


def test_what_is_shorter_in_tests_stands_in_the_notebooks() -> None:
    sources = "".join("".join(cell["source"]) for name in NOTEBOOKS for cell in cells(name))
    assert [old for old in SHORTER if old not in sources] == []
