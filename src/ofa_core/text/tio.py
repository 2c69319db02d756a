"""The prompts of TiO's development branch: for each task, in each of its styles, the source and the target.

Every source has the form of the published dialog tasks (:mod:`~ofa_core.text.dialog`). The labels do not always name
who spoke: in ``invig_answer`` the person's opening is labelled ``agent:``, in ``guesswhat_answer`` the questioner is
``human:``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import OFAError
from .dialog import AGENT, HUMAN, DialogTask, dialog_source, dialog_text
from .pieces import Piece, encode_pieces, joined, region_text
from .tokenizer import Tokenizer
from .vocabulary import EOS

#: Tokens that are kept of a target.
MAX_TARGET_TOKENS = 280


@dataclass(frozen=True)
class TioStyle:
    """One way of asking a task; ``{name}`` stands for what a row fills in."""

    instruction: str
    #: The text of the target, without its leading space.
    target: str = "{text}"
    #: The label of the first turn; None where there are no turns.
    first: str | None = None
    #: True if the source ends with a region.
    region: bool = False
    #: The text in front of each region of the target, the first one's and the others'; None where it has no regions.
    marks: tuple[str, str] | None = None
    #: The weight with which training draws this style.
    weight: float = 1.0


@dataclass(frozen=True)
class TioTask:
    """A task in its styles, and the share of its data set that an epoch of the published training draws."""

    styles: tuple[TioStyle, ...]
    share: float = 1.0


_MAY_GUESS = "can you specify which region the context describes?"
_WHICH = "which region does the context describe?"
_ONE_REGION = (" region:", " region:")
_LINES, _DASHES, _FIRST_INLINE = ("\n region:",) * 2, ("\n- region:",) * 2, (" region:", "\n region:")


def _asking(instruction: str, first: str) -> TioTask:
    return TioTask((TioStyle(instruction, first=first, weight=9), TioStyle(_MAY_GUESS, "not yet. {text}", first=first)))


def _grounding(first: str) -> TioTask:
    return TioTask(
        (
            TioStyle(_WHICH, "", first=first, marks=_ONE_REGION, weight=9),
            TioStyle(_MAY_GUESS, "sure.", first=first, marks=_ONE_REGION),
        )
    )


def _plain(*instructions: str, share: float = 1.0) -> TioTask:
    return TioTask(tuple(TioStyle(instruction) for instruction in instructions), share)


#: Every task by its name.
TIO_TASKS: dict[str, TioTask] = {
    "invig_question": _asking("ask a question to guess what i want.", HUMAN),
    "invig_answer": TioTask(
        (
            TioStyle("answer the question based on the region.", first=AGENT, region=True, weight=9),
            TioStyle("state your query about the region.", region=True),
        )
    ),
    "invig_grounding": _grounding(HUMAN),
    "guesswhat_question": _asking("ask a close-ended question to guess what i want.", AGENT),
    "guesswhat_answer": TioTask(
        (TioStyle("answer the question based on the region with yes or no.", first=HUMAN, region=True),)
    ),
    "guesswhat_grounding": _grounding(AGENT),
    "visdial_question": TioTask((TioStyle("ask a question based on the image.", first=AGENT),)),
    "visdial_answer": TioTask((TioStyle("answer the question.", first=HUMAN),)),
    "visdial_caption": _plain("what does the image show?", "describe the image briefly.", share=0.2),
    "refcoco_grounding": TioTask((TioStyle(_WHICH, "", first=HUMAN, marks=_ONE_REGION),), 0.3),
    "refcoco_caption": TioTask((TioStyle("describe the region briefly.", region=True),), 0.0),
    "cc_sbu_align_caption": _plain("what does the image show?", "describe the image."),
    "llava_instruct_150k": TioTask((TioStyle("answer the question.", first=HUMAN),), 0.7),
    "llava_conversation_58k": TioTask((TioStyle("answer the question.", first=HUMAN),)),
    "llava_complex_reasoning_77k": _plain("{question}", share=0.7),
    "llava_detail_23k": _plain("{question}", share=0.7),
    "openimages_detection": TioTask(
        (
            TioStyle(
                "point out the location of any {fewer} {category}.",
                "there are {count} {category}. here are {fewer} of them.",
                marks=_DASHES,
                weight=0,
            ),
            TioStyle(
                "point out the location of any {more} {category}.",
                "there are only {count} {category}.",
                marks=_DASHES,
                weight=0,
            ),
            TioStyle("where are {category} located?", "there are {count} {category}.", marks=_LINES),
            TioStyle(
                "how many {category} are there? where are they located?",
                "there are {count} {category}.",
                marks=_DASHES,
                weight=0,
            ),
            TioStyle("where are {absent} located?", "there is no {absent}."),
            TioStyle(f"{_WHICH} #context: {{category}}", "", marks=_FIRST_INLINE, weight=9),
        ),
        0.5,
    ),
}
#: Styles of ``openimages_detection`` by what they ask.
FEWER, MORE, LOCATED, HOW_MANY, ABSENT, DESCRIBED = range(6)
#: The question, outside of all instructions, of the look whether something is there.
BIN_CHECK = ' is the object human want in the image? yes or no? #context: "{text}"'
#: The beginning of the answer that something is not there.
NOTHING_THERE = "there is no "


def tio_style(name: str, style: int = 0) -> TioStyle:
    """One style of a task.

    Raises:
        OFAError: there is no such task, or it has no such style.
    """
    if name not in TIO_TASKS:
        raise OFAError(f"there is no task {name!r} of TiO; there are {', '.join(TIO_TASKS)}")
    styles = TIO_TASKS[name].styles
    if not 0 <= style < len(styles):
        raise OFAError(f"the task {name!r} has styles 0 to {len(styles) - 1}, not {style!r}")
    return styles[style]


@dataclass(frozen=True)
class TioPair:
    """A source and its target; either as text and as ids."""

    task: DialogTask
    turns: tuple[str, ...]
    #: The four bins of the region that the source ends with.
    region: tuple[int, ...] | None
    target: tuple[Piece, ...]

    @property
    def source_text(self) -> str:
        """The whole source."""
        text = dialog_text(self.task, self.turns)
        return text if self.region is None else f"{text}\n#region: {region_text(self.region)}"

    @property
    def target_text(self) -> str:
        """The whole target, with its leading space."""
        return joined(self.target)

    def source_ids(self, tokenizer: Tokenizer) -> list[int]:
        """The ids of the source, ``<s>`` to ``</s>``, without its oldest tokens where it is long."""
        return dialog_source(tokenizer, self.task, self.turns, self.region)

    def target_ids(self, tokenizer: Tokenizer) -> list[int]:
        """The ids of the target, up to and with ``</s>``, cut where it is long."""
        return [*encode_pieces(tokenizer, self.target)[:MAX_TARGET_TOKENS], EOS]


def tio_task(style: TioStyle, **fields: object) -> DialogTask:
    """The task of the dialog that a style asks, with its instruction filled in."""
    return DialogTask(style.instruction.format(**fields), style.first or HUMAN, style.region)


def tio_pair(
    style: TioStyle,
    turns: Sequence[str] = (),
    region: Sequence[int] | None = None,
    regions: Sequence[Sequence[int]] = (),
    **fields: object,
) -> TioPair:
    """A source and its target.

    Args:
        style: the way of asking.
        turns: the dialog so far.
        region: the four bins of the region that the source ends with.
        regions: four bins for each region that the target names.
        fields: what the instruction and the target hold, by the names in their braces.

    Returns:
        The pair.

    Raises:
        OFAError: there are turns or regions where the style has none, or none where it has some.
    """
    if turns and style.first is None:
        raise OFAError(f"the instruction {style.instruction!r} takes no turns")
    if bool(regions) != (style.marks is not None):
        raise OFAError(f"the target of {style.instruction!r} has {'some' if style.marks else 'no'} regions")
    task = tio_task(style, **fields)
    text = style.target.format(**fields).replace("  ", " ").strip().lower()
    pieces = [Piece(f" {text}")] if text else []
    marks = style.marks or _ONE_REGION
    pieces += [Piece(f"{marks[at > 0]} {region_text(bins)}", symbols=True) for at, bins in enumerate(regions)]
    return TioPair(task, tuple(turns), None if region is None else tuple(region), tuple(pieces))


def category_text(name: str) -> str:
    """A category as instructions name it: ``Mug / Cup`` is ``Mug  or  Cup``, whose double spaces become one later."""
    return name.replace("/", " or ")


def turns_for(style: TioStyle, turns: Sequence[str], turn: int) -> tuple[list[str], str]:
    """The context of a style's target, which is turn number ``turn`` of its speaker, and the target.

    The context has an even number of turns where the first label is the agent's, since then the agent speaks next, and
    where there is no context; an odd number where it is the human's.
    """
    at = 2 * turn + (style.first == HUMAN)
    return list(turns[:at]), turns[at]


def count_turns(style: TioStyle, turns: Sequence[str]) -> int:
    """The number of turns that :func:`turns_for` can choose from."""
    return (len(turns) + (style.first != HUMAN)) // 2


def without_remark(turns: Sequence[str], fewest: int) -> list[str]:
    """An InViG dialog without its last pair, if it has more than ``fewest`` turns and the agent asks nothing there."""
    last = len(turns) - 1 - len(turns) % 2  # the agent's turns stand at odd places
    return list(turns[:last] if len(turns) > fewest and "?" not in turns[last] else turns)


def visdial_turns(turns: Sequence[str]) -> list[str]:
    """The turns of a VisDial dialog: ``?`` behind each question, ``.`` behind each answer."""
    return [turn + "?."[number % 2] for number, turn in enumerate(turns)]
