"""Phrases pick out exactly one shape, questions have right answers: checked against the words' plain meaning."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import pytest

from ofa_core.demo import language
from ofa_core.demo.language import (
    PHRASES,
    absent_phrase,
    all_phrase,
    caption,
    count_question,
    phrase,
    picture_question,
    question,
    region_caption,
    vague_phrase,
)
from ofa_core.demo.world import COLOURS, KINDS, UNSEEN, Scene, Thing, make_scene

SCENES = [make_scene(seed, split) for seed in range(250) for split in ("train", "test")]


def meaning(scene: Scene, words: str) -> list[Thing]:
    """All shapes that ``words`` may mean, read by rules of this test's own: no margins, no preference."""
    match = re.fullmatch(
        r"the (?:(?P<extreme>leftmost|rightmost|topmost|lowest|biggest|smallest|small|big) )?"
        rf"(?:(?P<colour>{'|'.join(COLOURS)}) )?(?P<kind>shape|{'|'.join(KINDS)})"
        r"(?: (?P<side>on the left|on the right|at the top|at the bottom))?"
        rf"(?: (?P<between>left of|right of|above|below) the (?P<other>\w+ (?:{'|'.join(KINDS)})))?",
        words,
    )
    assert match, words
    found = [
        thing
        for thing in scene.things
        if match["colour"] in (None, thing.colour) and match["kind"] in ("shape", thing.kind)
    ]
    x, y = (lambda t: t.centre[0]), (lambda t: t.centre[1])
    if match["between"]:
        (other,) = (thing for thing in scene.things if thing.name == match["other"])
        axis, sign = {"left of": (x, -1), "right of": (x, 1), "above": (y, -1), "below": (y, 1)}[match["between"]]
        found = [thing for thing in found if thing is not other and sign * (axis(thing) - axis(other)) > 0]
    if match["side"]:
        axis, length = (x, scene.width) if match["side"].startswith("on") else (y, scene.height)
        low = match["side"] in ("on the left", "at the top")
        found = [thing for thing in found if (axis(thing) < length / 2) == low]
    order = {
        "leftmost": lambda t: x(t),
        "rightmost": lambda t: -x(t),
        "topmost": lambda t: y(t),
        "lowest": lambda t: -y(t),
        "biggest": lambda t: -t.area,
        "smallest": lambda t: t.area,
    }
    if match["extreme"] in order:
        return [min(found, key=order[match["extreme"]])]
    if match["extreme"]:
        return [thing for thing in found if thing.size == match["extreme"]]
    return found


@pytest.mark.parametrize("kind", PHRASES)
def test_a_phrase_means_its_shape_and_no_other(kind: str) -> None:
    count = 0
    for scene in SCENES:
        for thing in scene.things:
            for words in PHRASES[kind](scene, thing):
                assert meaning(scene, words) == [thing], (words, scene)
                count += 1
    assert count > 300


def test_phrases_of_all_kinds_are_about_equally_likely() -> None:
    random = Random(1)
    found = [phrase(scene, random) for scene in SCENES]
    kinds = Counter(kind for _, kind, _ in filter(None, found))
    assert set(kinds) == set(PHRASES)
    assert min(kinds.values()) > 0.5 * max(kinds.values())
    assert len({words for _, _, words in filter(None, found)}) > 200


def singular(words: str) -> str:
    """The same phrase of one shape: `the crosses on the left` of `cross`."""
    return re.sub(r"(shape|circle|square|triangle|star|ring)s\b|(cross)es\b", r"\1\2", words)


def test_absent_phrases_mean_nothing_that_is_there() -> None:
    found = [absent_phrase(scene, Random(seed)) for seed, scene in enumerate(SCENES)]
    forms = Counter[bool]()
    for scene, words in zip(SCENES, found, strict=True):
        if words is not None:
            name = re.search(rf"(?:({'|'.join(COLOURS)}) )?(shape|{'|'.join(KINDS)})", words)
            assert name, words
            assert meaning(scene, f"the {name[0]}") == [], words
            assert (name[1], name[2]) not in UNSEEN, "it would be learned that these are never there"
            forms[words == f"the {name[0]}"] += 1
    assert min(forms.values()) > 100


def test_phrases_of_several_shapes_mean_all_of_them() -> None:
    found = [(scene, all_phrase(scene, Random(seed))) for seed, scene in enumerate(SCENES)]
    several = [(scene, *one) for scene, one in found if one is not None]
    assert len(several) > 400
    for scene, words, things in several:
        assert len(things) > 1
        assert singular(words) != words
        assert meaning(scene, singular(words)) == things, words


def test_vague_phrases_fit_several_shapes() -> None:
    found = [(scene, vague_phrase(scene, Random(seed))) for seed, scene in enumerate(SCENES)]
    vague = [(scene, *one) for scene, one in found if one is not None]
    assert len(vague) > 200
    for scene, words, things in vague:
        assert len(things) > 1
        assert meaning(scene, words) == things
    assert any(one is None for _, one in found)


def test_numbers_of_shapes_are_right() -> None:
    numbers = Counter[str]()
    for seed, scene in enumerate(SCENES):
        words, number = count_question(scene, Random(seed))
        match = re.fullmatch(r"how many (.+) are there\?", words)
        assert match
        count = len(meaning(scene, f"the {singular(match[1])}"))
        assert number == ("no", "one", "two", "three", "four", "five", "six")[count]
        numbers[number] += 1
    assert set(numbers) >= {"no", "one", "two", "three", "four", "five", "six"}


def test_there_may_be_no_phrase_of_a_kind() -> None:
    alone = next(scene for scene in SCENES if len({t.name for t in scene.things}) < len(scene.things))
    twin = next(t for t in alone.things if sum(o.name == t.name for o in alone.things) == 2)
    assert PHRASES["name"](alone, twin) == []
    only = Scene("x", alone.width, alone.height, tuple(t for t in alone.things if t.name == twin.name))
    assert phrase(only, Random(0), ("name", "partial")) is None


def test_answers_to_questions_about_a_shape_are_true() -> None:
    random = Random(2)
    answers: Counter[str] = Counter()
    for scene in SCENES * 4:
        thing = random.choice(scene.things)
        words, answer = question(scene, thing, random)
        answers[answer] += 1
        what = words.removeprefix("is it ").removesuffix("?").removeprefix("an ").removeprefix("a ")
        if relation := re.fullmatch(r"(left of|right of|above|below) the (\w+ \w+)", what):
            there = [other for other in scene.things if other.name == relation[2]]
            if answer == "n/a":
                assert there == []
                continue
            truth = thing in meaning(scene, f"the {thing.colour} {thing.kind} {what}")
        elif what.startswith("the "):
            truth = meaning(scene, f"{what} shape") == [thing]
        elif what in language.SIDES:
            truth = thing in meaning(scene, f"the shape {what}")
        else:
            truth = what in (thing.colour, thing.kind, thing.name, thing.size)
        assert answer == ("yes" if truth else "no"), (words, thing, scene)
    total = sum(answers.values())
    assert answers["yes"] / total == pytest.approx(0.45, abs=0.06)
    assert answers["no"] / total == pytest.approx(0.45, abs=0.06)
    assert answers["n/a"] / total == pytest.approx(0.09, abs=0.04)


def test_answers_to_questions_about_the_picture_are_true() -> None:
    random = Random(3)
    asked = Counter()
    for scene in SCENES * 2:
        words, answer = picture_question(scene, random)
        asked[words.split()[0]] += 1
        if match := re.fullmatch(r"how many (?:(\w+) )?(\w+?)(?:es|s) are there\?", words):
            colour, kind = match[1], match[2].removesuffix("e") if match[2] != "shape" else "shape"
            kind = next(k for k in (*KINDS, "shape") if k.startswith(kind[:4]))
            count = sum(colour in (None, t.colour) and kind in ("shape", t.kind) for t in scene.things)
            assert answer == language.NUMBERS[count]
        elif match := re.fullmatch(r"is there an? (.+)\?", words):
            assert answer == ("yes" if match[1] in {t.name for t in scene.things} else "no")
        elif match := re.fullmatch(r"what color is the (\w+)\?", words):
            assert [answer] == [t.colour for t in scene.things if t.kind == match[1]]
        else:
            match = re.fullmatch(r"what is the (\w+) shape\?", words)
            assert match
            assert [answer] == [t.kind for t in scene.things if t.colour == match[1]]
    assert set(asked) == {"how", "is", "what"}


def test_captions_name_shapes_from_left_to_right() -> None:
    for scene in SCENES:
        names = [thing.name for thing in sorted(scene.things, key=lambda t: t.box[0])]
        words = caption(scene)
        said = re.findall(rf"((?:{'|'.join(COLOURS)}) (?:{'|'.join(KINDS)}))", words)
        assert said == (names if len(names) <= 3 else [names[0], names[-1]])
        if len(names) > 3:
            assert words.startswith(f"{language.NUMBERS[len(names)]} shapes from ")


def test_articles_and_sizes() -> None:
    thing = Thing("orange", "star", "medium", (0, 0, 1, 1))
    assert region_caption(thing) == "an orange star"
    assert region_caption(Thing("red", "star", "big", (0, 0, 1, 1))) == "a big red star"
