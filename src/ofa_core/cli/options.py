"""Shared parts of the command-line programs: options of one meaning, and errors as one line with exit code 2."""

from __future__ import annotations

import argparse
import errno
import math
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

from ..data.read_options import BoxUnit, Language, ReadOptions
from ..errors import OFAError
from ..utils.printable import printable
from ..utils.stopping import Stopped, signals_as_stops

#: Types that weights are stored in, and that are computed in.
STORED_DTYPES = ("float32", "float16", "bfloat16")
DTYPES = (*STORED_DTYPES, "int8")

N = TypeVar("N", int, float)

#: The line above the examples of a command.
_EXAMPLES = "examples:"


class HelpFormatter(argparse.HelpFormatter):
    """Help whose examples stand as they are written."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(_EXAMPLES) else super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, which names the command that they are about.

    Args:
        examples: command lines that help ends with.
        options: those of :class:`argparse.ArgumentParser`.
    """

    def __init__(self, *, examples: Sequence[str] = (), **options: Any) -> None:
        if examples:
            options["epilog"] = "\n".join([_EXAMPLES, *(f"  {example}" for example in examples)])
        options.setdefault("formatter_class", HelpFormatter)
        super().__init__(**options)
        self.examples = tuple(examples)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as the library does, but for what no one knows: it is the error of the command that it was given to."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        """Print ``message`` and exit with 2."""
        self.exit(2, f"{self.prog}: {printable(message)} (see {self.prog} --help)\n")


def add_dtype(parser: argparse.ArgumentParser, choices: Iterable[str], meaning: str) -> None:
    """Add ``--dtype``."""
    parser.add_argument("--dtype", choices=choices, help=f"{meaning}")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add ``--model``, ``--adapter``, ``--device`` and ``--dtype``."""
    parser.add_argument(
        "--model",
        default=os.environ.get("OFA_MODEL") or None,
        help="a model directory, a checkpoint, or a name: demo (the small model that comes with the package), that of "
        "a released one (ofa-core models lists them), or hf:org/name; by default $OFA_MODEL",
    )
    parser.add_argument(
        "--adapter", type=Path, metavar="DIR", help="a low-rank adapter of the model (LoRA), as train or peft writes it"
    )
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device`` and ``--dtype``."""
    parser.add_argument("--device", default="cpu", help="where to run, such as cpu or cuda")
    add_dtype(parser, DTYPES, "compute in this; by default float32 on a CPU and what is stored elsewhere")


def add_image_size(parser: argparse.ArgumentParser) -> None:
    """Add ``--image-size``."""
    parser.add_argument(
        "--image-size", type=positive, metavar="PIXELS", help="side at which pictures are read, instead of the model's"
    )


def add_read_options(parser: argparse.ArgumentParser) -> None:
    """Add what no file of rows tells by itself."""
    parser.add_argument("--language", choices=get_args(Language), default="en", help="of InViG's dialogs (en)")
    parser.add_argument("--boxes", choices=get_args(BoxUnit), help="unit of boxes, where rows do not tell it")
    parser.add_argument(
        "--keep-last-turn", action="store_true", help="keep the last pair of dialogs that end without a question"
    )
    parser.add_argument("--split", metavar="NAME", help="split of the data, of several with commas between, or all")


def add_template_options(parser: argparse.ArgumentParser) -> None:
    """Add the templates of a task of one's own."""
    parser.add_argument(
        "--source", metavar="TEXT", help="custom: what the model reads, columns in braces: 'what is {x}?'"
    )
    parser.add_argument("--target", metavar="TEXT", help="custom: what it should say; {box} stands for a row's box")


def read_options(args: argparse.Namespace) -> ReadOptions:
    """The options of reading that were given."""
    templates = (getattr(args, "source", None), getattr(args, "target", None))
    return ReadOptions(args.language, args.boxes, args.keep_last_turn, args.split, *templates)


def add_allow_outside(parser: argparse.ArgumentParser) -> None:
    """Add ``--allow-outside``."""
    parser.add_argument(
        "--allow-outside",
        action="store_true",
        help="let rows name pictures outside of --images (of the current directory where there is none)",
    )


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """Add ``--verbose``."""
    parser.add_argument("--verbose", action="store_true", help="print every score, and those of groups and games")


def named_model(args: argparse.Namespace) -> str:
    """The ``--model`` of a command.

    Raises:
        OFAError: none was named.
    """
    if args.model is None:
        raise OFAError("no model was named: pass --model DIR or set $OFA_MODEL (--model demo is the small one here)")
    return plain_path(args.model)


def plain_path(name: str) -> str:
    """A model's name; of a path that exists, without ``./`` and a slash at its end, so that it is always told alike."""
    return str(Path(name)) if Path(name).exists() else name


def positive(text: str) -> int:
    """A number of at least 1, as the type of an argument."""
    return _number(text, int, lambda number: number >= 1, "a whole number of at least 1")


def count(text: str) -> int:
    """A number of at least 0, as the type of an argument."""
    return _number(text, int, lambda number: number >= 0, "a whole number of at least 0")


def fraction(text: str) -> float:
    """A number from 0 to 1, as the type of an argument."""
    return _number(text, float, lambda number: 0 <= number <= 1, "a number from 0 to 1")


def positive_number(text: str) -> float:
    """A number above 0, as the type of an argument."""
    return _number(text, float, lambda number: 0 < number < math.inf, "a number above 0")


def _number(text: str, kind: Callable[[str], N], fits: Callable[[N], bool], due: str) -> N:
    """The number that a text is, if it fits; argparse tells the argument's name beside the error."""
    with suppress(ValueError):
        if fits(number := kind(text)):
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is not {due}")


def run(program: str, command: Callable[[], int], go_on: str = "") -> int:
    """Run ``command``; errors about its input become one line on stderr and exit code 2.

    A signal that ends it gives 128 and its number, 130 for Ctrl-C; ``go_on`` is then told, the way to go on.
    """
    try:
        with signals_as_stops(), _warnings_on_one_line(program):
            code = command()
            sys.stdout.flush()  # here, where an error is told
            return code
    except BrokenPipeError:  # before OSError, of which it is one
        return 0
    except (OFAError, OSError) as error:
        message = " ".join(str(_naming_output(error)).split())
        print(f"{program}: {printable(message)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        by = f" by {error}" if isinstance(error, Stopped) else ""
        print(printable(f"{program}: interrupted{by}{'; ' * bool(go_on)}{go_on}"), file=sys.stderr)
        return 128 + (error.number if isinstance(error, Stopped) else signal.SIGINT)


@contextmanager
def _warnings_on_one_line(program: str) -> Iterator[None]:
    """Print warnings like errors, without the line of code that they come from."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"{program}: warning: {printable(str(message))}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def _naming_output(error: Exception) -> Exception:
    """The error itself, or where a disk is full and no file is named, that of what is printed."""
    if not isinstance(error, OSError) or error.errno != errno.ENOSPC or error.filename is not None:
        return error
    with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())  # what is left to be printed would fail once more at the end
    return OSError(error.errno, error.strerror, "standard output")


def way_on(program: str, argv: Sequence[str], *switches: str) -> str:
    """The way to go on with a command that was interrupted: the same again, with ``switches``."""
    missing = [switch for switch in switches if switch not in argv]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # started by a program whose command line is not known here
        return f"go on with the same command{' and ' * bool(missing)}{' '.join(missing)}"
    return f"go on with: {shlex.join([program, *argv, *missing])}"
