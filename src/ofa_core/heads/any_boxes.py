"""Any number of boxes for a phrase: which models name several, or none, and the rule by which they say how many."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import Calibration, TaskSettings
from ..generation.logits_processors import NEVER, Stage, Step
from .confidence import reaching
from .listing import CORNERS

#: Names of tasks whose models name all boxes of a phrase, of which there may be none.
ANY_NUMBER = frozenset({"grefcoco"})
#: The name of a training task whose models say "there is no ..." of what is not in the picture.
TIO = "tio"
#: The least probability of a box with which one is said, where no calibration tells a better one.
LEAST_MASS = 0.5


def names_any_number(task: TaskSettings) -> bool:
    """Tell whether a model with these settings names all boxes of a phrase, and says where there is none."""
    return not ANY_NUMBER.isdisjoint((task.name, *task.learned))


def says_absence(task: TaskSettings) -> bool:
    """Tell whether a model with these settings says in words of a phrase that nothing in the picture is meant."""
    return task.name == TIO or names_any_number(task)


def least_mass(calibration: Calibration | None) -> float:
    """The least probability of a first box with which one is said; with less, a calibrated model would hold it back."""
    if calibration is None or not calibration.present:
        return LEAST_MASS
    return reaching(calibration.present, calibration.least_present)


class BoxOrEnd:
    """A box, or no further one: whichever is likelier as a whole, before the first bin and behind each whole box.

    The probability of a box is spread over bins that lie side by side, and that of a word or of the end is not. By
    single tokens, a box that is nearly certain would lose to a word that is all but ruled out. A box for which there is
    no room is not begun.

    Args:
        bins: the ids of the bins.
        least_mass: the least probability of a first box with which one is said.
    """

    stage: Stage = "logits"

    def __init__(self, bins: range, least_mass: float = LEAST_MASS) -> None:
        self.bins = bins
        self.least_mass = least_mass

    def __call__(self, scores: Tensor, step: Step) -> Tensor:
        """New scores [B, K, V]."""
        said = step.prefixes[..., 1:]
        boxes_alone = ((said >= self.bins.start) & (said < self.bins.stop)).all(-1)  # [B, K]
        if step.is_last or not bool(boxes_alone.any()):
            return scores
        is_bin = torch.zeros(scores.shape[-1], dtype=torch.bool, device=scores.device)
        is_bin[self.bins.start : self.bins.stop] = True
        go_on = boxes_alone  # within a box
        if step.number % CORNERS == 0:
            mass = scores.float().softmax(-1)[..., self.bins.start : self.bins.stop].sum(-1)
            least = LEAST_MASS if step.number else self.least_mass
            go_on = boxes_alone & (mass >= least) & (step.number + CORNERS <= step.max_length)
        ends = boxes_alone & ~go_on
        return scores.masked_fill_((go_on[..., None] & ~is_bin) | (ends[..., None] & is_bin), NEVER)
