"""The README's Python examples run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from reference import ROOT, script

from checkpoints_convert import convert
from ofa_core import OFA
from ofa_core.bench.tasks import TASKS
from ofa_core.checkpoint.names import DEMO_CHECKPOINT
from ofa_core.training.settings import DataSettings, TrainingSettings
from ofa_core.training.sources import LESSONS
from ofa_core.utils.toml_files import read_toml


def test_the_python_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    demo = script("demo")
    (tmp_path / "demo_output").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    convert(DEMO_CHECKPOINT, "demo_output/ofa")
    for name in ("picture.png", "result.png"):
        demo.draw_picture().save(Path("demo_output") / name)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) >= 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_the_training_example_is_a_valid_run(tmp_path: Path) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    (tmp_path / "refcoco.toml").write_text(block)
    settings = TrainingSettings.from_toml(tmp_path / "refcoco.toml")
    assert [data.task in LESSONS for data in settings.data] == [True, True]
    assert [benchmark.task in TASKS for benchmark in settings.evaluation] == [True]


def test_the_readme_names_everything_that_can_be_learned_and_benchmarked() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in (*LESSONS, *TASKS) if f"`{name}`" not in text] == []


def test_the_tables_of_tasks_are_those_of_the_code() -> None:
    tables = script("task_tables")
    for path in (tables.README, tables.PAGE):
        text = path.read_text(encoding="utf-8")
        assert tables.with_tables(text) == text, f"run scripts/task_tables.py: {path.name} differs"
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("<!-- tasks: methods -->") == 1


def test_the_table_of_methods_has_every_method() -> None:
    tables = script("task_tables")
    named = {method.partition("(")[0] for method, _, _ in tables.METHODS}
    public = {name for name, value in vars(OFA).items() if callable(value) and not name.startswith("_")}
    assert named == public - {"refresh", "save", "push_to_hub"}


def test_the_recipe_of_pretraining_is_a_valid_run(tmp_path: Path) -> None:
    own, block = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "tasks.md").read_text("utf-8"), flags=re.DOTALL)
    (tmp_path / "own.toml").write_text(own)
    assert [DataSettings.model_validate(table).task for table in read_toml(tmp_path / "own.toml")["data"]] == ["custom"]
    (tmp_path / "pretrain.toml").write_text(block)
    settings = TrainingSettings.from_toml(tmp_path / "pretrain.toml")
    assert [data.task for data in settings.data] == [name for name in LESSONS if name.startswith("pretrain")]
    assert settings.data[0].negatives == tmp_path / "negative_sample"
