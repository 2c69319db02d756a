"""Texts with spans of words hidden, which a model learns to complete: each span is one ``<mask>``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

from ..text import Tokenizer

#: Share of the words that are hidden, and the mean length of a span in words.
MASKED, MEAN_SPAN = 0.3, 3.0


def word_starts(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    """The places in ``ids`` at which a word begins: behind a space, or with a piece that continues none."""
    return [place for place, token in enumerate(ids) if place == 0 or tokenizer.begins_word(token)]


def mask_spans(tokenizer: Tokenizer, ids: Sequence[int], random: Random, share: float = MASKED) -> list[int]:
    """Hide spans of whole words, drawn at random, until ``share`` of the words are hidden.

    Span lengths follow a Poisson distribution; a span of length 0 puts a ``<mask>`` where nothing is missing.

    Args:
        tokenizer: the tokenizer of ``ids``.
        ids: a text.
        random: what draws.
        share: the share of its words that is hidden.

    Returns:
        The text with one ``<mask>`` for each span.
    """
    starts = word_starts(tokenizer, ids)
    lengths = _span_lengths(math.ceil(len(starts) * share), random)
    spans = [length for length in lengths if length]
    hidden: dict[int, bool] = {}  # word -> whether a span begins with it
    for word, length in zip(random.sample(range(len(starts)), min(len(spans), len(starts))), spans, strict=False):
        for other in range(word, min(word + length, len(starts))):
            hidden[other] = hidden.get(other, True) and other == word
    ends = [*starts[1:], len(ids)]
    masked: list[int] = []
    for word, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if word not in hidden:
            masked += ids[start:end]
        elif hidden[word]:
            masked.append(tokenizer.vocabulary.mask)
    for _ in range(len(lengths) - len(spans)):
        masked.insert(random.randint(0, len(masked)), tokenizer.vocabulary.mask)
    return masked


def _span_lengths(words: int, random: Random) -> list[int]:
    """Lengths of spans that hide so many words together."""
    lengths: list[int] = []
    while (left := words - sum(lengths)) > 0:
        lengths.append(min(_poisson(MEAN_SPAN, random), left))
    return lengths


def _poisson(mean: float, random: Random) -> int:
    """A number from a Poisson distribution (Knuth's method)."""
    limit, product, number = math.exp(-mean), random.random(), 0
    while product > limit:
        product *= random.random()
        number += 1
    return number
