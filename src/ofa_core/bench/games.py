"""Scores that games have besides their success: how many questions they took, and what the questions were worth."""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from ..errors import OFAError
from . import metrics
from .information import information_gain
from .metrics import Floats, Score
from .results import Header, Row, StrictModel

#: Characters that are left out where two questions are compared.
_MARKS = re.compile(r"[^\w\s]|_")


class GamesOfLength(StrictModel):
    """The games with one number of questions."""

    games: int
    success_rate: Score


class GameScores(StrictModel):
    """Scores of games; None where there is nothing to count."""

    #: Questions asked in a game that was won.
    questions_per_won: Score | None = None
    #: The share of questions that their game had heard before, but for case and punctuation.
    repeated_questions: Score | None = None
    #: The share of games in which one was.
    games_with_repeats: Score | None = None
    #: Bits that a question's answer tells about which object is meant, all being as likely; None where nobody asked
    #: about the others.
    information_gain: Score | None = None
    #: Questions behind it.
    measured_questions: int = 0
    #: By the number of questions.
    by_questions: dict[int, GamesOfLength] = Field(default_factory=dict)


#: Names of the scores for people, and True for those that are shares.
GAME_SCORES: Mapping[str, tuple[str, bool]] = {
    "questions_per_won": ("questions per won game", False),
    "repeated_questions": ("repeated questions", True),
    "games_with_repeats": ("games that repeat a question", True),
    "information_gain": ("bits that a question tells", False),
}


def game_lines(scores: GameScores) -> dict[str, str]:
    """The scores that there are, by their names for people: ``12.5% (10.1 to 15.0)``."""
    told = {}
    for field, (name, is_share) in GAME_SCORES.items():
        score = getattr(scores, field)
        if score is not None:
            digits = ".1%" if is_share else ".3f"
            value, low, high = (f"{number:{digits}}" for number in (score.value, score.low, score.high))
            told[name] = f"{value} ({low.rstrip('%')} to {high.rstrip('%')})"
    return told


def is_closed(header: Header) -> bool:
    """Tell whether games were played by the closed protocol, in which the agent speaks first."""
    return header.settings.get("protocol") == "closed"


def question_places(turns: Sequence[str], closed: bool) -> range:
    """Places of the agent's questions among the turns of a game; an open one begins with the person's query."""
    return range(0 if closed else 1, len(turns), 2)


def repeats(questions: Sequence[str]) -> int:
    """Count the questions that equal an earlier one, but for case, punctuation and white space."""
    plain = [" ".join(_MARKS.sub(" ", question.lower()).split()) for question in questions]
    return len(plain) - len(set(plain))


class Games:
    """The few numbers of each game that its scores are made of.

    Raises:
        OFAError: from :meth:`add`, a row whose answers are not those of its objects.
    """

    def __init__(self, header: Header) -> None:
        self._closed = is_closed(header)
        self._columns = {name: array("d") for name in ("asked", "said", "repeated", "measured", "bits")}

    def add(self, row: Row) -> None:
        """Take in one game."""
        questions = [row.turns[place] for place in question_places(row.turns, self._closed)]
        bits = _bits(row)
        values = (row.questions or 0, len(questions), repeats(questions), len(bits), sum(bits))
        for numbers, value in zip(self._columns.values(), values, strict=True):
            numbers.append(value)

    def scores(self, won: Floats) -> GameScores:
        """The scores of all games, of which ``won`` [N] are those that ended with the right box."""
        columns = {name: np.array(numbers, dtype=np.float64) for name, numbers in self._columns.items()}
        repeated = columns["repeated"]
        return GameScores(
            questions_per_won=_mean(columns["asked"][won > 0]),
            repeated_questions=ratio_of(repeated, columns["said"]),
            games_with_repeats=_mean((repeated > 0).astype(np.float64)),
            information_gain=ratio_of(columns["bits"], columns["measured"]),
            measured_questions=int(columns["measured"].sum()),
            by_questions=_by_questions(columns["asked"], won),
        )


def ratio_of(above: Floats, below: Floats) -> Score | None:
    """The sum of ``above`` [N] over that of ``below`` [N], both of the same games; None where that is nothing."""
    if not below.any():
        return None
    columns = {"above": above, "below": below}
    table = metrics.Table(columns, {"ratio": metrics.ratio(*columns)}, hidden=frozenset(columns))
    return metrics.scores_of(table)["ratio"]


def _mean(values: Floats) -> Score | None:
    """The mean of so many games; None of none."""
    return ratio_of(values, np.ones_like(values))


def _by_questions(asked: Floats, won: Floats) -> dict[int, GamesOfLength]:
    found = {}
    for number in sorted(set(asked.tolist())):
        those = won[asked == number]
        if (success := _mean(those)) is not None:
            found[int(number)] = GamesOfLength(games=len(those), success_rate=success)
    return found


def _bits(row: Row) -> list[float]:
    """The bits that each question told, where the oracle was asked about all objects."""
    if any(len(answers) != len(row.objects) for answers in row.object_answers):
        raise OFAError(f"sample {row.id!r} has other answers than one for each of its {len(row.objects)} objects")
    if any(not sum(answer.values()) for answers in row.object_answers for answer in answers):
        raise OFAError(f"sample {row.id!r} has an object whose answers have no probabilities")
    return [information_gain(answers) for answers in row.object_answers if answers]
