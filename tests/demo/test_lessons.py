"""What the demo model is taught is what the heads ask, and it is true of the scene."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

import pytest
from reference import lively_ofa, scripted

from ofa_core import OFA, BoxCodec, OFAError, TaskSettings
from ofa_core.demo.language import (
    CLAIMS,
    absent_phrase,
    all_phrase,
    count_question,
    phrase,
    picture_question,
    vague_phrase,
)
from ofa_core.demo.lessons import LESSONS, NAMED, Lessons
from ofa_core.demo.world import COLOURS, KINDS, Scene, draw, make_scene
from ofa_core.heads.grounding import invig_codec
from ofa_core.text.vocabulary import BOS, EOS

TASK = TaskSettings(image_size=64, max_image_size=64, code_dict_size=0, prompt_type="none")
PIPELINE = lively_ofa(task=TASK).pipeline
TOKENIZER = PIPELINE.tokenizer
REFCOCO = BoxCodec("refcoco", image_size=64, max_image_size=64)


@pytest.mark.parametrize("name", LESSONS)
def test_every_lesson_gives_a_source_and_a_target(name: str) -> None:
    given = [LESSONS[name](PIPELINE, make_scene(seed), Random(seed)) for seed in range(40)]
    taught = [lesson for lesson in given if lesson is not None]
    assert len(taught) > 15
    assert (len({tuple(target) for _, target in taught}) > 1) != (name == "absent")
    for source, target in taught:
        assert source[0] == BOS
        assert source[-1] == target[-1] == EOS
        assert EOS not in target[:-1]


@pytest.mark.parametrize("name", ["ground", "vague", "closed_grounding", "open_grounding", "agent"])
def test_boxes_in_targets_are_boxes_of_the_scene(name: str) -> None:
    codec = REFCOCO if name in ("ground", "vague") else BoxCodec("invig")
    seen = 0
    for seed in range(30):
        scene = make_scene(seed)
        lesson = LESSONS[name](PIPELINE, scene, Random(seed))
        bins = None if lesson is None else [TOKENIZER.vocabulary.bin_of(token) for token in lesson[1]]
        bins = [number for number in bins or [] if number is not None]
        if bins:
            assert bins in [codec.encode(thing.box, scene.size) for thing in scene.things]
            seen += 1
    assert seen > 10


def turns_in(source: list[int]) -> list[str]:
    """The turns of a dialog source, read off its text."""
    context = re.search(r'#context: "(.*)"', TOKENIZER.decode(source))
    assert context
    return [turn.strip() for turn in re.split(r"(?:human|agent):", context[1])[1:]]


def box_of(source: list[int], codec: BoxCodec, scene: Scene) -> tuple[float, ...]:
    bins = [number for token in source if (number := TOKENIZER.vocabulary.bin_of(token)) is not None]
    return next(thing.box for thing in scene.things if codec.encode(thing.box, scene.size) == bins)


Ask = Callable[[OFA, Scene, Random, list[int]], object]
ASKED: dict[str, Ask] = {
    "ground": lambda ofa, scene, random, _: ofa.ground(draw(scene), (phrase(scene, random) or ("", "", ""))[2]),
    "named": lambda ofa, scene, random, _: ofa.ground(draw(scene), (phrase(scene, random, NAMED) or ("", "", ""))[2]),
    "vague": lambda ofa, scene, random, _: ofa.ground(draw(scene), (vague_phrase(scene, random) or ("", []))[0]),
    "several": lambda ofa, scene, random, _: ofa.ground(draw(scene), (all_phrase(scene, random) or ("", []))[0]),
    "absent": lambda ofa, scene, random, _: ofa.ground(draw(scene), absent_phrase(scene, random) or ""),
    "check": lambda ofa, scene, _, source: ofa.is_present(draw(scene), phrase_in(source)),
    "listing": lambda ofa, scene, *_: ofa.detect(draw(scene)),
    "counting": lambda ofa, scene, random, _: ofa.answer(draw(scene), count_question(scene, random)[0]),
    "region": lambda ofa, scene, random, _: ofa.describe_region(draw(scene), random.choice(scene.things).box),
    "caption": lambda ofa, scene, random, _: ofa.caption(draw(scene)),
    "answer": lambda ofa, scene, random, _: ofa.answer(draw(scene), picture_question(scene, random)[0]),
    **dict.fromkeys(
        ("claim", "game", "closed_oracle"),
        lambda ofa, scene, _, source: ofa.oracle(
            draw(scene), box_of(source, ofa_codec(ofa), scene), turns_in(source)[:-1], turns_in(source)[-1]
        ),
    ),
    "closed_grounding": lambda ofa, scene, _, source: ofa.ground_dialog(draw(scene), turns_in(source)),
    "closed_question": lambda ofa, scene, _, source: ofa.ask(draw(scene), turns_in(source)),
    "open_grounding": lambda ofa, scene, _, source: ofa.ground_dialog(draw(scene), turns_in(source), style="invig"),
    "open_oracle": lambda ofa, scene, _, source: (
        ofa.oracle(
            draw(scene),
            box_of(source, ofa_codec(ofa), scene),
            turns_in(source)[:-1],
            turns_in(source)[-1],
            style="invig",
        )
        if turns_in(source)
        else ofa.query(draw(scene), box_of(source, ofa_codec(ofa), scene))
    ),
    "open_question": lambda ofa, scene, _, source: ofa.ask(draw(scene), turns_in(source), style="invig"),
    "agent": lambda ofa, scene, _, source: ofa.agent_turn(draw(scene), turns_in(source)),
}


def ofa_codec(ofa: OFA) -> BoxCodec:
    return invig_codec(ofa.pipeline)


def phrase_in(source: list[int]) -> str:
    """The phrase of a look whether something is there."""
    context = re.search(r'#context: "(.*)"', TOKENIZER.decode(source))
    assert context
    return context[1]


def test_every_lesson_has_a_head() -> None:
    assert set(LESSONS) == set(ASKED)


@pytest.mark.parametrize("name", ASKED)
def test_sources_are_those_that_the_head_feeds_the_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ofa = lively_ofa(task=TASK)
    asked = scripted(monkeypatch, [10])
    compared = 0
    for seed in range(12):
        scene = make_scene(seed)
        lesson = LESSONS[name](PIPELINE, scene, Random(seed))
        if lesson is not None:
            ASKED[name](ofa, scene, Random(seed), lesson[0])
            assert list(asked[-1].sources[0]) == lesson[0]
            compared += 1
    assert compared > 3


@pytest.mark.parametrize("name", ["claim", "game"])
def test_closed_questions_are_answered_as_the_region_is(name: str) -> None:
    holds = {claim.question: claim.holds for claim in CLAIMS}
    answers, behind = [], []
    for seed in range(60):
        scene = make_scene(seed)
        source, target = LESSONS[name](PIPELINE, scene, Random(seed)) or ([], [])
        *before, question = turns_in(source) if source else [""]
        if question in holds:  # not one that tells the last two apart
            thing = next(t for t in scene.things if t.box == box_of(source, invig_codec(PIPELINE), scene))
            answers.append(TOKENIZER.decode(target).strip())
            assert holds[question](scene, thing) is (answers[-1] == "yes")
            behind.append(len(before))
    assert 15 < answers.count("yes") < len(answers) - 15
    assert (max(behind) > 0) == (name == "game")


def test_listings_name_every_shape_with_its_box() -> None:
    scene = make_scene(3)
    _, target = LESSONS["listing"](PIPELINE, scene, Random(0)) or ([], [])
    words = TOKENIZER.decode(target)
    ordered = sorted(scene.things, key=lambda thing: thing.box[0])
    assert re.findall(r"(?<=>) ?([a-z]+ [a-z]+)", words) == [thing.name for thing in ordered]
    bins = [number for token in target if (number := TOKENIZER.vocabulary.bin_of(token)) is not None]
    assert bins == [number for thing in ordered for number in REFCOCO.encode(thing.box, scene.size)]


def test_several_shapes_stand_from_left_to_right_and_absent_ones_are_said_to_be_none() -> None:
    compared = 0
    for seed in range(20):
        scene = make_scene(seed)
        _, target = LESSONS["several"](PIPELINE, scene, Random(seed)) or ([], [])
        _, things = all_phrase(scene, Random(seed)) or ("", [])
        right = [REFCOCO.encode(t.box, scene.size) for t in sorted(things, key=lambda thing: thing.box[0])]
        assert TOKENIZER.bins(target) == ([number for box in right for number in box] or None)
        compared += bool(right)
        _, target = LESSONS["absent"](PIPELINE, scene, Random(seed)) or ([], TOKENIZER.encode(" none"))
        assert TOKENIZER.decode(target).strip() == "none"
    assert compared > 10


def test_a_look_whether_something_is_there_is_answered_truly() -> None:
    answers = []
    for seed in range(40):
        scene = make_scene(seed)
        source, target = LESSONS["check"](PIPELINE, scene, Random(seed)) or ([], [])
        if source:
            answers.append(TOKENIZER.decode(target).strip())
            named = re.fullmatch(rf"the ((?:{'|'.join(COLOURS)}) (?:{'|'.join(KINDS)}))", phrase_in(source))
            if named:
                assert (answers[-1] == "yes") == any(thing.name == named[1] for thing in scene.things)
    assert 10 < answers.count("yes") < len(answers) - 10


def test_rows_are_the_same_whenever_they_are_asked_for() -> None:
    lessons = Lessons(PIPELINE, {"ground": 1, "region": 2}, questions=5, things=(1, 3), seed=4)
    first, again = (
        lessons.examples(7),
        Lessons(PIPELINE, {"ground": 1, "region": 2}, questions=5, things=(1, 3), seed=4),
    )
    assert [(e.source, e.target) for e in first] == [(e.source, e.target) for e in again.examples(7)]
    assert len({id(example.image) for example in first}) == 1, "questions of a scene share its picture"
    other = [(e.source, e.target) for e in lessons.examples(8)]
    assert [(e.source, e.target) for e in first] != other


def test_loss_weights_weigh_what_a_lesson_teaches() -> None:
    weights = {"region": 1, "claim": 1}
    plain, weighed = (
        [
            example
            for index in range(5)
            for example in Lessons(PIPELINE, weights, loss_weights=loss_weights).examples(index)
        ]
        for loss_weights in (None, {"claim": 4.0})
    )
    assert {example.weight for example in plain} == {1.0}
    assert [e.weight for e in weighed] == [4 if "#context" in TOKENIZER.decode(e.source) else 1 for e in plain]
    assert [(e.source, e.target) for e in weighed] == [(e.source, e.target) for e in plain]


def test_an_unknown_lesson_is_an_error() -> None:
    with pytest.raises(OFAError, match="there is no lesson 'grond'; there are ground, named, vague"):
        Lessons(PIPELINE, {"grond": 1})
    with pytest.raises(OFAError, match="there is no lesson 'clam'"):
        Lessons(PIPELINE, {"ground": 1}, loss_weights={"clam": 2})
