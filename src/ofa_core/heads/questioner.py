"""The agent that looks for a region: it asks, or says where the region is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import OFAError
from ..generation import GenerationOptions
from ..text.dialog import DIALOG_TASKS, Dialog, Style, dialog_source, dialog_task, flatten_dialog
from .box_draws import ALL_DRAWS, search_and_draw
from .confidence import entropy_of_regions
from .grounding import DIALOG_OPTIONS, NO_GROUNDING, Grounding, dialog_sources, invig_codec, to_grounding
from .pipeline import EncodedImage, Opened, OpenedImage, Picture, Pipeline, PreparedImage
from .results import Text, to_text
from .showing import Pictured, Region

#: Words of an agent that may name a region, before a question and before a region, and the mark of a region.
NOT_YET, SURE, REGION = "not yet.", "sure.", "region:"


@dataclass(frozen=True)
class AgentTurn(Pictured):
    """The agent's next turn: exactly one of ``question`` and ``grounding`` is not None."""

    question: str | None
    grounding: Grounding | None
    #: The whole of what the model said.
    text: str
    #: The entropy in bits of what the dialog may mean: 0 for one region, 1 for two that are as likely. None where it
    #: was not asked for.
    ambiguity: float | None = None

    def marked(self) -> list[Region]:
        """The regions that the agent names."""
        return [] if self.grounding is None else self.grounding.marked()

    def said(self) -> list[tuple[str, str]]:
        """The question, or what is known of the region."""
        return [("question", self.question)] if self.question is not None else (self.grounding or NO_GROUNDING).said()


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
    ask_above: float | None = None,
) -> list[AgentTurn]:
    """A question, or a region, for each dialog; see :meth:`ofa_core.OFA.agent_turn`."""
    if ask_above is not None and not ask_above >= 0:
        raise OFAError(f"ask_above is a number of bits, 0 or more, not {ask_above!r}")
    sources = agent_sources(pipeline, dialogs)
    pictures = pipeline.open(images)
    found = pipeline.run(pictures, sources, options, batch_size=batch_size)
    told = ambiguity or ask_above is not None
    longest = options.max_new_tokens
    unsure = ambiguities(pipeline, pictures, dialogs, batch_size, longest) if told else [None] * len(dialogs)
    turns = []
    for beams, picture, bits in zip(found, pictures, unsure, strict=True):
        text = to_text(pipeline.tokenizer, beams).text
        if REGION in text:
            grounding = to_grounding(pipeline, invig_codec(pipeline), beams, picture.size)
            turns.append(AgentTurn(None, grounding, text, bits))
        else:
            turns.append(AgentTurn(text.removeprefix(NOT_YET).strip(), None, text, bits))
    return turns if ask_above is None else _decided(pipeline, pictures, dialogs, turns, options, batch_size, ask_above)


def _decided(
    pipeline: Pipeline,
    pictures: Sequence[OpenedImage | EncodedImage | PreparedImage],
    dialogs: Sequence[Dialog],
    turns: Sequence[AgentTurn],
    options: GenerationOptions,
    batch_size: int,
    ask_above: float,
) -> list[AgentTurn]:
    """The turns, with a question where the model guessed at what is ambiguous, and a region where it asked for nothing.

    The model's own turn stays where it has no other: no question that was not asked before, or no box.
    """
    decided = list(turns)
    ask_on = [at for at, turn in enumerate(turns) if turn.grounding is not None and (turn.ambiguity or 0) > ask_above]
    guess = [at for at, turn in enumerate(turns) if turn.grounding is None and (turn.ambiguity or 0) <= ask_above]
    asked = [dialogs[at] for at in ask_on]
    sources = question_sources(pipeline, asked, "invig")
    said = pipeline.run([pictures[at] for at in ask_on], sources, options, batch_size=batch_size) if ask_on else []
    for at, beams in zip(ask_on, said, strict=True):
        text = to_text(pipeline.tokenizer, beams).text
        if text and text not in flatten_dialog(dialogs[at]):
            decided[at] = AgentTurn(text, None, f"{NOT_YET} {text}", turns[at].ambiguity)
    sources = dialog_sources(pipeline, [dialogs[at] for at in guess], "invig")
    found = pipeline.run([pictures[at] for at in guess], sources, options, batch_size=batch_size) if guess else []
    for at, beams in zip(guess, found, strict=True):
        grounding = to_grounding(pipeline, invig_codec(pipeline), beams, pictures[at].size)
        if grounding:
            decided[at] = AgentTurn(None, grounding, f"{SURE} {grounding.text}", turns[at].ambiguity)
    return decided


def ambiguities(
    pipeline: Pipeline,
    pictures: Sequence[Opened],
    dialogs: Sequence[Dialog],
    batch_size: int = 16,
    max_new_tokens: int = DIALOG_OPTIONS.max_new_tokens,
) -> list[float]:
    """The entropy in bits of the regions that each dialog may mean.

    The boxes come from the model's distribution for the region of the dialog, whether or not it would say one already,
    behind the words that it says before one within ``max_new_tokens``.
    """
    sources, options = dialog_sources(pipeline, dialogs, "invig"), DIALOG_OPTIONS.updated(max_new_tokens=max_new_tokens)
    found = search_and_draw(pipeline, pictures, sources, options, count=ALL_DRAWS, batch_size=batch_size)
    return [entropy_of_regions(one.draws.drawn) for one in found]


def question_sources(pipeline: Pipeline, dialogs: Sequence[Dialog], style: Style = "guesswhat") -> list[list[int]]:
    """The ids, ``<s>`` to ``</s>``, that :func:`ask` reads for each dialog."""
    task = dialog_task(style, "question")
    return [dialog_source(pipeline.tokenizer, task, flatten_dialog(dialog)) for dialog in dialogs]


def agent_sources(pipeline: Pipeline, dialogs: Sequence[Dialog]) -> list[list[int]]:
    """The ids, ``<s>`` to ``</s>``, that :func:`agent_turn` reads for each dialog."""
    return [dialog_source(pipeline.tokenizer, DIALOG_TASKS["agent"], flatten_dialog(dialog)) for dialog in dialogs]
