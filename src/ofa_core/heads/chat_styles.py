"""The ways of holding a conversation about a picture: what each asks the model for, and how it reads the reply.

``invig`` is the published dialog task of an agent that may guess. The others are those of TiO: its ``ChatTiO``
(``tio``), the one with tasks (``tio_tasks``), and the three of its demo (``freeform``, ``freeform_grounding``,
``guesser``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from ..errors import OFAError
from ..generation import GenerationOptions
from ..text.dialog import AGENT, HUMAN, MAX_SOURCE_TOKENS, cut_source
from ..text.pieces import Piece, encode_pieces, region_text
from ..vision.boxes import Box
from .grounding import dialog_sources, invig_codec
from .oracle import oracle_sources
from .pipeline import EncodedImage, Pipeline
from .questioner import NOT_YET, REGION, SURE, agent_sources, agent_turn
from .regions import regions_said
from .results import Detection

ChatStyle = Literal["invig", "tio", "tio_tasks", "freeform", "freeform_grounding", "guesser"]
CHAT_STYLES: tuple[ChatStyle, ...] = get_args(ChatStyle)

_WHICH = "which region does the context describe?"
_MAY_GUESS = "can you specify which region the context describes?"
#: The rounds after which an agent of ``tio_tasks`` asks no more, and its words then.
_MOST_ROUNDS, _I_SEE = 6, "OK, I see."
#: Words of a reply that asks on, so that nothing is grounded yet.
_ASKS = ("which", "what", "where")


@dataclass(frozen=True)
class Round:
    """A person's words and the reply, as later questions repeat them."""

    said: str
    reply: str


@dataclass(frozen=True)
class Reply:
    """A reply: as it is shown, as the history keeps it, and the regions in it."""

    said: str
    kept: str
    shown: str
    regions: tuple[Detection, ...] = ()
    #: Everything that the model said, in its order.
    replies: tuple[str, ...] = ()
    done: bool = False
    #: The entropy in bits of what the dialog may mean, where it decided.
    ambiguity: float | None = None

    @property
    def round(self) -> Round:
        """The part of it that later questions repeat."""
        return Round(self.said, self.kept)


@dataclass(frozen=True)
class Spoken:
    """One answer of the model, as it is, and the regions in it."""

    text: str
    regions: tuple[Detection, ...]


@dataclass
class Speaker:
    """A model in a conversation about one picture."""

    pipeline: Pipeline
    image: EncodedImage
    options: GenerationOptions
    #: The box (x0, y0, x1, y1) in pixels that an oracle answers about.
    box: Box | None = None
    #: The ambiguity in bits above which an agent asks, and up to which it guesses; None leaves that to the model.
    ask_above: float | None = None
    #: Everything that it said since it was made.
    said: list[str] = field(default_factory=list)

    def ask(self, source: Sequence[int]) -> Spoken:
        """The best answer to source ids."""
        (beams,) = self.pipeline.run([self.image], [source], self.options)
        if not beams:
            raise OFAError("the model gave no answer within the options of its search: allow more tokens or beams")
        tokens, scores, tokenizer = beams[0].tokens, beams[0].token_scores, self.pipeline.tokenizer
        regions = regions_said(tokenizer, invig_codec(self.pipeline), tokens, scores, self.image.size)
        self.said.append(tokenizer.decode(tokens))
        return Spoken(self.said[-1], tuple(regions))

    def ask_pieces(self, pieces: Sequence[Piece]) -> Spoken:
        """The best answer to a text, in lower case and without its oldest tokens where it is long."""
        lower = [Piece(piece.text.lower(), piece.symbols) for piece in pieces]
        return self.ask(cut_source(encode_pieces(self.pipeline.tokenizer, lower), MAX_SOURCE_TOKENS))

    def checked_box(self, box: Sequence[float]) -> Box:
        """A box within the picture, for an oracle.

        Raises:
            OFAError: it is none.
        """
        invig_codec(self.pipeline).encode(box, self.image.size)
        x0, y0, x1, y1 = map(float, box)
        return (x0, y0, x1, y1)

    def known_box(self) -> Box:
        """The oracle's box."""
        if self.box is None:
            raise OFAError("an oracle needs the box that it answers about")
        return self.box


def _lines(rounds: Sequence[Round], text: str | None) -> list[Piece]:
    """All rounds and the new text, one line a turn; what the model said may hold bins, what a person typed never."""
    pieces = []
    for one in rounds:
        pieces += [Piece(f" {HUMAN}: {one.said}\n {AGENT}: "), Piece(one.reply, symbols=True), Piece("\n")]
    return pieces if text is None else [*pieces, Piece(f" {HUMAN}: {text}")]


def _instructed(instruction: str, context: Sequence[Piece], start: str = " \n") -> list[Piece]:
    return [Piece(f'{start}#instruction: {instruction}\n#context: "'), *context, Piece('"')]


def _regions_of(*spoken: Spoken) -> tuple[Detection, ...]:
    """The regions of the answers that say there are some."""
    return tuple(region for one in spoken if REGION in one.text for region in one.regions)


def _before_region(text: str) -> str:
    return text.partition(REGION)[0].replace(NOT_YET, "").strip()


def _turns(rounds: Sequence[Round]) -> list[str]:
    return [turn for one in rounds for turn in (one.said, one.reply)]


# The agent


def _invig(speaker: Speaker, rounds: Sequence[Round], text: str) -> Reply:
    """A question, or the region, in the published prompt of an agent that may guess."""
    if speaker.ask_above is not None:
        return _invig_decided(speaker, rounds, text)
    (source,) = agent_sources(speaker.pipeline, [[*_turns(rounds), text]])
    spoken = speaker.ask(source)
    shown = _before_region(spoken.text)
    return Reply(text, shown or SURE, shown, _regions_of(spoken), done=REGION in spoken.text)


def _invig_decided(speaker: Speaker, rounds: Sequence[Round], text: str) -> Reply:
    """A question while the dialog may mean several regions, and the region once it means one."""
    dialogs = [[*_turns(rounds), text]]
    (turn,) = agent_turn(speaker.pipeline, [speaker.image], dialogs, speaker.options, ask_above=speaker.ask_above)
    speaker.said.append(turn.text)
    if turn.question:
        return Reply(text, turn.question, turn.question, ambiguity=turn.ambiguity)
    found = turn.grounding
    if found is None:
        raise OFAError("the model gave no answer within the options of its search: allow more tokens or beams")
    regions = found.regions
    if found.box is not None and found.bins is not None and not regions:
        regions = (Detection(found.box, "", found.score, found.bins, found.token_scores),)
    return Reply(text, SURE, SURE, regions, done=True, ambiguity=turn.ambiguity)


def _tio(speaker: Speaker, rounds: Sequence[Round], text: str) -> Reply:
    """A reply, and the region that the dialog with it describes."""
    context = [*_lines(rounds, text), Piece("\n")]
    spoken = speaker.ask_pieces(context)
    answered = [*context, Piece(f" {AGENT}: "), Piece(spoken.text, symbols=True), Piece("\n")]
    grounded = speaker.ask_pieces(_instructed(_WHICH, answered))
    return Reply(text, spoken.text, spoken.text, _regions_of(grounded, spoken))


def _tio_tasks(speaker: Speaker, rounds: Sequence[Round], text: str) -> Reply:
    """A question, and the region as soon as the reply asks nothing."""
    text = text.rstrip(". ") + "."
    spoken = speaker.ask_pieces(_instructed("guess what i want?", _lines(rounds, text), start=""))
    shown = spoken.text.replace(REGION, "").strip()
    if len(rounds) >= _MOST_ROUNDS or shown in [one.reply for one in rounds]:
        shown = _I_SEE
    regions: tuple[Detection, ...] = ()
    if not any(word in shown.lower() for word in _ASKS):
        said = [*rounds, Round(text, shown)]
        regions = _regions_of(speaker.ask_pieces(_instructed(_WHICH, _lines(said, text), start=" ")))
    return Reply(text, shown, shown, regions, done=shown.endswith((".", "!")))


def _freeform(speaker: Speaker, rounds: Sequence[Round], text: str) -> Reply:
    """A reply without any instruction, with the regions in it."""
    spoken = speaker.ask_pieces(_lines(rounds, text))
    return _shown(text, spoken, spoken)


def _freeform_grounding(speaker: Speaker, rounds: Sequence[Round], text: str) -> Reply:
    """A reply without any instruction, and the region that the dialog with it describes."""
    context = _lines(rounds, text)
    spoken = speaker.ask_pieces(context)
    answered = [*context, Piece(f" {AGENT}: "), Piece(spoken.text.strip(), symbols=True), Piece("\n")]
    return _shown(text, spoken, speaker.ask_pieces(_instructed(_WHICH, answered)))


def _guesser(speaker: Speaker, rounds: Sequence[Round], text: str) -> Reply:
    """A question, or the region, behind an opening that nobody said."""
    opened = [Round("", "which one do you want?"), *rounds]
    spoken = speaker.ask_pieces(_instructed(_MAY_GUESS, _lines(opened, text)))
    return _shown(text, spoken, spoken)


def _shown(text: str, spoken: Spoken, grounded: Spoken) -> Reply:
    shown = _before_region(spoken.text)
    regions = _regions_of(grounded)
    return Reply(text, shown, shown, regions, done=bool(regions))


# The region of what was said so far


def _ground_published(speaker: Speaker, rounds: Sequence[Round], text: str) -> Reply:
    turns = [*_turns(rounds), *([text] if text else [])]
    (source,) = dialog_sources(speaker.pipeline, [turns], "invig")
    return _grounded(text, speaker.ask(source))


def _ground_lines(speaker: Speaker, rounds: Sequence[Round], text: str) -> Reply:
    return _grounded(text, speaker.ask_pieces(_instructed(_WHICH, _lines(rounds, text or None))))


def _ground_tasks(speaker: Speaker, rounds: Sequence[Round], text: str) -> Reply:
    return _grounded(text, speaker.ask_pieces(_instructed(_WHICH, _lines(rounds, text))))


def _grounded(text: str, spoken: Spoken) -> Reply:
    return Reply(text, spoken.text.strip(), spoken.text.strip(), _regions_of(spoken))


# The oracle


def _invig_oracle(speaker: Speaker, rounds: Sequence[Round], text: str) -> Reply:
    """The answer of the one who knows the region, whose query opened the dialog: the first round's reply."""
    turns = [turn for turn in _turns(rounds) if turn]
    boxes = [speaker.known_box()]
    (source,) = oracle_sources(speaker.pipeline, [speaker.image.size], boxes, [turns], [text], "invig")
    spoken = speaker.ask(source)
    return Reply(text, spoken.text.strip(), spoken.text.strip())


def _tio_oracle(speaker: Speaker, rounds: Sequence[Round], text: str) -> Reply:
    """The answer about a region, to a question behind a dialog that it does not become a part of."""
    asked = _instructed("answer the question based on the region.", _lines(rounds, text))
    region = region_text(invig_codec(speaker.pipeline).encode(speaker.known_box(), speaker.image.size))
    spoken = speaker.ask_pieces([*asked, Piece(" \n#region: "), Piece(region, symbols=True)])
    return Reply(text, spoken.text.strip(), spoken.text.strip())


#: A function from a model, the rounds so far and a new text to the reply.
Respond = Callable[[Speaker, Sequence[Round], str], Reply]


@dataclass(frozen=True)
class Manner:
    """A style: how its agent replies, how it grounds, and how its oracle answers."""

    reply: Respond
    ground: Respond = _ground_lines
    oracle: Respond = _tio_oracle
    #: True if the oracle opens its own dialog with a query, and remembers what it answered.
    oracle_opens: bool = False
    #: True if ambiguity may decide whether its agent asks or names a region.
    may_be_decided: bool = False


MANNERS: dict[ChatStyle, Manner] = {
    "invig": Manner(_invig, _ground_published, _invig_oracle, oracle_opens=True, may_be_decided=True),
    "tio": Manner(_tio),
    "tio_tasks": Manner(_tio_tasks, _ground_tasks),
    "freeform": Manner(_freeform),
    "freeform_grounding": Manner(_freeform_grounding),
    "guesser": Manner(_guesser),
}


def manner_of(style: str) -> Manner:
    """The manner of a style.

    Raises:
        OFAError: there is none.
    """
    for name, manner in MANNERS.items():
        if name == style:
            return manner
    raise OFAError(f"a style of a conversation is {', '.join(MANNERS)}, not {style!r}")
