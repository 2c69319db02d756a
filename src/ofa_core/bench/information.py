"""The worth of a game's questions: each is put to the oracle about every object of the picture, not the target alone.

A question whose answer is the same for all objects tells nothing; one that halves them tells one bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..generation import GenerationOptions
from ..heads.oracle import OracleAnswer, oracle
from ..heads.pipeline import EncodedImage, Pipeline
from ..text.dialog import Style
from ..vision.boxes import Box

#: Objects of which there is something to find out.
FEWEST_OBJECTS = 2

#: For each question of a game, and for each object, the probabilities of the answers.
ObjectAnswers = tuple[tuple[dict[str, float], ...], ...]


@dataclass(frozen=True)
class Asked:
    """A game that is over: the picture as the oracle sees it, the objects in it, and what was said."""

    picture: EncodedImage
    objects: tuple[Box, ...]
    turns: Sequence[str]
    #: Places of the questions among the turns.
    questions: Sequence[int]


def answers_to_objects(
    pipeline: Pipeline, games: Sequence[Asked], style: Style, options: GenerationOptions, batch_size: int
) -> list[ObjectAnswers]:
    """For each game, what the oracle would have answered to each question, were the object another one.

    It reads the dialog as it was, and the same question. A free answer has the probability 1. Games with fewer than
    :data:`FEWEST_OBJECTS` objects are not asked about.
    """
    open_games = [game if len(game.objects) >= FEWEST_OBJECTS else None for game in games]
    asked = [
        (game.picture, box, game.turns[:place], game.turns[place])
        for game in open_games
        if game is not None
        for place in game.questions
        for box in game.objects
    ]
    if not asked:
        return [()] * len(games)
    pictures, boxes, before, questions = zip(*asked, strict=True)
    found = iter(oracle(pipeline, pictures, boxes, before, questions, style, options=options, batch_size=batch_size))
    return [
        () if game is None else tuple(tuple(_distribution(next(found)) for _ in game.objects) for _ in game.questions)
        for game in open_games
    ]


def _distribution(answer: OracleAnswer) -> dict[str, float]:
    return dict(answer.probabilities) or {answer.answer: 1.0}


def information_gain(answers: Sequence[Mapping[str, float]]) -> float:
    """Mutual information, in bits, of a question's answer and the object, each object being as likely as another.

    ``answers`` are the probabilities of the answers for each object; what they do not sum to is made up for.
    """
    totals = [sum(each.values()) for each in answers]
    shares = [
        {name: value / total for name, value in each.items()} for each, total in zip(answers, totals, strict=True)
    ]
    names = {name for each in shares for name in each}
    overall = [sum(each.get(name, 0.0) for each in shares) / len(shares) for name in names]
    within = sum(_entropy(each.values()) for each in shares) / len(shares)
    return max(_entropy(overall) - within, 0.0)  # below zero by rounding alone


def _entropy(probabilities: Iterable[float]) -> float:
    return -sum(value * math.log2(value) for value in probabilities if value > 0)
