"""Listings: boxes with their labels, one after the other, as a rule on the next token and as they are read."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..generation.logits_processors import NEVER, Stage, Step
from ..generation.trie import Trie
from ..text import Tokenizer
from ..text.vocabulary import EOS, Vocabulary
from .box_codec import BoxCodec
from .results import Detection, confidence

#: Bins of a box.
CORNERS = 4


class Listing:
    """Only boxes of four ordered bins with a label each, as often as the model likes.

    OFA says the box and then the label; a model that begins with a word says the label first.

    Args:
        vocabulary: the model's.
        labels: ids of the labels to choose from, where the box comes first; None for any text.
    """

    stage: Stage = "logits"

    def __init__(self, vocabulary: Vocabulary, labels: Sequence[Sequence[int]] | None = None) -> None:
        self.bins: range = vocabulary.bin_ids
        self.words: range = range(4, vocabulary.mask)
        self.labels: Trie | None = Trie(labels) if labels is not None else None

    def __call__(self, scores: Tensor, step: Step) -> Tensor:
        """New scores [B, K, V]."""
        banned = torch.ones(scores.shape, dtype=torch.bool, device=scores.device)
        for row, prefix in zip(banned.flatten(0, 1), step.prefixes.flatten(0, 1).tolist(), strict=True):
            self._allow(row, prefix[1:])
        return scores.masked_fill_(banned, NEVER)

    def _allow(self, row: Tensor, said: Sequence[int]) -> None:
        """Set in a row [V] what may follow."""
        corner = self._trailing_bins(said)
        if 0 < corner < CORNERS:
            self._allow_corner(row, corner, said)
        elif not said:
            self._allow_corner(row, 0, said)
            row[self.words.start : self.words.stop] = False
            row[EOS] = False
        elif said[0] in self.bins:
            self._allow_label(row, said, corner)
        else:  # the label comes first
            row[self.words.start : self.words.stop] = False
            if corner:
                row[EOS] = False
            else:
                self._allow_corner(row, 0, said)

    def _allow_corner(self, row: Tensor, corner: int, said: Sequence[int]) -> None:
        """Allow x0 and y0 that something may lie behind, and x1 and y1 behind them."""
        if corner < CORNERS // 2:
            row[self.bins.start : self.bins.stop - 1] = False
        else:
            row[said[-2] + 1 : self.bins.stop] = False

    def _allow_label(self, row: Tensor, said: Sequence[int], corner: int) -> None:
        """Allow a label behind its box to begin, to go on, or to end."""
        may_end = not corner
        if self.labels is None:
            row[self.words.start : self.words.stop] = False
        else:
            at = next((back for back, token in enumerate(reversed(said)) if token in self.bins), len(said))
            following = self.labels.allowed(said[len(said) - at :])
            may_end = EOS in following
            row[[token for token in following if token != EOS]] = False
        if may_end:
            row[EOS] = False
            self._allow_corner(row, 0, said)

    def _trailing_bins(self, said: Sequence[int]) -> int:
        return next((back for back, token in enumerate(reversed(said)) if token not in self.bins), len(said))


def listed_regions(
    tokenizer: Tokenizer, codec: BoxCodec, tokens: Sequence[int], token_scores: Sequence[float], size: tuple[int, int]
) -> list[tuple[Detection, float]]:
    """The regions of a listing with their labels, in its order; one that lacks a bin or its label is left out.

    Args:
        tokenizer: the tokenizer of ``tokens``.
        codec: the convention of the boxes.
        tokens: the answer, with the box first or the label first.
        token_scores: the log-probability of each token.
        size: width and height of the picture in pixels.

    Returns:
        The regions that enclose something, each with the probability of its label.
    """
    runs = _runs(tokenizer, tokens)
    pairs = zip(runs[::2], runs[1::2], strict=False)
    found = []
    for first, second in pairs:
        box_at, label_at = (first, second) if _is_box(tokenizer, tokens, first) else (second, first)
        bins = tokenizer.bins([tokens[at] for at in box_at])
        box = codec.decode_within(bins, size)
        label = tokenizer.decode([tokens[at] for at in label_at]).strip()
        if box is not None and bins is not None and label:
            scores = [token_scores[at] for at in (*first, *second)]
            region = Detection(box, label, confidence(scores), tuple(bins), tuple(map(math.exp, scores)))
            found.append((region, math.exp(sum(token_scores[at] for at in label_at))))
    return found


def _runs(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[range]:
    """The places of bins that stand together and of words that stand together, in turn; ``</s>`` is neither."""
    runs: list[range] = []
    for at in range(len(tokens) - (len(tokens) > 0 and tokens[-1] == EOS)):
        same = bool(runs) and _is_box(tokenizer, tokens, runs[-1]) == (
            tokenizer.vocabulary.bin_of(tokens[at]) is not None
        )
        if same:
            runs[-1] = range(runs[-1].start, at + 1)
        else:
            runs.append(range(at, at + 1))
    return runs


def _is_box(tokenizer: Tokenizer, tokens: Sequence[int], run: range) -> bool:
    return tokenizer.vocabulary.bin_of(tokens[run.start]) is not None
