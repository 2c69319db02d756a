"""The benchmark of int8 compares the boxes of one model with themselves rounded."""

from __future__ import annotations

import pytest

from benchmarks.int8 import _overlap, compare, encode_seconds


def test_boxes_are_compared_pair_by_pair() -> None:
    overlaps = compare(12)
    assert len(overlaps) == 12
    assert 0.5 < sum(overlaps) / 12 <= 1
    assert _overlap(None, None) == 1
    assert _overlap((0, 0, 1, 1), None) == 0
    assert _overlap((0, 0, 2, 2), (0, 0, 2, 1)) == pytest.approx(0.5)


def test_both_are_timed() -> None:
    exact, rounded = encode_seconds("tiny", repeats=1)
    assert 0 < rounded < 10 * exact
