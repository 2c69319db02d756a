from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from ofa_core import OFAError
from ofa_core.bench.metrics import Table, scores_of
from ofa_core.bench.reliability import (
    Ranking,
    Stated,
    auroc,
    calibration_error,
    reliability_bins,
    with_calibration_errors,
)


def test_the_calibration_error_of_a_known_set() -> None:
    confidences, right = [0.95, 0.95, 0.15, 0.15, 1.0], [True, False, False, False, True]
    bins = reliability_bins(confidences, right)
    assert [(one.samples, one.accuracy) for one in bins] == [(2, 0.0), (3, 2 / 3)]
    assert calibration_error(confidences, right) == pytest.approx((2 * 0.15 + 3 * (2.9 / 3 - 2 / 3)) / 5)
    assert calibration_error([0.5, 0.5], [True, False]) == 0
    assert calibration_error([1.0, 0.0], [False, True]) == 1


def test_auroc_equals_all_pairs() -> None:
    chance = random.Random(5)
    for _ in range(20):
        values = [chance.choice([0.1, 0.2, 0.3, 0.4]) for _ in range(30)]
        kinds = [chance.random() < 0.4 for _ in values]
        both = ([v for v, k in zip(values, kinds, strict=True) if k is wanted] for wanted in (True, False))
        pairs = list(itertools.product(*both))
        wins = sum((a > b) + (a == b) / 2 for a, b in pairs)
        assert auroc(values, kinds) == pytest.approx(wins / len(pairs))


def test_one_kind_alone_has_no_auroc() -> None:
    assert auroc([0.1, 0.2], [True, True]) is None
    assert auroc([], []) is None


@pytest.mark.parametrize(
    ("confidences", "right", "message"),
    [
        ([1.5], [True], "^a confidence is not between 0 and 1$"),
        ([float("nan")], [True], "^a confidence is not between 0 and 1$"),
        ([0.5], [], "^1 confidences and 0 outcomes do not pair up$"),
        ([], [], "^there are no samples"),
    ],
)
def test_what_has_no_calibration_error_is_refused(confidences: list[float], right: list[bool], message: str) -> None:
    with pytest.raises(OFAError, match=message):
        calibration_error(confidences, right)


def test_a_resample_is_ranked_as_its_samples_are() -> None:
    chance = np.random.default_rng(3)
    values, kinds = chance.integers(0, 6, 40) / 6, chance.random(40) < 0.4
    ranking = Ranking(values, kinds)
    for _ in range(10):
        places = chance.integers(0, 40, 40)
        taken = np.bincount(places, minlength=40).astype(np.float64)
        assert ranking.auroc(taken) == pytest.approx(auroc(values[places].tolist(), kinds[places].tolist()))
    assert np.isnan(ranking.auroc(kinds.astype(np.float64)))


def test_the_score_of_a_table_is_the_calibration_error() -> None:
    chance = np.random.default_rng(4)
    values = np.where(chance.random(200) < 0.2, np.nan, chance.random(200))
    stated = Stated(values, chance.random(200) < np.nan_to_num(values))
    table = with_calibration_errors(Table({"n": np.ones(200)}), {"confidence": stated})
    counted = ~np.isnan(values)
    expected = calibration_error(values[counted].tolist(), stated.came_true[counted].tolist())
    found = scores_of(table)
    assert set(found) == {"n", "confidence ECE"}
    assert found["confidence ECE"].value == pytest.approx(expected)
    assert found["confidence ECE"].low < found["confidence ECE"].high
    some = scores_of(table.at(np.arange(50)))["confidence ECE"].value
    counted[50:] = False
    assert some == pytest.approx(calibration_error(values[counted].tolist(), stated.came_true[counted].tolist()))
    assert sum(one.samples for one in stated.bins()) == int((~np.isnan(values)).sum())
