"""The parser of ``ofa-core export``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ...utils.printable import printable


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``export``."""
    parser = commands.add_parser(
        "export",
        help="write a model for other engines: ONNX files or torch.export programs",
        examples=("ofa-core export demo demo_onnx", "ofa-core export DIR out --format torch"),
    )
    parser.add_argument("model", metavar="MODEL", help="a model directory, a checkpoint, or a name")
    parser.add_argument("out", type=Path, metavar="DIR", help="the folder to write")
    parser.add_argument(
        "--format", choices=("onnx", "torch"), default="onnx",
        help="ONNX files with a runner on onnxruntime, or programs of torch.export (onnx)",
    )  # fmt: skip
    parser.add_argument(
        "--int8", action="store_true", help="round the weights to 8 bits, and tell what that changes (onnx)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier folder")
    parser.set_defaults(command=_export)


def _export(args: argparse.Namespace) -> int:
    from ...export import export_model  # which imports torch

    compared = export_model(args.model, args.out, args.format, int8=args.int8, overwrite=args.overwrite)
    if compared is not None:
        print(compared.line())
    print(printable(f"written to {args.out}"))
    return 0
