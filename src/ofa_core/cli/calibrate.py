"""The command ``ofa-core calibrate``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .. import api
from ..bench.calibration import LEAST_SAMPLES, Outcomes, fit, outcomes_of_data, quality, store
from ..config import Calibration
from ..data.loading import DataFiles
from ..utils.printable import printable
from .options import add_allow_outside, add_device, add_read_options, named_model, positive, read_options

FORMATS = ("refcoco", "grefcoco")


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``calibrate``."""
    parser = commands.add_parser("calibrate", help="let a model's confidence in boxes mean how often they are right")
    parser.add_argument("--model", help="a model directory, a checkpoint, or a name; by default $OFA_MODEL")
    add_device(parser)
    parser.add_argument("--data", required=True, nargs="+", type=Path, metavar="PATH", help="rows of phrases")
    parser.add_argument(
        "--format", choices=FORMATS, default="refcoco",
        help="of the rows; those of grefcoco without boxes tell what is not there, too (refcoco)",
    )  # fmt: skip
    parser.add_argument("--images", type=Path, metavar="PATH", help="directory, zip or tar of the pictures")
    add_allow_outside(parser)
    add_read_options(parser)
    parser.add_argument("--limit", type=positive, metavar="N", help="the first rows only")
    parser.add_argument("--batch-size", type=positive, default=16, metavar="N", help="samples at once (16)")
    parser.set_defaults(command=_calibrate)


def _calibrate(args: argparse.Namespace) -> int:
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
    return Outcomes(found.expected[number::2], found.overlaps[number::2], found.there[number::2])


def _is_enough(halves: list[Outcomes]) -> bool:
    return all(len(half.expected) >= LEAST_SAMPLES for half in halves)
