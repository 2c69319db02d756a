from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from reference import metric_golden

from ofa_core import OFAError
from ofa_core.bench.scorers.detection import DetectionScorer

GOLDEN = "coco_ap.json"


def scored(golden: dict[str, Any], truths: list[dict[str, Any]], **options: Any) -> DetectionScorer:
    """A scorer that took in all pictures of COCO's lists, the last one first."""
    classes = [category["id"] for category in golden["categories"]]
    scorer = DetectionScorer(classes, **options)
    for picture in reversed([image["id"] for image in golden["images"]]):
        wanted = [truth for truth in truths if truth["image_id"] == picture]
        found = [box for box in golden["detections"] if box["image_id"] == picture]
        scorer.add(
            picture,
            [truth["bbox"] for truth in wanted],
            [truth["category_id"] for truth in wanted],
            [box["bbox"] for box in found],
            [box["category_id"] for box in found],
            [box["score"] for box in found],
            [truth["area"] for truth in wanted],
            [truth["iscrowd"] for truth in wanted],
        )
    return scorer


@pytest.mark.reference
def test_scores_are_the_published_ones() -> None:
    golden = metric_golden(GOLDEN)
    scorer = scored(golden, golden["annotations"])
    assert scorer.result() == pytest.approx(golden["expected"], abs=1e-9)
    classes = {int(name): scores for name, scores in golden["per_class"].items() if scores["AP"] is not None}
    found = scorer.by_class()
    assert found.keys() == classes.keys()
    for name, scores in classes.items():
        assert found[name] == pytest.approx(scores, abs=1e-9)


@pytest.mark.reference
def test_scores_without_classes_are_the_published_ones() -> None:
    golden = metric_golden(GOLDEN)
    scorer = scored(golden, golden["annotations"], ignore_class=True)
    assert scorer.result() == pytest.approx(golden["expected_ignoring_class"], abs=1e-9)


@pytest.mark.reference
def test_scores_of_a_set_without_small_truths_are_the_published_ones() -> None:
    golden = metric_golden(GOLDEN)
    truths = [truth for truth in golden["annotations"] if truth["area"] >= 1600][:60]
    expected = golden["expected_first_60_truths_of_area_1600_up"]
    assert scored(golden, truths).result() == pytest.approx(expected, abs=1e-9)


BOX = [10.0, 10.0, 50.0, 60.0]
FAR = [300.0, 300.0, 50.0, 60.0]


def test_what_is_found_and_no_more_scores_one_and_nothing_found_zero() -> None:
    scorer = DetectionScorer()
    scorer.add(1, [BOX], [3], [BOX], [3], [0.5])
    result = scorer.result()
    assert result["AP"] == pytest.approx(1.0)
    assert result["AR1"] == 1.0
    assert (result["APs"], result["APm"], result["APl"]) == (-1.0, pytest.approx(1.0), -1.0)
    nothing = DetectionScorer()
    nothing.add(1, [BOX], [3], [], [], [])
    assert (nothing.result()["AP"], nothing.result()["AR100"]) == (0.0, 0.0)


def test_no_truth_at_all_gives_minus_one() -> None:
    scorer = DetectionScorer()
    assert set(scorer.result().values()) == {-1.0}
    scorer.add(1, [], [], [BOX], [3], [0.5])
    assert set(scorer.result().values()) == {-1.0}
    assert scorer.by_class() == {}


def test_a_false_box_counts_by_its_score() -> None:
    sure, unsure = DetectionScorer(), DetectionScorer()
    sure.add(1, [BOX], [3], [FAR, BOX], [3, 3], [0.9, 0.8])
    unsure.add(1, [BOX], [3], [FAR, BOX], [3, 3], [0.7, 0.8])
    assert sure.result()["AP"] == pytest.approx(0.5)
    assert unsure.result()["AP"] == pytest.approx(1.0)
    assert sure.result()["AR1"] == 0.0


def test_ties_are_decided_by_the_order_of_the_list_and_of_pictures() -> None:
    first, second = DetectionScorer(), DetectionScorer()
    first.add(1, [BOX], [3], [BOX, FAR], [3, 3], [0.9, 0.9])
    second.add(1, [BOX], [3], [FAR, BOX], [3, 3], [0.9, 0.9])
    assert (first.result()["AP"], second.result()["AP"]) == (pytest.approx(1.0), pytest.approx(0.5))
    across = DetectionScorer()
    across.add(7, [], [], [FAR], [3], [0.9])
    across.add(2, [BOX], [3], [BOX], [3], [0.9])
    assert across.result()["AP"] == pytest.approx(1.0)


def test_a_crowd_may_take_many_boxes_and_has_to_take_none() -> None:
    scorer = DetectionScorer()
    crowd = [0.0, 0.0, 400.0, 400.0]
    scorer.add(1, [crowd, BOX], [3, 3], [FAR, BOX, FAR], [3, 3, 3], [0.9, 0.8, 0.7], crowd=[True, False])
    assert scorer.result()["AP"] == pytest.approx(1.0)


def test_at_most_a_hundred_boxes_count() -> None:
    scorer = DetectionScorer()
    scorer.add(1, [BOX], [3], [FAR] * 100 + [BOX], [3] * 101, np.linspace(1, 0.5, 101))
    assert scorer.result()["AR100"] == 0.0


def test_classes_that_do_not_count_are_left_out() -> None:
    scorer = DetectionScorer([3])
    scorer.add(1, [BOX, FAR], [3, 4], [BOX], [3], [0.9])
    assert scorer.result()["AP"] == pytest.approx(1.0)
    assert list(scorer.by_class()) == [3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([BOX], [], [], [], []), "truth classes are one finite number a box, 1 here"),
        (([BOX], [1.5], [], [], []), "truth classes are whole numbers"),
        (([], [], [BOX], [1], []), "scores are one finite number a box"),
        (([], [], [BOX[:3]], [1], [0.5]), "found boxes are rows of four"),
        (([BOX], ["cat"], [], [], []), "truth classes are one finite number"),
        (([], [], [[5, 5, -1, 2]], [1], [0.5]), "found boxes are .* no side of which is negative"),
        (([[], []], [], [], [], []), "truths are rows of four finite numbers"),
    ],
    ids=["no-class", "half-class", "no-score", "three", "text", "negative", "empty-rows"],
)
def test_what_is_ill_formed_is_refused_in_a_line(arguments: Any, message: str) -> None:
    scorer = DetectionScorer()
    with pytest.raises(OFAError, match=message):
        scorer.add(1, *arguments)
    scorer.add(1, [], [], [], [], [])
    with pytest.raises(OFAError, match="picture 1 was given before"):
        scorer.add(1, [], [], [], [], [])


def test_resamples_are_scored_as_their_pictures_are() -> None:
    chance = np.random.default_rng(2)

    def drawn(count: int) -> list[list[float]]:
        corners, sides = chance.integers(0, 8, (count, 2)) * 5, chance.integers(2, 12, (count, 2)) * 5
        return np.concatenate([corners, sides], axis=1).astype(float).tolist()

    pictures = []
    for _ in range(12):
        truths, found = chance.integers(0, 4), chance.integers(0, 6)
        kinds = chance.integers(0, 3, truths).tolist(), chance.integers(0, 3, found).tolist()
        pictures.append((drawn(truths), kinds[0], drawn(found), kinds[1], chance.random(found).tolist()))
    whole = DetectionScorer()
    for number, picture in enumerate(pictures):
        whole.add(number, *picture)
    taken = chance.multinomial(12, [1 / 12] * 12, size=5).astype(np.float64)
    results = whole.results(dict(enumerate(taken.T)))
    for row, times in enumerate(taken):
        again, numbers = DetectionScorer(), itertools.count()
        for picture, count in zip(pictures, times, strict=True):
            for _ in range(int(count)):
                again.add(next(numbers), *picture)
        assert {name: values[row] for name, values in results.items()} == pytest.approx(again.result(), abs=1e-12)
    once = whole.results(dict.fromkeys(range(12), np.ones(1)))
    assert whole.result() == pytest.approx({name: values[0] for name, values in once.items()})
