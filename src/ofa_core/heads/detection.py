"""Any number of boxes in one answer: everything in a picture, or every region that a phrase means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..generation import GenerationOptions, Hypothesis
from ..vision.boxes import Box
from .box_codec import BoxCodec
from .grounding import refcoco_codec
from .pipeline import Picture, Pipeline
from .results import confidence
from .tasks import TASKS

SPEC = TASKS["detection"]
#: Bins of a box.
BINS = 4


@dataclass(frozen=True)
class NamedBox:
    """A box of an answer, the name that stands behind it, and the model's confidence in both."""

    #: (x0, y0, x1, y1) in pixels of the original picture.
    box: Box
    #: The text behind the bins; "" where there is none.
    label: str
    #: exp of the mean log-probability of its tokens, 0 to 1.
    score: float


@dataclass(frozen=True)
class Detections:
    """Everything that a model says is in a picture."""

    boxes: tuple[NamedBox, ...]
    #: The answer as text.
    text: str
    #: exp of the mean log-probability of the answer's tokens, 0 to 1.
    score: float


def detect(
    pipeline: Pipeline,
    images: Sequence[Picture],
    options: GenerationOptions | None = None,
    prompt: str | None = None,
    batch_size: int = 16,
) -> list[Detections]:
    """Everything in each picture, as pre-trained models say it: four bins and a name, again and again."""
    pipeline = pipeline.for_task(SPEC)
    pictures = pipeline.open(images)
    sources = detection_sources(pipeline, len(pictures), prompt)
    found = pipeline.run(pictures, sources, options or pipeline.options(SPEC), batch_size=batch_size)
    codec = refcoco_codec(pipeline)
    return [to_detections(pipeline, codec, beams, picture.size) for beams, picture in zip(found, pictures, strict=True)]


def detection_sources(pipeline: Pipeline, count: int, prompt: str | None = None) -> list[list[int]]:
    """The ids, ``<s>`` to ``</s>``, that :func:`detect` reads for each of ``count`` pictures."""
    return [pipeline.encode(pipeline.prompt(SPEC, prompt))] * count


def to_detections(
    pipeline: Pipeline, codec: BoxCodec, beams: Sequence[Hypothesis], size: tuple[int, int]
) -> Detections:
    """The boxes of the best of ``beams`` on a picture of ``size`` (width, height)."""
    if not beams:
        return Detections((), "", 0.0)
    best = beams[0]
    text = pipeline.tokenizer.decode(best.tokens).strip()
    boxes = named_boxes(pipeline, codec, best.tokens, best.token_scores, size)
    return Detections(tuple(boxes), text, confidence(best.token_scores))


def named_boxes(
    pipeline: Pipeline, codec: BoxCodec, tokens: Sequence[int], log_probs: Sequence[float], size: tuple[int, int]
) -> list[NamedBox]:
    """Read the boxes of an answer: bins in groups of four, each with the text up to the next bin.

    A rest of fewer than four bins before a text or the end is no box, and neither are four that are reversed or
    enclose nothing.
    """
    bin_of, special = pipeline.tokenizer.vocabulary.bin_of, pipeline.tokenizer.vocabulary.eos
    found: list[NamedBox] = []
    bins: list[int] = []
    start = 0  # of the box that is being read

    def close(end: int) -> None:
        box = codec.decode_within(bins, size) if len(bins) == BINS else None
        if box is not None:
            words = [token for token in tokens[start + BINS : end] if token != special]
            score = math.exp(math.fsum(log_probs[start:end]) / (end - start))
            found.append(NamedBox(box, pipeline.tokenizer.decode(words).strip(), min(score, 1.0)))

    for place, token in enumerate(tokens):
        number = bin_of(token)
        if number is None:
            continue
        joined = place > 0 and bin_of(tokens[place - 1]) is not None
        if not joined or len(bins) == BINS:
            close(place)
            bins, start = [], place
        bins.append(number)
    close(len(tokens) - (1 if tokens and tokens[-1] == special else 0))
    return found
