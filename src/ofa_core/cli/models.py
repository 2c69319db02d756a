"""The command about models themselves: ``inspect``."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from .. import api
from ..checkpoint.inspection import inspect_directory
from ..checkpoint.verification import verify_directory
from ..utils.printable import printable


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``inspect``."""
    inspect = commands.add_parser("inspect", help="what a model directory or a checkpoint holds")
    inspect.add_argument("path", metavar="MODEL", help="a model directory, a checkpoint, or a name")
    inspect.add_argument(
        "--verify", action="store_true", help="check every file against its digest and every weight for damage"
    )
    inspect.add_argument("--json", action="store_true", help="print one JSON object")
    inspect.set_defaults(command=_inspect)


def _inspect(args: argparse.Namespace) -> int:
    directory = api.model_directory(args.path)
    verified = verify_directory(directory) if args.verify else None
    found = inspect_directory(directory)
    if args.json:
        more = {"config": found.config.model_dump()} | ({"verified": asdict(verified)} if verified else {})
        print(json.dumps(asdict(found) | more, default=str))
    else:
        lines = [*found.lines(), *([verified.line()] if verified else [])]
        print("\n".join(map(printable, lines)))
    return 0
