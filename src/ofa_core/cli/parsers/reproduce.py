"""The parser of ``ofa-core reproduce``."""

from __future__ import annotations

import argparse
from typing import Any

from ..options import add_device
from .bench import add_run_options


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``reproduce``."""
    parser = commands.add_parser(
        "reproduce",
        help="a released checkpoint's score beside the published one",
        examples=("ofa-core reproduce refcoco_large_best --data refcoco_val.tsv --figure val",),
    )
    parser.add_argument("name", metavar="NAME", help="a released checkpoint (ofa-core models lists them)")
    parser.add_argument("--figure", metavar="SPLIT", help="the published figure's split; by default the data's name")
    parser.add_argument("--model", help="what to load instead of the name, such as what it was converted to")
    add_device(parser)
    add_run_options(parser)
    parser.set_defaults(command=_reproduce, adapter=None, goes_on_with=("--resume",))


def _reproduce(args: argparse.Namespace) -> int:
    from ..reproduce import reproduce_command

    return reproduce_command(args)
