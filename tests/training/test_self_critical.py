"""Self-critical training: the reward, the loss against a plain computation, and a run that raises the scores."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from training.made import TOKENIZER, differing, nano, picture, settings

from ofa_core import ImageTransform, OFAModel
from ofa_core.bench.scorers.captions import cider_d, ngrams
from ofa_core.data.examples import Example
from ofa_core.heads.caption import reference_ids
from ofa_core.heads.pipeline import Pipeline
from ofa_core.text.vocabulary import BOS
from ofa_core.training.collate import Batch, collate
from ofa_core.training.run import make_trainer, train
from ofa_core.training.self_critical import CaptionReward, SelfCriticalLoss, advantages
from ofa_core.training.setting_tables import SelfCriticalSettings
from ofa_core.training.settings import TrainingSettings

SAID = {
    "red": ("a red field.", "a red field", "red all over, it seems"),
    "green": ("a green field", "a lawn", "a lawn of grass"),
    "blue": ("the sky", "a blue sky!", "the blue sky above"),
}


def loss_of(model: OFAModel, **options: Any) -> SelfCriticalLoss:
    return SelfCriticalLoss(model, TOKENIZER, SelfCriticalSettings(**options), CaptionReward(SAID.values()))


def batch() -> Batch:
    transform = ImageTransform(64)
    pipeline = Pipeline(nano(), TOKENIZER, transform)
    source = TOKENIZER.encode(" what does the image describe?", add_special_tokens=True)
    examples = [
        Example(source, reference_ids(pipeline, "&&".join(texts)), picture(colour)) for colour, texts in SAID.items()
    ]
    return collate(examples, TOKENIZER, transform)


# The reward


def test_scores_are_cider_d_of_words_and_an_end() -> None:
    said = ["red field a", "a lawn", "nothing"]

    def counted(text: str) -> Any:
        return ngrams([*"".join(c for c in text if c.isalnum() or c == " ").split(), "<eos>"])

    expected = cider_d([counted(text) for text in said], [[counted(t) for t in texts] for texts in SAID.values()])
    reward = CaptionReward(SAID.values())
    found = [reward.scores([text], references)[0] for text, references in zip(said, SAID.values(), strict=True)]
    assert found == pytest.approx(expected, abs=1e-12)
    assert found[1] > found[0] > found[2]


def test_a_caption_that_breaks_off_scores_less_than_one_that_ends() -> None:
    reward = CaptionReward(SAID.values())
    whole, half, punctuated = reward.scores(["a blue sky", "a blue", "A blue sky.".replace("A", "a")], SAID["blue"])
    assert whole == punctuated > half


def test_the_reward_is_what_a_score_is_above_the_others() -> None:
    assert advantages([3.0, 1.0, 2.0]) == pytest.approx([1.5, -1.5, 0.0])
    assert advantages([0.7] * 4) == pytest.approx([0.0] * 4)
    assert advantages([2.0]) == [0.0]


# The loss


def plain_loss(model: OFAModel, said: list[list[list[int]]], rewards: list[list[float]], given: Batch) -> Tensor:
    """Each candidate by itself."""
    (group,) = given.groups
    total = torch.zeros(())
    for row, candidates in enumerate(said):
        pixels = given.pixels[0][group.pictures[row]][None]
        for tokens, reward in zip(candidates, rewards[row], strict=True):
            logits = model(group.tokens[row][None], torch.tensor([[BOS, *tokens[:-1]]]), pixels)
            log_probs = logits.log_softmax(-1)[0, range(len(tokens)), tokens]
            total = total - reward * log_probs.sum()
    return total


@pytest.mark.parametrize("draw", [False, True])
def test_loss_and_gradient_are_those_of_the_candidates_one_by_one(draw: bool, monkeypatch: Any) -> None:
    model = nano().eval()
    loss = loss_of(model, candidates=3, draw=draw)
    found: list[Any] = []
    candidates = loss._candidates

    def kept(tokens: Tensor, pixels: Tensor) -> Any:
        found.append(candidates(tokens, pixels))
        return found[-1]

    monkeypatch.setattr(loss, "_candidates", kept)
    # scores that differ, whatever a model of random weights says
    monkeypatch.setattr(loss.reward, "scores", lambda texts, _: [float(i * i) for i in range(len(texts))])
    given = batch()
    torch.manual_seed(2)
    value, counts = loss(given)
    value.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    (said,) = found
    assert [len(row) for row in said] == [3, 3, 3]
    rewards = [advantages([0.0, 1.0, 4.0]) for _ in said]
    expected = plain_loss(model, said, rewards, given)
    torch.testing.assert_close(value, expected, atol=1e-3, rtol=1e-5)
    expected.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name], parameter.grad, atol=2e-4, rtol=1e-3, msg=name)
    tokens = sum(len(tokens) for row in said for tokens in row)
    assert counts.tolist() == [tokens, 9, 15.0, 0]


def test_a_picture_with_fewer_candidates_has_no_others_made_up(monkeypatch: Any) -> None:
    model = nano().eval()
    loss = loss_of(model, candidates=2)
    said = [[[5, 6, 2], [7, 2]], [[8, 2]], [[9, 10, 11, 2], [12, 2]]]
    monkeypatch.setattr(loss, "_candidates", lambda *_: said)
    monkeypatch.setattr(loss.reward, "scores", lambda texts, _: [float(i) for i in range(len(texts))])
    value, counts = loss(batch())
    expected = plain_loss(model, said, [[-1.0, 1.0], [0.0], [-1.0, 1.0]], batch())
    torch.testing.assert_close(value, expected, atol=1e-4, rtol=1e-5)
    assert counts.tolist() == [13, 5, 2.0, 0]


def test_modules_are_in_their_modes_again_and_candidates_are_those_of_an_answer() -> None:
    model = nano(dropout=0.5)
    model.train()
    model.encoder.image_stem.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    loss = loss_of(model, candidates=3)
    given = batch()
    (group,) = given.groups
    first, second = (loss._candidates(group.tokens, given.pixels[0]) for _ in range(2))
    assert first == second, "without dropout"
    assert {name: module.training for name, module in model.named_modules()} == modes


def test_autocast_keeps_gradients() -> None:
    model = nano().train()
    loss = loss_of(model, candidates=2, draw=True)
    loss.reward.scores = lambda texts, _: [float(i) for i in range(len(texts))]  # type: ignore[method-assign]
    with torch.autocast("cpu", torch.bfloat16):
        value, _ = loss(batch())
    value.backward()
    gradient = model.decoder.layers[0].ffn.fc1.weight.grad
    assert gradient is not None
    assert bool(gradient.any())


# Runs


def captions(tmp_path: Path, task: str) -> Path:
    """A row for each picture with all that was said about it, or for the first stage one for each caption."""
    for colour in SAID:
        picture(colour).save(tmp_path / f"{colour}.png")
    groups = {colour: ["&&".join(texts)] if task == "caption_references" else texts for colour, texts in SAID.items()}
    rows = [(colour, text) for colour, texts in groups.items() for text in texts]
    path = tmp_path / f"{task}.tsv"
    path.write_text("".join(f"{n}\t{colour}.png\t{text}\t\t\n" for n, (colour, text) in enumerate(rows)))
    return path


def stage(tmp_path: Path, name: str, task: str, **changes: Any) -> TrainingSettings:
    data = [{"task": task, "path": captions(tmp_path, task), "images": tmp_path}]
    return settings(tmp_path / name, **{"data": data, "batch_size": 3, "save_every": 1000, **changes})


def still() -> dict[str, Any]:
    made = settings(Path("unused")).new_model
    assert made is not None
    content = made.model_dump()
    content["config"]["dropout"] = 0.0
    return content


def test_the_second_stage_raises_the_score(tmp_path: Path) -> None:
    still_stem = {"freeze_batch_norm": True, "batch_size": 9}
    plain = {"loss": {"label_smoothing": 0.0}, "steps": 200, "optimizer": {"lr": 3e-3}}
    first = stage(tmp_path, "first", "caption", new_model=still(), **plain, **still_stem)
    train(first)
    second = stage(
        tmp_path,
        "second",
        "caption_references",
        model=tmp_path / "first" / "last",
        new_model=None,
        steps=40,
        optimizer={"lr": 1e-3, "warmup_ratio": 0.0},
        loss={"self_critical": {"candidates": 5, "draw": True}},
        **still_stem,
    )
    train(second)
    scores = [json.loads(line)["cider"] for line in (tmp_path / "second" / "log.jsonl").read_text().splitlines()]
    assert sum(scores[-5:]) / 5 > sum(scores[:5]) / 5 + 1


def test_a_run_that_was_cut_short_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    loss = {"self_critical": {"candidates": 3, "draw": True}}
    changes = {"loss": loss, "steps": 4, "save_every": 2, "optimizer": {"lr": 1e-3}}
    train(stage(tmp_path, "whole", "caption_references", **changes))
    trainer = make_trainer(stage(tmp_path, "cut", "caption_references", **changes))
    write = trainer._write_model

    def cut(name: str) -> None:
        write(name)
        raise KeyboardInterrupt

    trainer._write_model = cut  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    train(stage(tmp_path, "cut", "caption_references", **changes))
    runs = [load_file(tmp_path / name / "last" / "model.safetensors") for name in ("whole", "cut")]
    assert differing(*runs) == []


def test_rows_of_one_picture_count_once_for_rarity(tmp_path: Path) -> None:
    trainer = make_trainer(stage(tmp_path, "run", "caption_references", loss={"self_critical": {}}))
    loss = trainer.loss
    assert isinstance(loss, SelfCriticalLoss)
    assert loss.reward._unseen == pytest.approx(math.log(3))
    rarity = loss.reward._rarity
    assert rarity["<eos>",] == pytest.approx(0.0)
    assert rarity["a",] == pytest.approx(0.0)
    assert rarity["field", "<eos>"] == pytest.approx(math.log(3 / 2))
    assert ("lawn",) not in rarity


@pytest.mark.parametrize(
    ("task", "changes", "problem"),
    [
        ("caption", {"loss": {"self_critical": {}}}, "caption_references and loss.self_critical go together"),
        ("caption_references", {}, "caption_references and loss.self_critical go together"),
        ("caption_references", {"loss": {"self_critical": {"candidates": 1}}}, "greater than or equal to 2"),
        ("caption_references", {"loss": {"self_critical": {}, "rdrop": 1.0}}, "rdrop has no meaning: leave it out"),
        ("caption_references", {"loss": {"self_critical": {}}, "shard": True}, "leave shard out"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, task: str, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        stage(tmp_path, "run", task, **changes)
