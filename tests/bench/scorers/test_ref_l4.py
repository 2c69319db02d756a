from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from reference import metric_golden

from ofa_core import OFAError
from ofa_core.bench.scorers.ref_l4 import RefL4Scorer, float32_iou, pair_by_id

#: Our names of the published ones.
NAMES = {
    "acc@0.5": "Ann-level acc iou 0.5",
    "acc@0.75": "Ann-level acc iou 0.75",
    "acc@0.9": "Ann-level acc iou 0.9",
    "mAcc": "Ann-level macc iou 0.5:0.95",
    "small acc@0.5": "Small acc iou 0.5",
    "small mAcc": "Small macc iou 0.5:0.95",
    "medium acc@0.5": "Medium acc iou 0.5",
    "medium mAcc": "Medium macc iou 0.5:0.95",
    "large acc@0.5": "Large acc iou 0.5",
    "large mAcc": "Large macc iou 0.5:0.95",
    "class acc@0.5": "Average class-level acc iou 0.5",
    "class mAcc": "Average class-level macc iou 0.5:0.95",
}


def corners(prediction: dict[str, Any]) -> Any:
    x, y, a, b = prediction["pred_bbox"]
    return (x, y, a, b) if prediction["format"] == "xyxy" else (x, y, x + a, y + b)


@pytest.mark.reference
def test_scores_are_the_published_ones() -> None:
    golden = metric_golden("refl4.json")
    scorer = RefL4Scorer(golden["category_map"])
    ious = [
        scorer.add(target["bbox"], corners(prediction), target["ori_category_id"])  # type: ignore[arg-type]
        for target, prediction in pair_by_id(golden["ground_truth"], golden["predictions"])
    ]
    assert ious == pytest.approx(golden["iou_float32"], abs=1e-6)
    result = scorer.result()
    expected = {name: golden["expected"][published] for name, published in NAMES.items()}
    assert {name: 100 * value for name, value in result.items()} == pytest.approx(expected, abs=1e-9)


BOX = (10.0, 20.0, 100.0, 50.0)


def test_a_threshold_itself_does_not_count() -> None:
    scorer = RefL4Scorer()
    assert scorer.add((0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 5.0)) == 0.5
    assert scorer.result()["acc@0.5"] == 0.0


def test_no_box_and_reversed_corners_are_misses() -> None:
    scorer = RefL4Scorer()
    assert scorer.add(BOX, None) == 0.0
    assert scorer.add(BOX, (110.0, 70.0, 10.0, 20.0)) == 0.0
    assert float32_iou((0, 0, 0, 0), (0, 0, 0, 0)) == 0.0
    assert set(scorer.result().values()) == {0.0}


@pytest.mark.parametrize(("side", "size"), [(127.99, "small"), (128.0, "medium"), (256.0, "medium"), (256.01, "large")])
def test_sizes_follow_the_root_of_the_area_and_empty_ones_have_no_score(side: float, size: str) -> None:
    scorer = RefL4Scorer()
    scorer.add((0.1, 0.7, side, side), None)
    assert [name for name in scorer.result() if "mAcc" in name] == ["mAcc", f"{size} mAcc"]


def test_classes_count_alike_however_many_samples_they_have() -> None:
    scorer = RefL4Scorer({"a": "b"})
    for category, found in (("a", True), ("b", True), ("b", False), ("c", False)):
        scorer.add(BOX, (10.0, 20.0, 110.0, 70.0) if found else None, category)
    result = scorer.result()
    assert result["acc@0.5"] == 0.5
    assert result["class acc@0.5"] == pytest.approx((2 / 3 + 0) / 2)


def test_without_the_names_of_classes_there_is_no_class_mean() -> None:
    scorer = RefL4Scorer()
    assert scorer.result() == {}
    scorer.add(BOX, None, "a")
    assert not [name for name in scorer.result() if name.startswith("class")]


def test_every_target_needs_a_prediction_and_ids_are_unique() -> None:
    assert pair_by_id([{"id": 2}, {"id": 1}], [{"id": 1}, {"id": 3}, {"id": 2}]) == [
        ({"id": 2}, {"id": 2}),
        ({"id": 1}, {"id": 1}),
    ]
    with pytest.raises(OFAError, match="1 of 2 targets have no prediction, the first of them 2"):
        pair_by_id([{"id": 2}, {"id": 1}], [{"id": 1}])
    with pytest.raises(OFAError, match="two of the predictions have the id 1"):
        pair_by_id([{"id": 1}], [{"id": 1}, {"id": 1}])
    with pytest.raises(OFAError, match="one of the targets has no id"):
        pair_by_id([{"name": 1}], [])


def test_ill_formed_boxes_are_refused() -> None:
    with pytest.raises(OFAError, match="positive sides"):
        RefL4Scorer().add((0.0, 0.0, 0.0, 5.0), None)
    with pytest.raises(OFAError, match="no side of which is negative"):
        RefL4Scorer().add((0.0, 0.0, -1.0, 5.0), None)
    with pytest.raises(OFAError, match="found boxes are rows of four"):
        RefL4Scorer().add(BOX, (1.0, 2.0, np.nan, 4.0))
