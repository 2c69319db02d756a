"""What a model is to say, as ids: texts and boxes with the space before them and the ``</s>`` behind."""

from __future__ import annotations

from ..heads.box_codec import Box, BoxCodec
from ..heads.pipeline import Pipeline
from ..text.vocabulary import EOS


def text_target(pipeline: Pipeline, text: str) -> list[int]:
    """A text with its leading space, and ``</s>``."""
    return [*pipeline.tokenizer.encode(f" {text}"), EOS]


def region_target(pipeline: Pipeline, codec: BoxCodec, box: Box, size: tuple[int, int], said: str = "") -> list[int]:
    """What is said first, ``box`` (xyxy pixels of a picture of ``size``, width and height) in bins, and ``</s>``."""
    bins = pipeline.tokenizer.vocabulary.bins_to_ids(codec.encode(box, size))
    return [*(pipeline.tokenizer.encode(f" {said}") if said else []), *bins, EOS]
