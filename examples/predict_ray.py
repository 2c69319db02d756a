"""Answers to many rows on any number of machines, with Ray Data: ``pip install '.[ray]'``.

    python examples/predict_ray.py ground rows.jsonl answers.jsonl --model demo --images photos --processes 2

Rows are those of ``ofa-core predict``: JSON lines with ``image``, ``text`` and an ``id`` of their own. Ray runs one
:class:`~ofa_core.predict.predictor.Predictor` a process, which is the callable that ``ofa-core predict`` uses, too;
on a cluster, which ``RAY_ADDRESS`` names, all machines must see the pictures and the model. Answers are the same, row
for row.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from ofa_core.predict.heads import HEADS
from ofa_core.predict.predictor import Predictor


def main() -> int:
    """Put every row of a file to a head, and write the answers in the order of the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("head", choices=[name for name, head in HEADS.items() if head.in_bulk])
    parser.add_argument("data", type=Path, help="rows, as JSON lines")
    parser.add_argument("out", type=Path, help="the file of answers; bad rows have a field error instead")
    parser.add_argument("--model", required=True, help="a model directory, a checkpoint, or a name")
    parser.add_argument("--images", type=Path, help="directory or archive of the pictures")
    parser.add_argument(
        "--shared", default="{}", metavar="JSON", help='arguments of the head, such as {"num_beams": 3}'
    )
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--processes", type=int, default=1, help="models at once")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of each")
    args = parser.parse_args()
    with args.data.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    names = sorted({name for row in rows for name in row})
    # every row has every field, so that all batches have the same columns
    items: list[dict[str, Any]] = [{name: row.get(name) for name in names} for row in rows]
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    answers = ray.data.from_items(items).map_batches(
        Predictor,
        fn_constructor_args=(args.head, args.model),
        fn_constructor_kwargs={
            "images": None if args.images is None else args.images.resolve(),
            "shared": json.loads(args.shared),
            "load_options": {"device": "cuda" if args.gpus else "cpu"},
        },
        batch_size=args.batch_size,
        concurrency=args.processes,
        num_gpus=args.gpus,
    )
    bad: list[str] = []
    with args.out.open("w", encoding="utf-8") as file:
        for row in answers.iter_rows():
            file.write(f"{row['line']}\n")
            bad += [error] if (error := json.loads(row["line"]).get("error")) else []
    return tell_bad(bad, len(rows))


def tell_bad(bad: Sequence[str], count: int) -> int:
    """Tell how many rows of ``count`` could not be used; returns the exit code, which is not 0 if none could."""
    if bad:
        print(f"{len(bad)} of {count} rows could not be used; the first: {bad[0]}", file=sys.stderr)
    return 2 if len(bad) == count else 0


if __name__ == "__main__":
    sys.exit(main())
