"""Conversations on the page: of a person and a model in either role, and of two models with each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from PIL import Image

from .. import api
from ..errors import OFAError
from ..heads.chat import Chat
from ..heads.chat_styles import ChatStyle
from ..heads.grounding import Grounding
from ..vision.boxes import Box, box_iou
from . import markup
from .work import Steps, labelled, required, seconds_since

#: Questions of the agent, after which a game ends.
MAX_QUESTIONS = 8
#: The longer side, in pixels, of a picture within a conversation.
_SMALL = 420

#: The one who speaks, the text, and HTML below it.
Turn = tuple[str, str, str]


@dataclass
class Talk:
    """A conversation with a person: the model's own, and what is shown of it."""

    chat: Chat
    picture: Image.Image
    turns: list[Turn] = field(default_factory=list)
    #: Lines that each round put among ``turns``, for taking it back.
    rounds: list[int] = field(default_factory=list)

    def shown(self) -> str:
        """The conversation as HTML."""
        return markup.conversation(self.turns)


def begin(ofa: api.OFA, picture: Image.Image, style: ChatStyle, region: Box | None) -> Talk:
    """Begin a conversation: as the one who guesses, where the model knows a region, or as the one who means something.

    Args:
        ofa: the model.
        picture: the picture.
        style: the kind of conversation.
        region: what the model knows as the oracle; None where it is to find out.
    """
    chat = ofa.chat(picture, style=style)
    talk = Talk(chat if region is None else chat.as_oracle(region), picture)
    if talk.chat.opening:
        talk.turns.append(("model", talk.chat.opening, ""))
    return talk


def say(talk: Talk, text: str | None) -> Steps:
    """A person's turn, and the model's, with the regions that it names drawn on the picture."""
    said = required(text, "text")
    began = time.perf_counter()
    before = len(talk.turns)
    yield "the model is thinking …", markup.conversation([*talk.turns, ("you", said, ""), ("model", "…", "")])
    turn = talk.chat.say(said)
    drawn = _drawn(talk.picture, labelled(turn.regions)) if turn.regions else ""
    talk.turns += [("you", said, ""), ("model", turn.text or ("this one" if turn.regions else "…"), drawn)]
    talk.rounds.append(len(talk.turns) - before)
    end = ", and the model has finished" if turn.done else ""
    yield f"answered in {seconds_since(began)}{end}", talk.shown()


def take_back(talk: Talk) -> str:
    """Forget the last round, and tell so."""
    said, _ = talk.chat.undo()
    del talk.turns[-talk.rounds.pop() :]
    return f"taken back: {said!r}"


def _drawn(picture: Image.Image, boxes: list[tuple[Box, str]]) -> str:
    places = "; ".join(markup.box_text(box) for box, _ in boxes)
    return markup.figure(markup.with_boxes(picture, boxes, _SMALL), places)


# Two models


@dataclass
class _Table:
    """A game of two models: who plays, the picture, the region that the oracle knows, and what was said."""

    agent: api.OFA
    oracle: api.OFA
    picture: Image.Image
    region: Box
    dialog: list[str] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.seen = self.agent.look(self.picture)
        self.known = self.seen if self.oracle is self.agent else self.oracle.look(self.picture)

    def said(self, who: str, text: str) -> None:
        """Note a turn."""
        self.dialog.append(text)
        self.turns.append((who, text, ""))


def _open_game(table: _Table) -> Iterator[Grounding | None]:
    """InViG's game, turn by turn; the last value is the agent's region, if it names one."""
    table.said("oracle", table.oracle.query(table.known, table.region).text)
    yield None
    for _ in range(MAX_QUESTIONS):
        turn = table.agent.agent_turn(table.seen, table.dialog)
        if not turn.question:
            yield turn.grounding
            return
        table.said("agent", turn.question)
        yield None
        answer = table.oracle.oracle(table.known, table.region, table.dialog[:-1], turn.question, style="invig")
        table.said("oracle", answer.answer)
        yield None


def _closed_game(table: _Table) -> Iterator[Grounding | None]:
    """GuessWhat?!'s game, turn by turn: questions that are answered with yes or no, then the agent's region."""
    for _ in range(MAX_QUESTIONS):
        question = table.agent.ask(table.seen, table.dialog).text
        if not question:
            break
        table.said("agent", question)
        yield None
        answer = table.oracle.oracle(table.known, table.region, table.dialog[:-1], question)
        table.said("oracle", answer.answer)
        yield None
    yield table.agent.ground_dialog(table.seen, table.dialog) if table.dialog else None


#: Games by the names under which the page offers them.
GAMES: dict[str, Callable[[_Table], Iterator[Grounding | None]]] = {
    "in free words (InViG)": _open_game,
    "yes or no (GuessWhat?!)": _closed_game,
}


def watch(agent: api.OFA, oracle: api.OFA, picture: Image.Image, region: Box | None, game: str) -> Steps:
    """A game of two models about a region that the oracle alone knows, turn by turn."""
    if region is None:
        raise OFAError(
            "no region is marked yet, which the oracle would know: drag over the picture, or type four numbers"
        )
    if game not in GAMES:
        raise OFAError(f"a game is {' or '.join(GAMES)}, not {game!r}")
    began = time.perf_counter()
    yield "both models look at the picture …", ""
    table = _Table(agent, oracle, picture, region)
    guess: Grounding | None = None
    for found in GAMES[game](table):
        guess = found
        who = "the agent" if not table.turns or table.turns[-1][0] == "oracle" else "the oracle"
        yield f"{len(table.turns)} turns so far; {who} is thinking …", markup.conversation(table.turns)
    boxes: list[tuple[Box, str]] = [(region, "")]
    places = f"red: meant, {markup.box_text(region)}"
    if guess is None or guess.box is None:
        told = "the agent names no region"
    else:
        iou = float(box_iou(torch.tensor(guess.box), torch.tensor(region)))
        boxes.append((guess.box, ""))
        places += f"; blue: guessed, {markup.box_text(guess.box)}"
        told = f"{'right' if iou > 0.5 else 'wrong'}: the agent's region overlaps the meant one with IoU {iou:.2f}"
    ending = ("outcome", told, markup.figure(markup.with_boxes(picture, boxes, _SMALL), places))
    yield f"done in {seconds_since(began)}: {told}", markup.conversation([*table.turns, ending])
