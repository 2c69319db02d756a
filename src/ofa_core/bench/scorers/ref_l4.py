"""Ref-L4: RefCOCO and Objects365 with longer phrases, scored by size and by class (Chen et al., 2024)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...errors import OFAError, shown
from ...vision.boxes import Box
from ..metrics import Booleans
from .box_arrays import box_array, xywh_array

#: IoU above which a box counts: 0.50, 0.55 … 0.95 in float32, in which overlaps are computed too.
THRESHOLDS = np.array([hundredths / 100 for hundredths in range(50, 100, 5)], dtype=np.float32)
#: Names of the thresholds that are reported beside the mean over all of them, and their places.
REPORTED = {"acc@0.5": 0, "acc@0.75": 5, "acc@0.9": 8}
#: The floor of a union of two boxes.
LEAST_UNION = np.float32(1e-6)
#: Sides, as the root of an area in pixels, from which a target is no longer small, and up to which it is not yet large.
SIDE_LIMITS = (128.0, 256.0)
SIZES = ("small", "medium", "large")


class RefL4Scorer:
    """Accuracy at IoU above 0.5, 0.75 and 0.9 and its mean over 0.5, 0.55 … 0.95 (mAcc), overall, by size, by class.

    Args:
        class_names: new names for some of the classes, under which several may fall together. The published evaluation
            renames the classes that come from RefCOCO (``refcoco_17``) to those of Objects365 that they equal
            (``o365_140``); :func:`renamed_classes` has them. Without new names there is no class mean, since it would
            not be the published one.
    """

    def __init__(self, class_names: Mapping[str, str] | None = None) -> None:
        self._class_names = class_names
        self._sizes: dict[str, list[Booleans]] = defaultdict(list)
        self._classes: dict[str, list[Booleans]] = defaultdict(list)

    def add(self, target: Sequence[float], found: Box | None, category: str = "") -> float:
        """Return the float32 IoU of ``found`` with the target, and count it.

        Args:
            target: left, top, width and height in pixels, as the data have it.
            found: (x0, y0, x1, y1) in pixels, or None.
            category: the target's class.

        Raises:
            OFAError: a box is not four finite numbers, or the target's sides are not positive.
        """
        x, y, width, height = xywh_array([target], "targets")[0].tolist()
        if width == 0 or height == 0:
            raise OFAError(f"a target is (left, top, width, height) of positive sides, not {shown(target)}")
        iou, correct = compare_box((x, y, x + width, y + height), found)
        self._sizes[size_of(width * height)].append(correct)
        self._classes[(self._class_names or {}).get(category, category)].append(correct)
        return iou

    def result(self) -> dict[str, float]:
        """Accuracies by name: of all, behind ``small``, ``medium`` and ``large``, and as a mean behind ``class``."""
        every = [row for rows in self._sizes.values() for row in rows]
        if not every:
            return {}
        scores = _named(np.stack(every).mean(axis=0), (*REPORTED,))
        for size in SIZES:
            if size in self._sizes:
                scores |= _named(np.stack(self._sizes[size]).mean(axis=0), ("acc@0.5",), f"{size} ")
        if self._class_names is not None:
            classes = np.stack([np.stack(rows).mean(axis=0) for rows in self._classes.values()])
            scores |= _named(classes.mean(axis=0), ("acc@0.5",), "class ")
        return scores


def compare_box(target: Box, found: Box | None) -> tuple[float, Booleans]:
    """Compare two boxes (x0, y0, x1, y1) in pixels: their float32 IoU, and the thresholds [10] that it is above."""
    corners = np.array(target, dtype=np.float32)
    iou = np.float32(0) if found is None else float32_iou(corners, box_array([found], "found boxes")[0])
    return float(iou), iou > THRESHOLDS


@cache
def renamed_classes() -> Mapping[str, str]:
    """The published new names of classes, see :class:`RefL4Scorer`."""
    content = json.loads(Path(__file__).with_name("ref_l4_classes.json").read_text(encoding="utf-8"))
    names: dict[str, str] = content["classes"]
    return names


def float32_iou(first: npt.ArrayLike, second: npt.ArrayLike) -> np.float32:
    """IoU of two boxes (x0, y0, x1, y1), rounded to float32 and computed in it, with a floor below their union."""
    a, b = np.asarray(first, dtype=np.float32), np.asarray(second, dtype=np.float32)
    width, height = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), np.float32(0))
    shared = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return np.float32(shared / np.maximum(union, LEAST_UNION))


def pair_by_id(
    targets: Sequence[Mapping[str, object]], predictions: Sequence[Mapping[str, object]]
) -> list[tuple[Mapping[str, object], Mapping[str, object]]]:
    """Join targets with the predictions of the same ``id``; predictions for others are ignored.

    Args:
        targets: rows with an ``id``.
        predictions: rows with an ``id``, in any order.

    Returns:
        Each target with its prediction, in the order of the targets.

    Raises:
        OFAError: a row has no id, an id occurs twice, or a target has no prediction.
    """
    wanted, given = _by_id(targets, "targets"), _by_id(predictions, "predictions")
    missing = [name for name in wanted if name not in given]
    if missing:
        raise OFAError(
            f"{len(missing)} of {len(wanted)} targets have no prediction, the first of them {shown(missing[0])}"
        )
    return [(row, given[name]) for name, row in wanted.items()]


def _by_id(rows: Sequence[Mapping[str, object]], what: str) -> dict[object, Mapping[str, object]]:
    named: dict[object, Mapping[str, object]] = {}
    for row in rows:
        if "id" not in row:
            raise OFAError(f"one of the {what} has no id: {shown(row)}")
        if row["id"] in named:
            raise OFAError(f"two of the {what} have the id {shown(row['id'])}")
        named[row["id"]] = row
    return named


def size_of(area: float) -> str:
    """``small``, ``medium`` or ``large``: the size of a target by its area in pixels."""
    side = float(np.sqrt(area))
    if side < SIDE_LIMITS[0]:
        return SIZES[0]
    return SIZES[1] if side <= SIDE_LIMITS[1] else SIZES[2]


def _named(accuracies: npt.NDArray[np.float64], thresholds: Sequence[str], prefix: str = "") -> dict[str, float]:
    """Accuracies [T] at some thresholds by name, and their mean."""
    named = {prefix + name: float(accuracies[REPORTED[name]]) for name in thresholds}
    return named | {f"{prefix}mAcc": float(accuracies.mean())}
