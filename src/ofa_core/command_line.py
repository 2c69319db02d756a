"""What both command-line programs share: options of one meaning, and errors as one line with exit code 2."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import torch

from .errors import OFAError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Print ``message`` and exit with 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def add_dtype(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Add ``--dtype``."""
    parser.add_argument("--dtype", choices=DTYPES, help=f"{meaning}")


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
