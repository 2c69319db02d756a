"""Shared parts of the command-line programs: options of one meaning, and errors as one line with exit code 2."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from ..errors import OFAError

#: Types that weights are stored in, and that are computed in.
STORED_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
DTYPES = {**STORED_DTYPES, "int8": torch.int8}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Print ``message`` and exit with 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def add_dtype(parser: argparse.ArgumentParser, choices: Iterable[str], meaning: str) -> None:
    """Add ``--dtype``."""
    parser.add_argument("--dtype", choices=choices, help=f"{meaning}")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add ``--model``, ``--device`` and ``--dtype``."""
    parser.add_argument(
        "--model",
        type=Path,
        default=os.environ.get("OFA_MODEL") or None,
        help="a model directory; by default $OFA_MODEL",
    )
    parser.add_argument("--device", default="cpu", help="where to run, such as cpu or cuda")
    add_dtype(parser, DTYPES, "compute in this; by default float32 on a CPU and what is stored elsewhere")


def add_allow_outside(parser: argparse.ArgumentParser) -> None:
    """Add ``--allow-outside``."""
    parser.add_argument(
        "--allow-outside",
        action="store_true",
        help="let rows name pictures outside of --images (of the current directory where there is none)",
    )


def named_model(args: argparse.Namespace) -> Path:
    """The ``--model`` of a command.

    Raises:
        OFAError: none was named.
    """
    if args.model is None:
        raise OFAError("no model was named: pass --model DIR or set $OFA_MODEL")
    return Path(args.model)


def positive(text: str) -> int:
    """A number of at least 1, as the type of an argument."""
    return _at_least(1, text)


def count(text: str) -> int:
    """A number of at least 0, as the type of an argument."""
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    if (number := int(text)) < least:
        raise ValueError(text)
    return number


def run(program: str, command: Callable[[], int]) -> int:
    """Run ``command``; errors about its input become one line on stderr and exit code 2."""
    try:
        return command()
    except BrokenPipeError:  # before OSError, of which it is one
        return 0
    except (OFAError, OSError) as error:
        message = " ".join(str(error).split())
        print(f"{program}: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
