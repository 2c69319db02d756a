"""Confidence, against the whole distribution of boxes of a model with five bins, and its calibration."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from reference import lively_ofa, picture, small_config
from torch import Tensor

import ofa_core
from ofa_core import OFA, OFAError, OFAModel
from ofa_core.config import Calibration
from ofa_core.generation.encoded import encode_once
from ofa_core.heads.box_draws import (
    BoxDraws,
    Chosen,
    corner_probabilities,
    draw_boxes,
    even_points,
    first_box,
    inverse_cdf,
    mean_around,
)
from ofa_core.heads.confidence import (
    along,
    clusters,
    confidence_of,
    decode_box,
    entropy_of_regions,
    evidence_of_presence,
    fit_monotone,
    present_of,
    reaching,
)
from ofa_core.text.vocabulary import BOS
from ofa_core.vision.boxes import box_iou

BINS = range(20, 25)


@pytest.fixture(scope="module")
def toy() -> OFAModel:
    torch.manual_seed(3)
    model = OFAModel(small_config(vocab_size=25)).eval().requires_grad_(False)
    for name, weights in model.named_parameters():
        if weights.dim() == 2:
            torch.nn.init.normal_(weights, std=0.4 if name == "token_embedding.weight" else 0.3)
    return model


SOURCES = torch.tensor([[0, 5, 6, 2], [0, 9, 2, 1]])


def enumerated(model: OFAModel, sample: int, lead: tuple[int, ...] = ()) -> dict[tuple[int, ...], float]:
    """The probability of every box of positive area, from whole passes without any cache."""
    memory = model.encode(SOURCES[sample : sample + 1])
    found = {}
    for box in itertools.product(range(len(BINS)), repeat=4):
        if box[0] >= box[2] or box[1] >= box[3]:
            continue
        prefix = torch.tensor([[BOS, *lead, *(number + BINS.start for number in box)]])
        logits = model.decode(memory, prefix)[0, len(lead) :, BINS.start : BINS.stop]
        probability = 1.0
        for corner, number in enumerate(box):
            allowed = [n for n in range(len(BINS)) if (n < 4 if corner < 2 else n > box[corner - 2])]
            row = logits[corner][allowed].softmax(-1)
            probability *= float(row[allowed.index(number)])
        found[box] = probability
    return found


@pytest.mark.parametrize("lead", [(), (7, 8)], ids=["at once", "behind words"])
def test_drawn_boxes_are_the_models_distribution(toy: OFAModel, lead: tuple[int, ...]) -> None:
    box = (20, 21, 23, 24)
    chosen = [Chosen(lead, box), Chosen((), box)]
    found = draw_boxes(toy, encode_once(toy, SOURCES, None), chosen, BINS, 4000)
    for sample, draws in enumerate(found):
        exact = enumerated(toy, sample, chosen[sample].lead)
        assert sum(exact.values()) == pytest.approx(1, abs=1e-5)
        boxes, shares = torch.tensor(list(exact), dtype=torch.float32), torch.tensor(list(exact.values()))
        drawn = [tuple(map(int, one)) for one in draws.drawn.tolist()]
        for one, probability in exact.items():
            assert drawn.count(one) / 4000 == pytest.approx(probability, abs=0.012)
        said = [(1, 1, 3, 4)]
        expected = float((box_iou(torch.tensor(said, dtype=torch.float32), boxes) * shares).sum())
        assert decode_box(draws, said, "argmax").expected_iou == pytest.approx(expected, abs=0.01)
        every = (box_iou(boxes[:, None], boxes[None]) * shares).sum(1)
        best = decode_box(draws, said, "mbr").expected_iou
        assert best >= float(every.max()) - 0.01  # no whole box is better


def test_a_few_draws_are_near_the_whole_distribution(toy: OFAModel) -> None:
    (first, second) = draw_boxes(toy, encode_once(toy, SOURCES, None), [Chosen(), Chosen()], BINS)
    for sample, draws in enumerate((first, second)):
        exact = enumerated(toy, sample)
        boxes, shares = torch.tensor(list(exact), dtype=torch.float32), torch.tensor(list(exact.values()))
        errors = [
            abs(decode_box(draws, [box], "argmax").expected_iou - float((box_iou(row, boxes) * shares).sum()))
            for box, row in zip(exact, boxes, strict=True)
        ]
        assert max(errors) < 0.12
        assert sum(errors) / len(errors) < 0.03


def test_mass_and_the_mean_around_the_chosen_box(toy: OFAModel) -> None:
    chosen = Chosen((), (20, 21, 23, 24))
    (draws, other) = draw_boxes(toy, encode_once(toy, SOURCES, None), [chosen, Chosen()], BINS)
    memory = toy.encode(SOURCES[:1])
    logits = toy.decode(memory, torch.tensor([[BOS, *chosen.box]]))[0]
    assert draws.mass == pytest.approx(float(logits[0].softmax(-1)[BINS.start : BINS.stop].sum()), abs=1e-5)
    x0 = logits[0, BINS.start : BINS.stop - 1].softmax(-1)  # not the last one, behind which nothing lies
    assert draws.expected is not None
    assert float(draws.expected[0]) == pytest.approx(float(x0[1] / (x0[0] + x0[1])), abs=1e-4)  # bins 0 and 1
    x1 = logits[2, BINS.start + 1 : BINS.stop].softmax(-1)  # bins 1 to 4, of which 2, 3 and 4 are near 3
    near = float((x1[1:] * torch.tensor([2.0, 3.0, 4.0])).sum() / x1[1:].sum())
    assert float(draws.expected[2]) == pytest.approx(near, abs=1e-4)
    assert other.expected is None


def test_a_batch_draws_what_its_samples_draw_alone(toy: OFAModel) -> None:
    together = draw_boxes(toy, encode_once(toy, SOURCES, None), [Chosen((7,), (20, 20, 24, 24)), Chosen()], BINS)
    for sample, chosen in enumerate([Chosen((7,), (20, 20, 24, 24)), Chosen()]):
        (alone,) = draw_boxes(toy, encode_once(toy, SOURCES[sample : sample + 1], None), [chosen], BINS)
        assert torch.equal(alone.drawn, together[sample].drawn)


def test_no_draw_is_ruled_out_at_the_ends_of_the_distribution() -> None:
    logits = torch.full((1, 1, 5), -200.0)
    logits[..., 2] = 0
    probabilities = corner_probabilities(logits.expand(1, 2, 5), torch.tensor([[[1, 0], [1, 0]]]))
    assert inverse_cdf(probabilities, torch.tensor([0.0, 1.0])).tolist() == [[2, 2]]
    certain = torch.tensor([[[0.0, 0.0, 1.0, 0.0]]])
    assert inverse_cdf(certain, torch.tensor([0.0, 0.5, 1.0])).tolist() == [[2, 2, 2]]
    ruled = corner_probabilities(torch.zeros(1, 1, 5), torch.tensor([[[3, 1]]]))
    assert ruled.tolist() == [[[0, 0, 0, 0, 1]]]


def test_points_are_even_in_every_dimension() -> None:
    points = even_points(64)
    assert torch.equal(points, even_points(64))
    assert points.min() > 0
    assert points.max() < 1
    for column in points.T:
        assert torch.histc(column, 64, 0, 1).tolist() == [1] * 64
    assert len({tuple((row * 2).long().tolist()) for row in points}) == 16  # all corners of the cube


def test_the_mean_is_taken_within_the_window_alone() -> None:
    probabilities = torch.zeros(1, 1000)
    probabilities[0, [500, 520, 900]] = torch.tensor([0.4, 0.2, 0.4])
    assert float(mean_around(probabilities, torch.tensor([500]))) == pytest.approx((500 * 2 + 520) / 3)
    assert float(mean_around(probabilities, torch.tensor([100]))) == 100  # nothing is near


@pytest.mark.parametrize(
    ("tokens", "lead", "box"),
    [
        ([20, 21, 22, 23, 2], (), (20, 21, 22, 23)),
        ([5, 6, 20, 21, 22, 23, 7, 2], (5, 6), (20, 21, 22, 23)),
        ([20, 21, 22, 5, 23], (), ()),
        ([22, 21, 20, 23], (), ()),
        ([5, 6, 2], (), ()),
        ([], (), ()),
    ],
)
def test_the_first_box_of_an_answer(tokens: list[int], lead: tuple[int, ...], box: tuple[int, ...]) -> None:
    assert first_box(tokens, BINS) == Chosen(lead, box)


def drawn_at(*groups: tuple[tuple[float, float, float, float], int]) -> Tensor:
    return torch.tensor([list(box) for box, count in groups for _ in range(count)], dtype=torch.float32)


def test_clusters_and_their_entropy() -> None:
    left, near, right = (0.0, 0.0, 10.0, 10.0), (1.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 70.0)
    drawn = drawn_at((left, 5), (near, 1), (right, 2))
    found = clusters(drawn)
    assert [(one.bins, one.share) for one in found] == [(left, 0.75), (right, 0.25)]
    assert entropy_of_regions(drawn) == pytest.approx(-0.75 * math.log2(0.75) - 0.25 * math.log2(0.25))
    assert entropy_of_regions(drawn_at((left, 4))) == 0
    assert entropy_of_regions(drawn_at((left, 4), (right, 4))) == 1


def test_what_each_way_of_decoding_takes() -> None:
    drawn = drawn_at(((0, 0, 10, 10), 1), ((2, 2, 12, 12), 3))
    draws = BoxDraws(drawn, torch.tensor([1.0, 1.0, 11.0, 11.0]), 1.0)
    said = [(0, 0, 10, 10), (2, 2, 12, 12)]
    assert decode_box(draws, said, "argmax").bins == (0, 0, 10, 10)
    assert decode_box(draws, said, "expected").bins == (1, 1, 11, 11)
    best = decode_box(draws, said, "mbr")
    assert best.bins == (2, 2, 12, 12)
    assert best.expected_iou == pytest.approx((3 + 64 / 136) / 4)


def near(*knots: tuple[float, float]) -> tuple[object, ...]:
    return tuple(pytest.approx(knot) for knot in knots)


def test_a_line_that_never_falls() -> None:
    assert fit_monotone([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1]) == near((0.1, 0), (0.2, 0.5), (0.3, 0.5), (0.4, 1))
    assert fit_monotone([0.5, 0.5, 0.5], [1, 0, 0]) == near((0.5, 1 / 3))
    values = [i / 100 for i in range(100)]
    knots = fit_monotone(values, [float(v > 0.5) for v in values], most=10)
    assert len(knots) <= 20
    assert all(a[0] < b[0] and a[1] <= b[1] for a, b in itertools.pairwise(knots))
    assert along(knots, 0.0) == 0
    assert along(knots, 1.0) == 1
    with pytest.raises(OFAError, match=r"^0 values and 0 targets make no calibration$"):
        fit_monotone([], [])


def test_it_is_the_best_of_all_lines_that_never_fall() -> None:
    """As brute force over all heights of a grid finds."""
    values, targets = [0.1, 0.2, 0.3, 0.4, 0.5], [0.25, 0.75, 0.5, 0.25, 1.0]
    knots = fit_monotone(values, targets)
    grid = [i / 8 for i in range(9)]
    best = min(
        sum((y - t) ** 2 for y, t in zip(heights, targets, strict=True))
        for heights in itertools.combinations_with_replacement(grid, 5)
    )
    blocks = [0.25, 0.5, 0.5, 0.5, 1.0]
    assert sum((y - t) ** 2 for y, t in zip(blocks, targets, strict=True)) == best
    assert knots == near((0.1, 0.25), (0.2, 0.5), (0.4, 0.5), (0.5, 1.0))


def test_what_confidence_and_presence_mean() -> None:
    fitted = Calibration(overlap=((0.2, 0.1), (0.8, 0.9)), present=((0.2, 0.0), (0.6, 1.0)), least_present=0.3)
    assert confidence_of(0.5, None) == 0.5
    assert confidence_of(0.5, fitted) == pytest.approx(0.5)
    assert confidence_of(0.1, fitted) == pytest.approx(0.1)
    assert present_of(0.4, 0.8, fitted, False) == pytest.approx(0.5)
    assert present_of(0.4, 0.8, None, False) is None
    assert present_of(0.4, 0.8, None, True) == 0.8
    assert present_of(0.4, 0.8, None, False, 0.3) == 0.3
    assert present_of(0.4, 0.8, None, True, 0.3) == pytest.approx(0.55)
    assert present_of(0.4, 0.8, fitted, True, 0.3) == pytest.approx(0.4)


def test_evidence_of_presence_is_mass_and_agreement() -> None:
    drawn = drawn_at(((0, 0, 10, 10), 3), ((50, 50, 60, 60), 1))
    assert evidence_of_presence(BoxDraws(drawn, None, 0.8)) == pytest.approx(0.8 * 0.75)
    assert evidence_of_presence(BoxDraws(drawn[:3], None, 1.0)) == pytest.approx(1)


@pytest.mark.parametrize(
    "knots", [((0.5, 0.1), (0.5, 0.2)), ((0.1, 0.5), (0.2, 0.4)), ((0.1, 1.5),), ((-0.1, 0.5),)], ids=repr
)
def test_a_calibration_that_is_none_is_refused(knots: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match="overlap"):
        Calibration(overlap=knots)


# On a whole model


@pytest.fixture(scope="module")
def ofa() -> OFA:
    return lively_ofa()


def calibrated(ofa: OFA, **fields: object) -> OFA:
    """The same model with a calibration."""
    task = ofa.model.config.task.model_copy(update={"calibration": Calibration.model_validate(fields)})
    model = OFAModel(ofa.model.config.model_copy(update={"task": task})).eval().requires_grad_(False)
    model.load_state_dict(ofa.model.state_dict())
    return OFA(model, ofa.tokenizer)


def test_confidence_changes_nothing_else(ofa: OFA) -> None:
    for optimize in (True, False):
        same = OFA(ofa.model, ofa.tokenizer, optimize=optimize)
        plain = same.ground(picture(1), "the cat", bins_only=True)
        sure = same.ground(picture(1), "the cat", bins_only=True, confidence=True)
        assert plain.confidence is None
        assert plain.present is None
        assert sure.confidence is not None
        assert 0 < sure.confidence < 1
        assert (sure.box, sure.bins, sure.text) == (plain.box, plain.bins, plain.text)
        assert sure.token_scores == pytest.approx(plain.token_scores, rel=1e-4)
    OFA(ofa.model, ofa.tokenizer)


def test_many_are_as_sure_as_one_by_one(ofa: OFA) -> None:
    pictures, texts = [picture(1), picture(2), picture(3)], ["the cat", "a dog on the left", "it"]
    together = ofa.ground(pictures, texts, bins_only=True, decode="mbr", batch_size=3)
    for one, image, text in zip(together, pictures, texts, strict=True):
        alone = ofa.ground(image, text, bins_only=True, decode="mbr")
        assert alone.box == pytest.approx(one.box, abs=1e-3)
        assert alone.confidence == pytest.approx(one.confidence, abs=1e-4)


def test_the_best_decoding_is_never_less_sure(ofa: OFA) -> None:
    sure = {
        decode: ofa.ground(picture(4), "the cat", bins_only=True, confidence=True, decode=decode).confidence
        for decode in ("argmax", "expected", "mbr")
    }
    assert sure["mbr"] is not None
    assert sure["argmax"] is not None
    assert sure["expected"] is not None
    assert sure["mbr"] >= max(sure["argmax"], sure["expected"]) - 1e-6


def test_a_calibrated_model_is_asked_by_itself(ofa: OFA) -> None:
    other = calibrated(ofa, overlap=[(0.0, 0.25), (1.0, 0.25)])
    found = other.ground(picture(1), "the cat", bins_only=True)
    assert found.confidence == 0.25
    assert found.box == ofa.ground(picture(1), "the cat", bins_only=True, decode="mbr").box
    assert other.ground(picture(1), "the cat", bins_only=True, confidence=False).confidence is None


def test_there_is_no_box_where_the_thing_is_not_there(ofa: OFA) -> None:
    absent = calibrated(ofa, present=[(0.0, 0.1), (1.0, 0.1)], least_present=0.5)
    found = absent.ground(picture(1), "the cat", bins_only=True)
    assert not found
    assert found.box is None
    assert found.confidence is None
    assert found.present is not None
    assert found.present <= 0.1
    assert absent.ground(picture(1), "the cat", bins_only=True, confidence=False)
    there = calibrated(ofa, present=[(0.0, 0.9), (1.0, 0.9)], least_present=0.0)
    assert there.ground(picture(1), "the cat", bins_only=True)


def test_a_model_is_asked_whether_the_thing_is_there_where_it_is_to_be(ofa: OFA) -> None:
    yes = ofa.is_present(picture(1), "the cat").yes
    checked = ofa.ground(picture(1), "the cat", bins_only=True, presence="check")
    assert checked.present == pytest.approx(yes, abs=1e-5)
    assert bool(checked) == (yes >= 0.5)
    both = calibrated(ofa, present=[(0.0, 0.4), (1.0, 0.4)], least_present=0.0)
    told = both.ground(picture(1), "the cat", bins_only=True, presence="check")
    assert told.present == pytest.approx((yes + 0.4) / 2, abs=1e-5)
    assert told


def learned(ofa: OFA, *tasks: str, name: str = "ofa") -> OFA:
    """The same model as one that has learned other tasks."""
    task = ofa.model.config.task.model_copy(update={"name": name, "learned": tasks})
    model = OFAModel(ofa.model.config.model_copy(update={"task": task})).eval().requires_grad_(False)
    model.load_state_dict(ofa.model.state_dict())
    return OFA(model, ofa.tokenizer)


@pytest.mark.parametrize(("name", "tasks"), [("ofa", ("grefcoco",)), ("grefcoco", ()), ("tio", ())], ids=str)
def test_a_model_that_says_what_is_not_there_tells_presence(ofa: OFA, name: str, tasks: tuple[str, ...]) -> None:
    found = learned(ofa, *tasks, name=name).ground(picture(1), "the cat", bins_only=True, confidence=True)
    source = [BOS, *ofa.tokenizer.encode(' which region does the text " the cat " describe?'), 2]
    with torch.inference_mode():
        memory = ofa.model.encode(torch.tensor([source]), ofa.pipeline.transform(picture(1))[None])
        first = ofa.model.decode(memory, torch.tensor([[BOS]]))[0, -1].softmax(-1)
    bins = ofa.tokenizer.vocabulary.bin_ids
    assert found.present == pytest.approx(float(first[bins.start : bins.stop].sum()), abs=1e-4)
    assert ofa.ground(picture(1), "the cat", bins_only=True, confidence=True).present is None


def test_all_regions_have_their_shares(ofa: OFA) -> None:
    found = ofa.ground(picture(1), "the cat", bins_only=True, all=True)
    shares = [one.score for one in found.regions]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 1 + 1e-6
    assert all(0.1 <= share <= 1 for share in shares)
    width, height = picture(1).size
    for one in found.regions:
        assert 0 <= one.box[0] < one.box[2] <= width
        assert 0 <= one.box[1] < one.box[3] <= height


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decode": "best"}, r"^decode is 'argmax', 'expected', 'mbr' or None, not 'best'$"),
        ({"decode": "best", "confidence": False}, "^confidence=False draws no boxes"),
        ({"decode": "mbr", "confidence": False}, "^confidence=False draws no boxes"),
        ({"all": True, "confidence": False}, "^confidence=False draws no boxes"),
        ({"presence": "check", "confidence": False}, "^confidence=False draws no boxes"),
        ({"presence": "yes"}, r"^presence is 'check' or None, not 'yes'$"),
    ],
    ids=repr,
)
def test_what_cannot_be_asked_together_is_refused(ofa: OFA, options: dict[str, object], message: str) -> None:
    with pytest.raises(OFAError, match=message):
        ofa.ground(picture(1), "the cat", **options)  # type: ignore[call-overload]


def test_a_model_that_never_learned_to_tell_is_not_asked(ofa: OFA) -> None:
    with pytest.raises(OFAError, match=r"^presence='check' asks what this model has not learned \(bin_check\)"):
        learned(ofa, name="refcoco").ground(picture(1), "the cat", presence="check")
    assert learned(ofa, "bin_check", name="refcoco").ground(picture(1), "the cat", presence="check").present is not None


def test_a_dialogs_box_has_a_confidence(ofa: OFA) -> None:
    found = ofa.ground_dialog(picture(1), [("is it a cat?", "yes")], confidence=True, max_new_tokens=12)
    assert (found.confidence is None) == (found.box is None)


def test_a_calibration_is_stored_with_the_model(ofa: OFA, tmp_path: object) -> None:
    other = calibrated(ofa, overlap=[(0.1, 0.2), (0.7, 0.8)], least_present=0.25)
    directory = f"{tmp_path}/model"
    other.save(directory)
    assert ofa_core.load(directory).model.config.task == other.model.config.task


def test_the_value_at_which_a_line_reaches_a_height() -> None:
    knots = ((0.2, 0.1), (0.4, 0.1), (0.6, 0.9))
    for height, value in ((0.05, 0.0), (0.1, 0.0), (0.5, 0.5), (0.9, 0.6)):
        assert reaching(knots, height) == pytest.approx(value)
        assert along(knots, reaching(knots, height)) >= height - 1e-12
    assert reaching(knots, 0.95) == math.inf
