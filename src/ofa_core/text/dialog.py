"""Source texts of the dialog tasks (GuessWhat?!, InViG): instruction, turns with their speakers, and a region."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import OFAError
from .tokenizer import Tokenizer
from .vocabulary import BOS, EOS

#: A dialog as pairs of turns (question and answer), or turn by turn.
Dialog = Sequence["tuple[str, str] | list[str] | str"]
#: ``invig`` is as published; in ``invig_dev``, TiO's development branch, an oracle's query is labelled ``agent:``.
Style = Literal["guesswhat", "invig", "invig_dev"]
STYLES: tuple[Style, ...] = get_args(Style)

AGENT, HUMAN = "agent", "human"


@dataclass(frozen=True)
class DialogTask:
    """A task of a dialog model."""

    instruction: str
    #: The first speaker; turns alternate. The model's side speaks as ``agent``, the person as ``human``.
    first: str
    #: True if the source ends with a region.
    region: bool = False


#: The tasks that the published fine-tunes were trained on, and those of ``invig_dev``.
DIALOG_TASKS: dict[str, DialogTask] = {
    "guesswhat_grounding": DialogTask("which region does the context describe?", AGENT),
    "guesswhat_oracle": DialogTask("answer the question based on the region with yes or no.", HUMAN, region=True),
    "guesswhat_question": DialogTask("ask a close-ended question to guess what i want.", AGENT),
    "invig_grounding": DialogTask("which region does the context describe?", HUMAN),
    "invig_oracle": DialogTask("answer the question based on the region.", HUMAN, region=True),
    "invig_query": DialogTask("state your query about the region.", HUMAN, region=True),
    "invig_question": DialogTask("ask a question to guess what i want.", HUMAN),
    "invig_dev_grounding": DialogTask("which region does the context describe?", HUMAN),
    "invig_dev_oracle": DialogTask("answer the question based on the region.", AGENT, region=True),
    "invig_dev_question": DialogTask("ask a question to guess what i want.", HUMAN),
    "agent": DialogTask("can you specify which region the context describes?", HUMAN),
}


def dialog_task(style: str, kind: str) -> DialogTask:
    """The task of a ``style`` of :data:`STYLES` and a ``kind`` (``grounding``, ``oracle``, ``question``)."""
    if style not in STYLES:
        raise OFAError(f"style is {', '.join(map(repr, STYLES[:-1]))} or {STYLES[-1]!r}, not {style!r}")
    return DIALOG_TASKS[f"{style}_{kind}"]


#: Tokens of a source, ``<s>`` and ``</s>`` included, beyond which the oldest are dropped.
MAX_SOURCE_TOKENS = 240


def flatten_dialog(dialog: Dialog) -> list[str]:
    """The turns of a dialog in order, pairs laid out one after the other.

    Raises:
        OFAError: a turn that is neither text nor a pair of texts, or is empty.
    """
    turns: list[str] = []
    if not isinstance(dialog, list | tuple):
        found = "one text" if isinstance(dialog, str) else repr(dialog)
        raise OFAError(f"a dialog is a list of turns or of (question, answer) pairs, not {found}")
    for number, entry in enumerate(dialog):
        if isinstance(entry, list | tuple) and len(entry) != 2:
            found = f"has {len(entry)} parts"
            raise OFAError(f"dialog entry {number} {found}; it should be a text or a (question, answer) pair")
        parts: Iterable[object] = entry if isinstance(entry, list | tuple) else [entry]
        for part in parts:
            if not isinstance(part, str) or not part.strip():
                raise OFAError(f"dialog entry {number} holds {part!r}; it should hold texts that are not empty")
            turns.append(part)
    return turns


def dialog_text(task: DialogTask, turns: Sequence[str]) -> str:
    """The source text, without the region, as the models were trained: lower case, double spaces made one before."""
    speakers = (AGENT, HUMAN) if task.first == AGENT else (HUMAN, AGENT)
    context = " ".join(f"{speakers[i % 2]}: {turn}" for i, turn in enumerate(turns))
    return f' \n#instruction: {task.instruction}\n#context: "{context}"'.replace("  ", " ").lower()


def dialog_source(
    tokenizer: Tokenizer,
    task: DialogTask,
    turns: Sequence[str],
    region: Sequence[int] | None = None,
    *,
    max_tokens: int = MAX_SOURCE_TOKENS,
    keep_spaces: bool = False,
) -> list[int]:
    """The source ids, ``<s>`` to ``</s>``, of a task's dialog and the four bins of its region.

    Only the region's bins are symbols: a ``<bin_3>`` in a turn is plain text. The white space around each of them
    disappears unless ``keep_spaces``, since that is what the tokenizer of the published models did. A source of more
    than ``max_tokens`` loses its oldest tokens, with a warning.

    Raises:
        OFAError: a region is missing or given without need, or its bins are out of range.
    """
    if task.region != (region is not None):
        raise OFAError(f"the task {task.instruction!r} takes {'a' if task.region else 'no'} region")
    ids = tokenizer.encode(dialog_text(task, turns))
    if region is not None:
        if len(region) != 4:
            raise OFAError(f"a region is four bins, not {list(region)}")
        tokenizer.vocabulary.bins_to_ids(region)  # names a bin that is out of range
        symbols = " ".join(f"<bin_{number}>" for number in region)
        ids += tokenizer.encode(f"\n#region: {symbols}", symbols=True, keep_spaces=keep_spaces)
    return cut_source(ids, max_tokens)


def cut_source(ids: Sequence[int], max_tokens: int = MAX_SOURCE_TOKENS) -> list[int]:
    """A source, ``<s>`` to ``</s>``, of at most ``max_tokens``: without its oldest ones where it is longer."""
    kept = ids[max(len(ids) - (max_tokens - 2), 0) :]
    if len(kept) < len(ids):
        warnings.warn(f"a dialog of {len(ids) + 2} tokens was cut to its last {max_tokens}", stacklevel=3)
    return [BOS, *kept, EOS]
