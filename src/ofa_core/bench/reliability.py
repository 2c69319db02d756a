"""The reliability of stated confidences: calibration error, its diagram's bins, and the AUROC, of resamples too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import OFAError
from .metrics import Booleans, Derived, Floats, Table

Places: TypeAlias = npt.NDArray[np.int64]

#: Bins of a reliability diagram, all as wide.
DIAGRAM_BINS = 10


@dataclass(frozen=True)
class ReliabilityBin:
    """The samples whose confidence lies in one part of 0 to 1."""

    #: The mean confidence.
    confidence: float
    #: The share that is right.
    accuracy: float
    samples: int


def reliability_bins(confidences: Sequence[float], right: Sequence[bool]) -> list[ReliabilityBin]:
    """The bins of a reliability diagram that hold samples, the least confident first.

    Args:
        confidences: one for each sample, 0 to 1.
        right: True where the sample is right.

    Returns:
        The bins; a confidence on the border of two belongs to the upper one.

    Raises:
        OFAError: confidences out of range, or not as many of both.
    """
    values, outcomes = np.asarray(confidences, dtype=np.float64), np.asarray(right, dtype=bool)
    if values.shape != outcomes.shape:
        raise OFAError(f"{values.size} confidences and {outcomes.size} outcomes do not pair up")
    if not ((values >= 0) & (values <= 1)).all():
        raise OFAError("a confidence is not between 0 and 1")
    number = _bin_numbers(values)
    return [
        ReliabilityBin(float(values[own].mean()), float(outcomes[own].mean()), int(own.sum()))
        for own in (number == at for at in range(DIAGRAM_BINS))
        if own.any()
    ]


def calibration_error(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """The expected calibration error: by how much confidence and accuracy differ in the bins, weighed by samples.

    Raises:
        OFAError: as :func:`reliability_bins`, or there are no samples.
    """
    if not len(confidences):
        raise OFAError("there are no samples to measure a calibration error on")
    bins = reliability_bins(confidences, right)
    return sum(one.samples * abs(one.confidence - one.accuracy) for one in bins) / len(confidences)


def _bin_numbers(values: Floats) -> Places:
    return np.minimum((values * DIAGRAM_BINS).astype(np.int64), DIAGRAM_BINS - 1)


def auroc(values: Sequence[float], positive: Sequence[bool]) -> float | None:
    """The probability that a positive sample has the higher value than a negative one, ties counted by half.

    None where all samples are of one kind.
    """
    kinds = np.asarray(positive, dtype=bool)
    if kinds.all() or not kinds.any():
        return None
    return Ranking(np.asarray(values, dtype=np.float64), kinds).auroc(np.ones(kinds.size))


class Ranking:
    """Samples in the order of their values, to rank resamples of them without sorting anew."""

    def __init__(self, values: Floats, positive: Booleans) -> None:
        _, self._places = np.unique(values, return_inverse=True)
        self._positive = positive

    def auroc(self, taken: Floats) -> float:
        """The AUROC where each sample is ``taken`` [N] times; NaN where all samples are of one kind."""
        above = np.bincount(self._places, weights=taken * self._positive)
        below = np.bincount(self._places, weights=taken * ~self._positive)
        wins = above @ (np.cumsum(below) - below / 2)
        pairs = above.sum() * below.sum()
        return float(wins / pairs) if pairs else float("nan")


@dataclass(frozen=True)
class Stated:
    """Probabilities that were stated of samples, and what came true."""

    #: [N], NaN where none was stated.
    probabilities: Floats
    #: [N]
    came_true: Booleans

    @property
    def counted(self) -> Booleans:
        """The samples [N] of which a probability was stated."""
        return ~np.isnan(self.probabilities)

    def bins(self) -> list[ReliabilityBin]:
        """The bins of its reliability diagram."""
        return reliability_bins(self.probabilities[self.counted].tolist(), self.came_true[self.counted].tolist())


def with_calibration_errors(table: Table, stated: Mapping[str, Stated]) -> Table:
    """A table with the score ``<name> ECE``, the expected calibration error, of each kind of probability.

    A bin's error is the sum of what confidence and outcome differ by, so that the score is made of sums of columns.
    """
    columns, derived, hidden = dict(table.columns), dict(table.derived), set(table.hidden)
    for name, one in stated.items():
        counted = one.counted
        values = np.where(counted, one.probabilities, 0.0)
        numbers, difference = _bin_numbers(values), np.where(counted, values - one.came_true, 0.0)
        parts = {f"{name} bin {at}": difference * (numbers == at) for at in range(DIAGRAM_BINS)}
        parts[f"{name} stated"] = counted.astype(np.float64)
        columns |= parts
        hidden |= parts.keys()
        derived[f"{name} ECE"] = Derived(tuple(parts), _calibration_error_of)
    return replace(table, columns=columns, derived=derived, hidden=frozenset(hidden))


def _calibration_error_of(sums: Floats) -> Floats:
    differences, counts = np.abs(sums[..., :-1]).sum(-1), sums[..., -1]
    return np.divide(differences, counts, out=np.full_like(counts, np.nan), where=counts > 0)
