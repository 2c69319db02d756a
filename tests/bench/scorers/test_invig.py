from __future__ import annotations

import numpy as np
import pytest
from reference import metric_golden

from ofa_core import OFAError
from ofa_core.bench.scorers.invig import InvigScorer, boxes_of_text, text_of_box

WHOLE = [[0.001, 0.001, 0.999, 0.999]]


@pytest.mark.reference
def test_texts_are_read_as_published() -> None:
    for row in metric_golden("tio_boxes.json")["strings"]:
        boxes = boxes_of_text(row["text"])
        if isinstance(row["boxes"], str):  # the published code fails on a number of more than 64 bits
            assert "OverflowError" in row["boxes"]
            assert ((boxes >= 0.001) & (boxes <= 0.999)).all()
            continue
        assert boxes == pytest.approx(np.array(row["boxes"]), abs=1e-12), row["text"]
        assert boxes * [640, 480, 640, 480] == pytest.approx(np.array(row["boxes_640x480"]), abs=1e-9)
        assert boxes_of_text(row["text"], strict=True).tolist() == row["strict"]


@pytest.mark.reference
def test_boxes_are_spelt_as_published() -> None:
    for row in metric_golden("tio_boxes.json")["box_to_string"]:
        assert text_of_box(row["box"]) == row["text"]


@pytest.mark.reference
def test_accuracies_are_the_published_ones_on_ties_too() -> None:
    golden = metric_golden("tio_boxes.json")["grounding"]
    scorer = InvigScorer()
    for found, target in golden["pairs_predicted_target"]:
        scorer.add(target, found)
    result = {f"grounding_acc_iou_{name[4:]}": round(value, 4) for name, value in scorer.result().items()}
    assert result == golden["expected"]


def test_a_number_of_any_length_is_a_bin() -> None:
    assert boxes_of_text(f"<bin_1><bin_2><bin_{'9' * 6000}><bin_{10**30}>").tolist() == [[0.001, 0.002, 0.999, 0.999]]


def test_a_text_without_a_box_means_the_whole_picture() -> None:
    assert boxes_of_text("no <bin_1> box").tolist() == WHOLE
    assert boxes_of_text("no box", strict=True).shape == (0, 4)
    assert InvigScorer().add("<bin_0> <bin_0> <bin_1000> <bin_1000>", "nothing") == 1.0


def test_the_last_box_is_compared_with_the_best_target() -> None:
    scorer = InvigScorer()
    targets = "<bin_100> <bin_100> <bin_200> <bin_200> and <bin_500> <bin_500> <bin_900> <bin_900>"
    assert scorer.add(targets, f"{targets} <bin_0> <bin_0> <bin_50> <bin_50>") == 0.0
    assert scorer.add(targets, "<bin_100> <bin_100> <bin_200> <bin_200>") == 1.0
    assert set(scorer.result().values()) == {0.5}


def test_reversed_corners_overlap_nothing() -> None:
    box = "<bin_900> <bin_800> <bin_100> <bin_50>"
    assert InvigScorer().add(box, box) == 0.0


def test_no_samples_have_no_score_and_what_is_no_box_is_refused() -> None:
    assert InvigScorer().result() == {}
    with pytest.raises(OFAError, match="four finite numbers"):
        text_of_box([0.1, 0.2, 0.3])
