"""Confidence: how well a box agrees with the model's own distribution of boxes, and the box that agrees best."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ..config import Calibration
from ..errors import OFAError
from ..vision.boxes import box_iou
from .box_draws import BoxDraws

#: A way to choose the box: what the model says, the mean around it, or the box with the highest expected IoU.
Decode = Literal["argmax", "expected", "mbr"]
#: Of two drawn boxes that overlap at least this much, both mean one thing.
SAME_THING_IOU = 0.5
#: The least share of the drawn boxes that makes a region.
LEAST_SHARE = 0.1


@dataclass(frozen=True)
class Decoded:
    """The box that was chosen, and how sure the model is of it."""

    #: x0, y0, x1 and y1 in bins, which need not be whole numbers.
    bins: tuple[float, ...]
    #: The mean of its IoU with boxes that were drawn from the model's distribution.
    expected_iou: float


def checked_decode(decode: str | None, calibration: Calibration | None) -> Decode:
    """The way to choose a box: the one that was asked for, or the model's own.

    It is ``mbr`` where the model was calibrated, and otherwise what the original does.

    Raises:
        OFAError: there is no such way.
    """
    if decode is None:
        return "mbr" if calibration is not None else "argmax"
    for name in get_args(Decode):
        if name == decode:
            return name
    raise OFAError(f"decode is {', '.join(map(repr, get_args(Decode)))} or None, not {decode!r}")


def decode_box(draws: BoxDraws, said: Sequence[Sequence[int]], decode: Decode) -> Decoded:
    """Choose a box, and tell its expected IoU.

    Args:
        draws: the model's distribution, with an expectation around the first of ``said``.
        said: bins of the boxes that the search found, best first, at least one.
        decode: the way to choose.

    Returns:
        The box with its expected IoU. ``mbr`` takes the best of what the search found, the expectation and what was
        drawn; of equal ones the first.
    """
    candidates = torch.tensor(said, dtype=torch.float32)
    if decode == "argmax":
        candidates = candidates[:1]
    elif draws.expected is not None:
        candidates = torch.cat([candidates, draws.expected[None], draws.drawn])
        if decode == "expected":
            candidates = draws.expected[None]
    overlaps = box_iou(candidates[:, None], draws.drawn[None]).mean(1)
    best = int(overlaps.argmax())
    return Decoded(tuple(candidates[best].tolist()), float(overlaps[best]))


@dataclass(frozen=True)
class Cluster:
    """Drawn boxes that mean one thing."""

    bins: tuple[float, ...]  # of the drawn box that the others overlap most
    share: float  # of all drawn boxes


def clusters(drawn: Tensor) -> list[Cluster]:
    """Group drawn boxes [K, 4] by what they mean, the largest group first.

    Each group is the box that most of those that are left overlap by :data:`SAME_THING_IOU`, with these.
    """
    alike = box_iou(drawn[:, None], drawn[None])  # [K, K]
    left, found = torch.ones(len(drawn), dtype=torch.bool), []
    while bool(left.any()):
        together = (alike >= SAME_THING_IOU) & left[None] & left[:, None]
        together |= torch.diag(left)
        votes = together.sum(1) + (alike * together).mean(1)  # of equal groups, the one that agrees more
        centre = int(votes.masked_fill(~left, -1).argmax())
        members = together[centre]
        found.append(Cluster(tuple(drawn[centre].tolist()), int(members.sum()) / len(drawn)))
        left = left & ~members
    return sorted(found, key=lambda one: -one.share)


def entropy_of_regions(drawn: Tensor) -> float:
    """The entropy in bits of what drawn boxes [K, 4] mean: 0 for one thing, 1 for two that are as likely."""
    return sum(-one.share * math.log2(one.share) for one in clusters(drawn)) + 0.0


def along(knots: Sequence[tuple[float, float]], value: float) -> float:
    """The height at ``value`` of the line through ``knots``, level before the first and behind the last."""
    for (x0, y0), (x1, y1) in itertools.pairwise(knots):
        if value < x1:
            return y0 if value <= x0 else y0 + (y1 - y0) * (value - x0) / (x1 - x0)
    return knots[-1][1]


def reaching(knots: Sequence[tuple[float, float]], height: float) -> float:
    """The least value where the line through ``knots``, which never falls, reaches ``height``; inf if it does not."""
    for (x0, y0), (x1, y1) in itertools.pairwise([(0.0, knots[0][1]), *knots]):
        if y1 >= height:
            return x0 if y0 >= height else x0 + (x1 - x0) * (height - y0) / (y1 - y0)
    return math.inf


def fit_monotone(values: Sequence[float], targets: Sequence[float], most: int = 20) -> tuple[tuple[float, float], ...]:
    """The line that never falls and is nearest to ``targets`` at ``values`` (isotonic regression), in few knots.

    Values are first joined to at most ``most`` groups of equal numbers, so that no knot rests upon a few of them.

    Args:
        values: of the samples, in any order.
        targets: what each should have been, 0 to 1.
        most: groups at most; the line is level between the first and the last group of those that it has to join.

    Returns:
        Knots (x, y), x strictly rising.

    Raises:
        OFAError: there are no samples, or not as many of both.
    """
    if not values or len(values) != len(targets):
        raise OFAError(f"{len(values)} values and {len(targets)} targets make no calibration")
    pairs = sorted(zip(values, targets, strict=True))
    edges = [round(len(pairs) * part / most) for part in range(most + 1)]
    blocks: list[_Level] = []
    for start, end in itertools.pairwise(edges):
        if start == end:
            continue
        xs, ys = zip(*pairs[start:end], strict=True)
        x = sum(xs) / len(xs)
        blocks.append(_Level(x, x, sum(ys) / len(ys), len(xs)))
        while len(blocks) > 1 and (blocks[-1].y <= blocks[-2].y or blocks[-1].first <= blocks[-2].last):
            blocks[-2:] = [_joined(*blocks[-2:])]
    return tuple(dict.fromkeys(knot for one in blocks for knot in ((one.first, one.y), (one.last, one.y))))


class _Level(NamedTuple):
    """A level part of the line: its ends, its height, and the samples it rests upon."""

    first: float
    last: float
    y: float
    samples: int


def _joined(left: _Level, right: _Level) -> _Level:
    samples = left.samples + right.samples
    y = (left.y * left.samples + right.y * right.samples) / samples
    return _Level(left.first, max(left.last, right.last), y, samples)


def confidence_of(expected_iou: float, calibration: Calibration | None) -> float:
    """The probability of a right box, if the model was calibrated; otherwise the expected IoU itself."""
    knots = () if calibration is None else calibration.overlap
    return along(knots, expected_iou) if knots else min(max(expected_iou, 0.0), 1.0)


def evidence_of_presence(draws: BoxDraws) -> float:
    """The probability of a box at all, times how well the likely boxes agree: the highest expected IoU among them."""
    overlaps = box_iou(draws.drawn[:, None], draws.drawn[None]).mean(1)
    return draws.mass * float(overlaps.max())


def present_of(
    evidence: float, mass: float, calibration: Calibration | None, says_absence: bool, checked: float | None = None
) -> float | None:
    """The probability that what a phrase describes is there; None where nothing tells.

    Args:
        evidence: what :func:`evidence_of_presence` makes of the model's distribution of boxes.
        mass: the probability that the model has a box to say.
        calibration: the model's.
        says_absence: whether the model was taught to say in words that something is not there.
        checked: the probability of yes where the model was asked whether the thing is there; the mean of both counts.
    """
    knots = () if calibration is None else calibration.present
    told = [along(knots, evidence)] if knots else [mass] if says_absence else []
    told += [] if checked is None else [checked]
    return sum(told) / len(told) if told else None
