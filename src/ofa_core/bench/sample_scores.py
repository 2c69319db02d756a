"""Samples as scores need them: a few numbers are kept of each row, so that a results file of any size can be scored."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import OFAError
from ..heads.box_codec import Convention
from . import metrics
from .metrics import Floats, Table
from .reliability import Stated, with_calibration_errors
from .results import Row

#: Places of some samples in the order in which they were added.
Places: TypeAlias = npt.NDArray[np.int64]


class Samples(ABC):
    """The rows of one results file, as its scores need them.

    Raises:
        OFAError: from :meth:`add`, a row without what its task is scored by.
    """

    @abstractmethod
    def add(self, row: Row) -> None:
        """Take in one row."""

    @abstractmethod
    def table(self, places: Places | None = None) -> Table:
        """The numbers of all samples, or of some as if there were no others."""

    def stated(self) -> dict[str, Stated]:
        """Probabilities that the model stated of all samples, by the name of what they are about."""
        return {}

    def quality(self, row: Row) -> float:
        """Tell how far one row is right, from 0 to 1: what samples of a report are chosen by."""
        return float(metrics.same_answer(row.target, row.output))


class NumberSamples(Samples):
    """Samples of which numbers are kept, each the function of a row."""

    def __init__(self, numbers: Mapping[str, Callable[[Row], float]]) -> None:
        self._functions = numbers
        self._numbers = {name: array("d") for name in numbers}

    def add(self, row: Row) -> None:
        """Take in one row."""
        for name, number in self._functions.items():
            self._numbers[name].append(number(row))

    def table(self, places: Places | None = None) -> Table:
        """The numbers of all samples, or of some."""
        table = self.whole_table()
        return table if places is None else table.at(places)

    def whole_table(self) -> Table:
        """The numbers of all samples."""
        return Table(self.kept())

    def kept(self) -> dict[str, Floats]:
        """The numbers that are kept, by their names."""
        return {name: np.array(numbers, dtype=np.float64) for name, numbers in self._numbers.items()}


def accuracy_name(threshold: float) -> str:
    """The name of the accuracy at an IoU threshold: ``acc@0.5``."""
    return f"acc@{threshold:.1f}"


def required_iou(row: Row) -> float:
    """The IoU of a row.

    Raises:
        OFAError: it has none.
    """
    if row.iou is None:
        raise OFAError(f"sample {row.id!r} has no IoU, which its task is scored by")
    return row.iou


def stated_confidence(row: Row) -> float:
    """The probability that the box is right, NaN where none was stated."""
    return math.nan if row.confidence is None else row.confidence


_BOXES: Mapping[str, Callable[[Row], float]] = {
    "iou": required_iou,
    "with_box": lambda row: row.found is not None,
    "confidence": stated_confidence,
}
_QUESTIONS: Mapping[str, Callable[[Row], float]] = {"mean_questions": lambda row: row.questions or 0}


def told_of(stated: Mapping[str, Stated]) -> dict[str, Stated]:
    """The probabilities of which any row tells one."""
    return {name: one for name, one in stated.items() if bool(one.counted.any())}


class BoxSamples(NumberSamples):
    """Samples whose answer is one box, with accuracies at each of :data:`~.metrics.THRESHOLDS`."""

    def __init__(self, convention: Convention, *, games: bool = False) -> None:
        super().__init__({**_BOXES, **(_QUESTIONS if games else {})})
        self._convention, self._games = convention, games

    def whole_table(self) -> Table:
        """The numbers of all samples."""
        columns = self.kept()
        ious, _ = columns.pop("iou"), columns.pop("confidence")
        accuracies = {
            accuracy_name(threshold): metrics.hits(ious, threshold, self._convention).astype(np.float64)
            for threshold in metrics.THRESHOLDS
        }
        success = {"success_rate": accuracies[accuracy_name(metrics.HEADLINE_THRESHOLD)]} if self._games else {}
        return with_calibration_errors(Table(success | accuracies | {"mean_iou": ious} | columns), self.stated())

    def stated(self) -> dict[str, Stated]:
        """The confidence in boxes, where some rows tell one."""
        columns = self.kept()
        right = metrics.hits(columns["iou"], metrics.HEADLINE_THRESHOLD, self._convention)
        return told_of({"confidence": Stated(columns["confidence"], right)})

    def quality(self, row: Row) -> float:
        """The IoU."""
        return row.iou or 0.0


def _same_answer(row: Row) -> float:
    return metrics.same_answer(row.target, row.output)


class AnswerSamples(NumberSamples):
    """Samples whose answer is one of a closed set, or spoken freely."""

    def __init__(self) -> None:
        super().__init__({"accuracy": _same_answer})


class OracleSamples(NumberSamples):
    """Answers of an oracle, in full and by the first letter."""

    def __init__(self) -> None:
        first = {"first_letter": lambda row: metrics.same_first_letter(row.target, row.output)}
        super().__init__({"accuracy": _same_answer, **first})


class JudgementSamples(NumberSamples):
    """Judgements, where one answer counts as positive."""

    def __init__(self, positive: str = "yes") -> None:
        def came(name: str) -> Callable[[Row], float]:
            return lambda row: metrics.outcome(row.target, row.output, positive) == name

        super().__init__({"accuracy": _same_answer, **{name: came(name) for name in metrics.OUTCOMES}})

    def whole_table(self) -> Table:
        """The numbers of all samples."""
        return Table(self.kept(), metrics.JUDGED)


class ReadingSamples(NumberSamples):
    """Texts that are compared letter by letter."""

    def __init__(self) -> None:
        super().__init__(
            {
                "characters": lambda row: metrics.character_accuracy(row.target, row.output),
                "exact": lambda row: row.target == row.output,
            }
        )

    def quality(self, row: Row) -> float:
        """The share of characters that are right."""
        return metrics.character_accuracy(row.target, row.output)
