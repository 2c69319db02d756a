"""The benchmark of int8 compares the answers of one model with those of itself rounded."""

from __future__ import annotations

import pytest

from benchmarks.int8 import Comparison, _overlap, compare, cpu_seconds


def test_answers_are_compared_pair_by_pair() -> None:
    compared = compare(12)
    assert len(compared.overlaps) == len(compared.same) == 12
    assert 0.9 < sum(compared.overlaps) / 12 <= 1
    assert sum(compared.same) > 6
    assert _overlap(None, None) == 1
    assert _overlap((0, 0, 1, 1), None) == 0
    assert _overlap((0, 0, 2, 2), (0, 0, 2, 1)) == pytest.approx(0.5)


def test_what_was_compared_is_told() -> None:
    told = Comparison([1.0, 0.9, 0.2, 0.9], [True, True, True, False]).told()
    assert "boxes on 4 test pictures: IoU 0.7500 on average, above 0.5 in 75.00%" in told
    assert "answers to 4 questions: 75.00% the same" in told


def test_both_are_timed_in_parts() -> None:
    exact, rounded = cpu_seconds("tiny", repeats=1)
    assert list(exact) == list(rounded)
    assert 0 < rounded["grounding"] < 10 * exact["grounding"]
