from __future__ import annotations

import pytest
from reference import metric_golden

from ofa_core import BoxCodec, OFAError
from ofa_core.bench.scorers.refcoco import RefcocoScorer


@pytest.mark.reference
def test_each_box_is_scored_as_published() -> None:
    golden = metric_golden("ofa_refcoco.json")
    scorer = RefcocoScorer()
    hits = [scorer.add(sample["target"], sample["pred"]) for sample in golden["direct"]]
    assert hits == [bool(sample["score"]) for sample in golden["direct"]]
    assert scorer.result() == {"acc@0.5": golden["expected"]["direct"]}


@pytest.mark.reference
def test_boxes_from_bins_are_scored_as_published() -> None:
    golden = metric_golden("ofa_refcoco.json")
    side = golden["max_image_size"]
    codec = BoxCodec("refcoco", num_bins=golden["num_bins"], image_size=side, max_image_size=side)
    scorer = RefcocoScorer()
    for sample in golden["from_tokens"]:
        size = (side / sample["w_resize_ratio"], side / sample["h_resize_ratio"])
        box = codec.decode(sample["bins"], size)  # type: ignore[arg-type]
        assert box == pytest.approx(sample["box"], rel=1e-5)
        assert scorer.add(sample["region"], box) == bool(sample["score"])
    assert scorer.result() == {"acc@0.5": golden["expected"]["from_tokens"]}


def test_a_box_is_found_by_itself_and_nothing_by_no_box() -> None:
    scorer = RefcocoScorer()
    assert scorer.result() == {}
    assert scorer.add((1.0, 2.0, 30.0, 40.0), (1.0, 2.0, 30.0, 40.0))
    assert not scorer.add((1.0, 2.0, 30.0, 40.0), None)
    assert scorer.result() == {"acc@0.5": 0.5}


def test_corners_in_the_wrong_order_are_a_miss() -> None:
    scorer = RefcocoScorer()
    assert not scorer.add((1.0, 2.0, 30.0, 40.0), (30.0, 40.0, 1.0, 2.0))
    assert not scorer.add((30.0, 40.0, 1.0, 2.0), (30.0, 40.0, 1.0, 2.0))


def test_what_is_no_box_is_refused_and_not_counted() -> None:
    scorer = RefcocoScorer()
    with pytest.raises(OFAError, match="four finite numbers"):
        scorer.add((0.0, 0.0, 1.0, 1.0), (0.0, 0.0, float("nan"), 1.0))
    assert scorer.result() == {}
