"""The parsers of ``ofa-core score`` and ``ofa-core compare``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..choices import SCORED
from ..options import add_allow_outside, add_verbose, count


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``score FILE...`` and ``compare A B``."""
    _add_score_parser(commands)
    _add_compare_parser(commands)


def _add_score_parser(commands: argparse._SubParsersAction[Any]) -> None:
    parser = commands.add_parser(
        "score",
        help="the scores of results files, recomputed from their rows",
        examples=("ofa-core score results/refcoco_grounding/demo/20250131-120000.jsonl --verbose",),
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="results files, of ours or of lists")
    _add_task(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object a file")
    add_verbose(parser)
    parser.add_argument("--report", type=Path, metavar="HTML", help="write a page with plots and samples of one file")
    parser.add_argument("--images", type=Path, metavar="DIR", help="directory or archive of the report's pictures")
    add_allow_outside(parser)
    parser.set_defaults(command=_score)


def _add_compare_parser(commands: argparse._SubParsersAction[Any]) -> None:
    parser = commands.add_parser(
        "compare",
        help="which samples two results files differ in, and whether it matters",
        examples=("ofa-core compare before.jsonl after.jsonl --show 5",),
    )
    parser.add_argument("first", type=Path, metavar="A", help="a results file")
    parser.add_argument("second", type=Path, metavar="B", help="another one of the same task")
    _add_task(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--show", type=count, default=10, metavar="N", help="samples to print of each kind (10)")
    parser.set_defaults(command=_compare)


def _add_task(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", choices=SCORED, metavar="TASK", help=f"score as this task: {', '.join(SCORED)}")


def _score(args: argparse.Namespace) -> int:
    from ..score import score_command

    return score_command(args)


def _compare(args: argparse.Namespace) -> int:
    from ..score import compare_command

    return compare_command(args)
