"""Visual entailment: does a picture, with or without a caption, imply a text."""

from __future__ import annotations

from collections.abc import Sequence

from ..generation.scoring import DecoderPrompt
from .pipeline import Picture, Pipeline, fill_prompt, normalize_text
from .results import Answer, to_answer
from .tasks import TASKS

SPEC, CAPTION_SPEC = TASKS["snli_ve"], TASKS["snli_ve_caption"]


def entails(
    pipeline: Pipeline,
    images: Sequence[Picture],
    hypotheses: Sequence[str],
    captions: Sequence[str] | None = None,
    *,
    decoder_prompt: DecoderPrompt | None = None,
    prompt: str | None = None,
    batch_size: int = 16,
) -> list[Answer]:
    """Yes, no or maybe for each text; see :meth:`ofa_core.OFA.entails`."""
    spec = SPEC if captions is None else CAPTION_SPEC
    pipeline = pipeline.for_task(spec)
    sources = entailment_sources(pipeline, hypotheses, captions, prompt)
    kind = pipeline.decoder_prompt(spec, decoder_prompt)
    scores = pipeline.score(pipeline.open(images), sources, pipeline.candidate_ids(spec.answers), kind, batch_size)
    return [to_answer(spec.answers, probabilities) for probabilities in scores]


def entailment_sources(
    pipeline: Pipeline, hypotheses: Sequence[str], captions: Sequence[str] | None = None, prompt: str | None = None
) -> list[list[int]]:
    """The ids, ``<s>`` to ``</s>``, that :func:`entails` reads for each text, with its caption where there are some."""
    spec = SPEC if captions is None else CAPTION_SPEC
    words = pipeline.settings(spec).max_source_tokens
    template = pipeline.prompt(spec, prompt)
    sources = []
    for index, text in enumerate(hypotheses):
        fields = {"hypothesis": normalize_text(text, spec.rule, words, "hypothesis")}
        if captions is not None:
            fields["caption"] = normalize_text(captions[index], spec.rule, words, "caption")
        sources.append(pipeline.encode(fill_prompt(template, **fields)))
    return sources
