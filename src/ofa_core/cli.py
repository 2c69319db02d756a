"""The program ``ofa-core``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from . import api
from .command_line import DTYPES, Parser, add_dtype, run
from .drawing import draw_box
from .errors import OFAError
from .heads.grounding import Grounding
from .vision.transform import open_image


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    args = _parser().parse_args(argv)
    return run("ofa-core", lambda: args.command(args))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="ofa-core", description="Vision and language with OFA.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    model = Parser(add_help=False)
    model.add_argument(
        "--model",
        type=Path,
        default=os.environ.get("OFA_MODEL") or None,
        help="a model directory; by default $OFA_MODEL",
    )
    model.add_argument("--device", default="cpu", help="where to run, such as cpu or cuda")
    add_dtype(model, "compute in this; by default float32 on a CPU and what is stored elsewhere")

    ground = commands.add_parser("ground", parents=[model], help="the box of what a text describes")
    ground.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="pictures")
    ground.add_argument("text", metavar="TEXT", help="what to find in each of them")
    ground.add_argument(
        "--out", type=Path, metavar="PNG", help="write the picture with the box; a directory for several pictures"
    )
    ground.add_argument("--bins-only", action="store_true", help="let the model say nothing but box coordinates")
    ground.add_argument("--json", action="store_true", help="print one JSON object a picture")
    ground.set_defaults(command=_ground)
    return parser


def _load(args: argparse.Namespace) -> api.OFA:
    if args.model is None:
        raise OFAError("no model was named: pass --model DIR or set $OFA_MODEL")
    return api.load(args.model, device=args.device, dtype=DTYPES[args.dtype] if args.dtype else None)


def _ground(args: argparse.Namespace) -> int:
    pictures = [open_image(path) for path in args.images]  # a broken one is found before the model is loaded
    outputs = _output_paths(args.out, args.images)
    ofa = _load(args)
    for path, picture, output in zip(args.images, pictures, outputs, strict=True):
        start = time.perf_counter()
        found = ofa.ground(picture, args.text, bins_only=args.bins_only)
        seconds = time.perf_counter() - start
        print(_as_json(path, args.text, found, seconds) if args.json else _as_text(path, found, seconds), flush=True)
        if output is not None:
            _save(draw_box(picture, found.box, f"{args.text} {found.score:.2f}"), output)
    return 0


def _output_paths(out: Path | None, images: list[Path]) -> list[Path | None]:
    """Where each picture goes: ``out`` itself for a single one, named after the picture in ``out`` for several."""
    if out is None:
        return [None] * len(images)
    if len(images) == 1 and not out.is_dir():
        if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
            raise OFAError(f"--out {out} should end in .png or .jpg, or be an existing directory")
        out.parent.mkdir(parents=True, exist_ok=True)
        return [out]
    names = [f"{path.stem}.png" for path in images]
    if len(set(names)) < len(names):
        raise OFAError("several pictures have the same name, so their results would overwrite each other in --out")
    out.mkdir(parents=True, exist_ok=True)
    return [out / name for name in names]


def _save(picture: Image.Image, path: Path) -> None:
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        picture.save(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _as_text(path: Path, found: Grounding, seconds: float) -> str:
    if found.box is None:
        return f"{path}: no box (the model said {found.text!r}), score {found.score:.4f}, {seconds:.2f} s"
    box = ", ".join(f"{value:.1f}" for value in found.box)
    return f"{path}: box ({box}) in pixels x0, y0, x1, y1, score {found.score:.4f}, {seconds:.2f} s"


def _as_json(path: Path, text: str, found: Grounding, seconds: float) -> str:
    return json.dumps(
        {
            "image": str(path),
            "text": text,
            "box": found.box,
            "score": found.score,
            "bins": found.bins,
            "answer": found.text,
            "token_scores": found.token_scores,
            "alternatives": [{"box": other.box, "score": other.score} for other in found.alternatives],
            "seconds": round(seconds, 3),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
