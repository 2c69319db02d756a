"""Benchmarks while training, and the command that starts a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench import made
from bench.made import header
from training.made import picture, settings

from ofa_core import OFAError, load
from ofa_core.bench.results import iter_rows
from ofa_core.bench.summary import summarize
from ofa_core.cli.main import main
from ofa_core.demo.files import write_dataset
from ofa_core.training.evaluation import score_to_raise
from ofa_core.training.run import make_trainer, train


def test_scores_are_those_of_the_benchmark_and_choose_the_best_model(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", 4)
    benchmarks = [
        {
            "task": "guesswhat_oracle",
            "path": tmp_path / "data/guesswhat.test.jsonl.gz",
            "images": tmp_path / "data/images",
        },
        {"task": "refcoco_grounding", "path": tmp_path / "data/names.tsv", "limit": 2},
    ]
    train(settings(tmp_path / "run", steps=2, evaluation=benchmarks, evaluate_every=1, ema=0.5))
    rows = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    scores = [row for row in rows if "loss" not in row]
    assert [row["step"] for row in scores] == [1, 2]
    assert set(scores[0]) == {"step", "guesswhat_oracle/guesswhat.test.jsonl", "refcoco_grounding/names"}
    results = sorted((tmp_path / "run/evaluation/guesswhat_oracle/step-2").glob("*.jsonl"))
    _, answered = iter_rows(results[-1])
    right = [row.output[0] == row.target[0] for row in answered]
    assert scores[1]["guesswhat_oracle/guesswhat.test.jsonl"] == pytest.approx(sum(right) / len(right), abs=1e-6)
    assert load(tmp_path / "run/best").model.config == load(tmp_path / "run/last").model.config


def test_a_benchmark_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(OFAError, match="there is no benchmark 'oracle'; there are refcoco_grounding"):
        make_trainer(settings(tmp_path, evaluation=[{"task": "oracle", "path": "x"}]))


RECIPE = """
out = "run"
steps = 1
batch_size = 1
workers = 0
[new_model.config]
embed_dim = 32
ffn_dim = 32
encoder_layers = 1
decoder_layers = 1
num_heads = 2
stem_depths = [1, 1, 1]
task = {image_size = 64, max_image_size = 64, code_dict_size = 0}
[[data]]
task = "shapes"
options = {weights = {caption = 1}}
"""


def test_the_command_trains_and_says_where_the_model_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.toml").write_text(RECIPE)
    assert main(["train", str(tmp_path / "x.toml")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"the model is in {tmp_path}/run/last",
        f'next: ofa-core ground PHOTO "the dog on the left" --model {tmp_path}/run/last',
    ]
    assert load(tmp_path / "run/last").caption(picture("red")) is not None
    assert main(["train", str(tmp_path / "missing.toml")]) == 2
    assert "missing.toml cannot be read" in capsys.readouterr().err


def test_the_best_model_is_the_one_whose_questions_are_likely() -> None:
    likely, unlikely = (
        summarize(header("invig_question"), [made.row(0, log_probs=(value,), box=None, found=None, iou=None)])
        for value in (-1.0, -2.0)
    )
    assert likely.headline.value < unlikely.headline.value
    assert score_to_raise(likely) > score_to_raise(unlikely)
    found = summarize(header(), made.rows(5))
    assert score_to_raise(found) == found.headline.value


def test_any_number_of_boxes_may_be_said_where_the_evaluation_lets_them(tmp_path: Path) -> None:
    picture("red").save(tmp_path / "1.png")
    row = {"image": "1.png", "text": "both", "boxes": [[8, 16, 40, 48], [0, 0, 32, 32]]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    files = {"task": "grefcoco", "path": tmp_path / "rows.jsonl", "images": tmp_path}
    changes = {"steps": 80, "save_every": 80, "config": {"dropout": 0.0}, "optimizer": {"lr": 5e-3}}
    train(settings(tmp_path / "run", data=[files], evaluation=[files | {"max_new_tokens": 12}], **changes))
    (results,) = (tmp_path / "run/evaluation/grefcoco/step-80").glob("*.jsonl")
    header, rows = iter_rows(results)
    assert header.settings["max_new_tokens"] == 12
    (said,) = rows
    assert (said.output, len(said.detected)) == (said.target, 2)
