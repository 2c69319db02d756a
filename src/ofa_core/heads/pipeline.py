"""What every head stands on: pictures and source texts in, hypotheses out, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from ..errors import OFAError
from ..generation import Constraint, GenerationOptions, Hypothesis, generate
from ..model import OFAModel
from ..text import Tokenizer
from ..vision.transform import ImageLike, ImageTransform, open_image


@dataclass(frozen=True)
class Pipeline:
    """A model with the tokenizer and the picture transform it was trained with."""

    model: OFAModel
    tokenizer: Tokenizer
    transform: ImageTransform

    def open(self, images: Sequence[ImageLike]) -> list[Image.Image]:
        """The pictures in RGB at their own sizes; an unreadable one is an error before any work is done."""
        if len(images) == 0:
            raise OFAError("there are no images: at least one is needed")
        return [open_image(image) for image in images]

    def run(
        self,
        images: Sequence[Image.Image],
        sources: Sequence[str],
        options: GenerationOptions,
        constraints: Sequence[Constraint] = (),
        batch_size: int = 16,
    ) -> list[list[Hypothesis]]:
        """Hypotheses for each pair of a picture and a source text, ``batch_size`` pairs at a time."""
        if batch_size < 1:
            raise OFAError(f"batch_size must be at least 1, not {batch_size}")
        hypotheses: list[list[Hypothesis]] = []
        for start in range(0, len(sources), batch_size):
            part = slice(start, start + batch_size)
            tokens = [self.tokenizer.encode(source, add_special_tokens=True) for source in sources[part]]
            with torch.inference_mode():
                pixels = self.model.image_features(self.transform.batch(images[part]))
            batch = self.tokenizer.pad(tokens).to(self.model.device)
            hypotheses += generate(self.model, batch, pixels, options, constraints=constraints)
        return hypotheses
