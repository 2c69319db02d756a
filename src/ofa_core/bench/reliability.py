"""The reliability of stated confidences: calibration error, its diagram's bins, and the AUROC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import OFAError

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
    number = np.minimum((values * DIAGRAM_BINS).astype(int), DIAGRAM_BINS - 1)
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


def auroc(values: Sequence[float], positive: Sequence[bool]) -> float | None:
    """The probability that a positive sample has the higher value than a negative one, ties counted by half.

    None where all samples are of one kind.
    """
    numbers, kinds = np.asarray(values, dtype=np.float64), np.asarray(positive, dtype=bool)
    count = int(kinds.sum())
    if count in (0, kinds.size):
        return None
    _, places, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]  # from 1, those of equal values their mean
    return float((ranks[kinds].sum() - count * (count + 1) / 2) / (count * (kinds.size - count)))
