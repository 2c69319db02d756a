"""The parser of ``ofa-core bench``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..choices import ALL, BENCHMARKS, DATA_FORMATS, PROTOCOLS
from ..options import (
    add_allow_outside,
    add_model,
    add_read_options,
    add_template_options,
    add_verbose,
    count,
    positive,
)


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``bench``."""
    parser = commands.add_parser(
        "bench",
        help="scores of a model on GuessWhat?!, InViG, RefCOCO and others",
        examples=(
            "ofa-core shapes shapes --count 20",
            "ofa-core bench refcoco_grounding --model demo --data shapes/phrases.tsv",
            "ofa-core bench all --model DIR --data guesswhat=guesswhat.jsonl.gz invig=invig_test --images train2014",
        ),
    )
    parser.add_argument(
        "tasks",
        nargs="+",
        choices=[*BENCHMARKS, ALL],
        metavar="TASK",
        help=f"{', '.join(BENCHMARKS)}, or {ALL}: every task that --data has rows for",
    )
    add_model(parser)
    add_run_options(parser)
    parser.set_defaults(command=_bench, goes_on_with=("--resume",))


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add what a run takes besides its tasks and its model."""
    parser.add_argument("--oracle", metavar="DIR", help="another model as the oracle of games")
    parser.add_argument(
        "--data",
        nargs="+",
        metavar="[FORMAT=]PATH",
        help=f"rows; for tasks of several formats ({', '.join(DATA_FORMATS)}) one path each, such as invig=test.jsonl, "
        "or several of one format, whose scores stand beside those of the whole; the format of one of several files is "
        "told by its content where it can be; by default the files that $OFA_DATA or [data] in ofa_core.toml name",
    )
    parser.add_argument(
        "--images",
        nargs="+",
        default=[],
        metavar="[FORMAT=]PATH",
        help="directory, zip or tar of the pictures, unless rows hold them",
    )
    add_allow_outside(parser)
    add_read_options(parser)
    add_template_options(parser)
    parser.add_argument("--columns", metavar="NAMES", help="order of a TSV file's columns, separated by commas")
    parser.add_argument("--batch-size", type=positive, default=16, metavar="N", help="samples at once (16)")
    parser.add_argument("--limit", type=positive, metavar="N", help="the first samples of each task only")
    parser.add_argument("--protocol", choices=PROTOCOLS, help="how games of GuessWhat?! are played (open)")
    parser.add_argument(
        "--information-gain",
        action="store_true",
        help="ask the oracle of GuessWhat?!'s games each question about every object: what questions tell, in bits",
    )
    parser.add_argument(
        "--confidence",
        action="store_true",
        help="tell with each box how sure it is, and how far that is right; a calibrated model does in any case",
    )
    parser.add_argument(
        "--ask-above",
        type=float,
        metavar="BITS",
        help="open games: ask while the dialog is more ambiguous than that, then guess; by default the agent decides",
    )
    parser.add_argument("--num-beams", type=positive, metavar="N", help="beams of every search, instead of 5")
    parser.add_argument("--max-new-tokens", type=positive, metavar="N", help="no answer is longer")
    parser.add_argument(
        "--answers",
        type=Path,
        metavar="FILE",
        help="the only answers of vqa or classes of classification, one a line; by default any, and those of the data",
    )
    parser.add_argument(
        "--score-answers",
        action="store_true",
        help="vqa: give every one of --answers its probability, instead of searching among them",
    )
    parser.add_argument("--comment", metavar="NAME", help="what tells runs apart; by default the model's name")
    parser.add_argument("--out", type=Path, default=Path("results"), metavar="DIR", help="where results go (results)")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was interrupted")
    parser.add_argument("--skip-bad", action="store_true", help="report rows that cannot be used, and go on")
    parser.add_argument("--workers", type=count, default=4, metavar="N", help="threads that open pictures (4)")
    parser.add_argument("--report", action="store_true", help="write a page with plots and samples, too")
    parser.add_argument(
        "--single-json",
        action="store_true",
        help="leave one JSON file of samples and scores: <time>.json",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument("--json", action="store_true", help="print one JSON object a task")
    add_verbose(parser)


def _bench(args: argparse.Namespace) -> int:
    from ..bench import bench_command

    return bench_command(args)
