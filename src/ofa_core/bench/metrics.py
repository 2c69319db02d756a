"""Scores of benchmarks: overlap in the two published conventions, accuracies, and bootstrap intervals."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict

from ..errors import OFAError
from ..heads.box_codec import BoxCodec, Convention
from ..vision.boxes import Box, box_iou

Floats: TypeAlias = npt.NDArray[np.float64]
Booleans: TypeAlias = npt.NDArray[np.bool_]

#: IoU above which a box counts, for the curve that papers print.
THRESHOLDS = tuple(tenths / 10 for tenths in range(1, 10))
#: The same as TiO's scorer has them, ``numpy.arange(0.1, 1.0, 0.1)``: 0.3 and 0.7 are a bit more, which decides ties.
TIO_THRESHOLDS = tuple(np.arange(0.1, 1.0, 0.1).tolist())
#: The threshold of the headline figure.
HEADLINE_THRESHOLD = 0.5

#: Resamples of a bootstrap, and the seed that makes its intervals reproducible.
RESAMPLES, SEED = 1000, 0
#: Resamples for scores that are computed anew from whole samples.
WHOLE_RESAMPLES = 100
#: Share of the resampled scores that an interval holds.
CONFIDENCE = 0.95
#: Samples drawn at a time: 32 MB of indices.
_DRAWN_AT_ONCE = 1 << 22

_TIO_THRESHOLD = dict(zip(THRESHOLDS, TIO_THRESHOLDS, strict=True))
#: The size of a picture whose boxes are in fractions, and the rounding of a fraction that was pixels in between.
UNIT, ROUNDING = (1, 1), 1e-12

#: Upper bounds of a box's area in pixels of the original picture, as in COCO; larger ones are ``large``.
SIZE_LIMITS = {"small": 32.0**2, "medium": 96.0**2}
SIZES = (*SIZE_LIMITS, "large")

#: Answers that have a row and a column of their own in a confusion matrix.
LABELS = ("yes", "no", "n/a")
OTHER_LABEL = "other"


# Boxes


@dataclass(frozen=True)
class IouRule:
    """The way in which one of the published scores compares two boxes."""

    #: Added to the union.
    eps: float
    #: True if a box whose IoU equals the threshold counts.
    inclusive: bool
    #: The precision it is computed in.
    dtype: torch.dtype


#: OFA's own RefCOCO score is ``iou >= 0.5`` in float32 with 1e-6 added to the union; that of the dialog fine-tunes is
#: ``iou > t``.
IOU_RULES: dict[Convention, IouRule] = {
    "refcoco": IouRule(eps=1e-6, inclusive=True, dtype=torch.float32),
    "invig": IouRule(eps=0.0, inclusive=False, dtype=torch.float64),
}


def pair_iou(box: Box, found: Box | None, convention: Convention) -> float:
    """IoU of two boxes (x0, y0, x1, y1) in one unit, 0 where none was found."""
    if found is None:
        return 0.0
    rule = IOU_RULES[convention]
    both = torch.tensor([box, found], dtype=torch.float64).to(rule.dtype)
    return float(box_iou(both[0], both[1], rule.eps))


def scored_iou(
    box: Box, found: Box | None, size: tuple[int, int], convention: Convention, num_bins: int = 1000
) -> float:
    """IoU of the target ``box`` with what was ``found`` (or None), in pixels of a picture of ``size``, as it is scored.

    ``refcoco`` compares with the box itself. ``invig`` compares with what the target's bins say, in fractions of the
    sides: the published code reads both boxes from text, and on pixels an exact tie would be rounded to either side.

    Raises:
        OFAError: ``box`` has no area or is not inside the picture.
    """
    if convention == "invig":
        codec = BoxCodec("invig", num_bins=num_bins)
        box = codec.decode(codec.encode(box, size), UNIT) or box
        found = None if found is None else _fractions(found, size, num_bins)
    return pair_iou(box, found, convention)


def _fractions(box: Box, size: tuple[int, int], num_bins: int) -> Box:
    """A box in fractions of the picture's sides, to the last bit those of its bins where it was said in bins."""
    parts = (value / side for value, side in zip(box, size * 2, strict=True))
    x0, y0, x1, y1 = (_nearest_bin(part, num_bins) for part in parts)
    return (x0, y0, x1, y1)


def _nearest_bin(fraction: float, num_bins: int) -> float:
    said = round(fraction * num_bins) / num_bins
    return said if abs(said - fraction) < ROUNDING else fraction


def hits(ious: Floats, threshold: float, convention: Convention) -> Booleans:
    """Tell which of ``ious`` [N] count as found at ``threshold``."""
    if IOU_RULES[convention].inclusive:
        return ious.astype(np.float32) >= np.float32(threshold)
    return ious > _TIO_THRESHOLD.get(threshold, threshold)


def size_class(box: Box) -> str:
    """``small`` (an area below 32² pixels), ``medium`` (below 96²) or ``large``, as in COCO."""
    area = max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)
    return next((name for name, limit in SIZE_LIMITS.items() if area < limit), SIZES[-1])


# Answers


def same_answer(target: str, output: str) -> bool:
    """Tell whether two answers are equal but for case and outer white space."""
    return target.strip().lower() == output.strip().lower()


def same_first_letter(target: str, output: str) -> bool:
    """Tell whether two answers begin alike: the published oracle accuracy, for which ``no`` equals ``n/a``."""
    return output.strip() != "" and target.strip().lower()[:1] == output.strip().lower()[:1]


def answer_label(text: str) -> str:
    """The row or column of a confusion matrix: an answer's first word if it is yes, no or n/a, else ``other``."""
    words = text.lower().split()
    first = words[0].strip(".,;:!?\"'") if words else ""
    return first if first in LABELS else OTHER_LABEL


def character_accuracy(target: str, output: str) -> float:
    """The share of characters that are right: 1 less the edits between two texts over the longer one's length."""
    longest = max(len(target), len(output))
    return 1 - edit_distance(target, output) / longest if longest else 1.0


def edit_distance(first: str, second: str) -> int:
    """Count the insertions, deletions and replacements of characters that turn one text into another (Levenshtein)."""
    row = list(range(len(second) + 1))
    for number, one in enumerate(first, 1):
        before, row[0] = row[0], number
        for place, other in enumerate(second, 1):
            above = row[place]
            row[place] = min(above + 1, row[place - 1] + 1, before + (one != other))
            before = above
    return row[-1]


# Judgements: what can come of one, and the scores that are made of the shares of each

#: A judgement is one of these.
OUTCOMES = ("true_positive", "false_positive", "false_negative", "true_negative")


def outcome(target: str, output: str, positive: str) -> str:
    """The name of what came of a judgement, where one answer counts as positive."""
    due, said = (same_answer(text, positive) for text in (target, output))
    return OUTCOMES[(0 if due else 1) if said else (2 if due else 3)]


def f1_score(shares: Floats) -> Floats:
    """F1 [...] of the shares [..., 4] of outcomes; 0 where nothing is positive."""
    right, wrong, missed, _ = np.moveaxis(shares, -1, 0)
    return _divided(2 * right, 2 * right + wrong + missed)


def matthews(shares: Floats) -> Floats:
    """Matthews' correlation [...] of the shares [..., 4] of outcomes; 0 where one of its factors is."""
    right, wrong, missed, rejected = np.moveaxis(shares, -1, 0)
    product = (right + wrong) * (right + missed) * (rejected + wrong) * (rejected + missed)
    return _divided(right * rejected - wrong * missed, np.sqrt(product))


def _divided(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


# Tables of numbers


@dataclass(frozen=True)
class Derived:
    """A score of all samples together that is no mean of theirs: it is made of the sums of some columns."""

    inputs: tuple[str, ...]
    #: The score [...] of the sums [..., M] of the inputs; NaN where there is nothing to score.
    of: Callable[[Floats], Floats]


def ratio(above: str, below: str) -> Derived:
    """The sum of one column over that of another: a mean over the samples that the second counts."""

    def of(sums: Floats) -> Floats:
        first, second = sums[..., 0], sums[..., 1]
        return np.divide(first, second, out=np.full_like(first, np.nan), where=second > 0)

    return Derived((above, below), of)


#: Scores of judgements, made of what came of each.
JUDGED = {"f1": Derived(OUTCOMES, f1_score), "matthews": Derived(OUTCOMES, matthews)}


@dataclass(frozen=True)
class Table:
    """Numbers of every sample, and the scores that are made of them."""

    #: A number a sample, [N], by name; its mean is a score.
    columns: Mapping[str, Floats]
    derived: Mapping[str, Derived] = field(default_factory=dict)
    #: Columns that are no scores by themselves.
    hidden: frozenset[str] = frozenset()
    #: Scores [R] that need whole samples, by how often each is taken, [R, N]; NaN where there is nothing to score.
    whole: Callable[[Floats], Mapping[str, Floats]] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def at(self, places: npt.NDArray[np.int64]) -> Table:
        """The table of some samples."""
        columns = {name: column[places] for name, column in self.columns.items()}
        if self.whole is None:
            return replace(self, columns=columns)
        whole, count = self.whole, len(self)

        def of_some(taken: Floats) -> Mapping[str, Floats]:
            times = np.zeros((count, len(taken)))
            np.add.at(times, places, taken.T)
            return whole(times.T)

        return replace(self, columns=columns, whole=of_some)

    def only(self, *scores: str) -> Table:
        """The table with what some scores are made of, and without the others."""
        derived = {name: one for name, one in self.derived.items() if name in scores}
        needed = {*scores, *(name for one in derived.values() for name in one.inputs)}
        columns = {name: column for name, column in self.columns.items() if name in needed}
        whole = None if {*columns, *derived} >= {*scores} else self.whole
        kept = columns or dict([next(iter(self.columns.items()))])
        return Table(kept, derived, self.hidden | (kept.keys() - {*scores}), whole)


# Intervals


class Score(BaseModel):
    """A mean over samples and its 95% bootstrap interval."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float
    low: float
    high: float


class Difference(Score):
    """The mean of B - A over the samples that both have, its interval, and how likely chance alone would be as far."""

    p_value: float

    @property
    def significant(self) -> bool:
        """True if the difference is significant at 5%."""
        return self.p_value < 1 - CONFIDENCE


def resampled_means(values: Floats, resamples: int = RESAMPLES, seed: int = SEED) -> Floats:
    """Means [R, M] of ``values`` [N, M] over R resamples of the N samples, drawn with replacement.

    A resample is held as how often it drew each sample, so all M scores share one draw and cost a matrix product.
    """
    count = len(values)
    means = [drawn @ values / count for drawn in _draws(count, resamples, seed)]
    return np.concatenate(means)


def _draws(count: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Count how often each resample drew each sample, [r, N], a few resamples at a time."""
    generator = np.random.default_rng(seed)
    rows = max(_DRAWN_AT_ONCE // count, 1)
    for start in range(0, resamples, rows):
        here = min(rows, resamples - start)
        drawn = generator.integers(0, count, size=(here, count))
        drawn += np.arange(here)[:, None] * count
        counts = np.bincount(drawn.ravel(), minlength=here * count)
        yield counts.reshape(here, count).astype(np.float64)


def scores_of(table: Table, resamples: int = RESAMPLES, seed: int = SEED) -> dict[str, Score]:
    """Every score with its percentile interval (Efron and Tibshirani, 1993, chapter 13); none without a value.

    Raises:
        OFAError: there is no sample.
    """
    if not len(table):
        raise OFAError("there is no sample to score")
    found: dict[str, Score] = {}
    for part in filter(lambda one: one.names, _drawn(table, resamples, seed)):
        low, high = _interval(part.drawn)
        rows = zip(part.names, part.values.tolist(), low.tolist(), high.tolist(), strict=True)
        found |= {name: Score(value=value, low=least, high=most) for name, value, least, most in rows if value == value}
    return found


@dataclass(frozen=True)
class _Drawn:
    """Some scores of all samples [M], and of resamples of them [R, M]."""

    names: list[str]
    values: Floats
    drawn: Floats

    def minus(self, other: _Drawn) -> _Drawn:
        return _Drawn(self.names, self.values - other.values, self.drawn - other.drawn)


def _drawn(table: Table, resamples: int, seed: int) -> list[_Drawn]:
    """The means of columns, scores derived from their sums, and those of whole samples."""
    values = np.stack(list(table.columns.values()), axis=1)
    names, count = list(table.columns), len(values)
    means = resampled_means(values, resamples, seed)
    shown = [place for place, name in enumerate(names) if name not in table.hidden]
    parts = [_Drawn([names[place] for place in shown], values.mean(0)[shown], means[:, shown])]
    for name, derived in table.derived.items():
        places = [names.index(column) for column in derived.inputs]
        one, drawn = derived.of(values[:, places].sum(0)), derived.of(means[:, places] * count)
        parts.append(_Drawn([name], np.reshape(one, 1), drawn[:, None]))
    if table.whole is not None:
        scores = table.whole(np.ones((1, count)))
        taken = [table.whole(draws) for draws in _draws(count, WHOLE_RESAMPLES, seed)]
        again = np.stack([np.concatenate([one[name] for one in taken]) for name in scores], axis=1)
        parts.append(_Drawn(list(scores), np.concatenate(list(scores.values())), again))
    return parts


def paired_differences(
    first: Table, second: Table, resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, Difference]:
    """Compare the scores of two models over the same samples, as :func:`scores_of` has them."""
    names = [name for name in first.columns if name in second.columns and name not in first.hidden]
    found = {name: paired_difference(first.columns[name], second.columns[name], resamples, seed) for name in names}
    made = {tuple(part.names): part for part in _made(first, resamples, seed)}
    for after in _made(second, resamples, seed):
        before = made.get(tuple(after.names))
        if before is None:  # one of the two tells something that the other does not
            continue
        change = after.minus(before)
        for place, name in enumerate(change.names):
            if change.values[place] == change.values[place]:
                drawn = change.drawn[:, [place]]
                found[name] = _difference(float(change.values[place]), drawn[~np.isnan(drawn)][:, None])
    return found


def _made(table: Table, resamples: int, seed: int) -> list[_Drawn]:
    """The scores that are no means of columns."""
    return _drawn(table, resamples, seed)[1:]


def paired_difference(first: Floats, second: Floats, resamples: int = RESAMPLES, seed: int = SEED) -> Difference:
    """Compare ``second`` [N] with ``first`` [N] of the same samples, by a paired bootstrap.

    The two-sided p value is twice the share of resampled differences on the rarer side of zero, the observed one
    counted with them, so it is never below 2 / (resamples + 1).

    Raises:
        OFAError: there is no sample.
    """
    changes = (second - first)[:, None]
    if not len(changes):
        raise OFAError("there is no sample to compare")
    return _difference(float(changes.mean()), resampled_means(changes, resamples, seed))


def _difference(value: float, means: Floats) -> Difference:
    """A difference with what resamples [R, 1] make of it."""
    low, high = _interval(means)
    rarer = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p_value = min(2 * (rarer + 1) / (len(means) + 1), 1.0)
    return Difference(value=value, low=float(low[0]), high=float(high[0]), p_value=p_value)


def _interval(means: Floats) -> tuple[Floats, Floats]:
    tail = (1 - CONFIDENCE) / 2
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice")  # a score that no resample has, nor the whole
        low, high = np.nanquantile(means, (tail, 1 - tail), axis=0)
    return low, high
