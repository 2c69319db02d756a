from __future__ import annotations

import pytest
from reference import lively_ofa, picture

from ofa_core import OFA, OFAError
from ofa_core.heads.caption_grounding import definite, noun_phrases


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("a man with a dog on a sofa", ["a man", "a dog", "a sofa"]),
        ("A man riding a brown horse, and two children.", ["A man", "a brown horse", "two children"]),
        ("the red circle left of the blue square", ["the red circle", "the blue square"]),
        ("a red circle, a blue star and an orange ring", ["a red circle", "a blue star", "an orange ring"]),
        ("four shapes from a green ring to a cross", ["four shapes", "a green ring", "a cross"]),
        ("the cup on the left of the table", ["the cup", "the table"]),
        ("people standing near traffic lights", ["people", "traffic lights"]),
        ("a man's hat", ["a man's hat"]),
        ("the the", []),
        ("on the left", []),
        ("the top left corner", []),
        ("the left cup", ["the left cup"]),
    ],
)
def test_noun_phrases_are_found(text: str, phrases: list[str]) -> None:
    assert [text[start:end] for start, end in noun_phrases(text)] == phrases


@pytest.mark.parametrize(
    ("phrase", "asked"),
    [
        ("a red circle", "the red circle"),
        ("An  orange ring", "the orange ring"),
        ("the dog", "the dog"),
        ("two children", "two children"),
        ("another dog", "another dog"),
        ("ants", "ants"),
    ],
)
def test_what_a_caption_introduces_is_looked_for_as_known(phrase: str, asked: str) -> None:
    assert definite(phrase) == asked


@pytest.fixture(scope="module")
def ofa() -> OFA:
    return lively_ofa()


def test_each_phrase_has_the_box_that_it_has_alone(ofa: OFA) -> None:
    found = ofa.ground_caption(picture(1), "a man with a dog", confidence=True)
    assert [one.phrase for one in found.phrases] == ["a man", "a dog"]
    for one in found.phrases:
        assert found.text[one.start : one.end] == one.phrase
        alone = ofa.ground(picture(1), definite(one.phrase), confidence=True)
        assert one.grounding.bins == alone.bins
        assert one.grounding.box == (None if alone.box is None else pytest.approx(alone.box))


def test_phrases_may_be_given(ofa: OFA) -> None:
    found = ofa.ground_caption(picture(1), "a dog and a dog", ["a dog", "a dog"])
    assert [(one.start, one.end) for one in found.phrases] == [(0, 5), (10, 15)]
    many = ofa.ground_caption([picture(1), picture(2)], ["a cat", "to the left"], [["cat"], None])
    assert [[one.phrase for one in caption.phrases] for caption in many] == [["cat"], []]


@pytest.mark.parametrize(
    ("phrases", "message"),
    [
        ("a dog", "^phrases are a list of texts, not the one text 'a dog'$"),
        (["a cat"], "^phrase 0, 'a cat', does not stand in the caption 'a dog'$"),
        ([""], "^phrase 0 is ''; a phrase is a text that is not empty$"),
    ],
)
def test_phrases_that_do_not_stand_there_are_refused(ofa: OFA, phrases: list[str], message: str) -> None:
    with pytest.raises(OFAError, match=message):
        ofa.ground_caption(picture(1), "a dog", phrases)
