"""Beginnings of new models: what they start with is what the settings say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from training.made import settings

from ofa_core import OFAError
from ofa_core.model.attention import Attention
from ofa_core.training.run import make_trainer
from ofa_core.training.trainer import Trainer


def begun(tmp_path: Path, **changes: Any) -> Trainer:
    """A run that has not begun yet, of a new model with these settings."""
    made = settings(tmp_path).new_model
    assert made is not None
    return make_trainer(settings(tmp_path, new_model=made.model_dump() | changes))


def test_a_new_model_can_begin_with_a_stem_that_sees(tmp_path: Path) -> None:
    other = make_trainer(settings(tmp_path / "other", seed=9)).model.encoder.image_stem.state_dict()
    save_file({name: tensor.contiguous() for name, tensor in other.items()}, tmp_path / "stem.safetensors")
    path = tmp_path / "stem.safetensors"
    taken = begun(tmp_path / "run", stem=path).model.encoder.image_stem.state_dict()
    assert all(taken[name].equal(tensor) for name, tensor in other.items())
    save_file({"conv1.weight": other["conv1.weight"].contiguous()}, tmp_path / "stem.safetensors")
    with pytest.raises(OFAError, match=r"stem\.safetensors is no stem of this model: .*bn1"):
        begun(tmp_path / "third", stem=path)


def test_new_weights_are_as_large_as_asked_for(tmp_path: Path) -> None:
    model = begun(tmp_path, init_std=0.2).model
    assert float(model.encoder.layers[0].ffn.fc1.weight.detach().std()) == pytest.approx(0.2, rel=0.1)
    assert float(model.token_embedding.weight.detach().std()) == pytest.approx(0.2, rel=0.1)
    assert float(model.encoder.text_relative.tables[0].weight.detach().abs().max()) == 0


def test_smooth_bins_are_alike_where_they_are_near(tmp_path: Path) -> None:
    trainer = begun(tmp_path, smooth_bins=True)
    vocabulary = trainer.tokenizer.vocabulary
    bins = trainer.model.token_embedding.weight[vocabulary.bin_start : vocabulary.bin_end]
    near = torch.cosine_similarity(bins[:-5], bins[5:]).mean()
    far = torch.cosine_similarity(bins[:500], bins[500:]).mean()
    assert near > 0.95 > far + 0.3


def test_smooth_positions_say_row_and_column_and_are_alike_where_they_are_near(tmp_path: Path) -> None:
    model = begun(tmp_path, smooth_positions=1.5).model
    side, dim = model.config.image_bucket_size, model.config.embed_dim
    grid = model.encoder.image_positions.weight[1:].detach().unflatten(0, (side, side))
    rows, columns = grid[..., : dim // 2], grid[..., dim // 2 :]
    assert torch.equal(rows, rows[:, :1].expand_as(rows)), "the first half is the same along a row"
    assert torch.equal(columns, columns[:1].expand_as(columns)), "the second along a column"
    assert float(grid.std()) == pytest.approx(1.5, rel=0.01)
    assert torch.cosine_similarity(rows[:-1], rows[1:], dim=-1).mean() > 0.9


def test_patches_can_begin_as_the_words_they_show(tmp_path: Path) -> None:
    stem = begun(tmp_path / "other").model.encoder.image_stem.state_dict()
    words = ["red", "circle", ""]
    torch.manual_seed(0)
    weight, bias = torch.randn(3, 1024) / 32, torch.randn(3)
    state = {name: tensor.contiguous() for name, tensor in stem.items()}
    path = tmp_path / "stem.safetensors"
    save_file(state | {"words.weight": weight, "words.bias": bias}, path, metadata={"words": json.dumps(words)})
    trainer = begun(tmp_path / "run", stem=path)
    assert all(trainer.model.encoder.image_stem.state_dict()[name].equal(tensor) for name, tensor in stem.items())
    vectors = [trainer.model.token_embedding.weight[trainer.tokenizer.encode(f" {w}")].mean(0) for w in words[:2]]
    red, circle = (nn.functional.normalize(vector.detach(), dim=0) for vector in vectors)
    patch = torch.randn(1024)
    scores = weight @ patch + bias
    shown = trainer.model.encoder.image_proj(patch).detach()
    other = shown - scores[0] * red - scores[1] * circle  # the score without a word, in a direction of its own
    assert float(other.norm()) == pytest.approx(abs(float(scores[2])), rel=1e-3)


def test_keys_can_begin_as_queries_do(tmp_path: Path) -> None:
    for alike in (True, False):
        modules = [m for m in begun(tmp_path, keys_from_queries=alike).model.modules() if isinstance(m, Attention)]
        assert len(modules) > 2
        assert all(module.k_proj.weight.equal(module.q_proj.weight) == alike for module in modules)
