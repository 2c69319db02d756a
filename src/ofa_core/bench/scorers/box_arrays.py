"""Boxes and their numbers as arrays, looked at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...errors import OFAError, shown
from ..metrics import Booleans, Floats


def box_array(boxes: npt.ArrayLike, name: str, form: str = "x0, y0, x1, y1") -> Floats:
    """Boxes as an array [N, 4]; an empty list is [0, 4].

    Raises:
        OFAError: these are no rows of four finite numbers.
    """
    try:
        array = np.array(boxes, dtype=np.float64, order="C")
    except (TypeError, ValueError):
        array = np.zeros(())
    if array.shape in ((0,), (0, 4)):
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4 or not np.isfinite(array).all():
        raise OFAError(f"{name} are rows of four finite numbers ({form}), not {shown(boxes)}")
    return array


def number_array(numbers: npt.ArrayLike, count: int, name: str) -> Floats:
    """One finite number a box, as an array [N].

    Raises:
        OFAError: these are not ``count`` finite numbers.
    """
    try:
        array = np.asarray(numbers, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.zeros(())
    if array.shape != (count,) or not np.isfinite(array).all():
        raise OFAError(f"{name} are one finite number a box, {count} here, not {shown(numbers)}")
    return array


def xywh_array(boxes: npt.ArrayLike, name: str) -> Floats:
    """Boxes (left, top, width, height) as an array [N, 4]; an empty list is [0, 4].

    Raises:
        OFAError: these are no rows of four finite numbers, or a side is negative.
    """
    array = box_array(boxes, name, "left, top, width, height")
    if (array[:, 2:] < 0).any():
        raise OFAError(f"{name} are (left, top, width, height), no side of which is negative, not {shown(boxes)}")
    return array


def in_order(boxes: Floats) -> Booleans:
    """Tell which boxes [N, 4] have no corner on the wrong side of the other."""
    ordered: Booleans = np.asarray(boxes[:, 2:] >= boxes[:, :2])
    return ordered[:, 0] & ordered[:, 1]
