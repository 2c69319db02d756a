"""Games that two models play: the oracle knows a region and answers, the agent asks and says which region it is.

All games of a batch go on side by side, turn by turn, and those that have ended leave the batch. The image stem runs
once for a picture, however many turns there are. A side that says nothing at all ends its game.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..generation import GenerationOptions
from ..heads.grounding import DIALOG_OPTIONS, Grounding, dialog_sources, ground_dialog
from ..heads.oracle import oracle, query, query_sources
from ..heads.pipeline import EncodedImage, Pipeline
from ..heads.questioner import agent_sources, agent_turn, ask, question_sources
from ..text.dialog import Dialog, Style
from .games import question_places
from .information import Asked, answers_to_objects
from .results import Row
from .samples import Models, Sample, SampleImage, Settings, region_row

#: Turns of the agent, after which a game ends.
MAX_TURNS = 8


@dataclass
class Game:
    """A game as it stands."""

    sample: Sample
    #: The picture as the agent and as the oracle see it.
    agent: EncodedImage
    oracle: EncodedImage
    turns: list[str] = field(default_factory=list)
    #: The source that a model read last, ids ``<s>`` to ``</s>``, and the agent's last words.
    source: Sequence[int] = ()
    said: str = ""
    questions: int = 0
    found: Grounding | None = None


@dataclass(frozen=True)
class SelfPlay:
    """The two sides of a batch of games, and the options with which they speak."""

    agent: Pipeline
    oracle: Pipeline
    options: GenerationOptions
    #: The ambiguity in bits above which the agent asks, and up to which it guesses; None leaves that to the model.
    ask_above: float | None = None

    def answers(self, games: Sequence[Game], style: Style) -> list[str]:
        """The oracle's answers to the last turn of each game."""
        found = oracle(
            self.oracle,
            [game.oracle for game in games],
            [game.sample.record.box for game in games],
            [game.turns[:-1] for game in games],
            [game.turns[-1] for game in games],
            style,
            options=self.options,
            batch_size=len(games),
        )
        return [answer.answer for answer in found]


def play(models: Models, pictures: Sequence[SampleImage], samples: Sequence[Sample], settings: Settings) -> list[Row]:
    """Play one game for each sample by the protocol of ``settings``; a game without a region has ``found`` None."""
    options = settings.options(DIALOG_OPTIONS)
    table = SelfPlay(models.agent.pipeline, models.oracle.pipeline, options, settings.ask_above)
    seen = table.agent.look(pictures, len(pictures))
    known = seen if models.oracle is models.agent else table.oracle.look(pictures, len(pictures))
    games = [Game(*seats) for seats in zip(samples, seen, known, strict=True)]
    PROTOCOLS[settings.protocol](table, games)
    others = _told_of_objects(table, games, settings) if settings.information_gain else [{}] * len(games)
    return [
        region_row(
            game.sample,
            game.agent,
            table.agent,
            game.source,
            game.found,
            output=game.said,
            turns=tuple(game.turns),
            questions=game.questions,
            **told,
        )
        for game, told in zip(games, others, strict=True)
    ]


def _told_of_objects(table: SelfPlay, games: Sequence[Game], settings: Settings) -> list[dict[str, Any]]:
    """Fields of each game's row: its objects, and what the oracle would have answered about each."""
    closed = settings.protocol == "closed"
    asked = [
        Asked(game.oracle, game.sample.record.object_boxes, game.turns, question_places(game.turns, closed))
        for game in games
    ]
    style: Style = "guesswhat" if closed else "invig"
    answers = answers_to_objects(table.oracle, asked, style, table.options, settings.batch_size)
    return [
        {"objects": game.objects, "object_answers": found} if found else {}
        for game, found in zip(asked, answers, strict=True)
    ]


def _play_open(table: SelfPlay, games: list[Game]) -> None:
    """InViG's game: the oracle states a query; the agent asks, or ends the game with a region; the oracle answers.

    The agent's ``not yet.`` is no part of the dialog. A question in the last turn goes unanswered.
    """
    looks, boxes = [game.oracle for game in games], [game.sample.record.box for game in games]
    sources = query_sources(table.oracle, [look.size for look in looks], boxes)
    queries = query(table.oracle, looks, boxes, table.options, len(games))
    for game, source, text in zip(games, sources, queries, strict=True):
        game.source, game.turns = source, [text.text] * bool(text.text)
    playing = [game for game in games if game.turns]
    for turn in range(1, MAX_TURNS + 1):
        playing = _agent_turns(table, playing, is_last=turn == MAX_TURNS)
        if not playing or turn == MAX_TURNS:
            return
        playing = _answered(table, playing, "invig")


def _agent_turns(table: SelfPlay, games: Sequence[Game], *, is_last: bool) -> list[Game]:
    """Let the agent speak in ``games``; returns those in which it asked something.

    Where ambiguity decides, it guesses in the last turn.
    """
    if not games:
        return []
    dialogs: list[Dialog] = [game.turns for game in games]
    for game, source in zip(games, agent_sources(table.agent, dialogs), strict=True):
        game.source = source
    ask_above = math.inf if is_last and table.ask_above is not None else table.ask_above
    looks = [game.agent for game in games]
    turns = agent_turn(table.agent, looks, dialogs, table.options, len(games), ask_above=ask_above)
    asked = []
    for game, turn in zip(games, turns, strict=True):
        game.said, game.found = turn.text, turn.grounding
        if turn.question:
            game.turns.append(turn.question)
            game.questions += 1
            asked.append(game)
    return asked


def _answered(table: SelfPlay, games: Sequence[Game], style: Style) -> list[Game]:
    """Let the oracle answer the last turn of ``games``; returns those in which it said something."""
    answers = table.answers(games, style)
    answered = [game for game, answer in zip(games, answers, strict=True) if answer]
    for game, answer in zip(answered, filter(None, answers), strict=True):
        game.turns.append(answer)
    return answered


def _play_closed(table: SelfPlay, games: list[Game]) -> None:
    """GuessWhat?!'s game: questions that are answered with yes, no or n/a, then the agent says which region it is.

    An agent that asks nothing has no more questions; with no question at all there is no dialog to ground.
    """
    playing = games
    for _ in range(MAX_TURNS):
        dialogs: list[Dialog] = [game.turns for game in playing]
        for game, source in zip(playing, question_sources(table.agent, dialogs), strict=True):
            game.source = source
        looks = [game.agent for game in playing]
        asked = ask(table.agent, looks, dialogs, "guesswhat", table.options, len(playing))
        for game, text in zip(playing, asked, strict=True):
            game.turns += [text.text] * bool(text.text)
        playing = [game for game, text in zip(playing, asked, strict=True) if text.text]
        if not playing:
            break
        for game, answer in zip(playing, table.answers(playing, "guesswhat"), strict=True):
            game.turns.append(answer)
            game.questions += 1
    _ground(table, [game for game in games if game.turns])


def _ground(table: SelfPlay, games: Sequence[Game]) -> None:
    if not games:
        return
    dialogs: list[Dialog] = [game.turns for game in games]
    looks = [game.agent for game in games]
    found = ground_dialog(table.agent, looks, dialogs, "guesswhat", table.options, batch_size=len(games))
    for game, source, grounding in zip(games, dialog_sources(table.agent, dialogs), found, strict=True):
        game.source, game.said, game.found = source, grounding.text, grounding


#: Protocols of games: ``open`` as InViG's agents play, ``closed`` by the rules of GuessWhat?!.
PROTOCOLS: dict[str, Callable[[SelfPlay, list[Game]], None]] = {"open": _play_open, "closed": _play_closed}
