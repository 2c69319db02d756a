"""The parser of ``ofa-core predict``, with a command for each head that rows can be put to."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ...predict.heads import GIVEN, HEADS, Head
from ..options import add_allow_outside, add_image_size, add_model, add_read_options, count, positive
from .heads import shared_argument


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``predict``."""
    predict = commands.add_parser(
        "predict",
        help="the answers of a head to all rows of files, or to all pictures of a directory",
        examples=(
            "ofa-core predict caption --data photos/ --out captions.jsonl --model demo",
            "ofa-core predict ground --data shapes/phrases.tsv --out boxes.jsonl --model demo --resume",
            "torchrun --nproc-per-node 8 -m ofa_core predict answer --data questions.parquet --out answers.jsonl "
            "--model DIR --device cuda --dtype float16 --batch-size 64",
        ),
    )
    heads = predict.add_subparsers(required=True, metavar="HEAD")
    for name, head in HEADS.items():
        if head.in_bulk:
            _add_head(heads, name, head)


def _add_head(heads: argparse._SubParsersAction[Any], name: str, head: Head) -> None:
    parser = heads.add_parser(
        name,
        help=head.help,
        description=f"{head.help}, for every row. Answers are written to --out in the order of the rows, what cannot "
        "be used to a file .bad.jsonl beside it.",
        examples=(f"ofa-core predict {name} --data rows.jsonl --out answers.jsonl --model demo{_needed(head)}",),
    )
    formats = ", ".join(("asked", *head.formats))
    parser.add_argument(
        "--data",
        nargs="+",
        required=True,
        type=Path,
        metavar="PATH",
        help=f"rows with {_told(head)}, in .jsonl, .json, .parquet, .arrow or .tsv; or a directory of pictures",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="JSONL", help="the file of answers")
    parser.add_argument(
        "--format",
        choices=("asked", *head.formats),
        metavar="FORMAT",
        help=f"of the rows, where they do not tell it: {formats}",
    )
    parser.add_argument("--images", type=Path, metavar="PATH", help="directory, zip or tar of the pictures")
    add_allow_outside(parser)
    add_read_options(parser)
    for given in GIVEN:
        if given in (*head.columns, *head.optional):
            parser.add_argument(f"--{given}", metavar="TEXT", help=f"the {given} of all rows that hold none")
    add_model(parser)
    add_image_size(parser)
    for shared in head.shared:
        shared_argument(head, shared).add_to(parser)
    parser.add_argument("--batch-size", type=positive, default=16, metavar="N", help="rows computed at once (16)")
    parser.add_argument("--limit", type=positive, metavar="N", help="the first rows only")
    parser.add_argument("--workers", type=count, default=4, metavar="N", help="threads that open pictures (4)")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was interrupted")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument("--json", action="store_true", help="print the counts as a JSON object")
    parser.set_defaults(command=_predict, head=head, goes_on_with=("--resume",))


def _told(head: Head) -> str:
    """The fields of a row of the plain form."""
    optional = [f"{name} or none" for name in head.optional]
    return ", ".join([*head.columns, *optional])


def _needed(head: Head) -> str:
    """The arguments without which a head's example would be refused."""
    return " --labels circle square" if "labels" in head.shared else ""


def _predict(args: argparse.Namespace) -> int:
    from ..predict import predict

    return predict(args)
