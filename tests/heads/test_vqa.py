from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
from reference import SCORE_TOLERANCE, assert_same, lively_ofa, picture, scripted

from ofa_core import OFA, Answer, OFAError, TaskSettings
from ofa_core.generation.scoring import decoder_prompt_ids
from ofa_core.heads.grounding import refcoco_codec

BOS, PAD, EOS, UNK = range(4)
QUESTION = "what color is the car?"
COLORS = ["red", "dark green", "dark blue", "blue", "light blue"]


def source_of(ofa: OFA, text: str) -> list[int]:
    return [BOS, *ofa.tokenizer.encode(text), EOS]


# What is asked


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("what color is the car?", " what color is the car?"),
        ("what color is the car", " what color is the car?"),
        ("What COLOR is the car ?", " what color is the car ?"),
        ("what color is the car? ", " what color is the car?"),
        ("what color is the car??", " what color is the car??"),
        ("*is it a half-open door/window", " is it a half open door window?"),
        ("where  is the <person>?", " where is the <person>?"),  # pre_question leaves it, pre_caption does not
        ("is it {question}?", " is it {question}?"),
        ("is it <bin_3>?", " is it <bin_3>?"),
    ],
)
def test_a_question_is_normalized_and_ends_in_a_question_mark(
    ofa: OFA, monkeypatch: pytest.MonkeyPatch, question: str, asked: str
) -> None:
    calls = scripted(monkeypatch, [EOS])
    ofa.answer(picture(0), question)
    assert calls[0].sources == [source_of(ofa, asked)]
    assert max(calls[0].sources[0]) < ofa.tokenizer.vocabulary.mask


def test_options_are_those_of_the_original(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = scripted(monkeypatch, [EOS])
    ofa.answer(picture(0), QUESTION)
    assert calls[0].options is not None
    assert calls[0].options.model_dump(exclude_defaults=True) == {"normalize_scores": False}
    assert calls[0].options.num_beams == 5
    assert list(calls[0].constraints) == []


def test_a_very_long_question_is_cut_with_a_warning(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = scripted(monkeypatch, [EOS])
    with pytest.warns(UserWarning, match="^a question of 5000 words was cut to 128$"):
        ofa.answer(picture(0), " ".join(["why"] * 5000) + "?")
    assert calls[0].sources == [source_of(ofa, " why" * 128 + "?")]


def test_a_very_long_question_is_answered(ofa: OFA) -> None:
    with pytest.warns(UserWarning, match="was cut to 128"):
        found = ofa.answer(picture(0), " ".join(["why"] * 5000), candidates=COLORS)
    assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-5)


# Objects


@pytest.mark.parametrize(
    ("objects", "appended"),
    [
        (["car", "traffic light"], " object: car traffic light"),
        ([f"o{number}" for number in range(40)], " object: " + " ".join(f"o{number}" for number in range(30))),
        ([], " object: "),
        ([""], " object: "),
        (["  dog ", "  cat", "", "Bird "], " object: dog    cat  Bird"),
        (None, ""),
    ],
    ids=["two", "forty", "empty", "one_empty", "spaces", "none"],
)
def test_names_of_objects_follow_the_question(
    ofa: OFA, monkeypatch: pytest.MonkeyPatch, objects: Any, appended: str
) -> None:
    calls = scripted(monkeypatch, [EOS])
    ofa.answer(picture(0), QUESTION, objects=objects)
    assert calls[0].sources == [source_of(ofa, f" {QUESTION}{appended}")]


def test_every_question_has_objects_of_its_own(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = scripted(monkeypatch, [EOS])
    ofa.answer([picture(0)] * 3, "what", objects=[["car"], None, ["dog", "cat"]])
    texts = [" what? object: car", " what?", " what? object: dog cat"]
    assert calls[0].sources == [source_of(ofa, text) for text in texts]
    with pytest.raises(OFAError, match="3 images need a list of 3 lists of objects, one for each"):
        ofa.answer([picture(0)] * 3, "what", objects=[["car"], ["dog"]])


@pytest.mark.parametrize("objects", ["car", [7], [None]], ids=repr)
def test_objects_that_are_no_list_of_names_are_refused(ofa: OFA, objects: Any) -> None:
    with pytest.raises(OFAError, match="object"):
        ofa.answer(picture(0), QUESTION, objects=objects)


# What the decoder starts from


@pytest.mark.parametrize("candidates", [None, COLORS], ids=["free", "closed"])
@pytest.mark.parametrize(
    ("given", "trained_with", "kind"),
    [
        (None, None, "prev_output"),
        (None, "none", "none"),
        (None, "src", "src"),
        ("none", "src", "none"),
        ("src", None, "src"),
        ("prev_output", "none", "prev_output"),
    ],
)
def test_the_decoder_prompt_is_the_given_one_or_the_checkpoints_or_the_tasks(
    monkeypatch: pytest.MonkeyPatch, given: Any, trained_with: Any, kind: str, candidates: Any
) -> None:
    task = TaskSettings(image_size=64, max_image_size=64, code_dict_size=0, prompt_type=trained_with)
    ofa = lively_ofa(task=task)
    calls = scripted(monkeypatch, [EOS])
    ofa.answer(picture(0), QUESTION, candidates=candidates, decoder_prompt=given)
    inside = ofa.tokenizer.encode(f" {QUESTION}")
    expected = {"none": [], "prev_output": inside, "src": [*inside, EOS]}[kind]
    if candidates is None:
        assert calls[0].prefixes == [expected]
    else:
        assert calls[0].decoder_prompt == kind


@pytest.mark.parametrize(
    ("kind", "prefix"), [("none", []), ("src", [5, 6, EOS]), ("prev_output", [5, 6])], ids=lambda value: str(value)
)
def test_a_decoder_prompt_begins_with_the_start(kind: Any, prefix: list[int]) -> None:
    assert decoder_prompt_ids([BOS, 5, 6, EOS], kind) == [BOS, *prefix]


@pytest.mark.parametrize("kind", ["none", "src", "prev_output"])
def test_the_decoder_prompt_is_part_of_neither_answer_nor_score(
    ofa: OFA, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    inside = ofa.tokenizer.encode(f" {QUESTION}")
    prompt = {"none": [], "prev_output": inside, "src": [*inside, EOS]}[kind]
    answer = ofa.tokenizer.encode(" dark green")
    scores = [*[-9.0] * len(prompt), *[-0.5] * len(answer), -0.1]
    scripted(monkeypatch, [*prompt, *answer, EOS], [*prompt, *ofa.tokenizer.encode(" red"), EOS], scores=scores)
    found = ofa.answer(picture(0), QUESTION, decoder_prompt=kind)
    assert (found.answer, found.alternatives) == ("dark green", ("red",))
    assert found.score == pytest.approx(math.exp((-0.5 * len(answer) - 0.1) / (len(answer) + 1)))
    assert found.probabilities == {}


def test_prompts_of_different_lengths_are_cut_off_each_by_its_own(ofa: OFA) -> None:
    questions = ["why?", "is the man on the left of the red car or on its right?", QUESTION]
    short = {"num_beams": 2, "max_new_tokens": 40}
    together = ofa.answer(picture(0), questions, **short)
    for found, question in zip(together, questions, strict=True):
        assert_same(found, ofa.answer(picture(0), question, **short))
    assert len({one.score for one in together}) == 3


@pytest.mark.parametrize("kind", ["none", "src", "prev_output"])
def test_the_decoder_prompt_does_not_use_up_the_tokens_of_the_answer(ofa: OFA, kind: Any) -> None:
    """A limit that is shorter than the question leaves an answer, and one of the closed set where there is one."""
    options = {"num_beams": 2, "max_new_tokens": 3, "min_new_tokens": 1, "decoder_prompt": kind}
    free = ofa.answer(picture(0), QUESTION, **options)
    assert free.answer != ""
    assert free.score > 0
    assert ofa.answer(picture(0), QUESTION, candidates=["red", "blue"], method="beam", **options).answer in (
        "red",
        "blue",
    )


def test_a_decoder_prompt_changes_the_answers_probabilities(ofa: OFA) -> None:
    found = [
        ofa.answer(picture(0), QUESTION, candidates=COLORS, decoder_prompt=kind).probabilities["red"]
        for kind in ("none", "src", "prev_output")
    ]
    assert len({round(probability, 6) for probability in found}) == 3


# Closed sets


def test_the_scores_of_a_closed_set_are_probabilities(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ofa.answer([picture(0), picture(1)], QUESTION, candidates=COLORS)
    for one in found:
        assert list(one.probabilities) == COLORS
        assert sum(one.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert one.probabilities[one.answer] == one.score == max(one.probabilities.values())
        assert one.top(2)[0] == (one.answer, one.score)
    assert found[0].score != pytest.approx(found[1].score, abs=1e-5)
    asked = scripted(monkeypatch)
    ofa.answer(picture(0), QUESTION, candidates=COLORS)
    assert asked[0].candidates == [ofa.tokenizer.encode(f" {color}") for color in COLORS]


@pytest.mark.parametrize("kind", ["none", "src", "prev_output"])
@pytest.mark.parametrize("seed", range(4))
def test_a_beam_as_wide_as_the_closed_set_ranks_it_as_scoring_does(ofa: OFA, kind: Any, seed: int) -> None:
    """Nothing is pruned then, and both take the softmax over the tokens that the tree of answers allows."""
    scored = ofa.answer(picture(seed), QUESTION, candidates=COLORS, decoder_prompt=kind)
    searched = ofa.answer(
        picture(seed), QUESTION, candidates=COLORS, decoder_prompt=kind, method="beam", num_beams=len(COLORS)
    )
    assert [searched.answer, *searched.alternatives] == [answer for answer, _ in scored.top(len(COLORS))]
    tokens = len(ofa.tokenizer.encode(f" {searched.answer}")) + 1
    assert searched.score**tokens == pytest.approx(scored.score, abs=SCORE_TOLERANCE)
    assert searched.probabilities == {}


@pytest.mark.parametrize("seed", range(4))
def test_a_narrow_beam_answers_from_the_closed_set(ofa: OFA, seed: int) -> None:
    found = ofa.answer(picture(seed), QUESTION, candidates=COLORS, method="beam", num_beams=2)
    assert {found.answer, *found.alternatives} <= set(COLORS)
    assert len(found.alternatives) == 1


@pytest.mark.parametrize("method", ["score", "beam"])
@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([], "the list of answers is empty"),
        (["red", ""], "answer 1 is ''; an answer is a text that is not empty"),
        (["  ", "red"], "answer 0 is '  '"),
        (["red", "blue", "red"], "answer 'red' occurs twice, at 0 and 2"),
        (["red", 7], "answer 1 is 7"),
        ("red", "a list"),
    ],
    ids=repr,
)
def test_a_closed_set_that_makes_no_sense_is_refused(ofa: OFA, method: Any, candidates: Any, message: str) -> None:
    with pytest.raises(OFAError, match=message):
        ofa.answer(picture(0), QUESTION, candidates=candidates, method=method)


def test_free_text_has_no_probabilities_but_alternatives(ofa: OFA) -> None:
    found = ofa.answer(picture(0), QUESTION, decoder_prompt="none", num_beams=3, max_new_tokens=4)
    assert isinstance(found, Answer)
    assert found.probabilities == {}
    assert len(found.alternatives) == 2
    assert found.top() == []
    assert 0 < found.score < 1


# Errors


@pytest.mark.parametrize(
    ("question", "options", "message"),
    [
        ("", {}, "^the question is empty: ''$"),
        ("?", {}, r"^the question is empty: '\?'$"),
        (["what?", " "], {}, "^the question is empty: ' '$"),
        (7, {}, "^a text must be a string, not int$"),
        (QUESTION, {"method": "guess"}, "^method is 'score' or 'beam', not 'guess'$"),
        (QUESTION, {"decoder_prompt": "target"}, "^decoder_prompt is 'none', 'src' or 'prev_output', not 'target'$"),
        (QUESTION, {"decoder_prompt": "target", "candidates": COLORS}, "^decoder_prompt is .*, not 'target'$"),
    ],
    ids=["empty", "only_a_mark", "one_empty", "number", "method", "decoder_prompt", "decoder_prompt_closed"],
)
def test_input_that_makes_no_sense_is_refused(ofa: OFA, question: Any, options: Any, message: str) -> None:
    with pytest.raises(OFAError, match=message):
        ofa.answer(picture(0), question, **options)


def test_a_question_that_fits_is_not_warned_about(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [EOS])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ofa.answer(picture(0), " ".join(["why"] * 128))


def test_a_model_trained_with_object_names_asks_for_them() -> None:
    task = TaskSettings(image_size=64, max_image_size=64, code_dict_size=0, add_object=True)
    ofa = lively_ofa(task=task)
    with pytest.warns(UserWarning, match="pass objects="):
        ofa.answer(picture(0), "what is it?", candidates=["a", "b"])


# About a region


def test_a_question_about_a_region_ends_with_its_bins(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    """`what color is the car in the region? region: <loc301> <loc495> <loc501> <loc596>` in figure 10 of the paper."""
    calls = scripted(monkeypatch, [EOS])
    box, size = (10, 12, 40, 30), (90, 60)
    ofa.answer(picture(0, *size[::-1]), "What color is the car in the region?", box=box)
    bins = ofa.tokenizer.vocabulary.bins_to_ids(refcoco_codec(ofa.pipeline).encode(box, size))
    words = ofa.tokenizer.encode(" what color is the car in the region? region:")
    assert calls[0].sources == [[BOS, *words, *bins, EOS]]


def test_a_region_outside_of_the_picture_is_refused(ofa: OFA) -> None:
    with pytest.raises(OFAError, match=r"^box \(0, 0, 91, 30\) is not 0 <= x0 < x1 <= 90"):
        ofa.answer(picture(0, 60, 90), "what is it?", box=(0, 0, 91, 30))
