"""The command ``ofa-core calibrate``."""

from __future__ import annotations

import argparse

from .. import api
from ..bench.calibration import LEAST_SAMPLES, Outcomes, fit, outcomes_of_data, quality, store
from ..config import Calibration
from ..data.loading import DataFiles
from ..utils.printable import printable
from .options import named_model, read_options


def calibrate(args: argparse.Namespace) -> int:
    """Fit a calibration to the rows of ``args.data``, and store it with the model."""
    directory = api.model_directory(named_model(args))
    ofa = api.load(directory, device=args.device, dtype=args.dtype)
    first, *more = args.data
    data = DataFiles(first, args.images, allow_outside=args.allow_outside, options=read_options(args), more=tuple(more))
    found = outcomes_of_data(ofa.pipeline, data, args.format == "grefcoco", args.limit, args.batch_size)
    calibration = fit(found)
    store(directory, calibration)
    print(printable(f"{len(found.expected):,} rows; written to {directory}"))
    print(_described(found, calibration))
    return 0


def _described(found: Outcomes, calibration: Calibration) -> str:
    """The errors without a calibration and with one, each half's measured with what was fitted to the other."""
    halves = [_half(found, number) for number in (0, 1)]
    before = [quality(half, None).error for half in halves]
    after = [quality(one, fit(other)).error for one, other in (halves, halves[::-1])] if _is_enough(halves) else []
    told = f"calibration error {sum(before) / 2:.3f} before"
    told += f", {sum(after) / 2:.3f} with half of the rows on the other half" if after else ""
    if calibration.present:
        told += f"; no box where the probability of being there is below {calibration.least_present:.3f}"
    return told


def _half(found: Outcomes, number: int) -> Outcomes:
    lists = (found.expected, found.overlaps, found.there, found.evidence)
    return Outcomes(*(numbers[number::2] for numbers in lists))  # type: ignore[arg-type]  # each of its kind


def _is_enough(halves: list[Outcomes]) -> bool:
    return all(len(half.expected) >= LEAST_SAMPLES for half in halves)
