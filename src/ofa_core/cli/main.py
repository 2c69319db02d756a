"""The program ``ofa-core``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import ask, bench, calibrate, models, reproduce, score, shapes, train
from .options import Parser, run, way_on

#: Files of commands, in the order in which ``--help`` lists them.
GROUPS = (ask, models, bench, reproduce, score, calibrate, train, shapes)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(argv)
    #: A command that goes on where it was interrupted has set what it takes.
    switches: tuple[str, ...] | None = getattr(args, "goes_on_with", None)
    return run("ofa-core", lambda: args.command(args), "" if switches is None else way_on("ofa-core", argv, *switches))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="ofa-core", description="Vision and language with OFA.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in GROUPS:
        group.add_commands(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
