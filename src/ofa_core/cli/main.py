"""The program ``ofa-core``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import ask, bench, models, score, shapes, train
from .options import Parser, run

#: Files of commands, in the order in which ``--help`` lists them.
GROUPS = (ask, models, bench, score, train, shapes)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    args = _parser().parse_args(argv)
    return run("ofa-core", lambda: args.command(args))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="ofa-core", description="Vision and language with OFA.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in GROUPS:
        group.add_commands(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
