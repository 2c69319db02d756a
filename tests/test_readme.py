"""The README's Python examples run as they stand."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from reference import ROOT, script

from ofa_core import OFA
from ofa_core.training.setting_tables import DataSettings
from ofa_core.training.settings import TrainingSettings
from ofa_core.training.sources import LESSONS
from ofa_core.utils.toml_files import read_toml

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_prints_what_stands_below_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ((code, printed),) = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", TEXT, flags=re.DOTALL)
    exec(code, {})
    assert capsys.readouterr().out == printed


def test_it_is_short_and_its_links_lead_somewhere() -> None:
    assert len(TEXT.splitlines()) <= 150
    links = re.findall(r"(?:\]\(|src=\")(?!http)([^)#\"]+)", TEXT)
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_tables_of_tasks_are_those_of_the_code() -> None:
    tables = script("task_tables")
    for path in tables.PAGES:
        text = path.read_text(encoding="utf-8")
        assert tables.with_tables(text) == text, f"run scripts/task_tables.py: {path.name} differs"
    reference = (ROOT / "docs" / "reference" / "ofa.md").read_text(encoding="utf-8")
    assert reference.count("<!-- tasks: methods -->") == 1


def test_the_table_of_methods_has_every_method() -> None:
    tables = script("task_tables")
    named = {method.partition("(")[0] for method, _, _ in tables.METHODS}
    public = {name for name, _ in inspect.getmembers(OFA, inspect.isfunction) if not name.startswith("_")}
    assert named == public - {"refresh", "warm_up", "save", "push_to_hub", "to"}


def test_the_recipe_of_pretraining_is_a_valid_run(tmp_path: Path) -> None:
    own, block = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "tasks.md").read_text("utf-8"), flags=re.DOTALL)
    (tmp_path / "own.toml").write_text(own)
    assert [DataSettings.model_validate(table).task for table in read_toml(tmp_path / "own.toml")["data"]] == ["custom"]
    (tmp_path / "pretrain.toml").write_text(block)
    settings = TrainingSettings.from_toml(tmp_path / "pretrain.toml")
    assert [data.task for data in settings.data] == [name for name in LESSONS if name.startswith("pretrain")]
    assert settings.data[0].negatives == tmp_path / "negative_sample"
