"""The oracle, who knows the region: answers about it (GuessWhat?!, InViG) and the first query of a dialog."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ..errors import OFAError
from ..generation import GenerationOptions
from ..text.dialog import DIALOG_TASKS, Dialog, DialogTask, Style, dialog_source, dialog_task, flatten_dialog
from ..vision.boxes import Box
from .grounding import DIALOG_OPTIONS, invig_codec
from .pipeline import Picture, Pipeline
from .results import Answer, Text, to_answer, to_text
from .showing import Region

#: The answers of the GuessWhat?! oracle.
ANSWERS = ("yes", "no", "n/a")
#: The way to probabilities: a softmax over the answers' first tokens, as the published code does, or over whole
#: answers.
Scoring = Literal["first_token", "candidates"]


@dataclass(frozen=True)
class OracleAnswer(Answer):
    """The oracle's answer; ``probabilities`` is empty where it is free text (InViG, in either style)."""

    #: The region that was asked about, xyxy pixels of the picture.
    box: Box | None = field(default=None, repr=False, compare=False, kw_only=True)

    def marked(self) -> list[Region]:
        """The region that was asked about, with the answer."""
        return [] if self.box is None else [Region(self.box, self.answer, self.score)]


def oracle(
    pipeline: Pipeline,
    images: Sequence[Picture],
    boxes: Sequence[Sequence[float]],
    dialogs: Sequence[Dialog],
    questions: Sequence[str],
    style: Style = "guesswhat",
    *,
    answers: Sequence[str] = ANSWERS,
    scoring: Scoring = "first_token",
    options: GenerationOptions = DIALOG_OPTIONS,
    batch_size: int = 16,
) -> list[OracleAnswer]:
    """The answer to each question about a region; see :meth:`ofa_core.OFA.oracle`."""
    pictures = pipeline.open(images)
    sources = oracle_sources(pipeline, [picture.size for picture in pictures], boxes, dialogs, questions, style)
    if style != "guesswhat":
        found = pipeline.run(pictures, sources, options, batch_size=batch_size)
        texts = [to_text(pipeline.tokenizer, beams) for beams in found]
        said = [OracleAnswer(text.text, text.score, alternatives=text.alternatives) for text in texts]
        return [_about(one, box) for one, box in zip(said, boxes, strict=True)]
    candidates = _candidates(pipeline, answers, scoring)
    scores = pipeline.score(pictures, sources, candidates, "none", batch_size)
    answered = [OracleAnswer(**vars(to_answer(answers, probabilities))) for probabilities in scores]
    return [_about(one, box) for one, box in zip(answered, boxes, strict=True)]


def _about(answer: OracleAnswer, box: Sequence[float]) -> OracleAnswer:
    x0, y0, x1, y1 = map(float, box)
    return replace(answer, box=(x0, y0, x1, y1))


def query(
    pipeline: Pipeline,
    images: Sequence[Picture],
    boxes: Sequence[Sequence[float]],
    options: GenerationOptions = DIALOG_OPTIONS,
    batch_size: int = 16,
) -> list[Text]:
    """A person's first query for each region (InViG); see :meth:`ofa_core.OFA.query`."""
    pictures = pipeline.open(images)
    sources = query_sources(pipeline, [picture.size for picture in pictures], boxes)
    found = pipeline.run(pictures, sources, options, batch_size=batch_size)
    return [to_text(pipeline.tokenizer, beams) for beams in found]


def oracle_sources(
    pipeline: Pipeline,
    sizes: Sequence[tuple[int, int]],
    boxes: Sequence[Sequence[float]],
    dialogs: Sequence[Dialog],
    questions: Sequence[str],
    style: Style = "guesswhat",
) -> list[list[int]]:
    """The ids, ``<s>`` to ``</s>``, that :func:`oracle` reads for each question on a picture of (width, height)."""
    for question in questions:
        if not isinstance(question, str) or not question.strip():
            raise OFAError(f"the question is {question!r}; it should be a text that is not empty")
    turns = [[*flatten_dialog(dialog), question] for dialog, question in zip(dialogs, questions, strict=True)]
    return _sources(pipeline, dialog_task(style, "oracle"), sizes, boxes, turns)


def query_sources(
    pipeline: Pipeline, sizes: Sequence[tuple[int, int]], boxes: Sequence[Sequence[float]]
) -> list[list[int]]:
    """The ids, ``<s>`` to ``</s>``, that :func:`query` reads for each region on a picture of (width, height)."""
    return _sources(pipeline, DIALOG_TASKS["invig_query"], sizes, boxes, [[]] * len(sizes))


def _sources(
    pipeline: Pipeline,
    task: DialogTask,
    sizes: Sequence[tuple[int, int]],
    boxes: Sequence[Sequence[float]],
    all_turns: Sequence[Sequence[str]],
) -> list[list[int]]:
    codec = invig_codec(pipeline)
    return [
        dialog_source(pipeline.tokenizer, task, turns, codec.encode(box, size))
        for size, box, turns in zip(sizes, boxes, all_turns, strict=True)
    ]


def _candidates(pipeline: Pipeline, answers: Sequence[str], scoring: Scoring) -> list[list[int]]:
    """Token ids whose probabilities stand for the answers'."""
    whole = pipeline.candidate_ids(answers)
    if scoring == "candidates":
        return whole
    if scoring != "first_token":
        raise OFAError(f"scoring is 'first_token' or 'candidates', not {scoring!r}")
    first = [ids[:1] for ids in whole]
    for index, ids in enumerate(first):
        if ids in first[:index]:
            raise OFAError(
                f"answers {answers[first.index(ids)]!r} and {answers[index]!r} begin with the same token; "
                "use scoring='candidates'"
            )
    return first
