"""The command ``ofa-core predict``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .. import api
from ..bench.inputs import data_inputs, model_inputs
from ..checkpoint.model_dir import weights_sha256
from ..data.documents import METADATA
from ..data.loading import DataFiles
from ..errors import OFAError
from ..predict.heads import GIVEN
from ..predict.predictor import Predictor
from ..predict.requests import Question, told_question, usual_style
from ..predict.run import Bulk, Outcome, RunFacts
from ..predict.run import predict as run_predict
from ..utils.distributed import Process, process_group
from ..utils.printable import printable
from .heads import shared_arguments
from .options import named_model, read_options
from .pictures import pictures_below

#: Names of files that make a directory one of rows.
_TABLES = (".parquet", ".arrow")
_LISTS = (METADATA, "state.json", "dataset_dict.json")


def predict(args: argparse.Namespace) -> int:
    """Put all rows that the command names to its head, and tell how many were answered."""
    if args.out.suffix != ".jsonl":
        raise OFAError(f"--out {args.out} should end in .jsonl")
    data = _data(args)
    given = {name: text for name in GIVEN if (text := getattr(args, name, None)) is not None}
    question = told_question(args.head, data, given, args.format)
    with process_group() as process:
        outcome = run_predict(_bulk(args, process, data, question), process)
    if outcome is not None:
        _print(args, outcome)
    return 0


def _data(args: argparse.Namespace) -> DataFiles:
    """The rows; those of a directory of pictures are made of its files."""
    first, *more = args.data
    if not first.is_dir() or _holds_rows(first):
        return DataFiles(first, args.images, None, args.allow_outside, read_options(args), tuple(more))
    if more or args.images is not None:
        other = f"--images {args.images}" if args.images is not None else f"{more[0]}"
        raise OFAError(f"--data {first} is a directory of pictures: pass it alone, without {other}")
    paths = pictures_below(first)
    if not paths:
        raise OFAError(f"--data {first} is a directory without rows and without pictures")
    rows = [{"id": str(path.relative_to(first)), "image": str(path)} for path in paths]
    return DataFiles(rows, first, options=read_options(args))


def _holds_rows(directory: Path) -> bool:
    names = [path.name for path in directory.iterdir()]
    return any(name.endswith(_TABLES) or name in _LISTS for name in names)


def _bulk(args: argparse.Namespace, process: Process, data: DataFiles, question: Question) -> Bulk:
    """The run, with its model loaded."""
    shared = usual_style(args.head, question.format) | shared_arguments(args, args.head)
    named = named_model(args)
    directory = Path(process.broadcast_from_rank0(lambda: str(api.model_directory(named))))
    sha256 = process.broadcast_from_rank0(lambda: weights_sha256(directory))
    inputs = json.loads(
        process.broadcast_from_rank0(
            lambda: json.dumps(data_inputs(data, question.format) | model_inputs(directory, "model", args.adapter))
        )
    )
    changes: dict[str, Any] = {} if args.image_size is None else {"image_size": args.image_size}
    ofa = api.load(directory, adapter=args.adapter, device=process.device(args.device), dtype=args.dtype, **changes)
    settings = {
        **shared,
        **question.given,
        **changes,
        "batch_size": args.batch_size,
        "limit": args.limit,
        "dtype": ofa.dtype,
        "device": ofa.model.device.type,
    }
    return Bulk(
        predictor=Predictor(args.head.name, ofa, shared=shared),
        question=question,
        data=data,
        out=args.out,
        facts=RunFacts(
            head=args.head.name,
            format=question.format,
            model=named,
            model_sha256=sha256,
            inputs=inputs,
            settings=settings,
        ),
        batch_size=args.batch_size,
        limit=args.limit,
        workers=args.workers,
        resume=args.resume,
        quiet=args.quiet,
    )


def _print(args: argparse.Namespace, outcome: Outcome) -> None:
    bad_file = args.out.with_name(f"{args.out.stem}.bad.jsonl")
    if args.json:
        counts = {"out": str(args.out), "answered": outcome.answered, "bad": outcome.bad}
        print(json.dumps(counts, ensure_ascii=False))
        return
    before = " (finished before)" if outcome.before else ""
    print(printable(f"{args.out}: {outcome.answered:,} answers{before}"))
    if outcome.bad:
        rows = "1 row" if outcome.bad == 1 else f"{outcome.bad:,} rows"
        print(printable(f"ofa-core: {rows} could not be used: {bad_file}"), file=sys.stderr)
