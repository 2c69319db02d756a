"""The benchmark of speed counts the arithmetic that a computation has, and its command writes every row."""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks import speed, workloads
from benchmarks.machine import Limits, PeakMemory, Work, count, measure_limits, times
from benchmarks.speed import main
from benchmarks.workloads import CANDIDATES, WORKLOADS, make_candidates, make_inputs, make_model
from ofa_core.text.vocabulary import BOS, EOS, PAD

CPU = torch.device("cpu")


def test_arithmetic_is_counted() -> None:
    x, weight = torch.randn(5, 7), torch.randn(3, 7)
    assert count(lambda: F.linear(x, weight)) == Work(2 * 5 * 7 * 3, 0, 4 * (5 * 7 + 3 * 7 + 5 * 3))
    image, kernel = torch.randn(2, 4, 8, 8), torch.randn(6, 4, 3, 3)
    operands = 4 * (image.numel() + kernel.numel() + 2 * 6 * 64)
    assert count(lambda: F.conv2d(image, kernel, padding=1)) == Work(0, 2 * 2 * 4 * 6 * 9 * 64, operands)
    with torch.inference_mode():
        query, key = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 9, 8)
        bias = torch.randn(1, 3, 5, 9)
        attend = count(lambda: F.scaled_dot_product_attention(query, key, key, attn_mask=bias))
    assert (attend.products, attend.convolutions) == (4 * 2 * 3 * 5 * 9 * 8, 0)
    assert attend.bytes >= 4 * (2 * query.numel() + 2 * key.numel() + bias.numel())


def test_the_time_of_work_at_the_limits() -> None:
    assert Limits(100.0, 200.0).seconds(Work(300, 500)) == pytest.approx(5.5)
    limits = measure_limits((CPU, torch.float32), repeats=2)
    assert 1e8 < limits.product < 1e13
    assert 1e8 < limits.convolution < 1e13
    assert 1e8 < limits.memory < 1e13
    assert Limits(1, 3, 5).mean(Limits(3, 5, 7)) == Limits(2, 4, 6)
    assert Limits(1, 1, 50).memory_seconds(Work(0, 0, 200)) == 4


def test_the_first_run_does_not_count() -> None:
    runs: list[int] = []
    assert len(times(lambda: runs.append(1), CPU, 3)) == 3
    assert len(runs) == 4


def test_short_runs_are_timed_again_and_again() -> None:
    now = [0.0]
    taken = times(lambda: now.append(now.pop() + 1), CPU, 1, at_least=5, clock=lambda: now[0])
    assert (len(taken), set(taken)) == (5, {1.0})


def test_peak_memory_is_that_of_the_block() -> None:
    with PeakMemory(CPU) as first:
        torch.zeros(300_000_000, dtype=torch.uint8).add_(1)
    with PeakMemory(CPU) as second:
        pass
    if first.bytes is None or second.bytes is None:
        pytest.skip("this system does not tell a process's peak memory")
    assert first.bytes - second.bytes > 200_000_000


def test_candidates_are_different_short_and_share_their_beginnings() -> None:
    candidates = make_candidates(CANDIDATES, 5000)
    assert len({tuple(candidate) for candidate in candidates}) == len(candidates) == CANDIDATES
    assert {len(candidate) for candidate in candidates} == {1, 2, 3}
    assert len({candidate[0] for candidate in candidates}) < CANDIDATES / 1.8


def test_inputs_are_sources_with_padding() -> None:
    model = make_model("tiny", vocab_size=500)
    inputs = make_inputs(model, 3, 64)
    assert inputs.features.grid == (4, 4)
    for tokens in (inputs.tokens, *inputs.dialogs):
        assert tokens[:, 0].eq(BOS).all()
        assert tokens.eq(EOS).sum(1).tolist() == [1, 1, 1]
        assert tokens[-1, -1] == PAD
        assert not tokens[:2].eq(PAD).any()
    assert [len(dialog[0]) for dialog in inputs.dialogs] == sorted({len(dialog[0]) for dialog in inputs.dialogs})


@pytest.mark.parametrize("plain", [False, True])
def test_the_command_measures_every_workload(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, plain: bool
) -> None:
    small = {"vocab_size": 5000, "encoder_layers": 1, "decoder_layers": 1, "stem_depths": (1, 1, 1)}
    monkeypatch.setattr(speed, "make_model", lambda size, **changes: make_model(size, **(small | changes)))
    monkeypatch.setattr(speed, "measure_limits", cache(partial(measure_limits, repeats=2)))
    monkeypatch.setattr(workloads, "DIALOG_TURNS", 2)
    out = tmp_path / "speed.json"
    options = ["--sizes", "tiny", "--image-size", "64", "--batches", "2", "--repeats", "1", "--seconds", "0"]
    assert main([*options, "--out", str(out), *(["--plain"] if plain else [])]) == 0
    report = json.loads(out.read_text())
    assert [row["workload"] for row in report["rows"]] == [*WORKLOADS, "load"]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(report["rows"])
    for row in report["rows"]:
        assert row["seconds"] >= row["best"] > 0
        assert row["optimized"] is not plain
        if row["workload"] != "load":
            work = Work(row["products"], row["convolutions"], row["bytes"])
            limits = Limits(row["product_rate"], row["convolution_rate"], row["memory_rate"])
            assert row["of_limit"] == pytest.approx(row["seconds"] / limits.seconds(work))
            assert row["of_memory_limit"] == pytest.approx(row["seconds"] / limits.memory_seconds(work))
    by_name = {row["workload"]: row for row in report["rows"]}
    assert by_name["encode"]["convolutions"] == by_name["stem"]["convolutions"] > 0
    assert by_name["turn"]["convolutions"] == 0
    assert by_name["dialog"]["convolutions"] == by_name["stem"]["convolutions"], "the stem runs once for all turns"
    assert by_name["caption"]["products"] > by_name["grounding"]["products"] > by_name["encode"]["products"]
