"""Classification: by the names of the classes, or by a classification head that a checkpoint has."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import OFAError
from ..generation.scoring import DecoderPrompt, decoder_prompt_ids
from .caption import PROMPTS
from .pipeline import Picture, Pipeline
from .results import Answer, to_answer

DECODER_PROMPT: DecoderPrompt = "none"


def classify(
    pipeline: Pipeline,
    images: Sequence[Picture],
    labels: Sequence[str],
    *,
    prompt: str | None = None,
    batch_size: int = 16,
) -> list[Answer]:
    """The most probable of ``labels`` for each picture; see :meth:`ofa_core.OFA.classify`."""
    candidates = pipeline.candidate_ids(labels)
    pictures = pipeline.open(images)
    sources = [pipeline.encode(pipeline.prompt(PROMPTS, prompt))] * len(pictures)
    kind = pipeline.decoder_prompt(None, DECODER_PROMPT)
    scores = pipeline.score(pictures, sources, candidates, kind, batch_size)
    return [to_answer(labels, probabilities) for probabilities in scores]


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
    kind = pipeline.decoder_prompt(decoder_prompt, DECODER_PROMPT)
    if any(not text.strip() for text in texts):
        raise OFAError("a text to classify is empty")
    sources = [pipeline.encode(text) for text in texts]
    pictures = [None] * len(sources) if images is None else pipeline.open(images)
    found: list[list[float]] = []
    for part, batch in pipeline.batches(pictures, sources, batch_size):
        prefix = pipeline.tokenizer.pad([decoder_prompt_ids(source, kind) for source in sources[part]])
        scores = pipeline.model.classify(head, batch.tokens, prefix.to(batch.tokens.device), batch.images)
        found += scores.float().softmax(-1).tolist()
    return found
