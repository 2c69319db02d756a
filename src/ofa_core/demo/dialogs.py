"""Dialogs about a scene in the two published forms: closed questions (GuessWhat?!), and query and questions (InViG)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from .language import CLAIMS, SIDES, groups, superlative, with_article
from .world import Scene, Thing

#: The most questions of a dialog.
MAX_QUESTIONS = 8

#: Differences between two shapes that are alike: superlatives against each other, and the words for both answers.
PAIRS = {
    "is it the left one?": "leftmost",
    "is it the upper one?": "topmost",
    "is it the bigger one?": "biggest",
}
CHOICES = {
    "is it the left one or the right one?": ("leftmost", "the left one.", "rightmost", "the right one."),
    "is it the upper one or the lower one?": ("topmost", "the upper one.", "lowest", "the lower one."),
    "is it the bigger one or the smaller one?": ("biggest", "the bigger one.", "smallest", "the smaller one."),
}


@dataclass(frozen=True)
class Talk:
    """A dialog about one shape: what was asked and answered, and with an InViG dialog the query before it."""

    target: Thing
    questions: tuple[tuple[str, str], ...]
    query: str = ""

    @property
    def pairs(self) -> list[list[str]]:
        """Rows as the datasets have them: in InViG's, the query stands as the answer to nothing."""
        return [["", self.query]] * bool(self.query) + [list(pair) for pair in self.questions]


def closed_dialog(scene: Scene, target: Thing, random: Random) -> Talk:
    """A game of GuessWhat?!: closed questions until one shape is left that all answers fit."""
    left = list(scene.things)
    asked: list[tuple[str, str]] = []
    while len(left) > 1 and len(asked) < MAX_QUESTIONS:
        split = _closed_question(scene, left, random)
        if split is None:
            break
        question, those = split
        inside = target in those
        asked.append((question, "yes" if inside else "no"))
        left = [thing for thing in left if (thing in those) == inside]
    return Talk(target, tuple(asked))


def _closed_question(scene: Scene, left: Sequence[Thing], random: Random) -> tuple[str, list[Thing]] | None:
    """A question that splits the shapes that are left as evenly as any, and those of which it is true."""
    splits: list[tuple[int, float, str, list[Thing]]] = []
    for claim in CLAIMS:
        answers = [claim.holds(scene, thing) for thing in left]
        if None not in answers and any(answers) and not all(answers):
            those = [thing for thing, answer in zip(left, answers, strict=True) if answer]
            splits.append((abs(2 * len(those) - len(left)), random.random(), claim.question, those))
    if splits:
        return min(splits, key=lambda split: split[:2])[2:]
    if len(left) == 2:
        for question, word in PAIRS.items():
            if picked := superlative(scene, word, left):
                return question, [picked]
    return None


def open_dialog(scene: Scene, target: Thing, random: Random) -> Talk:
    """An InViG dialog: a query that may fit several shapes, then questions about what sets them apart."""
    query, left = _query(scene, target, random)
    asked: list[tuple[str, str]] = []
    while len(left) > 1 and len(asked) < MAX_QUESTIONS:
        question = open_question(scene, left, random)
        if question is None:
            break
        answer, left = open_answer(scene, target, left, question)
        asked.append((question, answer))
    return Talk(target, tuple(asked), query)


def _query(scene: Scene, target: Thing, random: Random) -> tuple[str, list[Thing]]:
    """A first query and the shapes that it fits."""
    shape, kind, colour, name = groups(scene, target)
    words, fitting = random.choices((name, kind, colour, shape), weights=(2, 3, 3, 1))[0]
    return "i want one of the shapes." if words == "shape" else f"i want the {words}.", fitting


#: Open questions about what a shape is: the attribute they ask for.
ATTRIBUTES = {"what color is it?": "colour", "what shape is it?": "kind"}
SIDE_CHOICES = {
    "is it on the left or on the right?": ("on the left", "on the right"),
    "is it at the top or at the bottom?": ("at the top", "at the bottom"),
}


def open_question(scene: Scene, left: Sequence[Thing], random: Random) -> str | None:
    """A question that tells the shapes that are left apart as well as any: by what they are, then by where."""
    useful = {q: len({getattr(thing, attribute) for thing in left}) for q, attribute in ATTRIBUTES.items()}
    best = max(useful.values())
    if best > 1:
        return random.choice([question for question, count in useful.items() if count == best])
    for question, (first, second) in SIDE_CHOICES.items():
        answers = [(SIDES[first](scene, thing), SIDES[second](scene, thing)) for thing in left]
        if len(set(answers)) > 1 and not any(None in answer for answer in answers):
            return question
    if len(left) == 2:
        return next((q for q, (word, *_) in CHOICES.items() if superlative(scene, word, left)), None)
    return None


def open_answer(scene: Scene, target: Thing, left: Sequence[Thing], question: str) -> tuple[str, list[Thing]]:
    """The answer to :func:`open_question`'s question, and the shapes that it fits."""
    if question in ATTRIBUTES:
        attribute = ATTRIBUTES[question]
        value = getattr(target, attribute)
        answer = f"it is {value}." if attribute == "colour" else f"it is {with_article(value)}."
        return answer, [thing for thing in left if getattr(thing, attribute) == value]
    if question in SIDE_CHOICES:
        side = next(words for words in SIDE_CHOICES[question] if SIDES[words](scene, target))
        return f"{side}.", [thing for thing in left if SIDES[side](scene, thing)]
    first, words, _, other_words = CHOICES[question]
    return (words if superlative(scene, first, left) is target else other_words), [target]
