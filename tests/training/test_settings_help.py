"""Help names every setting with its meaning and default; the recipes that it offers are runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from ofa_core import OFAError
from ofa_core.bench.tasks import TASKS
from ofa_core.cli.main import main
from ofa_core.config import OFAConfig
from ofa_core.training import settings
from ofa_core.training.settings import TrainingSettings
from ofa_core.training.settings_help import TABLES, help_text, recipe_names, recipe_text, settings_of
from ofa_core.training.sources import LESSONS

#: What the original's scripts set, by recipe: peak rate, examples a step on one process, and how long.
PUBLISHED = {
    "refcoco": (3e-5, 32, ("epochs", 10)),
    "caption": (1e-5, 32, ("epochs", 2)),
    "vqa": (5e-5, 16, ("steps", 40000)),
    "guesswhat": (3e-5, 4, ("epochs", 10)),
    "invig": (3e-5, 4, ("epochs", 10)),
    "tio": (3e-5, 4, ("epochs", 10)),
    "custom": (3e-5, 8, ("epochs", 5)),
}


@pytest.mark.parametrize("table", TABLES)
def test_every_setting_has_a_meaning(table: str) -> None:
    told = settings_of(table)
    assert [setting.name for setting in told] == list(getattr(settings, TABLES[table]).model_fields)
    assert [setting.name for setting in told if len(setting.meaning) < 10] == []


@pytest.mark.parametrize("table", TABLES)
def test_every_default_is_the_one_that_counts(table: str) -> None:
    fields = getattr(settings, TABLES[table]).model_fields
    for setting in settings_of(table):
        field = fields[setting.name]
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        table_of_its_own = default is None or isinstance(default, BaseModel)
        assert setting.default == ("" if table_of_its_own else json.dumps(default)), setting.name


def test_help_names_all_of_them_with_both_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert printed.endswith(help_text())
    names = {setting.name for table in TABLES for setting in settings_of(table)}
    assert {name for name in names if not re.search(rf"^    {name}\b", printed, re.MULTILINE)} == set()
    assert 'decay = "matrices" (ofa: "all")' in printed
    assert "label_smoothing = 0.1\n" in printed
    assert "`" not in printed


def test_recipes_are_those_that_are_told_of() -> None:
    assert recipe_names() == sorted(PUBLISHED)


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_a_run_with_the_published_settings(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--example", name]) == 0
    (tmp_path / "my.toml").write_text(capsys.readouterr().out)
    run = TrainingSettings.from_toml(tmp_path / "my.toml")
    assert run.recipe == "ofa"
    rate, examples, (unit, length) = PUBLISHED[name]
    assert (run.optimizer.lr, run.batch_size * run.accumulate, getattr(run, unit)) == (rate, examples, length)
    assert (run.optimizer.betas, run.optimizer.weight_decay, run.optimizer.clip_norm) == ((0.9, 0.999), 0.01, 1.0)
    assert {data.task for data in (*run.data, *run.held_out)} <= LESSONS.keys()
    assert {benchmark.task for benchmark in run.evaluation} <= TASKS.keys()
    assert run.evaluation or run.held_out
    assert run.config.keys() - {"task"} <= OFAConfig.model_fields.keys()
    assert run.ema_embedding == 1, "half precision averages the embedding once"


def test_what_there_is_not_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OFAError, match="there is no example 'coco'; there are caption, custom, guesswhat, "):
        recipe_text("coco")
    assert main(["train"]) == 2
    assert capsys.readouterr().err == "ofa-core: train takes a CONFIG.toml, or --example NAME, which prints one\n"
