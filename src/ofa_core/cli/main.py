"""The program ``ofa-core``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from ..version import __version__
from .options import Parser, run, way_on
from .parsers import bench, calibrate, chat, export, heads, models, predict, reproduce, score, serve, shapes, train

#: Files of commands, in the order in which ``--help`` lists them.
GROUPS = (heads, chat, predict, models, serve, bench, reproduce, score, calibrate, train, export, shapes)
EXAMPLES = (
    'ofa-core ground photo.png "the red circle" --model demo',
    "ofa-core predict caption --data photos/ --out captions.jsonl --model demo",
    "ofa-core ground --help",
)


class _Program(Parser):
    """The parser of the whole program, which knows what a mistyped command may have been meant to be."""

    commands: Any = None

    def error(self, message: str) -> NoReturn:
        """Print ``message``, or the nearest command where there is none of a name, and exit with 2."""
        name = message.partition("invalid choice: '")[2].partition("'")[0]
        if name and self.commands is not None:
            nearest = get_close_matches(name, self.commands.choices, 3)
            advice = f"; nearest: {', '.join(nearest)}" if nearest else ""
            message = f"there is no command {name!r}{advice}"
        super().error(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(argv)
    #: A command that goes on where it was interrupted has set what it takes.
    switches: tuple[str, ...] | None = getattr(args, "goes_on_with", None)
    return run("ofa-core", lambda: args.command(args), "" if switches is None else way_on("ofa-core", argv, *switches))


def parser() -> argparse.ArgumentParser:
    """The parser of all commands, for which no model and no torch is imported."""
    program = _Program(
        prog="ofa-core",
        description="Vision and language with OFA. --model demo is the small model that comes with the package; "
        "ofa-core COMMAND --help tells more of a command.",
        examples=EXAMPLES,
    )
    program.add_argument("--version", action="version", version=f"ofa-core {__version__}")
    program.commands = program.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for group in GROUPS:
        group.add_commands(program.commands)
    return program


if __name__ == "__main__":
    sys.exit(main())
