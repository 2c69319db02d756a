"""A run's settings: read from TOML, checked before anything is loaded, relative to their file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from training.made import settings

from ofa_core import OFAError
from ofa_core.data.read_options import ReadOptions
from ofa_core.training.recipe import ORIGINAL
from ofa_core.training.settings import TrainingSettings, setting_defaults

TOML = """
model = "models/base"
out = "runs/one"
steps = 10

[[data]]
task = "refcoco_grounding"
path = "data/train.tsv"
images = "/pictures"
weight = 2

[[data]]
task = "shapes"

[loss]
answers = "answers.txt"
"""


def as_json(value: object) -> object:
    return json.loads(json.dumps(value))


def written(directory: Path, text: str) -> Path:
    path = directory / "run.toml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    read = TrainingSettings.from_toml(written(tmp_path, TOML))
    assert read.model == tmp_path / "models/base"
    assert read.out == tmp_path / "runs/one"
    assert [data.path for data in read.data] == [tmp_path / "data/train.tsv", None]
    assert read.data[0].images == Path("/pictures")
    assert read.loss.answers == tmp_path / "answers.txt"
    assert read.data[0].weight == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps = 10", "", r"run\.toml: one of steps and epochs is needed"),
        ("steps = 10", "steps = 10\nepochs = 2", r"run\.toml: one of steps and epochs is needed"),
        ("steps = 10", 'steps = 10\nrecipe = "old"', r"run\.toml: recipe: .*'ofa' or 'modern'"),
        ("steps = 10", "steps = 0", r"run\.toml: steps: .*greater than 0"),
        ("steps = 10", "steps = 10\nstep = 3", r"run\.toml: step: there is no such setting"),
        ('model = "models/base"', "", "one of model and new_model is needed"),
        ('model = "models/base"', 'model = "x"\nnew_model = {config = {}}', "one of model and new_model is needed"),
        ("weight = 2", "weight = 0", r"data\.0\.weight: .*greater than 0"),
        ("weight = 2", "share = 2", r"data\.0\.share: there is no such setting"),
        ("[loss]", "[loss]\nlabel_smoothing = 1", r"loss\.label_smoothing: .*less than 1"),
        ("steps = 10", 'steps = 10\nfreeze = ["head"]', r"freeze\.0: .*'stem'"),
        ("steps = 10", "steps = ", r"run\.toml cannot be read: Invalid value"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TOML
    with pytest.raises(OFAError, match=message):
        TrainingSettings.from_toml(written(tmp_path, TOML.replace(old, new)))


def test_options_of_reading_are_settings_of_a_source(tmp_path: Path) -> None:
    usual = TrainingSettings.from_toml(written(tmp_path, TOML))
    assert usual.data[0].read_options == ReadOptions()
    assert "keep_last_turn" not in usual.fingerprint(), "runs that began before there was such a setting go on"
    more = 'weight = 2\nlanguage = "cn"\nboxes = "fractions"\nkeep_last_turn = true\nsplit = "val"'
    changed = TrainingSettings.from_toml(written(tmp_path, TOML.replace("weight = 2", more)))
    assert changed.data[0].read_options == ReadOptions("cn", "fractions", True, "val")
    assert changed.fingerprint() != usual.fingerprint()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OFAError, match=r"missing\.toml cannot be read"):
        TrainingSettings.from_toml(tmp_path / "missing.toml")


def test_a_run_is_the_same_wherever_it_is_written_but_not_with_other_data(tmp_path: Path) -> None:
    one = settings(tmp_path)
    assert one.fingerprint() == settings(tmp_path / "other", save_every=7, workers=3).fingerprint()
    for changed in ({"seed": 2}, {"steps": 7}, {"batch_size": 3}, {"loss": {"rdrop": 1.0}}):
        assert one.fingerprint() != settings(tmp_path, **changed).fingerprint()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer = { rate = 1e-4 }", "optimizer: rate is called lr now"),
        (
            "new_model = { config = {}, alike_attend = true }",
            "new_model: alike_attend is called keys_from_queries now",
        ),
    ],
)
def test_old_names_of_settings_say_the_new_ones(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(OFAError, match=message):
        TrainingSettings.from_toml(written(tmp_path, f"{text}\n{TOML}"))


def test_a_recipe_is_a_table_of_defaults_below_what_is_set(tmp_path: Path) -> None:
    given = {"model": "x", "new_model": None, "optimizer": {"lr": 1e-3, "decay": "matrices"}, "ema_start": 7}
    tuned = settings(tmp_path, **given)
    assert tuned.recipe == "ofa"
    assert (tuned.optimizer.eps_rule, tuned.optimizer.decay, tuned.ema_start) == ("uncorrected", "matrices", 7)
    assert (tuned.loss.rdrop_rule, tuned.freeze, tuned.ema_embedding) == ("original", ("as_original",), 3)
    assert settings(tmp_path, autocast="float16", model="x", new_model=None).ema_embedding == 1
    assert settings(tmp_path).recipe == "modern"
    assert settings(tmp_path).optimizer.eps_rule == settings(tmp_path).optimizer.eps_rule == "corrected"
    assert tuned.beside(tmp_path).optimizer == tuned.optimizer
    again = type(tuned).model_validate(tuned.model_dump())
    assert again == tuned, "what a model's directory tells of its training is the same run"


def test_every_setting_of_a_recipe_is_one_that_differs(tmp_path: Path) -> None:
    defaults = setting_defaults()
    assert {name for name, value in ORIGINAL.items() if as_json(value) == defaults[name]} == set()
    modern, original = (settings(tmp_path, model="x", new_model=None, recipe=recipe) for recipe in ("modern", "ofa"))
    for name, value in ORIGINAL.items():
        for run, wanted in ((modern, defaults[name]), (original, value)):
            table, _, leaf = name.rpartition(".")
            assert as_json(getattr(getattr(run, table) if table else run, leaf)) == as_json(wanted)


def test_runs_that_began_before_there_were_recipes_are_modern_ones(tmp_path: Path) -> None:
    told = json.loads(settings(tmp_path, model="x", new_model=None, recipe="modern").fingerprint())
    for name in ("recipe", "ema_start", "ema_embedding", "epochs", "freeze_batch_norm_affine", "channels_last"):
        assert name not in told
    assert not told["optimizer"].keys() & {"decay", "eps_rule", "warmup_from_zero", "end_lr"}
    assert not told["loss"].keys() & {"rdrop_rule", "drop_worst_rule", "ignore_eos", "per_sentence"}
    assert told["freeze"] == []
    assert told != json.loads(settings(tmp_path, model="x", new_model=None).fingerprint())
