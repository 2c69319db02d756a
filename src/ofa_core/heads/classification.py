"""Classification: by the names of the classes, or by a classification head that a checkpoint has."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import OFAError
from ..generation.scoring import DecoderPrompt, decoder_prompt_ids
from .batching import in_order
from .pipeline import Picture, Pipeline
from .results import Answer, to_answer
from .tasks import TASKS

SPEC = TASKS["image_classify"]


def classify(
    pipeline: Pipeline,
    images: Sequence[Picture],
    labels: Sequence[str],
    *,
    decoder_prompt: DecoderPrompt | None = None,
    prompt: str | None = None,
    batch_size: int = 16,
) -> list[Answer]:
    """The most probable of ``labels`` for each picture; see :meth:`ofa_core.OFA.classify`."""
    candidates = pipeline.candidate_ids(labels)
    pipeline = pipeline.for_task(SPEC)
    pictures = pipeline.open(images)
    sources = class_sources(pipeline, len(pictures), prompt)
    kind = pipeline.decoder_prompt(SPEC, decoder_prompt)
    scores = pipeline.score(pictures, sources, candidates, kind, batch_size)
    return [to_answer(labels, probabilities) for probabilities in scores]


def class_sources(pipeline: Pipeline, count: int, prompt: str | None = None) -> list[list[int]]:
    """The ids, ``<s>`` to ``</s>``, that :func:`classify` reads for each of ``count`` pictures."""
    return [pipeline.encode(pipeline.prompt(SPEC, prompt))] * count


@torch.inference_mode()
def head_probabilities(
    pipeline: Pipeline,
    head: str,
    texts: Sequence[str],
    images: Sequence[Picture] | None = None,
    *,
    decoder_prompt: DecoderPrompt | None = None,
    batch_size: int = 16,
) -> list[list[float]]:
    """Probabilities of a classification head's classes; see :meth:`ofa_core.OFA.head_probabilities`."""
    kind = decoder_prompt or pipeline.model.config.task.prompt_type or "none"
    if any(not text.strip() for text in texts):
        raise OFAError("a text to classify is empty")
    sources = [pipeline.encode(text) for text in texts]
    pictures = [None] * len(sources) if images is None else pipeline.open(images)
    found: list[tuple[list[int], list[list[float]]]] = []
    for places, batch in pipeline.batches(pictures, sources, batch_size):
        prefix = pipeline.tokenizer.pad([decoder_prompt_ids(sources[place], kind) for place in places])
        scores = pipeline.model.classify(head, batch.tokens, prefix.to(batch.tokens.device), batch.images)
        found.append((places, scores.float().softmax(-1).tolist()))
    return in_order(found)
