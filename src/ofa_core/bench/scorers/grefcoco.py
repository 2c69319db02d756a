"""gRefCOCO: phrases for any number of regions, or for none (Liu, Ding and Jiang, 2023)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...errors import OFAError, shown
from ..metrics import Floats
from .box_arrays import box_array, in_order, number_array

#: The least score of a box that is kept, and the least overlap of a box and its target.
KEPT_SCORE, MATCHED_OVERLAP = 0.7, 0.5


class GrefcocoScorer:
    """Pr@(F1=1), N-acc and T-acc.

    The published code matches by *generalised* IoU though its score is named after the plain one, so the score is given
    by both. As there, a target and a box that both have no area count as matched by generalised IoU wherever they are
    (it is not a number), and never by the plain one.

    The published code fails on a kept box with corners in the wrong order; here it matches nothing, and so loses its
    sample. A set without samples of one kind has no score for that kind.

    Args:
        kept_score: the least score of a box that is kept; as published, that of a detector.
    """

    def __init__(self, kept_score: float = KEPT_SCORE) -> None:
        self._kept_score = kept_score
        self._exact = 0
        self._exact_plain = 0
        self._with_target, self._found_any = 0, 0
        self._without_target, self._found_none = 0, 0

    def add(self, targets: npt.ArrayLike, found: npt.ArrayLike, scores: npt.ArrayLike) -> bool:
        """Tell whether exactly the targets were found (F1 = 1), and count it.

        Args:
            targets: boxes [N, 4] in pixels; empty where the phrase means nothing in the picture.
            found: boxes [M, 4] in pixels, before any are dropped for their scores; empty where nothing was found.
            scores: a score [M] for each box that was found. They are compared in float32, in which 0.7 itself is less
                than 0.7.

        Raises:
            OFAError: a box is not four finite numbers, a target has its corners in the wrong order, or there is not one
                finite score a box.
        """
        wanted = box_array(targets, "targets")
        if not in_order(wanted).all():
            raise OFAError(f"targets are (x0, y0, x1, y1), the left top corner first, not {shown(targets)}")
        boxes = box_array(found, "found boxes")
        certain = number_array(scores, len(boxes), "scores").astype(np.float32).astype(np.float64) >= self._kept_score
        kept = boxes[certain]
        if len(wanted):
            self._with_target += 1
            self._found_any += len(kept) > 0
        else:
            self._without_target += 1
            self._found_none += len(kept) == 0
        exact, exact_plain = _found_exactly(wanted, kept)
        self._exact += exact
        self._exact_plain += exact_plain
        return exact

    def result(self) -> dict[str, float]:
        """``Pr@(F1=1)``, the same by plain IoU, ``N-acc`` and ``T-acc``, of the samples so far."""
        samples = self._with_target + self._without_target
        shares = {
            "Pr@(F1=1)": (self._exact, samples),
            "Pr@(F1=1), plain IoU": (self._exact_plain, samples),
            "N-acc": (self._found_none, self._without_target),
            "T-acc": (self._found_any, self._with_target),
        }
        return {name: right / count for name, (right, count) in shares.items() if count}


def compare_boxes(targets: npt.ArrayLike, found: npt.ArrayLike) -> tuple[bool, bool]:
    """Tell whether exactly the targets were found, by generalised IoU and by plain IoU.

    Args:
        targets: boxes [N, 4] (x0, y0, x1, y1); empty where nothing is meant.
        found: boxes [M, 4]; empty where nothing was found.

    Raises:
        OFAError: a box is not four finite numbers.
    """
    return _found_exactly(box_array(targets, "targets"), box_array(found, "found boxes"))


def _found_exactly(wanted: Floats, kept: Floats) -> tuple[bool, bool]:
    """Tell whether every target has a box and every box a target, by generalised IoU and by plain IoU."""
    if len(wanted) != len(kept):
        return False, False  # a box too many or too few
    if not len(wanted):
        return True, True
    generalised, plain = _overlaps(kept, wanted)
    return matches(generalised) == len(wanted), matches(plain) == len(wanted)


def matches(overlaps: Tensor, least: float = MATCHED_OVERLAP) -> int:
    """Count the pairs that are matched greedily, the largest of ``overlaps`` [M, N] first, down to ``least``.

    ``topk`` and not ``argmax`` chooses among equal overlaps, as in the published code. NaN is the largest of all.
    """
    overlaps = overlaps.clone()
    pairs = min(overlaps.shape)
    for count in range(pairs):
        best, place = overlaps.flatten().topk(1)
        if bool(best < least):
            return count
        row, column = divmod(int(place), overlaps.shape[1])
        overlaps[row] = 0.0
        overlaps[:, column] = 0.0
    return pairs


def _overlaps(found: Floats, targets: Floats) -> tuple[Tensor, Tensor]:
    """Generalised and plain IoU [M, N] in float32 of boxes [M, 4] and [N, 4]."""
    # Imported where it is used: it takes two seconds.
    from torchvision.ops import box_iou, generalized_box_iou

    first, second = (torch.from_numpy(boxes.astype(np.float32)) for boxes in (found, targets))
    generalised, plain = generalized_box_iou(first, second), box_iou(first, second).nan_to_num(nan=0.0)
    reversed_corners = torch.from_numpy(~in_order(found))[:, None]
    return generalised.masked_fill(reversed_corners, 0.0), plain.masked_fill(reversed_corners, 0.0)
