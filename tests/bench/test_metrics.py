from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from reference import metric_golden

from ofa_core import BoxCodec, OFAError
from ofa_core.bench import metrics
from ofa_core.bench.metrics import (
    Floats,
    Table,
    answer_label,
    hits,
    pair_iou,
    paired_difference,
    resampled_means,
    same_answer,
    same_first_letter,
    scored_iou,
    scores_of,
    size_class,
)
from ofa_core.bench.scorers.invig import InvigScorer, boxes_of_text
from ofa_core.heads.box_codec import Box

# Boxes


def area_by_counting(first: Box, second: Box) -> float:
    """IoU of boxes on whole pixels, pixel by pixel."""

    def pixels(box: Box) -> set[tuple[int, int]]:
        x0, y0, x1, y1 = map(int, box)
        return set(itertools.product(range(x0, x1), range(y0, y1)))

    return len(pixels(first) & pixels(second)) / len(pixels(first) | pixels(second))


def whole_box(seed: int) -> Box:
    generator = np.random.default_rng(seed)
    low = generator.integers(0, 12, 2)
    x0, y0, x1, y1 = np.concatenate([low, low + generator.integers(1, 12, 2)]).tolist()
    return (float(x0), float(y0), float(x1), float(y1))


@pytest.mark.parametrize("seed", range(20))
def test_iou_equals_counting_pixels(seed: int) -> None:
    first, second = whole_box(2 * seed), whole_box(2 * seed + 1)
    expected = area_by_counting(first, second)
    assert pair_iou(first, second, "invig") == pytest.approx(expected, abs=1e-12)
    assert pair_iou(first, second, "refcoco") == pytest.approx(expected, abs=1e-6)


def test_no_box_has_no_overlap() -> None:
    assert pair_iou((0.0, 0.0, 5.0, 5.0), None, "invig") == 0.0
    assert scored_iou((0.0, 0.0, 5.0, 5.0), None, (10, 10), "refcoco") == 0.0


def test_half_the_overlap_counts_as_found_for_refcoco_alone() -> None:
    half = {c: pair_iou((0.0, 0.0, 100.0, 100.0), (0.0, 0.0, 100.0, 50.0), c) for c in metrics.IOU_RULES}
    assert half == {"refcoco": 0.5, "invig": 0.5}  # in float32, 1e-6 vanishes beside 10,000
    assert hits(np.array([half["refcoco"]]), 0.5, "refcoco").tolist() == [True]
    assert hits(np.array([half["invig"]]), 0.5, "invig").tolist() == [False]


def test_refcoco_adds_a_millionth_to_the_union() -> None:
    small = (0.0, 0.0, 0.001, 0.001)
    assert pair_iou(small, small, "refcoco") == pytest.approx(0.5, abs=1e-6)
    assert pair_iou(small, small, "invig") == 1.0


def test_refcoco_thresholds_are_compared_in_its_precision() -> None:
    nearly = float(np.float32(0.7))  # below 0.7 in double precision
    assert nearly < 0.7
    assert hits(np.array([nearly]), 0.7, "refcoco").all()
    assert not hits(np.array([nearly]), 0.7, "invig").any()


def test_invig_compares_with_what_the_bins_of_the_target_say() -> None:
    size, box = (640, 480), (100.3, 50.7, 300.9, 222.2)
    codec = BoxCodec("invig")
    read = codec.decode(codec.encode(box, size), size)
    assert read is not None
    assert scored_iou(box, read, size, "invig") == 1.0
    in_pixels = pair_iou(read, box, "invig")
    assert in_pixels < 1.0
    assert scored_iou(box, box, size, "invig") == pytest.approx(in_pixels, abs=1e-12)  # computed in fractions
    assert scored_iou(box, box, size, "refcoco") == pytest.approx(1.0)


def test_a_target_outside_its_picture_is_refused() -> None:
    with pytest.raises(OFAError, match="box"):
        scored_iou((0.0, 0.0, 20.0, 5.0), None, (10, 10), "invig")


def test_overlap_is_never_above_one() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        low = torch.rand(2, generator=generator) * 500
        box = (*low.tolist(), *(low + torch.rand(2, generator=generator) * 300).tolist())
        assert pair_iou(box, box, "refcoco") <= 1.0


@pytest.mark.parametrize(
    ("side", "expected"), [(31.9, "small"), (32.0, "medium"), (95.9, "medium"), (96.0, "large"), (500.0, "large")]
)
def test_sizes_have_the_borders_of_coco(side: float, expected: str) -> None:
    assert size_class((10.0, 20.0, 10.0 + side, 20.0 + side)) == expected
    assert size_class((0.0, 0.0, side * side, 1.0)) == expected


# Answers


def test_answers_are_equal_but_for_case_and_space() -> None:
    assert same_answer("yes", " Yes\n")
    assert not same_answer("yes", "yes.")
    assert not same_answer("no", "n/a")


def test_the_first_letter_alone_does_not_tell_no_from_not_applicable() -> None:
    assert same_first_letter("no", " N/A")
    assert same_first_letter("yes", "yep")
    assert not same_first_letter("yes", "no")
    assert not same_first_letter("yes", "")
    assert not same_first_letter("", "")


def test_labels_are_the_first_word_of_an_answer() -> None:
    texts = ["Yes, it is.", "no", "n/a", "the left one", "", "yesterday", "No!"]
    assert [answer_label(text) for text in texts] == ["yes", "no", "n/a", "other", "other", "other", "no"]


# Intervals


def binomial(count: int, share: float) -> Floats:
    values = np.zeros(count)
    values[: round(count * share)] = 1
    return values


@pytest.mark.parametrize(("count", "share"), [(400, 0.5), (1000, 0.2), (2000, 0.9)])
def test_the_spread_of_resampled_shares_is_the_binomial_standard_error(count: int, share: float) -> None:
    means = resampled_means(binomial(count, share)[:, None], resamples=4000)[:, 0]
    expected = math.sqrt(share * (1 - share) / count)
    assert means.mean() == pytest.approx(share, abs=4 * expected / math.sqrt(4000))
    assert means.std() == pytest.approx(expected, rel=0.05)


def test_an_interval_is_that_of_the_normal_distribution_where_that_holds() -> None:
    values = np.random.default_rng(3).normal(2.0, 3.0, 5000)
    score = scores_of(Table({"x": values}), resamples=4000)["x"]
    error = values.std() / math.sqrt(5000)
    assert score.value == pytest.approx(values.mean())
    assert score.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert score.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_intervals_hold_the_true_share_nineteen_times_out_of_twenty() -> None:
    generator = np.random.default_rng(0)
    draws = (generator.random(300) < 0.6 for _ in range(400))
    scores = [scores_of(Table({"x": draw.astype(float)}), resamples=400)["x"] for draw in draws]
    held = np.mean([score.low <= 0.6 <= score.high for score in scores])
    assert 0.92 <= held <= 0.98


def test_scores_share_their_draws_and_do_not_change_from_run_to_run() -> None:
    values = np.random.default_rng(1).random(50)
    both = scores_of(Table({"a": values, "b": 1 - values}))
    assert both == scores_of(Table({"a": values, "b": 1 - values}))
    assert both["a"].low == pytest.approx(1 - both["b"].high)
    assert both["a"].low == pytest.approx(scores_of(Table({"a": values}))["a"].low)


def test_drawing_in_parts_changes_nothing_but_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).random((30, 2))
    whole = resampled_means(values, resamples=100)
    monkeypatch.setattr(metrics, "_DRAWN_AT_ONCE", 30 * 7)
    parts = resampled_means(values, resamples=100)
    assert parts.shape == whole.shape == (100, 2)
    np.testing.assert_allclose(parts, whole, atol=1e-12)


def test_a_resample_is_the_mean_of_draws_with_replacement() -> None:
    values = np.array([[1.0], [10.0], [100.0]])
    found = {round(float(mean) * 3) for mean in resampled_means(values, resamples=500)[:, 0]}
    assert found == {sum(draw) for draw in itertools.product((1, 10, 100), repeat=3)}


def test_scores_need_a_sample() -> None:
    with pytest.raises(OFAError, match="no sample"):
        scores_of(Table({"x": np.array([])}))
    with pytest.raises(OFAError, match="no sample"):
        paired_difference(np.array([]), np.array([]))


def test_a_pair_of_equal_files_does_not_differ() -> None:
    values = binomial(100, 0.4)
    same = paired_difference(values, values)
    assert (same.value, same.low, same.high, same.p_value, same.significant) == (0, 0, 0, 1, False)


def test_the_paired_p_value_is_that_of_the_normal_test() -> None:
    # 60 gained and 40 lost of 1000: mean 0.02, standard error sqrt(100) / 1000, so z = 2.
    first, second = np.zeros(1000), np.zeros(1000)
    second[:60], first[60:100] = 1, 1
    change = paired_difference(first, second, resamples=20000)
    assert change.value == pytest.approx(0.02)
    assert change.p_value == pytest.approx(math.erfc(2 / math.sqrt(2)), abs=0.012)  # 0.0455
    assert change.low == pytest.approx(0.02 - 1.96 * 0.01, abs=0.0015)
    back = paired_difference(second, first, resamples=20000)
    assert back.value == -change.value
    assert back.p_value == pytest.approx(change.p_value, abs=0.01)


def test_pairing_sees_what_two_intervals_do_not() -> None:
    first = binomial(400, 0.5)
    second = first.copy()
    second[-12:] = 1  # 12 gained, none lost
    change = paired_difference(first, second)
    assert change.significant
    apart = scores_of(Table({"a": first}))["a"], scores_of(Table({"b": second}))["b"]
    assert apart[0].high > apart[1].low
    assert change.p_value >= 2 / (metrics.RESAMPLES + 1)


def test_chance_alone_is_called_significant_about_once_in_twenty() -> None:
    generator = np.random.default_rng(5)
    pairs = ((generator.random(200) < 0.5, generator.random(200) < 0.5) for _ in range(400))
    called = [paired_difference(a.astype(float), b.astype(float), resamples=300).significant for a, b in pairs]
    assert 0.02 <= np.mean(called) <= 0.09


# Judgements and texts


@pytest.mark.parametrize(
    ("target", "output", "distance"),
    [("", "", 0), ("abc", "", 3), ("", "ab", 2), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("猫", "猫", 0)],
)
def test_the_edits_between_two_texts_are_counted(target: str, output: str, distance: int) -> None:
    assert metrics.edit_distance(target, output) == distance
    longest = max(len(target), len(output))
    assert metrics.character_accuracy(target, output) == (1 - distance / longest if longest else 1.0)


def test_judgements_are_scored_by_the_formulas_of_f1_and_matthews() -> None:
    pairs = [("yes", "yes")] * 5 + [("yes", "no")] * 2 + [("no", "yes")] * 3 + [("no", "no")] * 7
    named = [metrics.outcome(*pair, "yes") for pair in pairs]
    columns = {name: np.array([float(one == name) for one in named]) for name in metrics.OUTCOMES}
    scores = metrics.scores_of(Table(columns, metrics.JUDGED))
    assert scores["f1"].value == pytest.approx(2 * 5 / (2 * 5 + 3 + 2))
    assert scores["matthews"].value == pytest.approx((5 * 7 - 3 * 2) / (8 * 7 * 10 * 9) ** 0.5)
    assert scores["f1"].low < scores["f1"].value < scores["f1"].high
    worse = columns | {name: np.roll(column, 4) for name, column in columns.items()}
    found = metrics.paired_differences(Table(columns, metrics.JUDGED), Table(worse, metrics.JUDGED))
    assert found["f1"].value == pytest.approx(0, abs=1e-12)
    assert found.keys() == scores.keys()


def test_judgements_without_a_positive_one_score_nothing() -> None:
    columns = {name: np.array([float(name == "true_negative")] * 3) for name in metrics.OUTCOMES}
    scores = metrics.scores_of(Table(columns, metrics.JUDGED))
    assert (scores["f1"].value, scores["matthews"].value) == (0.0, 0.0)


def test_a_better_model_has_a_better_f1() -> None:
    generator = np.random.default_rng(0)
    due = generator.random(400) < 0.5
    columns = []
    for error in (0.4, 0.1):
        said = due ^ (generator.random(400) < error)
        named = [
            metrics.outcome(*("yes" if one else "no" for one in pair), "yes") for pair in zip(due, said, strict=True)
        ]
        columns.append({name: np.array([float(one == name) for one in named]) for name in metrics.OUTCOMES})
    change = metrics.paired_differences(*(Table(one, metrics.JUDGED) for one in columns))
    assert change["f1"].significant
    assert change["matthews"].low > 0.2


#: Sizes of pictures whose sides are no powers of two, so that fractions are rounded on their way through pixels.
SIZES_OF_PICTURES = [(640, 480), (333, 500), (1024, 683), (97, 1361)]


@pytest.mark.reference
@pytest.mark.parametrize("size", SIZES_OF_PICTURES, ids=str)
def test_invig_boxes_in_pixels_are_scored_as_the_published_texts_are_on_ties_too(size: tuple[int, int]) -> None:
    codec, sides = BoxCodec("invig"), np.array(size * 2)
    ious, published = [], []
    for found, target in metric_golden("tio_boxes.json")["grounding"]["pairs_predicted_target"]:
        wanted, said = boxes_of_text(target), boxes_of_text(found)[-1]
        bins = (wanted[0] * 1000).round()
        box = tuple((bins / 999 * sides).tolist())
        if len(wanted) > 1 or bins.max() > 998 or not (wanted[0, 2:] > wanted[0, :2]).all():
            continue  # no row of a benchmark is like it
        assert codec.encode(box, size) == bins.tolist()
        ious.append(scored_iou(box, tuple((said * sides).tolist()), size, "invig"))
        published.append(InvigScorer().add(target, found))
    assert len(ious) > 100
    assert ious == published
    scorer_hits = [[iou > limit for iou in published] for limit in metrics.TIO_THRESHOLDS]
    assert [hits(np.array(ious), limit, "invig").tolist() for limit in metrics.THRESHOLDS] == scorer_hits
