"""Accuracy of choosing among labels: SNLI-VE's three, ImageNet's thousand."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import OFAError, shown


class ChoiceScorer:
    """Top-k accuracies: the share of samples whose right label is among the first k of those that were named.

    Labels are compared as they stand.

    Args:
        ranks: the values of k.

    Raises:
        OFAError: a k is not positive.
    """

    def __init__(self, ranks: Sequence[int] = (1, 5)) -> None:
        if not ranks or min(ranks) < 1:
            raise OFAError(f"ranks are positive whole numbers, such as (1, 5), not {shown(ranks)}")
        self._right = dict.fromkeys(ranks, 0)
        self._samples = 0

    def add(self, target: str, ranking: Sequence[str]) -> bool:
        """Tell whether the first label is right, and count the sample.

        Args:
            target: the right label.
            ranking: labels, the likeliest first, each once; empty where the model named none.

        Raises:
            OFAError: a label occurs twice, or the ranking is one text.
        """
        if isinstance(ranking, str):
            raise OFAError(f"a ranking is a list of labels, the likeliest first, not the text {shown(ranking)}")
        if len(set(ranking)) < len(ranking):
            raise OFAError(f"a label stands in the ranking twice: {shown(list(ranking))}")
        self._samples += 1
        place = rank_of(target, ranking)
        for rank in self._right:
            self._right[rank] += place is not None and place < rank
        return place == 0

    def result(self) -> dict[str, float]:
        """``top-1``, ``top-5`` and so on, of the samples so far."""
        return {f"top-{rank}": right / self._samples for rank, right in self._right.items()} if self._samples else {}


def rank_of(target: str, ranking: Sequence[str]) -> int | None:
    """The place of a label in a ranking, from 0; None where it is not in it."""
    return ranking.index(target) if target in ranking else None
