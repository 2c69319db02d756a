"""Examples to learn from: a source, a target and the picture that several of them may share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from ..generation.trie import Trie
from ..heads.box_codec import BoxCodec
from ..heads.pipeline import Pipeline
from ..text.vocabulary import BOS, EOS
from ..vision.boxes import Box


@dataclass(frozen=True, eq=False)
class Example:
    """One source and its target; examples of one picture hold the same object, and the stem runs once for them."""

    source: Sequence[int]  # <s> to </s>
    target: Sequence[int]  # behind the prompt, up to and with </s>; padding where nothing is learned
    #: The picture at its own size, or its pixels [3, h, w] as the model takes them.
    image: Image.Image | Tensor | None = None
    #: The decoder's prompt, which is not learned.
    prompt: Sequence[int] = (BOS,)
    #: A factor on its loss.
    weight: float = 1.0
    #: Tokens that the decoder reads behind the prompt, where they are not the target itself; the last is not read.
    said: Sequence[int] | None = None
    #: The answers that the target is one of: only tokens that continue one of them have a probability.
    answers: Trie | None = None
    #: True if the target is image codes, whose positions are a picture's.
    codes: bool = False
    #: Patches of the picture that the encoder sees, drawn anew in every pass; None: all.
    patches: int | None = None


def text_target(pipeline: Pipeline, text: str) -> list[int]:
    """A text with its leading space, and ``</s>``."""
    return [*pipeline.tokenizer.encode(f" {text}"), EOS]


def region_target(pipeline: Pipeline, codec: BoxCodec, box: Box, size: tuple[int, int], said: str = "") -> list[int]:
    """Target ids of a box: the text ``said``, ``box`` (xyxy pixels of a picture of ``size``) in bins, and ``</s>``."""
    bins = pipeline.tokenizer.vocabulary.bins_to_ids(codec.encode(box, size))
    return [*(pipeline.tokenizer.encode(f" {said}") if said else []), *bins, EOS]
