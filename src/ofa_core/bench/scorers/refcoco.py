"""RefCOCO's accuracy as OFA evaluates it: IoU of at least 0.5, in float32, with 1e-6 added to the union."""

from __future__ import annotations

import numpy as np

from ...vision.boxes import Box
from ..metrics import HEADLINE_THRESHOLD, hits, pair_iou
from .box_arrays import box_array


class RefcocoScorer:
    """The share of phrases whose box was found.

    A box with corners in the wrong order overlaps nothing and is a miss, and so is no box.
    """

    def __init__(self) -> None:
        self._samples = 0
        self._hits = 0

    def add(self, target: Box, found: Box | None) -> bool:
        """Tell whether ``found`` is the ``target``, both in pixels of the picture, and count it.

        Raises:
            OFAError: a box is not four finite numbers.
        """
        box_array([target, target if found is None else found], "target and found box")
        iou = np.array([pair_iou(target, found, "refcoco")])
        hit = bool(hits(iou, HEADLINE_THRESHOLD, "refcoco")[0])
        self._samples += 1
        self._hits += hit
        return hit

    def result(self) -> dict[str, float]:
        """``acc@0.5`` of the samples so far."""
        return {"acc@0.5": self._hits / self._samples} if self._samples else {}
