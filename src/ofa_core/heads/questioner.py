"""The agent that looks for a region: it asks, or says where the region is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..generation import GenerationOptions
from ..text.dialog import DIALOG_TASKS, Dialog, Style, dialog_source, dialog_task, flatten_dialog
from .box_draws import ALL_DRAWS, search_and_draw
from .confidence import entropy_of_regions
from .grounding import DIALOG_OPTIONS, Grounding, dialog_sources, invig_codec, to_grounding
from .pipeline import Opened, Picture, Pipeline
from .results import Text, to_text

#: Words of an agent that may name a region, before a question and before a region, and the mark of a region.
NOT_YET, SURE, REGION = "not yet.", "sure.", "region:"


@dataclass(frozen=True)
class AgentTurn:
    """The agent's next turn: exactly one of ``question`` and ``grounding`` is not None."""

    question: str | None
    grounding: Grounding | None
    #: The whole of what the model said.
    text: str
    #: The entropy in bits of what the dialog may mean: 0 for one region, 1 for two that are as likely. None where it
    #: was not asked for.
    ambiguity: float | None = None


def ask(
    pipeline: Pipeline,
    images: Sequence[Picture],
    dialogs: Sequence[Dialog],
    style: Style = "guesswhat",
    options: GenerationOptions = DIALOG_OPTIONS,
    batch_size: int = 16,
) -> list[Text]:
    """The next question of each dialog; see :meth:`ofa_core.OFA.ask`."""
    sources = question_sources(pipeline, dialogs, style)
    found = pipeline.run(pipeline.open(images), sources, options, batch_size=batch_size)
    return [to_text(pipeline.tokenizer, beams) for beams in found]


def agent_turn(
    pipeline: Pipeline,
    images: Sequence[Picture],
    dialogs: Sequence[Dialog],
    options: GenerationOptions = DIALOG_OPTIONS,
    batch_size: int = 16,
    *,
    ambiguity: bool = False,
) -> list[AgentTurn]:
    """A question, or a region, for each dialog; see :meth:`ofa_core.OFA.agent_turn`."""
    sources = agent_sources(pipeline, dialogs)
    pictures = pipeline.open(images)
    found = pipeline.run(pictures, sources, options, batch_size=batch_size)
    unsure = ambiguities(pipeline, pictures, dialogs, batch_size) if ambiguity else [None] * len(dialogs)
    turns = []
    for beams, picture, bits in zip(found, pictures, unsure, strict=True):
        text = to_text(pipeline.tokenizer, beams).text
        if REGION in text:
            grounding = to_grounding(pipeline, invig_codec(pipeline), beams, picture.size)
            turns.append(AgentTurn(None, grounding, text, bits))
        else:
            turns.append(AgentTurn(text.removeprefix(NOT_YET).strip(), None, text, bits))
    return turns


def ambiguities(
    pipeline: Pipeline, pictures: Sequence[Opened], dialogs: Sequence[Dialog], batch_size: int = 16
) -> list[float]:
    """The entropy in bits of the regions that each dialog may mean.

    The boxes come from the model's distribution for the region of the dialog, whether or not it would say one already.
    """
    sources = dialog_sources(pipeline, dialogs, "invig")
    found = search_and_draw(pipeline, pictures, sources, DIALOG_OPTIONS, count=ALL_DRAWS, batch_size=batch_size)
    return [entropy_of_regions(one.draws.drawn) for one in found]


def question_sources(pipeline: Pipeline, dialogs: Sequence[Dialog], style: Style = "guesswhat") -> list[list[int]]:
    """The ids, ``<s>`` to ``</s>``, that :func:`ask` reads for each dialog."""
    task = dialog_task(style, "question")
    return [dialog_source(pipeline.tokenizer, task, flatten_dialog(dialog)) for dialog in dialogs]


def agent_sources(pipeline: Pipeline, dialogs: Sequence[Dialog]) -> list[list[int]]:
    """The ids, ``<s>`` to ``</s>``, that :func:`agent_turn` reads for each dialog."""
    return [dialog_source(pipeline.tokenizer, DIALOG_TASKS["agent"], flatten_dialog(dialog)) for dialog in dialogs]
