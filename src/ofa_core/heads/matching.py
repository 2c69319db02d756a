"""Matching: does a text describe a picture, and is an answer the right one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..generation.scoring import DecoderPrompt
from .pipeline import Picture, Pipeline, fill_prompt, normalize_text
from .results import Answer, to_answer
from .tasks import TASKS, TaskSpec

TEXT_SPEC, ANSWER_SPEC = TASKS["image_text_matching"], TASKS["answer_matching"]


@dataclass(frozen=True)
class Match(Answer):
    """The decision that two things match, or not: ``yes`` or ``no``, and how probable that is."""

    @property
    def yes(self) -> float:
        """The probability that they do."""
        return self.probabilities["yes"]


def matches(
    pipeline: Pipeline,
    images: Sequence[Picture],
    texts: Sequence[str],
    *,
    decoder_prompt: DecoderPrompt | None = None,
    prompt: str | None = None,
    batch_size: int = 16,
) -> list[Match]:
    """A decision for each text, that it describes its picture or not; see :meth:`ofa_core.OFA.matches`."""
    sources = text_sources(pipeline, texts, prompt)
    return _matches(pipeline, TEXT_SPEC, images, sources, decoder_prompt, batch_size)


def is_answer(
    pipeline: Pipeline,
    images: Sequence[Picture],
    questions: Sequence[str],
    answers: Sequence[str],
    *,
    decoder_prompt: DecoderPrompt | None = None,
    prompt: str | None = None,
    batch_size: int = 16,
) -> list[Match]:
    """A decision for each answer, that it is right or not; see :meth:`ofa_core.OFA.is_answer`."""
    sources = answer_sources(pipeline, questions, answers, prompt)
    return _matches(pipeline, ANSWER_SPEC, images, sources, decoder_prompt, batch_size)


def _matches(
    pipeline: Pipeline,
    spec: TaskSpec,
    images: Sequence[Picture],
    sources: Sequence[Sequence[int]],
    decoder_prompt: DecoderPrompt | None,
    batch_size: int,
) -> list[Match]:
    pipeline = pipeline.for_task(spec)
    kind = pipeline.decoder_prompt(spec, decoder_prompt)
    scores = pipeline.score(pipeline.open(images), sources, pipeline.candidate_ids(spec.answers), kind, batch_size)
    return [Match(**vars(to_answer(spec.answers, probabilities))) for probabilities in scores]


def text_sources(pipeline: Pipeline, texts: Sequence[str], prompt: str | None = None) -> list[list[int]]:
    """The ids, ``<s>`` to ``</s>``, that :func:`matches` reads for each text."""
    words = pipeline.settings(TEXT_SPEC).max_source_tokens
    template = pipeline.prompt(TEXT_SPEC, prompt)
    cleaned = [normalize_text(text, TEXT_SPEC.rule, words, "text") for text in texts]
    return [pipeline.encode(fill_prompt(template, caption=text)) for text in cleaned]


def answer_sources(
    pipeline: Pipeline, questions: Sequence[str], answers: Sequence[str], prompt: str | None = None
) -> list[list[int]]:
    """The ids, ``<s>`` to ``</s>``, that :func:`is_answer` reads for each question with its answer, taken as it is."""
    words = pipeline.settings(ANSWER_SPEC).max_source_tokens
    template = pipeline.prompt(ANSWER_SPEC, prompt)
    sources = []
    for question, answer in zip(questions, answers, strict=True):
        asked = normalize_text(question, ANSWER_SPEC.rule, words, "question")
        normalize_text(answer, ANSWER_SPEC.rule, words, "answer")  # refuses one that is empty
        sources.append(pipeline.encode(fill_prompt(template, question=asked, answer=answer)))
    return sources
