"""What a run begins with: a trained model that is changed, or a new one."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.runs import write_data
from training.made import settings

from ofa_core import OFAError, load
from ofa_core.demo.lessons import LEARNED
from ofa_core.inference import onednn
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


def test_settings_of_a_task_that_are_not_named_stay(tmp_path: Path) -> None:
    train(settings(tmp_path / "run", steps=1))
    begun = settings(
        tmp_path / "second", steps=1, model=tmp_path / "run/last", new_model=None, config={"task": {"image_size": 48}}
    )
    before = load(tmp_path / "run/last").model.config.task
    assert before.code_dict_size == 0
    train(begun)
    after = load(tmp_path / "second/last").model.config.task
    assert after == before.model_copy(update={"image_size": 48, "learned": after.learned})
    assert set(after.learned) == set(LEARNED)


def test_a_model_that_could_not_be_loaded_again_is_not_trained(tmp_path: Path) -> None:
    train(settings(tmp_path / "run", steps=1))
    changes = {"task": {"code_dict_size": 16}}
    with pytest.raises(OFAError, match=r"the vocabulary files make \d+ tokens, the weights have \d+"):
        make_trainer(settings(tmp_path / "second", model=tmp_path / "run/last", new_model=None, config=changes))


@pytest.mark.parametrize("is_fast", [True, False])
def test_autocast_that_makes_steps_slower_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder, is_fast: bool
) -> None:
    monkeypatch.setattr(onednn, "computes_bfloat16", lambda: is_fast)
    make_trainer(settings(tmp_path / "float32"))
    assert not [str(one.message) for one in recwarn if "autocast" in str(one.message)]
    make_trainer(settings(tmp_path / "narrow", autocast="bfloat16"))
    told = [str(one.message) for one in recwarn if "autocast" in str(one.message)]
    due = 'this CPU has no instructions for bfloat16: steps with autocast = "bfloat16" take several times as long as '
    assert told == ([] if is_fast else [due + "without autocast"])


def test_a_new_model_has_the_tokens_that_its_settings_add(tmp_path: Path) -> None:
    new = settings(tmp_path).new_model
    assert new is not None
    content = new.model_dump()
    content["config"]["task"]["extra_tokens"] = ("<one>", "<two>")
    train(settings(tmp_path, steps=1, new_model=content))
    assert load(tmp_path / "last").model.config.task.extra_tokens == ("<one>", "<two>")


def test_a_trained_model_has_a_card_and_says_what_it_has_learned(tmp_path: Path) -> None:
    rows = write_data(tmp_path, 4)["refcoco"]
    data = [{"task": "refcoco_grounding", "path": rows, "images": tmp_path / "images"}]
    evaluation = [{"task": "refcoco_grounding", "path": rows, "images": tmp_path / "images", "limit": 2}]
    train(settings(tmp_path / "run", steps=2, data=data, evaluation=evaluation, evaluate_every=1))
    card = (tmp_path / "run" / "last" / "README.md").read_text()
    assert f"| trained on | refcoco_grounding ({rows.name}) |" in card
    assert "Trained for 2 of 2 steps." in card
    assert "| refcoco_grounding" in card.partition("| benchmark |")[2]
    assert f'ofa_core.load("{tmp_path / "run" / "last"}")' in card
    assert load(tmp_path / "run" / "last").model.config.task.learned == ("refcoco", "refcoco_grounding")


def test_a_fine_tuned_model_says_what_it_has_learned(tmp_path: Path) -> None:
    train(settings(tmp_path / "run", steps=1))
    before = load(tmp_path / "run/last").model.config.task.learned
    assert "refcoco_grounding" not in before
    rows = write_data(tmp_path, 4)["refcoco"]
    data = [{"task": "refcoco_grounding", "path": rows, "images": tmp_path / "images"}]
    train(settings(tmp_path / "second", steps=1, model=tmp_path / "run/last", new_model=None, data=data))
    after = load(tmp_path / "second/last").model.config.task.learned
    assert after == tuple(sorted([*before, "refcoco_grounding"]))
