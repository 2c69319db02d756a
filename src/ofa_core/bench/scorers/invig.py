"""InViG's grounding accuracy as TiO's scorer computes it from texts: in fractions of the picture, not in pixels."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch

from ...heads.box_codec import INVIG_RANGE
from ...vision.boxes import box_iou
from ..metrics import TIO_THRESHOLDS, Floats
from .box_arrays import box_array

#: Bins of a side: a text says them times one less, and is read by dividing by all of them.
NUM_BINS = 1000
#: IoU above which a box counts, to the last bit (0.30000000000000004, 0.7000000000000001): ties are decided by it.
THRESHOLDS = (*TIO_THRESHOLDS, 0.99)

_BIN = re.compile(r"<bin_(\d+)>")  # digits of any script, as the published code reads them


def boxes_of_text(text: str, *, strict: bool = False) -> Floats:
    """Read the boxes of an answer.

    Bins count wherever they stand; a rest of fewer than four is dropped, and corners stay in their order. A bin beyond
    the last, which the published code fails on where it has more than 64 bits, lies on the picture's side.

    Args:
        text: any text.
        strict: return no box for a text without any, instead of the whole picture.

    Returns:
        Boxes (x0, y0, x1, y1) in fractions of the sides, [N, 4].
    """
    bins = [float(digits) for digits in _BIN.findall(text)]  # a float of any number of digits
    bins = bins[: len(bins) // 4 * 4]
    if not bins and not strict:
        return np.array([[INVIG_RANGE[0]] * 2 + [INVIG_RANGE[1]] * 2])
    return np.clip(np.array(bins, dtype=np.float64).reshape(-1, 4) / NUM_BINS, *INVIG_RANGE)


def text_of_box(box: Sequence[float]) -> str:
    """Spell a box (x0, y0, x1, y1) in fractions of the sides, as models are taught to.

    Raises:
        OFAError: it is not four finite numbers.
    """
    fractions = np.clip(box_array([box], "boxes")[0], *INVIG_RANGE)
    return " ".join(f"<bin_{number:.0f}>" for number in np.round(fractions * (NUM_BINS - 1)))


class InvigScorer:
    """The shares of dialogs whose box was found, by threshold."""

    def __init__(self) -> None:
        self._ious: list[float] = []

    def add(self, target: str, found: str) -> float:
        """Return the IoU of the last box of ``found`` with the best of ``target``, both texts, and count it.

        A text without a box means the whole picture, as published.
        """
        boxes = torch.from_numpy(boxes_of_text(target))
        iou = float(box_iou(boxes, torch.from_numpy(boxes_of_text(found)[-1])).max())
        self._ious.append(iou)
        return iou

    def result(self) -> dict[str, float]:
        """``acc@0.1`` to ``acc@0.9`` and ``acc@0.99`` of the samples so far."""
        ious = np.array(self._ious)
        return {f"acc@{limit:.2g}": float((ious > limit).mean()) for limit in THRESHOLDS} if self._ious else {}
