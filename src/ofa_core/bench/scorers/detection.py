"""COCO's average precision and recall of detected boxes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...errors import OFAError, shown
from ..metrics import Booleans, Floats
from .box_arrays import number_array, xywh_array

#: IoU from which a detection counts, and recalls at which precision is read.
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
#: Areas in pixels, both ends included.
AREAS = {"": (0.0, 1e10), "s": (0.0, 1024.0), "m": (1024.0, 9216.0), "l": (9216.0, 1e10)}
#: Detections of a picture and class that are looked at, those of the highest scores.
MAX_DETECTIONS = 100
#: Numbers of detections at which recall is reported.
RECALL_AT = (1, 10, 100)

# A perfect overlap may be rounded down.
_LEAST = np.minimum(THRESHOLDS, 1 - 1e-10)
_LOW, _HIGH = np.array(list(AREAS.values())).T
#: Numbers of one array, so that resamples of any set fit into memory: 32 MB.
_NUMBERS_AT_ONCE = 1 << 22
#: The class of everything where classes are ignored.
_ANY = 0


@dataclass(frozen=True)
class _Curves:
    """Precision and recall of each of K classes in R resamples, -1 without a truth."""

    #: [K, R, A, T], the mean over :data:`RECALLS`.
    precision: Floats
    #: [K, R, A, T, numbers of detections]
    recall: Floats


@dataclass(frozen=True)
class _Matched:
    """The detections of one picture and class, the best first, and how many truths there were to find."""

    scores: Floats
    #: By area and threshold, [A, T, D]: found a truth; counts neither way.
    found: Booleans
    ignored: Booleans
    #: Truths that count, by area, [A].
    truths: npt.NDArray[np.int64]


class DetectionScorer:
    """COCO's twelve numbers, AP to ARl.

    Boxes are (left, top, width, height) in pixels, as COCO's files have them; areas of corners would be rounded.

    Args:
        classes: the classes that count; None counts all. A class that no truth is of never counts.
        ignore_class: take all boxes for one class, to see how well things are found whatever they are called.
    """

    def __init__(self, classes: Collection[int] | None = None, *, ignore_class: bool = False) -> None:
        self._classes = None if classes is None else frozenset(classes)
        self._ignore_class = ignore_class
        self._matched: dict[int, dict[int, _Matched]] = defaultdict(dict)
        self._joined: dict[int, tuple[list[int], _Joined]] = {}
        self._pictures: set[int] = set()

    def add(
        self,
        picture: int,
        truths: npt.ArrayLike,
        truth_classes: Sequence[int],
        found: npt.ArrayLike,
        found_classes: Sequence[int],
        scores: npt.ArrayLike,
        areas: npt.ArrayLike | None = None,
        crowd: Sequence[bool] | None = None,
    ) -> None:
        """Take in a picture.

        Args:
            picture: its number, which orders detections of equal scores; given once.
            truths: boxes [N, 4] to be found.
            truth_classes: their classes [N].
            found: detected boxes [M, 4].
            found_classes: their classes [M].
            scores: their scores [M].
            areas: the truths' areas [N] in pixels, such as those of their outlines; by default those of the boxes.
            crowd: which truths [N] are groups: many detections may lie in one, and none has to.

        Raises:
            OFAError: these are no boxes, not one number a box, or the picture was given before.
        """
        if picture in self._pictures:
            raise OFAError(f"picture {picture} was given before")
        wanted, boxes = xywh_array(truths, "truths"), xywh_array(found, "found boxes")
        sizes = wanted[:, 2] * wanted[:, 3] if areas is None else number_array(areas, len(wanted), "areas")
        groups = np.zeros(len(wanted)) if crowd is None else number_array(crowd, len(wanted), "crowd flags")
        certainties = number_array(scores, len(boxes), "scores")
        truth_kinds = _classes(truth_classes, len(wanted), "truth classes")
        found_kinds = _classes(found_classes, len(boxes), "found classes")
        self._pictures.add(picture)
        self._joined.clear()
        for label, (those, these) in self._places(truth_kinds, found_kinds).items():
            these = these[np.argsort(-certainties[these], kind="stable")][:MAX_DETECTIONS]
            self._matched[label][picture] = _match(
                wanted[those], sizes[those], groups[those] > 0, boxes[these], certainties[these]
            )

    def _places(self, truths: npt.NDArray[np.int64], found: npt.NDArray[np.int64]) -> _Places:
        """The places of each class's truths and detections, in the order of the lists."""
        labels = sorted({*truths.tolist(), *found.tolist()})
        labels = [label for label in labels if self._classes is None or label in self._classes]
        places = {label: (np.flatnonzero(truths == label), np.flatnonzero(found == label)) for label in labels}
        if not self._ignore_class or not places:
            return places
        those, these = zip(*places.values(), strict=True)
        return {_ANY: (np.concatenate(those), np.concatenate(these))}  # one class behind the other

    def result(self) -> dict[str, float]:
        """COCO's twelve numbers by their names; -1 where there was nothing to find, as published."""
        return {name: float(values[0]) for name, values in self.results().items()}

    def results(self, times: Mapping[int, Floats] | None = None) -> dict[str, Floats]:
        """COCO's twelve numbers [R] of R resamples, as :meth:`result` has them.

        Args:
            times: how often each picture is taken in each resample, [R], by its number; None: once, in one.
        """
        curves = self._curves(times)
        precision, recall = curves.precision, curves.recall
        scores = {"AP": _mean(precision[:, :, 0]), "AP50": _mean(precision[:, :, 0, 0])}
        scores["AP75"] = _mean(precision[:, :, 0, 5])
        scores |= {f"AP{area}": _mean(precision[:, :, place]) for place, area in enumerate(AREAS) if area}
        scores |= {f"AR{count}": _mean(recall[:, :, 0, :, place]) for place, count in enumerate(RECALL_AT)}
        return scores | {f"AR{area}": _mean(recall[:, :, place, :, -1]) for place, area in enumerate(AREAS) if area}

    def by_class(self) -> dict[int, dict[str, float]]:
        """``AP`` and ``AP50`` of each class that a truth is of."""
        precision = self._curves().precision[:, 0, 0]
        rows = zip(sorted(self._matched), precision, strict=True)
        return {
            label: {"AP": float(row.mean()), "AP50": float(row[0])} for label, row in rows if row.max(initial=-1) > -1
        }

    def _curves(self, times: Mapping[int, Floats] | None = None) -> _Curves:
        """Precision and recall of each class, -1 without a truth."""
        labels = sorted(self._matched)
        resamples = 1 if times is None else len(next(iter(times.values()), np.ones(1)))
        shape = (len(labels), resamples, len(AREAS), len(THRESHOLDS))
        curves = _Curves(np.full(shape, -1.0), np.full((*shape, len(RECALL_AT)), -1.0))
        for place, label in enumerate(labels):
            numbers, joined = self._join(label)
            taken = np.stack([np.ones(1) if times is None else times[number] for number in numbers], axis=1)
            step = max(1, _NUMBERS_AT_ONCE // max(1, len(joined.pictures)))
            for start in range(0, resamples, step):
                some = slice(start, start + step)
                curves.precision[place, some] = _precision(joined, taken[some])
                for last, count in enumerate(RECALL_AT):
                    curves.recall[place, some, ..., last] = _recall(joined, taken[some], count)
        return curves

    def _join(self, label: int) -> tuple[list[int], _Joined]:
        """The numbers of the pictures of a class in their order, and their detections; joined once."""
        if label not in self._joined:
            ordered = sorted(self._matched[label].items())
            self._joined[label] = [number for number, _ in ordered], _joined([found for _, found in ordered])
        return self._joined[label]


#: By class: places of its truths and of its detections.
_Places = dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]


def _classes(labels: Sequence[int], count: int, name: str) -> npt.NDArray[np.int64]:
    array = number_array(labels, count, name)
    if (array != np.round(array)).any():
        raise OFAError(f"{name} are whole numbers, not {shown(labels)}")
    return array.astype(np.int64)


def coco_iou(found: Floats, truths: Floats, crowd: Booleans) -> Floats:
    """Overlaps [M, N] of boxes (left, top, width, height); with a crowd, over the area of the detection."""
    ends, others = found[:, None, :2] + found[:, None, 2:], truths[None, :, :2] + truths[None, :, 2:]
    sides = np.minimum(ends, others) - np.maximum(found[:, None, :2], truths[None, :, :2])
    shared = np.where((sides > 0).all(axis=-1), sides[..., 0] * sides[..., 1], 0.0)
    area, other = (found[:, 2] * found[:, 3])[:, None], (truths[:, 2] * truths[:, 3])[None]
    whole = np.where(crowd[None], area, area + other - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=shared > 0)


def _match(truths: Floats, areas: Floats, crowd: Booleans, found: Floats, scores: Floats) -> _Matched:
    """Give each detection, the best first, the truth that it overlaps most: [A, T, ...] at once."""
    outside = (areas[None] < _LOW[:, None]) | (areas[None] > _HIGH[:, None])
    optional = outside | crowd[None]  # [A, N]: may be found, need not be
    shape = (len(AREAS), len(THRESHOLDS), len(found))
    hit, ignored = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    if len(truths):
        free = np.ones((*shape[:2], len(truths)), dtype=bool)
        for place, overlaps in enumerate(coco_iou(found, truths, crowd)):
            if not (overlaps >= _LEAST[0]).any():
                continue
            fits = free & (overlaps >= _LEAST[:, None])
            due = fits & ~optional[:, None]
            fits = np.where(due.any(axis=-1, keepdims=True), due, fits)  # one that has to be found comes first
            best = _last_largest(np.where(fits, overlaps, -1.0))
            hit[..., place] = fits.any(axis=-1)
            ignored[..., place] = hit[..., place] & np.take_along_axis(optional, best, axis=-1)
            area, threshold = np.nonzero(hit[..., place])
            taken = best[area, threshold]
            free[area, threshold, taken] = crowd[taken]
    size = found[:, 2] * found[:, 3]
    wrong_size = (size[None] < _LOW[:, None]) | (size[None] > _HIGH[:, None])
    return _Matched(scores, hit, ignored | (~hit & wrong_size[:, None]), (~optional).sum(axis=-1))


def _last_largest(values: Floats) -> npt.NDArray[np.int64]:
    """Places of the largest values along the last axis; of equal ones, the last."""
    places: npt.NDArray[np.int64] = values.shape[-1] - 1 - np.argmax(values[..., ::-1], axis=-1)
    return places


@dataclass(frozen=True)
class _Joined:
    """The detections of one class in all pictures, the best first; of equal scores those of earlier pictures."""

    #: By area and threshold, [A, T, D]: found a truth that counts; found nothing, and counts.
    right: Booleans
    wrong: Booleans
    #: The place of each in its picture's own order, and the place of its picture, [D].
    ranks: npt.NDArray[np.int64]
    pictures: npt.NDArray[np.int64]
    #: Truths that count, by picture and area, [P, A].
    truths: npt.NDArray[np.int64]


def _joined(pictures: Sequence[_Matched]) -> _Joined:
    order = np.argsort(-np.concatenate([one.scores for one in pictures]), kind="stable")
    found = np.concatenate([one.found for one in pictures], axis=-1)[..., order]
    counted = ~np.concatenate([one.ignored for one in pictures], axis=-1)[..., order]
    ranks = np.concatenate([np.arange(len(one.scores)) for one in pictures])[order]
    places = np.repeat(np.arange(len(pictures)), [len(one.scores) for one in pictures])[order]
    return _Joined(found & counted, ~found & counted, ranks, places, np.stack([one.truths for one in pictures]))


def _recall(joined: _Joined, taken: Floats, count: int) -> Floats:
    """Recall [R, A, T] by the ``count`` best detections of each picture, which is ``taken`` [R, P] times."""
    truths = (taken @ joined.truths)[..., None]  # [R, A, 1]
    first = joined.ranks < count
    right = np.moveaxis(joined.right[..., first] @ taken[:, joined.pictures[first]].T, -1, 0)
    return np.divide(right, truths, out=np.full_like(right, -1.0), where=truths > 0)


def _precision(joined: _Joined, taken: Floats) -> Floats:
    """Precision [R, A, T], the mean over recalls, by the most detections of each picture, ``taken`` [R, P] times."""
    truths, times = taken @ joined.truths, taken[:, joined.pictures]  # [R, A], [R, D]
    precision = np.full((len(taken), len(AREAS), len(THRESHOLDS)), -1.0)
    for area, threshold in np.ndindex(*precision.shape[1:]):
        right, wrong = joined.right[area, threshold], joined.wrong[area, threshold]
        found = _interpolated(times, right, wrong, truths[:, area])
        precision[:, area, threshold] = np.where(truths[:, area] > 0, found, -1.0)
    return precision


def _interpolated(times: Floats, right: Booleans, wrong: Booleans, truths: Floats) -> Floats:
    """The mean [R] of the highest precision at each recall and beyond, 0 beyond what is reached.

    It is reached, and highest, at detections that are right, so that the others are only counted.

    Args:
        times: how often each detection is taken, [R, D], the best first.
        right: the detections [D] that found a truth that counts.
        wrong: those that found nothing, and count.
        truths: the truths that count, [R].
    """
    counted = right | wrong
    at = np.flatnonzero(right[counted])
    if not at.size:
        return np.zeros(len(times))
    hits = np.cumsum(times[:, right], axis=-1)
    shares = hits / (np.cumsum(times[:, counted], axis=-1)[:, at] + np.spacing(1))
    recalls = hits / np.where(truths > 0, truths, 1.0)[:, None]
    envelope = np.maximum.accumulate(shares[:, ::-1], axis=-1)[:, ::-1]
    best = np.concatenate([envelope, np.zeros((len(times), 1))], axis=-1)
    places = np.stack([np.searchsorted(reached, RECALLS, side="left") for reached in recalls])
    return np.asarray(np.take_along_axis(best, places, axis=-1).mean(axis=-1))


def _mean(values: Floats) -> Floats:
    """The mean [R] of values [K, R, ...] of what there was something to find for; -1 where there was nothing."""
    rows = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
    present = rows > -1
    counts = present.sum(axis=-1)
    sums = np.where(present, rows, 0.0).sum(axis=-1)
    return np.divide(sums, counts, out=np.full_like(sums, -1.0), where=counts > 0)
