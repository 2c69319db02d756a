"""Dialogs lead to their shape: what was said fits it and no other."""

from __future__ import annotations

from random import Random

from ofa_core.demo.dialogs import ATTRIBUTES, CHOICES, PAIRS, SIDE_CHOICES, closed_dialog, open_dialog
from ofa_core.demo.language import CLAIMS, SIDES, superlative, with_article
from ofa_core.demo.world import Scene, Thing, make_scene

SCENES = [make_scene(seed, split) for seed in range(300) for split in ("train", "test")]


def fits_closed(scene: Scene, left: list[Thing], question: str, answer: str) -> list[Thing]:
    """The shapes of ``left`` for which ``answer`` is right."""
    if question in PAIRS:
        picked = superlative(scene, PAIRS[question], left)
        return [thing for thing in left if (thing is picked) == (answer == "yes")]
    (claim,) = (claim for claim in CLAIMS if claim.question == question)
    return [thing for thing in left if claim.holds(scene, thing) is (answer == "yes")]


def test_closed_questions_leave_the_shape_alone() -> None:
    solved = 0
    for number, scene in enumerate(SCENES):
        target = Random(number).choice(scene.things)
        talk = closed_dialog(scene, target, Random(number))
        left = list(scene.things)
        for question, answer in talk.questions:
            remaining = fits_closed(scene, left, question, answer)
            assert 0 < len(remaining) < len(left), "every question tells something"
            left = remaining
        assert target in left
        solved += left == [target]
    assert solved >= 0.98 * len(SCENES)


def fits_open(scene: Scene, left: list[Thing], question: str, answer: str) -> list[Thing]:
    if question in ATTRIBUTES:
        values = {"colour": lambda t: t.colour, "kind": lambda t: with_article(t.kind)}[ATTRIBUTES[question]]
        return [thing for thing in left if f"it is {values(thing)}." == answer]
    if question in SIDE_CHOICES:
        return [thing for thing in left if SIDES[answer.rstrip(".")](scene, thing)]
    first, words, _, other = CHOICES[question]
    picked = superlative(scene, first, left)
    assert answer in (words, other)
    return [thing for thing in left if (thing is picked) == (answer == words)]


def test_open_questions_lead_from_the_query_to_the_shape() -> None:
    solved, lengths = 0, set()
    for number, scene in enumerate(SCENES):
        target = Random(number).choice(scene.things)
        talk = open_dialog(scene, target, Random(number))
        words = talk.query.removeprefix("i want the ").removesuffix(".")
        if talk.query == "i want one of the shapes.":
            left = list(scene.things)
        else:
            left = [t for t in scene.things if words in (t.name, t.kind, f"{t.colour} shape")]
        for question, answer in talk.questions:
            remaining = fits_open(scene, left, question, answer)
            assert 0 < len(remaining) < len(left), "every question tells something"
            left = remaining
        assert target in left
        solved += left == [target]
        lengths.add(len(talk.questions))
    assert solved >= 0.98 * len(SCENES)
    assert lengths >= {0, 1, 2}


def test_rows_begin_with_the_query_as_the_answer_to_nothing() -> None:
    talk = open_dialog(SCENES[0], SCENES[0].things[0], Random(0))
    assert talk.pairs[0] == ["", talk.query]
    assert talk.pairs[1:] == [list(pair) for pair in talk.questions]
    closed = closed_dialog(SCENES[0], SCENES[0].things[0], Random(0))
    assert closed.pairs == [list(pair) for pair in closed.questions]
