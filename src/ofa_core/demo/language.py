"""Language about a scene: phrases that pick out one shape, questions with their answers, captions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from .world import COLOURS, KINDS, UNSEEN, Scene, Thing

#: Two places differ where their distance is more than this part of the picture's side.
MARGIN = 0.06
#: One shape is bigger than another where its area is this many times as large.
BIGGER = 1.4
NUMBERS = ("no", "one", "two", "three", "four", "five", "six")


@dataclass(frozen=True)
class Claim:
    """Something that may be true of a shape, and the words for it.

    ``holds`` gives None where it is too close to call, such as `on the left` of a shape in the middle.
    """

    question: str  # "is it red?"
    holds: Callable[[Scene, Thing], bool | None]


def x_of(scene: Scene, thing: Thing) -> float:
    """Place of the middle between the left (0) and the right (1)."""
    return thing.centre[0] / scene.width


def y_of(scene: Scene, thing: Thing) -> float:
    """Place of the middle between the top (0) and the bottom (1)."""
    return thing.centre[1] / scene.height


def _side(value: float, low: bool) -> bool | None:
    """Tell whether ``value`` lies in the lower or upper half, None near the middle."""
    return None if abs(value - 0.5) < MARGIN else (value < 0.5) == low


def _size(wanted: str) -> Callable[[Scene, Thing], bool | None]:
    return lambda _, thing: None if thing.size == "medium" else thing.size == wanted


#: Sides of the picture by the words for them.
SIDES: dict[str, Callable[[Scene, Thing], bool | None]] = {
    "on the left": lambda scene, thing: _side(x_of(scene, thing), low=True),
    "on the right": lambda scene, thing: _side(x_of(scene, thing), low=False),
    "at the top": lambda scene, thing: _side(y_of(scene, thing), low=True),
    "at the bottom": lambda scene, thing: _side(y_of(scene, thing), low=False),
}
COLOUR_CLAIMS = [Claim(f"is it {c}?", lambda _, thing, c=c: thing.colour == c) for c in COLOURS]  # type: ignore[misc]
KIND_CLAIMS = [Claim(f"is it a {k}?", lambda _, thing, k=k: thing.kind == k) for k in KINDS]  # type: ignore[misc]
SIDE_CLAIMS = [Claim(f"is it {words}?", holds) for words, holds in SIDES.items()]
SIZE_CLAIMS = [Claim(f"is it {size}?", _size(size)) for size in ("small", "big")]
CLAIMS = [*COLOUR_CLAIMS, *KIND_CLAIMS, *SIDE_CLAIMS, *SIZE_CLAIMS]

#: Relations between two shapes by the words for them: how far the first stands in that direction from the second.
RELATIONS: dict[str, Callable[[Scene, Thing, Thing], float]] = {
    "left of": lambda scene, a, b: x_of(scene, b) - x_of(scene, a),
    "right of": lambda scene, a, b: x_of(scene, a) - x_of(scene, b),
    "above": lambda scene, a, b: y_of(scene, b) - y_of(scene, a),
    "below": lambda scene, a, b: y_of(scene, a) - y_of(scene, b),
}
#: Superlatives: a larger value is more of it, and by how much the first must lead.
SUPERLATIVES: dict[str, tuple[Callable[[Scene, Thing], float], float]] = {
    "leftmost": (lambda scene, thing: -x_of(scene, thing), MARGIN),
    "rightmost": (x_of, MARGIN),
    "topmost": (lambda scene, thing: -y_of(scene, thing), MARGIN),
    "lowest": (y_of, MARGIN),
    "biggest": (lambda _, thing: thing.area, 0.0),
    "smallest": (lambda _, thing: -thing.area, 0.0),
}


def superlative(scene: Scene, word: str, among: Sequence[Thing]) -> Thing | None:
    """The shape of ``among`` that ``word`` picks out; None where two are too close or there is only one."""
    value, margin = SUPERLATIVES[word]
    ranked = sorted(among, key=lambda thing: -value(scene, thing))
    if len(ranked) < 2:
        return None
    first, second = (value(scene, thing) for thing in ranked[:2])
    clear = first - second > margin if margin else max(first / second, second / first) > BIGGER
    return ranked[0] if clear else None


def relation(scene: Scene, words: str, first: Thing, second: Thing) -> bool | None:
    """Tell whether ``first`` is e.g. left of ``second``; None where it is too close to call."""
    distance = RELATIONS[words](scene, first, second)
    return None if abs(distance) < MARGIN else distance > 0


def _only(thing: Thing, matching: Sequence[Thing]) -> bool:
    return list(matching) == [thing]


def groups(scene: Scene, thing: Thing) -> list[tuple[str, list[Thing]]]:
    """Words that hold for ``thing``, from the vaguest to its name, with all shapes for which they hold."""
    return [
        ("shape", list(scene.things)),
        (thing.kind, [t for t in scene.things if t.kind == thing.kind]),
        (f"{thing.colour} shape", [t for t in scene.things if t.colour == thing.colour]),
        (thing.name, [t for t in scene.things if t.name == thing.name]),
    ]


def _plain_phrases(scene: Scene, thing: Thing) -> list[str]:
    """``the red circle``, ``the red shape``, ``the circle``: those that are true of this shape alone."""
    return [f"the {words}" for words, alike in groups(scene, thing)[1:] if _only(thing, alike)]


def name_phrases(scene: Scene, thing: Thing) -> list[str]:
    """Phrases of colour and kind."""
    return [words for words in _plain_phrases(scene, thing) if words == f"the {thing.name}"]


def partial_phrases(scene: Scene, thing: Thing) -> list[str]:
    """Phrases of a colour or a kind."""
    return [words for words in _plain_phrases(scene, thing) if words != f"the {thing.name}"]


def size_phrases(scene: Scene, thing: Thing) -> list[str]:
    """``the small red circle``, ``the biggest star``."""
    found = []
    for words, alike in groups(scene, thing):
        found += [f"the {w} {words}" for w in ("biggest", "smallest") if superlative(scene, w, alike) is thing]
        if thing.size != "medium":
            same = [t for t in alike if t.size in (thing.size, "medium")]
            found += [f"the {thing.size} {words}"] if _only(thing, same) else []
    return found


def position_phrases(scene: Scene, thing: Thing) -> list[str]:
    """``the leftmost circle``, ``the red star at the top``."""
    found = []
    for words, alike in groups(scene, thing):
        found += [
            f"the {word} {words}"
            for word in ("leftmost", "rightmost", "topmost", "lowest")
            if superlative(scene, word, alike) is thing
        ]
        found += [
            f"the {words} {side}"
            for side, holds in SIDES.items()
            if holds(scene, thing) and all(t is thing or holds(scene, t) is False for t in alike)
        ]
    return found


def relation_phrases(scene: Scene, thing: Thing) -> list[str]:
    """``the circle left of the red square``."""
    found = []
    for other in scene.things:
        if other is thing or not name_phrases(scene, other):
            continue
        for words, alike in groups(scene, thing):
            for between in RELATIONS:
                others = [t for t in alike if t is not thing and t is not other]
                if relation(scene, between, thing, other) and all(
                    relation(scene, between, t, other) is False for t in others
                ):
                    found.append(f"the {words} {between} the {other.name}")
    return found


#: Kinds of phrase by name, each with what makes them.
PHRASES: dict[str, Callable[[Scene, Thing], list[str]]] = {
    "name": name_phrases,
    "partial": partial_phrases,
    "size": size_phrases,
    "position": position_phrases,
    "relation": relation_phrases,
}


def phrase(scene: Scene, random: Random, kinds: Sequence[str] = tuple(PHRASES)) -> tuple[Thing, str, str] | None:
    """A shape, the kind of a phrase of it and the phrase, which is true of no other shape; None where there is none."""
    for kind in random.sample(kinds, len(kinds)):  # kinds are equally likely, then shapes
        for thing in random.sample(scene.things, len(scene.things)):
            if found := PHRASES[kind](scene, thing):
                return thing, kind, random.choice(found)
    return None


#: Kinds of closed question.
QUESTIONS = ("colour", "kind", "name", "side", "size", "relation", "superlative")


def question(scene: Scene, thing: Thing, random: Random, kinds: Sequence[str] = QUESTIONS) -> tuple[str, str]:
    """A closed question about a shape and its answer: yes, no, or n/a where it speaks of something that is not there.

    ``kinds`` (of :data:`QUESTIONS`) come alike; yes and no are equally likely.
    """
    wanted = random.random()
    if wanted < 0.1 and "relation" in kinds and (absent := _absent(scene, random)):
        return f"is it {random.choice(list(RELATIONS))} the {absent}?", "n/a"
    answer = wanted < 0.55
    for _ in range(50):
        words, holds = _any_claim(scene, thing, random, answer, kinds)
        if holds is answer:
            return words, "yes" if answer else "no"
    return f"is it {thing.colour}?", "yes"


def _any_claim(
    scene: Scene, thing: Thing, random: Random, answer: bool, kinds: Sequence[str]
) -> tuple[str, bool | None]:
    """A question and whether it is true, from all ``kinds`` of question alike."""
    kind = random.choice(kinds)
    if kind == "relation":
        others = [other for other in scene.things if other is not thing and name_phrases(scene, other)]
        if not others:
            return "", None
        other, between = random.choice(others), random.choice(list(RELATIONS))
        return f"is it {between} the {other.name}?", relation(scene, between, thing, other)
    if kind == "superlative":
        word = random.choice(list(SUPERLATIVES))
        picked = superlative(scene, word, scene.things)
        return f"is it the {word}?", None if picked is None else picked is thing
    if kind == "name":
        anything = Thing(random.choice(list(COLOURS)), random.choice(KINDS), "", thing.box)
        other = thing if answer else random.choice([*scene.things, anything])
        return f"is it {with_article(other.name)}?", other.name == thing.name
    table = {"colour": COLOUR_CLAIMS, "kind": KIND_CLAIMS, "side": SIDE_CLAIMS, "size": SIZE_CLAIMS}[kind]
    claim = random.choice(table)
    if answer and kind in ("colour", "kind"):
        claim = next(c for c in table if c.holds(scene, thing))
    elif kind in ("colour", "kind") and random.random() < 0.5:  # of something that is there, which is harder
        claim = next(c for c in table if c.holds(scene, random.choice(scene.things)) or c is claim)
    return claim.question, claim.holds(scene, thing)


def _absent(scene: Scene, random: Random) -> str | None:
    """The name of a shape that is not in the scene, made of a colour and a kind that may be.

    It is never one of :data:`UNSEEN`: a model that is only told of these that they are not there would believe it.
    """
    there = {(thing.colour, thing.kind) for thing in scene.things}
    colour = random.choice([*COLOURS, *(thing.colour for thing in scene.things)])
    kind = random.choice([*KINDS, *(thing.kind for thing in scene.things)])
    return None if (colour, kind) in there.union(UNSEEN) else f"{colour} {kind}"


def absent_phrase(scene: Scene, random: Random) -> str | None:
    """A phrase of which nothing in the scene is true: of a name, a colour, a kind, or a name and where it would be."""
    kind = random.choice(("name", "name", "name", "partial", "position", "relation"))
    if kind == "partial":
        colours, kinds = ({getattr(thing, what) for thing in scene.things} for what in ("colour", "kind"))
        words = [f"{c} shape" for c in COLOURS if c not in colours] + [k for k in KINDS if k not in kinds]
        return f"the {random.choice(words)}"
    name = _absent(scene, random)
    if name is None or kind == "name":
        return name and f"the {name}"
    if kind == "position":
        return random.choice([*(f"the {w} {name}" for w in SUPERLATIVES), *(f"the {name} {side}" for side in SIDES)])
    return f"the {name} {random.choice(list(RELATIONS))} the {random.choice(scene.things).name}"


def all_phrase(scene: Scene, random: Random) -> tuple[str, list[Thing]] | None:
    """A phrase of several shapes, ``the stars on the left``, and these; None where there is none."""
    found: dict[str, list[Thing]] = {}
    for thing in scene.things:
        for words, alike in groups(scene, thing):
            found[f"the {plural(words)}"] = alike
            for side, holds in SIDES.items():
                answers = [holds(scene, t) for t in alike]
                if None not in answers:
                    there = [t for t, answer in zip(alike, answers, strict=True) if answer]
                    found[f"the {plural(words)} {side}"] = there
    several = [words for words, things in found.items() if len(things) > 1]
    if not several:
        return None
    words = random.choice(several)
    return words, found[words]


def vague_phrase(scene: Scene, random: Random) -> tuple[str, list[Thing]] | None:
    """A phrase of one shape that fits several, ``the circle`` among circles, and these; None where there is none."""
    found = {words: alike for thing in scene.things for words, alike in groups(scene, thing)[1:] if len(alike) > 1}
    if not found:
        return None
    words = random.choice(list(found))
    return f"the {words}", found[words]


def plural(words: str) -> str:
    """``circles``, ``red crosses``."""
    return f"{words}es" if words.endswith("s") else f"{words}s"


def count_question(scene: Scene, random: Random) -> tuple[str, str]:
    """A question of how many shapes of one sort there are, mostly one that is there, and the number in words."""
    words = random.choice(["shape", *KINDS, *(f"{colour} shape" for colour in COLOURS)])
    if random.random() < 0.8:
        words, _ = random.choice(groups(scene, random.choice(scene.things))[:3])
    fitting = {words: alike for thing in scene.things for words, alike in groups(scene, thing)}.get(words, [])
    return f"how many {plural(words)} are there?", NUMBERS[len(fitting)]


def picture_question(scene: Scene, random: Random) -> tuple[str, str]:
    """A question about the whole picture and its answer: how many, what colour, what shape, is there."""
    kind = random.choice(("count", "colour", "shape", "presence"))
    if kind == "count":
        words, test = random.choice(
            [("shapes", lambda _: True)]
            + [(f"{k}s" if k != "cross" else "crosses", lambda thing, k=k: thing.kind == k) for k in KINDS]
            + [(f"{c} shapes", lambda thing, c=c: thing.colour == c) for c in COLOURS]
        )
        return f"how many {words} are there?", NUMBERS[sum(map(test, scene.things))]
    if kind == "presence":
        there = random.random() < 0.5
        name = random.choice(scene.things).name if there else _absent(scene, random)
        if name is not None:
            return f"is there {with_article(name)}?", "yes" if there else "no"
    things = list(scene.things)
    random.shuffle(things)
    for thing in things:
        if kind == "colour" and sum(t.kind == thing.kind for t in things) == 1:
            return f"what color is the {thing.kind}?", thing.colour
        if kind == "shape" and sum(t.colour == thing.colour for t in things) == 1:
            return f"what is the {thing.colour} shape?", thing.kind
    return "how many shapes are there?", NUMBERS[len(things)]


def with_article(words: str) -> str:
    """``a red circle``, ``an orange star``."""
    return f"an {words}" if words.startswith(("a", "e", "i", "o")) else f"a {words}"


def region_caption(thing: Thing) -> str:
    """``a big red circle``."""
    return with_article(thing.name if thing.size == "medium" else f"{thing.size} {thing.name}")


def from_left_to_right(scene: Scene) -> list[Thing]:
    """The shapes by their left sides."""
    return sorted(scene.things, key=lambda thing: thing.box[0])


def caption(scene: Scene) -> str:
    """Up to three shapes by name, from left to right, or how many there are and the first and last of them."""
    names = [with_article(thing.name) for thing in from_left_to_right(scene)]
    if len(names) > 3:
        return f"{NUMBERS[len(names)]} shapes from {names[0]} to {names[-1]}"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
