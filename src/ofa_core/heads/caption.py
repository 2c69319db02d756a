"""Captions: of a whole picture, and of a region in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..generation import GenerationOptions
from ..text.normalize import as_it_is, references_without_punctuation, without_punctuation
from ..text.vocabulary import EOS
from .grounding import refcoco_codec
from .pipeline import Picture, Pipeline
from .results import Text, to_text
from .tasks import TASKS

SPEC, REGION_SPEC = TASKS["caption"], TASKS["region_caption"]
#: Captions that are said as people write them; the original's models learn them without punctuation.
WRITTEN_SPEC = replace(SPEC, target=replace(SPEC.target, rule=as_it_is))


@dataclass(frozen=True)
class Caption(Text):
    """A caption as the model wrote it."""

    @property
    def without_punctuation(self) -> str:
        """The form the captioning benchmarks score."""
        return without_punctuation(self.text)


def caption(
    pipeline: Pipeline,
    images: Sequence[Picture],
    options: GenerationOptions | None = None,
    prompt: str | None = None,
    batch_size: int = 16,
) -> list[Caption]:
    """A caption of each picture; see :meth:`ofa_core.OFA.caption`."""
    pipeline = pipeline.for_task(SPEC)
    pictures = pipeline.open(images)
    sources = caption_sources(pipeline, len(pictures), prompt)
    found = pipeline.run(pictures, sources, options or pipeline.options(SPEC), batch_size=batch_size)
    return [Caption(**vars(to_text(pipeline.tokenizer, beams))) for beams in found]


def describe_region(
    pipeline: Pipeline,
    images: Sequence[Picture],
    boxes: Sequence[Sequence[float]],
    options: GenerationOptions | None = None,
    prompt: str | None = None,
    batch_size: int = 16,
) -> list[Text]:
    """A description of each box; see :meth:`ofa_core.OFA.describe_region`."""
    pipeline = pipeline.for_task(REGION_SPEC)
    pictures = pipeline.open(images)
    sources = region_sources(pipeline, [picture.size for picture in pictures], boxes, prompt)
    found = pipeline.run(pictures, sources, options or pipeline.options(REGION_SPEC), batch_size=batch_size)
    return [to_text(pipeline.tokenizer, beams) for beams in found]


def caption_sources(pipeline: Pipeline, count: int, prompt: str | None = None) -> list[list[int]]:
    """The ids, ``<s>`` to ``</s>``, that :func:`caption` reads for each of ``count`` pictures."""
    return [pipeline.encode(pipeline.prompt(SPEC, prompt))] * count


def reference_ids(pipeline: Pipeline, captions: str) -> list[int]:
    """The ids of a picture's captions, separated by ``&&``, as evaluation and training on scores hold them: whole."""
    text = SPEC.target.form.format(references_without_punctuation(captions))
    return [*pipeline.tokenizer.encode(text), EOS]


def region_sources(
    pipeline: Pipeline, sizes: Sequence[tuple[int, int]], boxes: Sequence[Sequence[float]], prompt: str | None = None
) -> list[list[int]]:
    """The ids, ``<s>`` to ``</s>``, that :func:`describe_region` reads for each box on a picture of (width, height)."""
    codec = refcoco_codec(pipeline)
    question = pipeline.encode(pipeline.prompt(REGION_SPEC, prompt))[:-1]
    bins_to_ids = pipeline.tokenizer.vocabulary.bins_to_ids
    return [[*question, *bins_to_ids(codec.encode(box, size)), EOS] for box, size in zip(boxes, sizes, strict=True)]
