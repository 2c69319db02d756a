"""The benchmark of training steps: variants take turns, and every part is timed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.training import Stepper, lines, main, measure


def test_variants_are_timed_in_turns_and_written(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[int] = []
    step = Stepper.step
    monkeypatch.setattr(Stepper, "step", lambda self: (order.append(id(self)), step(self))[1])
    arguments = ["--sizes", "tiny", "--variants", "plain", "lora", "--side", "64", "--steps", "2"]
    assert main([*arguments, "--json", str(tmp_path / "steps.json")]) == 0
    first, second = order[0], order[2]
    assert order == [first, first, second, second] * 3  # each step that counts stands behind one that does not
    plain, lora = json.loads((tmp_path / "steps.json").read_text())
    assert (plain["variant"], lora["variant"]) == ("plain", "lora")
    assert plain["moving"] > 300 * lora["moving"] > 0
    assert all(row[part] > 0 for row in (plain, lora) for part in ("forward", "backward", "optimizer"))
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2
    assert "tiny 64 px, batch 2, cpu, autocast none, plain" in told[0]
    assert ", 1.00 x, " in told[0]


def test_a_step_changes_what_moves() -> None:
    import torch

    stepper = Stepper("tiny", 1, 64, "frozen-stem", "bfloat16", torch.device("cpu"))
    before = {name: tensor.clone() for name, tensor in stepper.model.named_parameters()}
    assert all(seconds > 0 for seconds in stepper.step())
    changed = {name for name, tensor in stepper.model.named_parameters() if not torch.equal(tensor, before[name])}
    assert "decoder.layers.0.ffn.fc1.weight" in changed
    assert not any("image_stem" in name for name in changed)


def test_features_that_were_kept_spare_the_stem() -> None:
    import torch

    stepper = Stepper("tiny", 2, 64, "cached", "none", torch.device("cpu"))
    seen: list[int] = []
    stepper.model.encoder.image_stem.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    losses = [float(stepper.loss().detach()) for _ in range(3)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)
    assert seen == [1, 1]  # each picture by itself, once


def test_ratios_are_to_the_first_row() -> None:
    import torch

    (row,) = measure("tiny", 1, 64, ["checkpointed"], "none", torch.device("cpu"), 1)
    assert lines([row])[0].count("1.00 x") == 1


def test_plain_steps_are_plain_and_fast_ones_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    kinds: list[tuple[str, str, bool]] = []
    step = Stepper.step

    def watched(self: Stepper) -> tuple[float, float, float]:
        kinds.append((self.variant, type(self.model).__name__, bool(self.optimizer.param_groups[0]["fused"])))
        return step(self)

    monkeypatch.setattr(Stepper, "step", watched)
    measure("tiny", 1, 64, ["plain", "fast"], "none", torch.device("cpu"), 1)
    assert set(kinds) == {("plain", "OFAModel", False), ("fast", "ProjectingModel", True)}
