"""Reading what is written on a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..generation import GenerationOptions
from ..vision.padded import padded
from .pipeline import Picture, Pipeline, PreparedImage
from .results import Text, to_text
from .tasks import TASKS

SPEC = TASKS["ocr"]


@dataclass(frozen=True)
class Reading(Text):
    """The writing on a picture as the model read it."""

    @property
    def without_spaces(self) -> str:
        """The form that benchmarks score."""
        return without_spaces(self.text)


def without_spaces(text: str) -> str:
    """The form of a text in which readings are compared."""
    return text.strip().replace(" ", "")


def read(
    pipeline: Pipeline,
    images: Sequence[Picture],
    options: GenerationOptions | None = None,
    *,
    document: bool = False,
    prompt: str | None = None,
    batch_size: int = 16,
) -> list[Reading]:
    """The writing on each picture; see :meth:`ofa_core.OFA.read`."""
    pipeline = pipeline.for_task(SPEC)
    pictures = squares(pipeline, images, document=document)
    sources = ocr_sources(pipeline, len(pictures), prompt)
    found = pipeline.run(pictures, sources, options or pipeline.options(SPEC), batch_size=batch_size)
    return [Reading(**vars(to_text(pipeline.tokenizer, beams))) for beams in found]


def squares(pipeline: Pipeline, images: Sequence[Picture], *, document: bool = False) -> list[PreparedImage]:
    """The pictures with their aspect ratios, each in the middle of a square that repeats its edge."""
    made: dict[int, PreparedImage] = {}
    pictures = pipeline.open(images)
    for picture in pictures:
        if id(picture) not in made:
            # what the stem saw of it, or what was resized for it, has not its aspect ratio
            square = padded(picture.image, pipeline.transform.size, document=document)
            made[id(picture)] = pipeline.prepare(square)
    return [made[id(picture)] for picture in pictures]


def ocr_sources(pipeline: Pipeline, count: int, prompt: str | None = None) -> list[list[int]]:
    """The ids, ``<s>`` to ``</s>``, that :func:`read` reads for each of ``count`` pictures."""
    return [pipeline.encode(pipeline.prompt(SPEC, prompt))] * count
