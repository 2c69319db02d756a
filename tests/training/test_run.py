"""What a run begins with: a trained model that is changed, or a new one."""

from __future__ import annotations

from pathlib import Path

import pytest
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
