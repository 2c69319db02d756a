"""Perplexity of texts that a person wrote: how surprising their tokens are to a model."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...errors import OFAError


class PerplexityScorer:
    """The exponential of the mean negative log-probability a token, over all tokens of all texts.

    Long texts weigh more, as is usual; every text's own perplexity is what :meth:`add` returns.
    """

    def __init__(self) -> None:
        self._log_probs: list[float] = []
        self._tokens = 0

    def add(self, token_log_probs: Sequence[float]) -> float:
        """Return the perplexity of one text, and count it.

        Args:
            token_log_probs: the natural logarithm of each token's probability given those before it, the end included.

        Raises:
            OFAError: there is no token, or a number is no logarithm of a probability.
        """
        values = [float(value) for value in token_log_probs]
        if not values:
            raise OFAError("a text without tokens has no perplexity: its end is a token too")
        wrong = next((value for value in values if not value <= 0), None)
        if wrong is not None:
            raise OFAError(f"log-probabilities are at most 0, not {wrong}")
        total = math.fsum(values)
        self._log_probs.append(total)
        self._tokens += len(values)
        return _exponential(-total / len(values))

    def result(self) -> dict[str, float]:
        """``perplexity`` and ``bits_per_token`` of the texts so far; infinite where a token was held impossible."""
        if not self._tokens:
            return {}
        mean = -math.fsum(self._log_probs) / self._tokens
        return {"perplexity": _exponential(mean), "bits_per_token": mean / math.log(2)}


def _exponential(value: float) -> float:
    """``exp``, infinite where it is beyond the largest float."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
