"""Conversations about a picture, turn by turn: the picture's stem runs once, and the dialog is kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import OFAError, first_problem, shown
from ..generation import GenerationOptions
from ..utils.atomic_write import atomic_write_text
from ..utils.input_files import parse_json, read_text_file
from ..vision.boxes import Box
from .chat_styles import MANNERS, ChatStyle, Manner, Reply, Respond, Round, Speaker, manner_of
from .oracle import query
from .pipeline import EncodedImage, Picture, Pipeline
from .results import Detection, regions_of
from .showing import Pictured, Region, page

#: The mark of a saved conversation, with the version of its form.
FORMAT = "ofa_core chat 1"


@dataclass(frozen=True)
class ChatTurn(Pictured):
    """A reply of the model in a conversation."""

    #: The reply as it is shown to a person.
    text: str
    #: The regions that it names, in pixels of the picture; none where it names none.
    regions: tuple[Detection, ...]
    #: True if the agent has finished, as its style tells.
    done: bool
    #: Everything that the model said for this turn, in its order, bins and all.
    replies: tuple[str, ...]
    #: The entropy in bits of what the dialog may mean, where it decided; None where the model did.
    ambiguity: float | None = None

    @property
    def box(self) -> Box | None:
        """The first region's box (x0, y0, x1, y1), or None."""
        return self.regions[0].box if self.regions else None

    def marked(self) -> list[Region]:
        """The regions that the reply names."""
        return regions_of(self.regions)

    def said(self) -> list[tuple[str, str]]:
        """The reply."""
        return [("model", self.text)]


class _SavedRegion(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    box: tuple[float, float, float, float]
    label: str
    score: float
    bins: tuple[int, ...]
    token_scores: tuple[float, ...]


class _SavedTurn(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    said: str
    kept: str
    shown: str
    regions: tuple[_SavedRegion, ...]
    replies: tuple[str, ...]
    done: bool
    ambiguity: float | None = None


class _Saved(BaseModel):
    """A conversation in a file."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    format: Literal["ofa_core chat 1"]
    style: str
    size: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]
    box: tuple[float, float, float, float] | None
    opening: str
    context: tuple[tuple[str, str], ...]
    turns: tuple[_SavedTurn, ...]


class Chat:
    """A conversation about one picture; :meth:`ofa_core.OFA.chat` begins one.

    The model is the agent, who wants to find what the person means: it asks, or names a region. In the one that
    :meth:`as_oracle` begins, the person guesses and the model answers. What a person types is plain text, in which a
    ``<bin_3>`` is no region.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        image: Picture,
        style: ChatStyle = "invig",
        options: GenerationOptions | None = None,
        ask_above: float | None = None,
    ) -> None:
        self._manner: Manner = manner_of(style)
        self._ask_above = _checked_bits(ask_above, style, self._manner)
        self.style: ChatStyle = style
        self._pipeline = pipeline
        self._options = options or GenerationOptions()
        (self._image,) = pipeline.look([image])
        self._turns: list[Reply] = []
        self._box: Box | None = None
        self._opening = ""
        #: Rounds of the conversation that an oracle of TiO answers behind.
        self._context: tuple[Round, ...] = ()

    def __repr__(self) -> str:
        role = "agent" if self._box is None else "oracle"
        width, height = self._image.size
        return f"<Chat: {role} in style {self.style}, {len(self._turns)} rounds about {width} × {height} pixels>"

    @property
    def image(self) -> EncodedImage:
        """The picture, which every method of :class:`~ofa_core.OFA` takes."""
        return self._image

    @property
    def box(self) -> Box | None:
        """The box that the model, as an oracle, answers about; None where it is the agent."""
        return self._box

    @property
    def opening(self) -> str:
        """The query with which an oracle opens the dialog; "" where the person begins."""
        return self._opening

    @property
    def history(self) -> list[tuple[str, str]]:
        """Pairs of what was said and the reply, as later turns repeat them."""
        return [(turn.said, turn.kept) for turn in self._turns]

    @property
    def turns(self) -> tuple[ChatTurn, ...]:
        """The model's replies so far."""
        return tuple(map(self._as_turn, self._turns))

    def say(self, text: str) -> ChatTurn:
        """Say something, and hear the model's reply.

        Raises:
            OFAError: the text is empty; nothing is kept of it.
        """
        if not isinstance(text, str) or not text.strip():
            raise OFAError(f"what is said is {text!r}; it should be a text that is not empty")
        reply = self._respond(self._manner.reply if self._box is None else self._manner.oracle, text)
        self._turns.append(reply)
        return self._as_turn(reply)

    def ground(self, text: str = "") -> ChatTurn:
        """Find the region that was talked about, and ``text`` behind it; the conversation stays as it was.

        Raises:
            OFAError: nothing was said yet, or the model is the oracle.
        """
        if self._box is not None:
            raise OFAError("an oracle answers about a region that is known: there is nothing to find")
        if not self._turns and not text.strip():
            raise OFAError("nothing was said yet: there is nothing to find")
        return self._as_turn(self._respond(self._manner.ground, text))

    def undo(self) -> tuple[str, str]:
        """Forget the last round; returns what was said and the reply.

        Raises:
            OFAError: nothing was said yet.
        """
        if not self._turns:
            raise OFAError("nothing was said yet: there is nothing to undo")
        last = self._turns.pop()
        return last.said, last.kept

    def reset(self, image: Picture | None = None) -> None:
        """Forget the dialog, and take another picture if there is one; an oracle forgets its region with it.

        Raises:
            OFAError: the picture cannot be read; the conversation then stays as it was.
        """
        if image is not None:
            (self._image,) = self._pipeline.look([image])
            self._box, self._opening, self._context = None, "", ()
        self._turns.clear()

    def as_oracle(self, box: Sequence[float]) -> Chat:
        """Begin a conversation in which the person guesses what the model knows: the region ``box``.

        In style ``invig`` the model opens it with its query, and remembers what it answered. In the styles of TiO it
        answers each question behind the present conversation.

        Args:
            box: (x0, y0, x1, y1) in pixels of the picture.

        Returns:
            The conversation; this one goes on by itself.

        Raises:
            OFAError: the box is not within the picture, or has no area.
        """
        oracle = self._oracle_of(box)
        if self._manner.oracle_opens:
            (opened,) = query(self._pipeline, [self._image], [box], self._options)
            oracle._opening = opened.text
        else:
            oracle._context = self._rounds()
        return oracle

    @property
    def context(self) -> list[tuple[str, str]]:
        """Pairs of what was said and the reply behind which the next turn is said, without an opening: for `resume`."""
        return [(one.said, one.reply) for one in self._remembered()]

    def resume(
        self, context: Sequence[tuple[str, str]], *, box: Sequence[float] | None = None, opening: str = ""
    ) -> Chat:
        """Go on with a conversation that was held elsewhere, as a service does whose callers keep the dialog.

        Args:
            context: pairs of what was said and the reply, as :attr:`context` had them.
            box: the region that the model, as the oracle, answers about; None where it is the agent.
            opening: the query with which that oracle opened; "" lets it open where its style does.

        Returns:
            The conversation behind these rounds; this one goes on by itself.

        Raises:
            OFAError: a round is no pair of texts, or the box is none; or there is an opening and nobody to say it.
        """
        rounds = tuple(_as_round(pair, number) for number, pair in enumerate(context))
        opens = box is not None and self._manner.oracle_opens
        if opening and not opens:
            raise OFAError(f"{shown(opening)} opens no dialog: only an oracle of style 'invig' does, who has a box")
        if box is None:
            chat = Chat(self._pipeline, self._image, self.style, self._options, self._ask_above)
        else:
            chat = self._oracle_of(box) if opening or not opens else self.as_oracle(box)
        chat._opening = opening or chat._opening
        if chat._is_own_context():
            chat._turns = [Reply(one.said, one.reply, one.reply) for one in rounds]
        else:
            chat._context = rounds
        return chat

    def save(self, path: str | PathLike[str]) -> None:
        """Write the dialog, without the picture, as JSON."""
        saved = {
            "format": FORMAT,
            "style": self.style,
            "size": self._image.size,
            "box": self._box,
            "opening": self._opening,
            "context": [(one.said, one.reply) for one in self._context],
            "turns": [_to_save(turn) for turn in self._turns],
        }
        atomic_write_text(Path(path), json.dumps(saved, ensure_ascii=False, indent=1) + "\n")

    def load(self, path: str | PathLike[str]) -> Chat:
        """Go on with a dialog that :meth:`save` wrote, about this picture.

        Args:
            path: the file.

        Returns:
            This conversation, with the dialog, style and region of the file.

        Raises:
            OFAError: the file holds none, or one about a picture of another size.
        """
        saved = _read(Path(path))
        manner = manner_of(saved.style)
        _checked_bits(self._ask_above, saved.style, manner)
        if saved.size != self._image.size:
            told, own = (f"{width} × {height}" for width, height in (saved.size, self._image.size))
            raise OFAError(f"{path}: the conversation is about a picture of {told} pixels, this one is {own}")
        self._manner, self.style = manner, saved.style  # type: ignore[assignment]  # which manner_of checked
        self._box, self._opening = saved.box, saved.opening
        self._context = tuple(Round(*pair) for pair in saved.context)
        self._turns = [_as_reply(turn) for turn in saved.turns]
        return self

    def _oracle_of(self, box: Sequence[float]) -> Chat:
        oracle = Chat(self._pipeline, self._image, self.style, self._options, self._ask_above)
        oracle._box = Speaker(self._pipeline, self._image, self._options).checked_box(box)
        return oracle

    def _rounds(self) -> tuple[Round, ...]:
        opened = (Round("", self._opening),) if self._opening else ()
        return (*opened, *self._remembered())

    def _remembered(self) -> tuple[Round, ...]:
        """The rounds behind which the next turn is said, but for the opening."""
        return (*self._context, *(turn.round for turn in self._turns if self._is_own_context()))

    def _is_own_context(self) -> bool:
        """True but for an oracle of TiO, which answers every question by itself, behind another conversation."""
        return self._box is None or self._manner.oracle_opens

    def _respond(self, respond: Respond, text: str) -> Reply:
        speaker = Speaker(self._pipeline, self._image, self._options, self._box, self._ask_above)
        reply = respond(speaker, self._rounds(), text)
        return replace(reply, replies=tuple(speaker.said))

    def _as_turn(self, reply: Reply) -> ChatTurn:
        picture = self._pipeline.source_of(self._image)
        return ChatTurn(
            reply.shown, reply.regions, reply.done, reply.replies, reply.ambiguity, picture=picture, asked=reply.said
        )

    def _repr_html_(self) -> str:
        """The conversation as a notebook shows it: the picture with the latest regions, and what was said."""
        roles = ("person", "model")
        turns = self.turns
        rows = [line for turn in turns for line in zip(roles, (turn.asked, turn.text), strict=True)]
        named = next((turn for turn in reversed(turns) if turn.regions), None)
        latest = named or ChatTurn("", (), False, (), picture=self._pipeline.source_of(self._image))
        return page(latest, rows)


def _checked_bits(bits: float | None, style: str, manner: Manner) -> float | None:
    """The ambiguity that decides, if any.

    Raises:
        OFAError: it decides nothing in this style, or is no number of bits.
    """
    if bits is None:
        return None
    if not manner.may_be_decided:
        deciding = " and ".join(name for name, one in MANNERS.items() if one.may_be_decided)
        raise OFAError(f"ask_above is for style {deciding}; in {style} other rules tell whether the model asks")
    if not bits >= 0:
        raise OFAError(f"ask_above is a number of bits, 0 or more, not {bits!r}")
    return bits


def _to_save(turn: Reply) -> dict[str, Any]:
    """A turn as files have it, without an ambiguity that nobody asked for."""
    return {name: value for name, value in asdict(turn).items() if name != "ambiguity" or value is not None}


def _as_round(pair: Sequence[str], number: int) -> Round:
    """A round of a history.

    Raises:
        OFAError: it is none.
    """
    if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
        raise OFAError(f"round {number} of the history is {shown(pair)}; it should be what was said and the reply")
    return Round(*pair)


def _as_reply(turn: _SavedTurn) -> Reply:
    fields: dict[str, Any] = turn.model_dump()
    return Reply(**fields | {"regions": tuple(Detection(**region) for region in fields["regions"])})


def _read(path: Path) -> _Saved:
    try:
        return _Saved.model_validate_json(json.dumps(parse_json(read_text_file(path))))
    except ValidationError as error:
        raise OFAError(f"{path}: no conversation that was saved: {first_problem(error, 'the file')}") from None
    except ValueError as error:
        raise OFAError(f"{path}: not JSON that can be read: {error}") from None
