"""The program ``convert-ckpt``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from ofa_core.checkpoint.names import locate
from ofa_core.cli.options import STORED_DTYPES, Parser, add_dtype, run, way_on
from ofa_core.config import PRESETS
from ofa_core.errors import OFAError
from ofa_core.text.tokenizer import VOCABULARY_KINDS
from ofa_core.utils.input_files import read_whole
from ofa_core.utils.printable import printable

from .convert import convert
from .export import EXPORTS, export
from .image_codes import convert_image_codes
from .sources import WEIGHTS


def main(argv: Sequence[str] | None = None) -> int:
    """Convert a checkpoint; returns the exit code."""
    args = _parsed(argv)
    argv = sys.argv[1:] if argv is None else argv
    return run("convert-ckpt", lambda: _convert(args), f"nothing half written is left; {way_on('convert-ckpt', argv)}")


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.out is None and args.vqgan is not None and args.to is None:
        args.checkpoint, args.out = None, args.checkpoint and Path(args.checkpoint)
    missing = [name for name in ("checkpoint", "out") if getattr(args, name) is None]
    if missing and (args.out is None or args.vqgan is None):
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    return args


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="convert-ckpt", description="Turn a checkpoint of OFA into a directory that ofa_core loads.")
    parser.add_argument(
        "checkpoint",
        nargs="?",
        help="a fairseq .pt file, a state dict (.bin, .pth, .safetensors), a zip around one, or a Hugging Face style, "
        "ModelScope's or Trainer's directory; or the name of a released checkpoint, or hf:org/name",
    )
    parser.add_argument("out", type=Path, nargs="?", help="the directory to write")
    parser.add_argument(
        "--to", choices=EXPORTS, help="the other way: write a model directory as a fairseq .pt or in Hugging Face style"
    )
    parser.add_argument(
        "--bpe-dir",
        type=Path,
        help="where encoder.json, vocab.bpe and dict.txt are; by default $OFA_BPE_DIR, the directory the checkpoint "
        "names, the cache, or fairseq's public location",
    )
    parser.add_argument(
        "--weights", choices=WEIGHTS, default="model", help="the trained weights or their moving average"
    )
    parser.add_argument(
        "--strip-prefix",
        metavar="PREFIX",
        help="take this off all names; by default module. and model. where all have it",
    )
    add_dtype(parser, STORED_DTYPES, "store the weights as this; by default as they are")
    parser.add_argument(
        "--extra-tokens", type=Path, metavar="FILE", help="names of tokens added behind the bins, one a line"
    )
    parser.add_argument(
        "--bpe", choices=VOCABULARY_KINDS, help="the vocabulary of a checkpoint that does not tell it; bert is Chinese"
    )
    parser.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="side of pictures; by default what the checkpoint tells"
    )
    parser.add_argument(
        "--vqgan",
        type=Path,
        metavar="FILE",
        help="the network that makes pictures of image codes (last.ckpt), stored with the model; without a checkpoint "
        "it is put into OUT, a model directory",
    )
    parser.add_argument("--arch", choices=PRESETS, help="the size it must be")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and dropped, and write nothing")
    parser.add_argument("--verify", action="store_true", help="read the result back and compare every tensor")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    parser.add_argument("--overwrite", action="store_true", help="replace the directory if it is a model directory")
    return parser


def _convert(args: argparse.Namespace) -> int:
    if args.checkpoint is None:
        codes = convert_image_codes(args.vqgan, args.out)
        print("\n".join(map(printable, codes.lines())))
        return 0
    if args.to is not None:
        export(Path(args.checkpoint), args.out, args.to)
        print(printable(f"{args.out}: {args.checkpoint} as {args.to}"))
        return 0
    if args.out.exists() and not args.overwrite and not args.dry_run:  # before anything is downloaded
        raise OFAError(f"{args.out} exists already; choose another directory or pass --overwrite")
    done = convert(
        locate(args.checkpoint).path,
        args.out,
        bpe_dir=args.bpe_dir,
        weights=args.weights,
        prefix=args.strip_prefix,
        dtype=getattr(torch, args.dtype) if args.dtype else None,
        extra_tokens=_lines(args.extra_tokens) if args.extra_tokens else (),
        arch=args.arch,
        bpe=args.bpe,
        image_size=args.image_size,
        vqgan=args.vqgan,
        overwrite=args.overwrite,
        dry_run=args.dry_run,
        verify=args.verify,
        progress=True,
    )
    if args.json:
        print(json.dumps(asdict(done) | {"config": done.config.model_dump()}, default=str))
    else:
        print("\n".join(map(printable, done.lines())))
    return 0


def _lines(path: Path) -> list[str]:
    try:
        return read_whole(path).decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise OFAError(f"{path} is not UTF-8 text") from None


if __name__ == "__main__":
    sys.exit(main())
