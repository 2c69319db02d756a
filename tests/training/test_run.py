"""What a run begins with: a trained model that is changed, or a new one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from training.made import settings

from ofa_core import OFAError, load
from ofa_core.training.run import make_trainer, train


def test_a_run_can_begin_with_a_trained_model_and_new_adapters(tmp_path: Path) -> None:
    train(settings(tmp_path / "run", steps=1))
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


def test_smooth_positions_say_row_and_column_and_are_alike_where_they_are_near(tmp_path: Path) -> None:
    made = settings(tmp_path).new_model
    assert made is not None
    model = make_trainer(settings(tmp_path, new_model=made.model_dump() | {"smooth_positions": 1.5})).model
    side, dim = model.config.image_bucket_size, model.config.embed_dim
    grid = model.encoder.image_positions.weight[1:].detach().unflatten(0, (side, side))
    rows, columns = grid[..., : dim // 2], grid[..., dim // 2 :]
    assert torch.equal(rows, rows[:, :1].expand_as(rows)), "the first half is the same along a row"
    assert torch.equal(columns, columns[:1].expand_as(columns)), "the second along a column"
    assert float(grid.std()) == pytest.approx(1.5, rel=0.01)
    assert torch.cosine_similarity(rows[:-1], rows[1:], dim=-1).mean() > 0.9
