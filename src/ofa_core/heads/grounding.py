"""Grounding: the box of what a text describes (RefCOCO)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import OFAError
from ..generation import AllowedRange, GenerationOptions, Hypothesis
from ..text import pre_caption
from ..vision.transform import ImageLike
from .box_codec import Box, BoxCodec
from .pipeline import Pipeline

PROMPT = ' which region does the text " {caption} " describe?'
OPTIONS = GenerationOptions(num_beams=5, min_new_tokens=4, max_new_tokens=4, no_repeat_ngram_size=3)


@dataclass(frozen=True)
class Grounding:
    """Where something is, and how sure the model is of it."""

    #: (x0, y0, x1, y1) in pixels of the original picture; None where the answer was not four bins.
    box: Box | None
    #: exp of the mean log-probability of the answer's tokens, 0 to 1.
    score: float
    #: Probability of each token of the answer, the final ``</s>`` included.
    token_scores: tuple[float, ...]
    bins: tuple[int, ...] | None
    #: The answer as text.
    text: str
    #: The other beams, best first.
    alternatives: tuple[Grounding, ...] = ()


#: What is returned where a search found nothing at all.
NOTHING = Grounding(box=None, score=0.0, token_scores=(), bins=None, text="")


def ground(
    pipeline: Pipeline,
    images: Sequence[ImageLike],
    captions: Sequence[str],
    options: GenerationOptions = OPTIONS,
    bins_only: bool = False,
    batch_size: int = 16,
) -> list[Grounding]:
    """The box of each caption in the picture at the same place; see :meth:`ofa_core.OFA.ground`."""
    task = pipeline.model.config.task
    normalized = [pre_caption(caption, task.max_source_tokens) for caption in captions]
    for caption, text in zip(captions, normalized, strict=True):
        if not text:
            raise OFAError(f"the text to ground is empty: {caption!r}")
    pictures = pipeline.open(images)
    vocabulary = pipeline.tokenizer.vocabulary
    constraints = []
    if bins_only:
        constraints = [AllowedRange(vocabulary.bin_start, vocabulary.bin_end)]
        options = options.updated(suppress_special_tokens=True)
    sources = [PROMPT.format(caption=text) for text in normalized]
    codec = BoxCodec("refcoco", num_bins=task.num_bins, image_size=task.image_size, max_image_size=task.max_image_size)
    found = pipeline.run(pictures, sources, options, constraints, batch_size)
    return [_grounding(pipeline, codec, beams, picture.size) for beams, picture in zip(found, pictures, strict=True)]


def _grounding(pipeline: Pipeline, codec: BoxCodec, beams: list[Hypothesis], size: tuple[int, int]) -> Grounding:
    """The best of ``beams`` with the others as alternatives."""
    results = []
    for beam in beams:
        bins = pipeline.tokenizer.bins(beam.tokens)
        results.append(
            Grounding(
                box=codec.decode(bins, size),
                score=math.exp(sum(beam.token_scores) / len(beam.token_scores)),
                token_scores=tuple(map(math.exp, beam.token_scores)),
                bins=None if bins is None else tuple(bins),
                text=pipeline.tokenizer.decode(beam.tokens).strip(),
            )
        )
    if not results:
        return NOTHING
    best, *others = results
    return Grounding(**{**vars(best), "alternatives": tuple(others)})
