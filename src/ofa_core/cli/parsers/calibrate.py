"""The parser of ``ofa-core calibrate``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..choices import CALIBRATION_FORMATS
from ..options import add_allow_outside, add_device, add_read_options, add_template_options, positive


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``calibrate``."""
    parser = commands.add_parser(
        "calibrate",
        help="let a model's confidence in boxes mean how often they are right",
        examples=("ofa-core calibrate --model DIR --data refcoco_train.tsv --limit 2000",),
    )
    parser.add_argument("--model", help="a model directory, a checkpoint, or a name; by default $OFA_MODEL")
    add_device(parser)
    parser.add_argument("--data", required=True, nargs="+", type=Path, metavar="PATH", help="rows of phrases")
    parser.add_argument(
        "--format", choices=CALIBRATION_FORMATS, default="refcoco",
        help="of the rows; those of grefcoco without boxes tell what is not there, too (refcoco)",
    )  # fmt: skip
    parser.add_argument("--images", type=Path, metavar="PATH", help="directory, zip or tar of the pictures")
    add_allow_outside(parser)
    add_read_options(parser)
    add_template_options(parser)
    parser.add_argument("--limit", type=positive, metavar="N", help="the first rows only")
    parser.add_argument("--batch-size", type=positive, default=16, metavar="N", help="samples at once (16)")
    parser.set_defaults(command=_calibrate)


def _calibrate(args: argparse.Namespace) -> int:
    from ..calibrate import calibrate

    return calibrate(args)
