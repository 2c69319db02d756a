from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from reference import metric_golden

from ofa_core import OFAError
from ofa_core.bench.scorers.grefcoco import GrefcocoScorer, matches


def corners(boxes: Sequence[Sequence[float]]) -> list[list[float]]:
    """Boxes (x, y, width, height) by their corners."""
    return [[x, y, x + width, y + height] for x, y, width, height in boxes]


def added(scorer: GrefcocoScorer, sample: dict[str, Any]) -> bool:
    return scorer.add(corners(sample["targets_xywh"]), sample["pred_boxes_xyxy"], sample["pred_scores"])


@pytest.mark.reference
def test_each_sample_is_scored_as_published() -> None:
    golden = metric_golden("grefcoco.json")
    scorer = GrefcocoScorer()
    exact = [added(scorer, sample) for sample in golden["samples"]]
    assert exact == [sample["f1_is_one"] == 1 for sample in golden["samples"]]
    result, expected = scorer.result(), golden["expected"]
    assert [result[name] for name in ("Pr@(F1=1)", "N-acc", "T-acc")] == pytest.approx(
        [expected[name] for name in ("F1_score", "N_acc", "T_acc")], rel=1e-12
    )
    assert result["Pr@(F1=1), plain IoU"] != result["Pr@(F1=1)"]


@pytest.mark.reference
def test_boxes_without_area_are_matched_as_published_and_a_crash_is_a_miss() -> None:
    for sample in metric_golden("grefcoco.json")["degenerate"]:
        assert added(GrefcocoScorer(), sample) == (sample["f1_is_one"] == 1), sample["case"]


def test_plain_iou_never_matches_boxes_without_area() -> None:
    scorer = GrefcocoScorer()
    assert scorer.add([[10, 10, 10, 30]], [[200, 10, 200, 30]], [1.0])
    assert scorer.result()["Pr@(F1=1), plain IoU"] == 0.0


BOX = [10.0, 10.0, 50.0, 60.0]
OTHER = [100.0, 100.0, 150.0, 160.0]


@pytest.mark.parametrize(
    ("targets", "found", "scores", "exact"),
    [
        ([], [], [], True),
        ([], [BOX], [0.71], False),
        ([], [BOX], [0.7], False),
        ([BOX], [], [], False),
        ([BOX], [BOX], [0.9], True),
        ([BOX], [BOX, BOX], [0.9, 0.9], False),
        ([BOX, OTHER], [OTHER, BOX], [0.8, 0.9], True),
        ([BOX, OTHER], [BOX], [0.9], False),
    ],
    ids=["none-none", "none-one", "at-the-limit", "one-none", "one-one", "duplicate", "two-two", "two-one"],
)
def test_exactly_the_targets_have_to_be_found(targets: Any, found: Any, scores: Any, exact: bool) -> None:
    scorer = GrefcocoScorer()
    if scores == [0.7]:
        exact = float(np.float32(0.7)) < 0.7  # so nothing is kept
    assert scorer.add(targets, found, scores) == exact
    assert scorer.result()["Pr@(F1=1)"] == exact


def test_a_set_without_samples_of_a_kind_has_no_score_for_it() -> None:
    scorer = GrefcocoScorer()
    assert scorer.result() == {}
    scorer.add([BOX], [BOX], [1.0])
    assert scorer.result() == {"Pr@(F1=1)": 1.0, "Pr@(F1=1), plain IoU": 1.0, "T-acc": 1.0}
    empty = GrefcocoScorer()
    empty.add([], [], [])
    assert empty.result() == {"Pr@(F1=1)": 1.0, "Pr@(F1=1), plain IoU": 1.0, "N-acc": 1.0}


def test_the_largest_overlap_goes_first_though_another_way_would_match_more() -> None:
    assert matches(torch.tensor([[0.9, 0.6], [0.8, 0.1]])) == 1
    assert matches(torch.tensor([[0.5]])) == 1
    assert matches(torch.tensor([[float("nan"), 0.2], [0.2, 0.6]])) == 2
    assert matches(torch.tensor([[0.4999]])) == 0


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_boxes_changes_nothing_and_scores_are_shares(seed: int) -> None:
    generator = np.random.default_rng(seed)
    one, other = GrefcocoScorer(), GrefcocoScorer()
    for _ in range(20):
        low = generator.uniform(0, 100, (4, 2))
        boxes = np.concatenate([low, low + generator.uniform(1, 50, (4, 2))], axis=1)
        found, scores = boxes + generator.normal(0, 2, boxes.shape).round(1), generator.uniform(0.5, 1, 4)
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2])
        order = generator.permutation(4)
        assert one.add(boxes, found, scores) == other.add(boxes[::-1], found[order], scores[order])
    assert one.result() == other.result()
    assert all(0 <= value <= 1 for value in one.result().values())


@pytest.mark.parametrize(
    ("targets", "found", "scores", "message"),
    [
        ([[1, 2, 3]], [], [], "targets are rows of four finite numbers"),
        ([[5, 5, 1, 9]], [], [], "targets are .* the left top corner first"),
        ([], [[1, 2, 3, float("inf")]], [1.0], "found boxes are rows of four"),
        ([], [BOX], [], "scores are one finite number a box, 1 here"),
        ([], [BOX], ["high"], "scores are one finite number a box"),
        ([], "boxes", [], "found boxes are rows of four"),
    ],
    ids=["three", "corners", "infinite", "no-score", "text", "no-boxes"],
)
def test_what_is_ill_formed_is_refused_in_a_line(targets: Any, found: Any, scores: Any, message: str) -> None:
    scorer = GrefcocoScorer()
    with pytest.raises(OFAError, match=message) as raised:
        scorer.add(targets, found, scores)
    assert "\n" not in str(raised.value)
    assert scorer.result() == {}
