"""The parser of ``ofa-core shapes``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..choices import SHAPES_FILES, SHAPES_SPLITS


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``shapes``."""
    parser = commands.add_parser(
        "shapes",
        help="write a dataset of drawn shapes in the benchmarks' formats",
        examples=("ofa-core shapes shapes --count 20",),
    )
    parser.add_argument("out", type=Path, metavar="DIR", help=f"where to write {', '.join(SHAPES_FILES)}")
    parser.add_argument("--count", type=int, default=2000, metavar="N", help="pictures (2000)")
    parser.add_argument("--split", choices=SHAPES_SPLITS, default="test", help="which world (test)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first picture's seed (0)")
    parser.set_defaults(command=_shapes)


def _shapes(args: argparse.Namespace) -> int:
    from ..shapes import shapes

    return shapes(args)
