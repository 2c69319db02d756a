"""Any number of boxes: the rule by which a model goes on or ends, and answers of models that learned it."""

from __future__ import annotations

import pytest
import torch
from reference import lively_ofa, picture, scripted
from torch import Tensor

from ofa_core import OFA, OFAModel, TaskSettings
from ofa_core.config import Calibration
from ofa_core.generation.logits_processors import Step
from ofa_core.heads.any_boxes import BoxOrEnd, least_mass, names_any_number, says_absence
from ofa_core.text.vocabulary import BOS, EOS

#: Ids of the bins of a vocabulary of 12 tokens.
BINS = range(6, 12)


def step(*said: int, most: int = 64) -> Step:
    return Step(torch.tensor([[[BOS, *said]]]), torch.tensor([0]), most)


def scores(end: float, word: float, bins: float) -> Tensor:
    """Logits [1, 1, 12] of probabilities: of ``</s>``, of a word, and of each of six bins."""
    row = torch.full((12,), 1e-6)
    row[EOS], row[4], row[BINS.start :] = end, word, bins
    return row.log()[None, None]


def left(found: Tensor) -> set[int]:
    """The ids that may follow."""
    return set(found[0, 0].isfinite().nonzero().flatten().tolist())


OTHERS = set(range(BINS.start))


@pytest.mark.parametrize(
    ("said", "given", "allowed"),
    [
        ((), (0.0001, 0.3, 0.117), set(BINS)),  # the word is the likeliest token, a box is likelier as a whole
        ((), (0.0001, 0.6, 0.066), OTHERS),
        ((6, 6, 9, 9), (0.45, 0.0001, 0.09), set(BINS)),
        ((6, 6, 9, 9), (0.6, 0.0001, 0.06), OTHERS),
        ((6, 6), (0.9, 0.01, 0.01), set(BINS)),  # within a box
        ((4,), (0.9, 0.01, 0.01), set(range(12))),  # words are free
        ((6, 6, 9, 9, 4), (0.3, 0.1, 0.1), set(range(12))),
    ],
)
def test_the_likelier_way_on_is_all_that_is_left(
    said: tuple[int, ...], given: tuple[float, float, float], allowed: set[int]
) -> None:
    before = scores(*given)
    after = BoxOrEnd(BINS)(before.clone(), step(*said))
    assert left(after) == allowed
    assert torch.equal(after[after.isfinite()], before[after.isfinite()])


@pytest.mark.parametrize(("least", "allowed"), [(0.0, set(BINS)), (0.3, set(BINS)), (0.45, OTHERS), (0.9, OTHERS)])
def test_the_first_box_needs_the_probability_that_is_asked_of_it(least: float, allowed: set[int]) -> None:
    assert left(BoxOrEnd(BINS, least)(scores(0.0001, 0.66, 0.066), step())) == allowed
    assert left(BoxOrEnd(BINS, least)(scores(0.45, 0.0001, 0.09), step(6, 6, 9, 9))) == set(BINS), "no further one does"


def test_a_calibrated_model_says_a_box_that_it_would_not_hold_back() -> None:
    present = ((0.1, 0.0), (0.3, 1.0))
    assert least_mass(None) == least_mass(Calibration(overlap=((0.0, 0.0), (1.0, 1.0)))) == 0.5
    assert least_mass(Calibration(present=present, least_present=0.25)) == pytest.approx(0.15)


def test_nothing_is_ruled_out_where_only_the_end_may_follow() -> None:
    assert left(BoxOrEnd(BINS)(scores(0.1, 0.1, 0.13), step(6, 6, 9, 9, most=4))) == set(range(12))


def test_a_box_without_room_is_not_begun() -> None:
    given = scores(0.1, 0.1, 0.13)
    assert left(BoxOrEnd(BINS)(given.clone(), step(6, 6, 9, 9, most=8))) == set(BINS)
    assert left(BoxOrEnd(BINS)(given.clone(), step(6, 6, 9, 9, most=7))) == OTHERS


def test_each_beam_goes_its_own_way() -> None:
    prefixes = torch.tensor([[[BOS, 6, 6, 9, 9], [BOS, 4, 4, 4, 4]]])
    found = BoxOrEnd(BINS)(scores(0.1, 0.1, 0.13).repeat(1, 2, 1), Step(prefixes, torch.tensor([0]), 64))
    assert left(found[:, :1]) == set(BINS)
    assert left(found[:, 1:]) == set(range(12))


@pytest.mark.parametrize(
    ("name", "learned", "any_number", "absence"),
    [
        ("refcoco", (), False, False),
        ("refcoco", ("grefcoco",), True, True),
        ("grefcoco", (), True, True),
        ("tio", (), False, True),
        ("ofa", ("refcoco", "detection"), False, False),
    ],
)
def test_which_models_say_what(name: str, learned: tuple[str, ...], any_number: bool, absence: bool) -> None:
    task = TaskSettings(name=name, learned=learned)
    assert names_any_number(task) == any_number
    assert says_absence(task) == absence


def taught(ofa: OFA) -> OFA:
    """The same model as one that has learned to say any number of boxes."""
    task = ofa.model.config.task.model_copy(update={"learned": ("grefcoco",)})
    model = OFAModel(ofa.model.config.model_copy(update={"task": task})).eval().requires_grad_(False)
    model.load_state_dict(ofa.model.state_dict())
    return OFA(model, ofa.tokenizer)


@pytest.mark.parametrize("seed", [0, 1, 5])
def test_a_model_that_learned_it_says_a_box_where_that_is_likelier(seed: int) -> None:
    ofa = taught(lively_ofa(seed))
    found = ofa.ground(picture(1), "the cat", num_beams=2, confidence=True, max_new_tokens=9)
    assert found.present is not None
    said = found.text.split()
    assert said[0].startswith("<bin_") == (found.present >= 0.5)
    if found.bins is not None:
        assert len(found.bins) % 4 == 0
    only = ofa.ground(picture(1), "the cat", bins_only=True)
    assert only.bins is not None
    assert len(only.bins) == 4


def test_what_it_says_is_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ofa = taught(lively_ofa())
    said = " <bin_100> <bin_250> <bin_500> <bin_998> <bin_1> <bin_1> <bin_500> <bin_500>"
    asked = scripted(monkeypatch, [*ofa.tokenizer.encode(said, symbols=True), EOS])
    found = ofa.ground(picture(0), "the cats")
    assert [one.bins for one in found.regions] == [(100, 250, 500, 998), (1, 1, 500, 500)]
    assert found.box == found.regions[0].box
    assert asked[0].options is not None
    assert (asked[0].options.min_new_tokens, asked[0].options.max_new_tokens) == (1, 64)
    scripted(monkeypatch, [*ofa.tokenizer.encode(" none"), EOS])
    assert not ofa.ground(picture(0), "the dog")
