"""Conversations about a picture, turn by turn: the picture's stem runs once, and the dialog is kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import OFAError, first_problem
from ..generation import GenerationOptions
from ..utils.atomic_write import atomic_write_text
from ..utils.input_files import parse_json, read_text_file
from ..vision.boxes import Box
from .chat_styles import ChatStyle, Manner, Reply, Respond, Round, Speaker, manner_of
from .oracle import query
from .pipeline import EncodedImage, Picture, Pipeline
from .results import Detection

#: The mark of a saved conversation, with the version of its form.
FORMAT = "ofa_core chat 1"


@dataclass(frozen=True)
class ChatTurn:
    """A reply of the model in a conversation."""

    #: The reply as it is shown to a person.
    text: str
    #: The regions that it names, in pixels of the picture; none where it names none.
    regions: tuple[Detection, ...]
    #: True if the agent has finished, as its style tells.
    done: bool
    #: Everything that the model said for this turn, in its order, bins and all.
    replies: tuple[str, ...]

    @property
    def box(self) -> Box | None:
        """The first region's box (x0, y0, x1, y1), or None."""
        return self.regions[0].box if self.regions else None


class _SavedRegion(BaseModel):
    model_config = ConfigDict(extra="forbid")

    box: tuple[float, float, float, float]
    label: str
    score: float
    bins: tuple[int, ...]
    token_scores: tuple[float, ...]


class _SavedTurn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    said: str
    kept: str
    shown: str
    regions: tuple[_SavedRegion, ...]
    replies: tuple[str, ...]
    done: bool


class _Saved(BaseModel):
    """A conversation in a file."""

    model_config = ConfigDict(extra="forbid")

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
        self, pipeline: Pipeline, image: Picture, style: ChatStyle = "invig", options: GenerationOptions | None = None
    ) -> None:
        self._manner: Manner = manner_of(style)
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
        return tuple(map(_as_turn, self._turns))

    def say(self, text: str) -> ChatTurn:
        """Say something, and hear the model's reply.

        Raises:
            OFAError: the text is empty; nothing is kept of it.
        """
        if not isinstance(text, str) or not text.strip():
            raise OFAError(f"what is said is {text!r}; it should be a text that is not empty")
        reply = self._respond(self._manner.reply if self._box is None else self._manner.oracle, text)
        self._turns.append(reply)
        return _as_turn(reply)

    def ground(self, text: str = "") -> ChatTurn:
        """Find the region that was talked about, and ``text`` behind it; the conversation stays as it was.

        Raises:
            OFAError: nothing was said yet, or the model is the oracle.
        """
        if self._box is not None:
            raise OFAError("an oracle answers about a region that is known: there is nothing to find")
        if not self._turns and not text.strip():
            raise OFAError("nothing was said yet: there is nothing to find")
        return _as_turn(self._respond(self._manner.ground, text))

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
        oracle = Chat(self._pipeline, self._image, self.style, self._options)
        x0, y0, x1, y1 = Speaker(self._pipeline, self._image, self._options).checked_box(box)
        oracle._box = (x0, y0, x1, y1)
        if self._manner.oracle_opens:
            (opened,) = query(self._pipeline, [self._image], [oracle._box], self._options)
            oracle._opening = opened.text
        else:
            oracle._context = self._rounds()
        return oracle

    def save(self, path: str | PathLike[str]) -> None:
        """Write the dialog, without the picture, as JSON."""
        saved = {
            "format": FORMAT,
            "style": self.style,
            "size": self._image.size,
            "box": self._box,
            "opening": self._opening,
            "context": [(one.said, one.reply) for one in self._context],
            "turns": [asdict(turn) for turn in self._turns],
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
        if saved.size != self._image.size:
            told, own = (f"{width} × {height}" for width, height in (saved.size, self._image.size))
            raise OFAError(f"{path}: the conversation is about a picture of {told} pixels, this one is {own}")
        self._manner, self.style = manner, saved.style  # type: ignore[assignment]  # which manner_of checked
        self._box, self._opening = saved.box, saved.opening
        self._context = tuple(Round(*pair) for pair in saved.context)
        self._turns = [_as_reply(turn) for turn in saved.turns]
        return self

    def _rounds(self) -> tuple[Round, ...]:
        opened = (Round("", self._opening),) if self._opening else ()
        remembered = tuple(turn.round for turn in self._turns)
        return (*opened, *self._context, *(remembered if self._remembers() else ()))

    def _remembers(self) -> bool:
        """True but for an oracle of TiO, which answers every question by itself."""
        return self._box is None or self._manner.oracle_opens

    def _respond(self, respond: Respond, text: str) -> Reply:
        speaker = Speaker(self._pipeline, self._image, self._options, self._box)
        reply = respond(speaker, self._rounds(), text)
        return Reply(reply.said, reply.kept, reply.shown, reply.regions, tuple(speaker.said), reply.done)


def _as_turn(reply: Reply) -> ChatTurn:
    return ChatTurn(reply.shown, reply.regions, reply.done, reply.replies)


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
