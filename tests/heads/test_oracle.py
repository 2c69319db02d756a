from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from PIL import Image
from reference import SCORE_TOLERANCE, picture, scripted
from torch import Tensor

from ofa_core import OFA, ImageTransform, OFAError, OracleAnswer, score_candidates

BOS, PAD, EOS, UNK = range(4)
BOX = (9, 15, 45, 60)  # of a picture of 90 × 60: fractions 0.1, 0.25, 0.5, 1
BINS = [100, 250, 500, 998]  # times 999, to the nearest; the last is clipped to 0.999 before
DIALOG = [("Is it a  dog?", "No"), ("is it red?", "yes")]
ASKED = (
    " \n#instruction: answer the question based on the region with yes or no.\n#context: "
    '"human: is it a dog? agent: no human: is it red? agent: yes human: is it on the left?"\n#region:'
)


def source_of(ofa: OFA, text: str, bins: list[int]) -> list[int]:
    bin_start = len(ofa.tokenizer) - 1000
    return [BOS, *ofa.tokenizer.encode(text), *(bin_start + number for number in bins), EOS]


def first_logits(ofa: OFA, source: list[int], image: Image.Image) -> Tensor:
    """What the decoder wants to say first, [V]."""
    with torch.inference_mode():
        memory = ofa.model.encode(torch.tensor([source]), ImageTransform(64)(image)[None])
        return ofa.model.decode(memory, torch.tensor([[BOS]]))[0, -1]


# GuessWhat?!


def test_the_question_is_asked_behind_the_dialog(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = scripted(monkeypatch)
    ofa.oracle(picture(0), BOX, DIALOG, "Is it on the LEFT?")
    (call,) = asked
    assert call.sources == [source_of(ofa, ASKED, BINS)]
    assert call.decoder_prompt == "none"


def test_the_first_question_has_no_dialog_before_it(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = scripted(monkeypatch)
    ofa.oracle(picture(0), BOX, [], "is it red?")
    text = (
        " \n#instruction: answer the question based on the region with yes or no.\n"
        '#context: "human: is it red?"\n#region:'
    )
    assert asked[0].sources == [source_of(ofa, text, BINS)]


def test_probabilities_are_a_softmax_over_the_first_tokens(ofa: OFA) -> None:
    logits = first_logits(ofa, source_of(ofa, ASKED, BINS), picture(0))
    ids = [ofa.tokenizer.encode(text)[0] for text in (" yes", " no", " n/a")]
    expected = logits[ids].softmax(0).tolist()
    found = ofa.oracle(picture(0), BOX, DIALOG, "is it on the left?")
    assert isinstance(found, OracleAnswer)
    assert list(found.probabilities) == ["yes", "no", "n/a"]
    assert list(found.probabilities.values()) == pytest.approx(expected, abs=SCORE_TOLERANCE)
    best = max(range(3), key=lambda index: expected[index])
    assert found.answer == ("yes", "no", "n/a")[best]
    assert found.score == max(found.probabilities.values())


def test_whole_answers_are_scored_on_demand(ofa: OFA) -> None:
    """Of one token, " yes" and " no" share what " n/a" leaves them; whole answers add what follows the first token."""
    answers = ["not red", "not blue", "red"]
    found = ofa.oracle(picture(0), BOX, DIALOG, "is it on the left?", answers=answers, scoring="candidates")
    source = torch.tensor([source_of(ofa, ASKED, BINS)])
    ids = [ofa.tokenizer.encode(f" {answer}") for answer in answers]
    scores = score_candidates(ofa.model, source, ImageTransform(64)(picture(0))[None], ids)[0]
    assert list(found.probabilities) == answers
    assert list(found.probabilities.values()) == pytest.approx(scores.exp().tolist(), abs=SCORE_TOLERANCE)

    first = first_logits(ofa, source[0].tolist(), picture(0))
    share = first[[ids[0][0], ids[2][0]]].softmax(0)  # " not" against " red"
    probabilities = found.probabilities
    assert probabilities["not red"] + probabilities["not blue"] == pytest.approx(float(share[0]), abs=SCORE_TOLERANCE)
    assert probabilities["red"] == pytest.approx(float(share[1]), abs=SCORE_TOLERANCE)


@pytest.mark.parametrize("scoring", ["first_token", "candidates"])
@pytest.mark.parametrize("answers", [("yes", "no", "n/a"), ("red", "blue"), ["green"]], ids=str)
def test_probabilities_sum_to_one(ofa: OFA, scoring: Any, answers: Any) -> None:
    found = ofa.oracle(
        [picture(0), picture(1)], [BOX, BOX], [DIALOG, []], "is it red?", answers=answers, scoring=scoring
    )
    for one in found:
        assert list(one.probabilities) == list(answers)
        assert sum(one.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert one.answer in answers
        assert one.top(1) == [(one.answer, one.score)]


def test_an_answer_depends_on_everything_it_is_about(ofa: OFA) -> None:
    cases = itertools.product([picture(0), picture(1)], [BOX, (0, 0, 90, 60)], [DIALOG, []], ["is it red?", "a dog?"])
    images, boxes, dialogs, questions = map(list, zip(*cases, strict=True))
    found = ofa.oracle(images, boxes, dialogs, questions)
    assert len({round(one.probabilities["yes"], 6) for one in found}) == 16


def test_one_question_goes_with_every_picture(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = scripted(monkeypatch)
    ofa.oracle([picture(0)] * 2, [BOX] * 2, [[], []], "is it red?")
    ofa.oracle([picture(0)] * 2, [BOX] * 2, [[], []], ["is it red?", "is it red?"])
    assert asked[0].sources == asked[1].sources
    assert len(asked[0].sources) == 2


# InViG


def test_free_answers_are_searched_for(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [" the red one on the left", " the red"]
    asked = scripted(monkeypatch, *([*ofa.tokenizer.encode(text), EOS] for text in answers))
    found = ofa.oracle(picture(0), BOX, ["The cup"], "which cup?", style="invig", num_beams=2, max_new_tokens=6)
    text = (
        " \n#instruction: answer the question based on the region.\n"
        '#context: "human: the cup agent: which cup?"\n#region:'
    )
    assert asked[0].sources == [source_of(ofa, text, BINS)]
    assert asked[0].options is not None
    assert (asked[0].options.num_beams, asked[0].options.max_new_tokens) == (2, 6)
    assert isinstance(found, OracleAnswer)
    assert (found.answer, found.alternatives, found.probabilities) == ("the red one on the left", ("the red",), {})
    assert found.score == pytest.approx(torch.tensor(-0.1).exp().item())


def test_the_first_query_knows_nothing_but_the_region(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = scripted(monkeypatch, [*ofa.tokenizer.encode(" the red cup"), EOS])
    found = ofa.query(picture(0), BOX)
    text = ' \n#instruction: state your query about the region.\n#context: ""\n#region:'
    assert asked[0].sources == [source_of(ofa, text, BINS)]
    assert asked[0].options is not None
    assert asked[0].options.model_dump(exclude_defaults=True) == {"max_new_tokens": 1024}
    assert found.text == "the red cup"


def test_free_answers_and_queries_depend_on_the_region(ofa: OFA) -> None:
    short = {"num_beams": 2, "max_new_tokens": 4}
    images, boxes = [picture(0)] * 2, [BOX, (0, 0, 90, 60)]
    queries = ofa.query(images, boxes, **short)
    answers = ofa.oracle(images, boxes, [["it"]] * 2, "which?", style="invig", **short)
    assert queries[0].score != pytest.approx(queries[1].score, abs=1e-5)
    assert answers[0].score != pytest.approx(answers[1].score, abs=1e-5)


# Errors

ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "box_outside": ({"box": (0, 0, 91, 20)}, r"box \(0, 0, 91, 20\) is not 0 <= x0 < x1 <= 90 and 0 <= y0 < y1 <= 60"),
    "box_below_zero": ({"box": (0, -1, 9, 20)}, r"box \(0, -1, 9, 20\) is not 0 <= x0"),
    "box_without_area": ({"box": (5, 5, 5, 20)}, r"box \(5, 5, 5, 20\) is not 0 <= x0 < x1"),
    "box_without_height": ({"box": (5, 5, 9, 5)}, r"box \(5, 5, 9, 5\) is not 0 <= x0 < x1"),
    "box_of_three": ({"box": (5, 5, 9)}, r"a box is \(x0, y0, x1, y1\), not \(5, 5, 9\)"),
    "no_images": ({"image": [], "box": [], "dialog": [], "question": []}, "an empty list was given"),
    "no_image": ({"image": None}, "an image is a path, a PIL image, an array or a tensor, not NoneType"),
    "empty_question": ({"question": ""}, "question"),
    "blank_question": ({"question": " \n"}, "question"),
    "no_question": ({"question": None}, "question"),
    "number_as_question": ({"question": 7}, "question"),
    "two_questions_for_one_picture": ({"question": ["a dog?", "red?"]}, "question"),
    "dialog_as_text": ({"dialog": "is it red? yes"}, "a dialog is a list of turns"),
    "dialog_of_triples": ({"dialog": [("a", "b", "c")]}, "dialog entry 0 has 3 parts"),
    "no_answers": ({"answers": []}, "the list of answers is empty"),
    "empty_answer": ({"answers": ["yes", ""]}, "answer 1 is ''"),
    "same_answers": ({"answers": ["yes", "no", "yes"]}, "answer 'yes' occurs twice, at 0 and 2"),
    "answers_that_begin_alike": (
        {"answers": ["red", "not blue", "not green"]},
        "answers 'not blue' and 'not green' begin with the same token; use scoring='candidates'",
    ),
    "unknown_scoring": ({"scoring": "mean"}, "scoring is 'first_token' or 'candidates', not 'mean'"),
    "unknown_style": ({"style": "chess"}, "'guesswhat', 'invig' or 'invig_dev', not 'chess'"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_input_that_makes_no_sense_is_refused(ofa: OFA, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    changed, message = ERRORS[name]
    asked = scripted(monkeypatch)
    with pytest.raises(OFAError, match=message):
        ofa.oracle(**{"image": picture(0), "box": BOX, "dialog": [], "question": "is it red?"} | changed)
    assert asked == []


def test_a_query_about_no_box_of_the_picture_is_refused(ofa: OFA) -> None:
    with pytest.raises(OFAError, match=r"box \(0, 0, 91, 20\) is not 0 <= x0 < x1 <= 90"):
        ofa.query(picture(0), (0, 0, 91, 20))
