"""The commands that ask a model about pictures: ``ground``, ``caption``, ``answer`` and ``oracle``."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from .. import api
from ..errors import OFAError
from ..heads.results import Answer
from ..text.dialog import STYLES
from ..utils.atomic_write import atomic_path
from ..utils.printable import printable, printable_json
from ..vision.drawing import draw_box
from ..vision.images import check_image, open_image
from .options import DTYPES, Parser, add_model, named_model

T = TypeVar("T")


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``ground``, ``caption``, ``answer`` and ``oracle``."""
    common = _common_options()

    ground = commands.add_parser("ground", parents=[common], help="the box of what a text describes")
    ground.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="pictures")
    ground.add_argument("text", metavar="TEXT", help="what to find in each of them")
    ground.add_argument(
        "--out", type=Path, metavar="PNG", help="write the picture with the box; a directory for several pictures"
    )
    ground.add_argument("--bins-only", action="store_true", help="let the model say nothing but box coordinates")
    ground.set_defaults(command=_ground)

    caption = commands.add_parser("caption", parents=[common], help="a caption")
    caption.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="pictures")
    caption.set_defaults(command=_caption)

    answer = commands.add_parser("answer", parents=[common], help="the answer to a question")
    answer.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="pictures")
    answer.add_argument("question", metavar="QUESTION", help="what to ask about each of them")
    answer.add_argument("--candidates", nargs="+", metavar="ANSWER", help="one of these, with a probability for each")
    answer.set_defaults(command=_answer)

    oracle = commands.add_parser("oracle", parents=[common], help="the answer to a question about a region")
    oracle.add_argument("images", nargs=1, type=Path, metavar="IMAGE", help="a picture")
    oracle.add_argument("question", metavar="QUESTION", help="what to ask about the region")
    oracle.add_argument(
        "--box", nargs=4, type=float, required=True, metavar=("X0", "Y0", "X1", "Y1"), help="the region, in pixels"
    )
    oracle.add_argument("--dialog", nargs="+", default=[], metavar="TURN", help="what was said before, turn by turn")
    oracle.add_argument("--style", choices=STYLES, default="guesswhat", help="the kind of dialog")
    oracle.set_defaults(command=_oracle)


def _common_options() -> Parser:
    common = Parser(add_help=False)
    add_model(common)
    common.add_argument("--json", action="store_true", help="print one JSON object a picture")
    return common


def _load(args: argparse.Namespace) -> api.OFA:
    dtype = DTYPES[args.dtype] if args.dtype else None
    return api.load(named_model(args), adapter=args.adapter, device=args.device, dtype=dtype)


def _ground(args: argparse.Namespace) -> int:
    outputs = _output_paths(args.out, args.images)
    results = _results(args, lambda ofa, picture: ofa.ground(picture, args.text, bins_only=args.bins_only))
    for (path, picture, found, seconds), output in zip(results, outputs, strict=True):
        if args.json:
            _print_json(path, found, seconds, text=args.text)
        elif found.box is None:
            said = f"no box (the model said {found.text!r})"
            _print(f"{path}: {said}, score {found.score:.4f}, {seconds:.2f} s")
        else:
            box = ", ".join(f"{value:.1f}" for value in found.box)
            unit = "in pixels x0, y0, x1, y1"
            _print(f"{path}: box ({box}) {unit}, score {found.score:.4f}, {seconds:.2f} s")
        if output is not None:
            _save(draw_box(picture, found.box, f"{args.text} {found.score:.2f}"), output)
    return 0


def _caption(args: argparse.Namespace) -> int:
    for path, _, found, seconds in _results(args, lambda ofa, picture: ofa.caption(picture)):
        if args.json:
            _print_json(path, found, seconds)
        else:
            _print(f"{path}: {found.text} (score {found.score:.4f}, {seconds:.2f} s)")
    return 0


def _answer(args: argparse.Namespace) -> int:
    def ask(ofa: api.OFA, picture: Image.Image) -> Answer:
        return ofa.answer(picture, args.question, candidates=args.candidates)

    return _print_answers(args, ask)


def _oracle(args: argparse.Namespace) -> int:
    def ask(ofa: api.OFA, picture: Image.Image) -> Answer:
        return ofa.oracle(picture, args.box, args.dialog, args.question, style=args.style)

    return _print_answers(args, ask)


def _print_answers(args: argparse.Namespace, ask: Callable[[api.OFA, Image.Image], Answer]) -> int:
    for path, _, found, seconds in _results(args, ask):
        if args.json:
            _print_json(path, found, seconds, question=args.question)
        else:
            shares = ", ".join(f"{answer} {share:.3f}" for answer, share in found.top())
            detail = shares or f"score {found.score:.4f}"
            _print(f"{path}: {found.answer} ({detail}, {seconds:.2f} s)")
    return 0


def _results(
    args: argparse.Namespace, head: Callable[[api.OFA, Image.Image], T]
) -> Iterator[tuple[Path, Image.Image, T, float]]:
    """Path, picture, result and seconds for each of ``args.images``; a broken one is found before the model loads."""
    for path in args.images:
        check_image(path)
    ofa = _load(args)
    for path in args.images:
        picture = open_image(path)
        start = time.perf_counter()
        found = head(ofa, picture)
        yield path, picture, found, time.perf_counter() - start


def _print_json(path: Path, found: Any, seconds: float, **asked: str) -> None:
    fields = asdict(found)
    if "text" in fields:
        fields["answer"] = fields.pop("text")  # "text" is what was asked
    line = {"image": str(path), **asked, **fields, "seconds": round(seconds, 3)}
    print(printable_json(json.dumps(line, ensure_ascii=False)), flush=True)


def _print(line: str) -> None:
    print(printable(line), flush=True)


def _output_paths(out: Path | None, images: list[Path]) -> list[Path | None]:
    """Paths of the pictures to write: ``out`` itself for a single one, names within ``out`` for several."""
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
    with atomic_path(path) as temporary:
        picture.save(temporary)
