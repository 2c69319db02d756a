"""Regions in what a model said: all of them, each with the probabilities of its bins."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..text import Tokenizer
from .box_codec import BoxCodec
from .results import Detection, confidence

#: The answer of a model that was trained to tell that nothing in the picture is meant.
NO_REGION = "none"


def regions_said(
    tokenizer: Tokenizer, codec: BoxCodec, tokens: Sequence[int], token_scores: Sequence[float], size: tuple[int, int]
) -> list[Detection]:
    """The regions of an answer: all its bins in their order, in fours, a rest of fewer than four left out.

    Args:
        tokenizer: the tokenizer of ``tokens``.
        codec: the convention of the boxes.
        tokens: the answer.
        token_scores: the log-probability of each token.
        size: width and height of the picture in pixels.

    Returns:
        The regions of positive area, without labels, in the order of the answer.
    """
    bin_of = tokenizer.vocabulary.bin_of
    said = [(number, at) for at, token in enumerate(tokens) if (number := bin_of(token)) is not None]
    found = []
    for start in range(0, len(said) - 3, 4):
        bins, places = zip(*said[start : start + 4], strict=True)
        box = codec.decode(bins, size)
        if box is not None and box[0] < box[2] and box[1] < box[3]:
            scores = [token_scores[at] for at in places]
            found.append(Detection(box, "", confidence(scores), bins, tuple(map(math.exp, scores))))
    return found
