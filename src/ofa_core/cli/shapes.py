"""The command ``ofa-core shapes``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from ..demo.files import FILES, write_dataset
from ..demo.world import Split
from ..errors import OFAError
from ..utils.printable import printable


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``shapes``."""
    parser = commands.add_parser("shapes", help="write a dataset of drawn shapes in the benchmarks' formats")
    parser.add_argument("out", type=Path, metavar="DIR", help=f"where to write {', '.join(FILES)}")
    parser.add_argument("--count", type=int, default=2000, metavar="N", help="pictures (2000)")
    parser.add_argument("--split", choices=get_args(Split), default="test", help="which world (test)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first picture's seed (0)")
    parser.set_defaults(command=_shapes)


def _shapes(args: argparse.Namespace) -> int:
    if args.count < 1 or args.first < 0:
        raise OFAError(f"--count must be at least 1 and --first at least 0, not {args.count} and {args.first}")
    write_dataset(args.out, args.count, args.split, first=args.first)
    for name, content in FILES.items():
        print(printable(f"{args.out / name.format(split=args.split)}: {content}"))
    return 0
