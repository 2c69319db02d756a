"""Visual entailment: does a picture, with or without a caption, imply a text."""

from __future__ import annotations

from collections.abc import Sequence

from ..generation.scoring import DecoderPrompt
from ..text import pre_caption
from .pipeline import Picture, Pipeline, fill_prompt, normalize_text
from .results import Answer, to_answer

PROMPTS = {"gpt2": ' does the image describe " {hypothesis} "?'}
CAPTION_PROMPTS = {"gpt2": ' can image and text1 " {caption} " imply text2 " {hypothesis} "?'}
ANSWERS = ("yes", "no", "maybe")
DECODER_PROMPT: DecoderPrompt = "prev_output"


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
    words = pipeline.model.config.task.max_source_tokens
    template = pipeline.prompt(PROMPTS if captions is None else CAPTION_PROMPTS, prompt)
    sources = []
    for index, text in enumerate(hypotheses):
        fields = {"hypothesis": normalize_text(text, pre_caption, words, "hypothesis")}
        if captions is not None:
            fields["caption"] = normalize_text(captions[index], pre_caption, words, "caption")
        sources.append(pipeline.encode(fill_prompt(template, **fields)))
    kind = pipeline.decoder_prompt(decoder_prompt, DECODER_PROMPT)
    scores = pipeline.score(pipeline.open(images), sources, pipeline.candidate_ids(ANSWERS), kind, batch_size)
    return [to_answer(ANSWERS, probabilities) for probabilities in scores]
