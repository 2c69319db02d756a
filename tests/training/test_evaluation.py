"""Benchmarks while training, and the command that starts a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from training.made import picture, settings

from ofa_core import OFAError, load
from ofa_core.bench.results import iter_rows
from ofa_core.cli import main
from ofa_core.demo.files import write_dataset
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
    assert capsys.readouterr().out == f"the model is in {tmp_path}/run/last\n"
    assert load(tmp_path / "run/last").caption(picture("red")) is not None
    assert main(["train", str(tmp_path / "missing.toml")]) == 2
    assert "missing.toml cannot be read" in capsys.readouterr().err


def test_a_run_can_begin_with_a_trained_model_and_new_adapters(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(RECIPE)
    main(["train", str(tmp_path / "x.toml")])
    begun = settings(
        tmp_path / "second", model=tmp_path / "run/last", new_model=None, config={"adapter_dim": 4, "dropout": 0.2}
    )
    trainer = make_trainer(begun)
    assert trainer.model.config.adapter_dim == 4
    assert trainer.model.config.dropout == 0.2
    old = load(tmp_path / "run/last").model.state_dict()
    new = trainer.model.state_dict()
    assert all(new[name].equal(tensor) for name, tensor in old.items())
    with pytest.raises(OFAError, match="the changed configuration does not fit the model's weights: "):
        make_trainer(
            settings(tmp_path / "third", model=tmp_path / "run/last", new_model=None, config={"encoder_layers": 2})
        )
    with pytest.raises(OFAError, match="the model's configuration is wrong: depth: there is no such setting"):
        make_trainer(settings(tmp_path / "third", model=tmp_path / "run/last", new_model=None, config={"depth": 2}))


def test_a_new_model_can_begin_with_a_stem_that_sees(tmp_path: Path) -> None:
    made = settings(tmp_path).new_model
    assert made is not None
    other = make_trainer(settings(tmp_path / "other", seed=9)).model.encoder.image_stem.state_dict()
    save_file({name: tensor.contiguous() for name, tensor in other.items()}, tmp_path / "stem.safetensors")
    content = made.model_dump() | {"stem": tmp_path / "stem.safetensors"}
    begun = make_trainer(settings(tmp_path / "run", new_model=content)).model.encoder.image_stem.state_dict()
    assert all(begun[name].equal(tensor) for name, tensor in other.items())
    save_file({"conv1.weight": other["conv1.weight"].contiguous()}, tmp_path / "stem.safetensors")
    with pytest.raises(OFAError, match=r"stem\.safetensors is no stem of this model: .*bn1"):
        make_trainer(settings(tmp_path / "third", new_model=content))


def test_new_weights_are_as_large_as_asked_for(tmp_path: Path) -> None:
    made = settings(tmp_path).new_model
    assert made is not None
    model = make_trainer(settings(tmp_path, new_model=made.model_dump() | {"init_std": 0.2})).model
    assert float(model.encoder.layers[0].ffn.fc1.weight.detach().std()) == pytest.approx(0.2, rel=0.1)
    assert float(model.token_embedding.weight.detach().std()) == pytest.approx(0.2, rel=0.1)
    assert float(model.encoder.text_relative.tables[0].weight.detach().abs().max()) == 0


def test_smooth_bins_are_alike_where_they_are_near(tmp_path: Path) -> None:
    made = settings(tmp_path).new_model
    assert made is not None
    trainer = make_trainer(settings(tmp_path, new_model=made.model_dump() | {"smooth_bins": True}))
    vocabulary = trainer.tokenizer.vocabulary
    bins = trainer.model.token_embedding.weight[vocabulary.bin_start : vocabulary.bin_end]
    near = torch.cosine_similarity(bins[:-5], bins[5:]).mean()
    far = torch.cosine_similarity(bins[:500], bins[500:]).mean()
    assert near > 0.95 > far + 0.3
