"""The parsers of the commands that ask a model: one for each head, from a table of their arguments."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...predict.heads import HEADS, Head
from ..choices import DETECTION_STYLES, STYLES
from ..options import Parser, add_image_size, add_model, count, fraction, positive, positive_number


@dataclass(frozen=True)
class Argument:
    """An argument of a command."""

    flags: tuple[str, ...]
    settings: Mapping[str, Any]

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Add it."""
        parser.add_argument(*self.flags, **self.settings)


def _argument(*flags: str, **settings: Any) -> Argument:
    return Argument(flags, settings)


_IMAGES = _argument(
    "images", nargs="+", metavar="IMAGE", help="pictures, directories of them, or patterns such as '*.jpg'"
)
_BOX = _argument(
    "--box", nargs=4, type=float, required=True, metavar=("X0", "Y0", "X1", "Y1"), help="the region, in pixels"
)
_OUT = _argument(
    "--out", type=Path, metavar="PNG", help="write the picture with the answer; a directory for several pictures"
)
_DIALOG = "what was said before, turn by turn"
_STYLE = _argument(
    "--style", choices=STYLES, help="the kind of dialog; by default that of published rows, or guesswhat"
)

#: Arguments that are the same for all samples of a head, which several heads have.
SHARED: Mapping[str, Argument] = {
    "threshold": _argument(
        "--threshold", type=fraction, metavar="SCORE", help="the least score, 0 to 1, with which a box is given (0)"
    ),
    "prompt": _argument("--prompt", metavar="TEXT", help="a prompt instead of the model's own"),
    "num_beams": _argument(
        "--num-beams", type=positive, metavar="N", help="beams of the search; by default the task's"
    ),
    "max_new_tokens": _argument("--max-new-tokens", type=positive, metavar="N", help="no answer is longer"),
    "bins_only": _argument("--bins-only", action="store_true", help="let the model say nothing but box coordinates"),
    "all": _argument("--all", action="store_true", help="every region that the text fits"),
    "categories": _argument("--categories", nargs="+", metavar="NAME", help="only things of these names"),
    "candidates": _argument(
        "--candidates", nargs="+", metavar="ANSWER", help="one of these, with a probability for each"
    ),
    "labels": _argument("--labels", nargs="+", required=True, metavar="LABEL", help="the labels to choose from"),
    "gradients": _argument(
        "--gradients", action="store_true", help="weigh attention by how much more likely it makes the answer"
    ),
    "count": _argument("--count", type=positive, metavar="N", help="pictures of the text (4)"),
    "seed": _argument("--seed", type=count, metavar="N", help="the same seed draws the same pictures"),
    "top_k": _argument(
        "--top-k",
        type=count,
        metavar="N",
        help="each code is one of so many most probable; 0: of all (the model's, or 256)",
    ),
    "top_p": _argument(
        "--top-p", type=fraction, metavar="P", help="and one of the fewest that reach this (the model's, or 1)"
    ),
    "temperature": _argument(
        "--temperature", type=positive_number, metavar="T", help="more for more variety (the model's, or 1)"
    ),
    "guidance": _argument(
        "--guidance", type=positive_number, metavar="S", help="more follows the text more closely (the model's, or 1)"
    ),
    "style": _STYLE,
}
#: The same of one head alone.
_OF_HEAD: Mapping[tuple[str, str], Argument] = {
    ("detect", "style"): _argument(
        "--style", choices=DETECTION_STYLES, help="all objects in one answer, or one name after the other (the model's)"
    ),
}


def shared_argument(head: Head, name: str) -> Argument:
    """The argument of a head that is the same for all samples."""
    return _OF_HEAD.get((head.name, name), SHARED[name])


@dataclass(frozen=True)
class Command:
    """The arguments of a head's command that come one for each sample, its own files, and examples."""

    arguments: tuple[Argument, ...]
    examples: tuple[str, ...]


def _text(metavar: str, help: str, name: str = "text") -> Argument:
    return _argument(name, metavar=metavar, help=help)


#: Every command; pictures come before texts.
COMMANDS: Mapping[str, Command] = {
    "ground": Command(
        (_IMAGES, _text("TEXT", "what to find in each of them"), _OUT),
        (
            'ofa-core ground photo.png "the red circle" --model demo --out box.png',
            'ofa-core ground photos/ "the red circle" --model demo --json --skip-bad',
        ),
    ),
    "detect": Command(
        (_IMAGES, _OUT),
        (
            "ofa-core detect photo.png --model demo --out boxes.png",
            "ofa-core detect 'photos/*.png' --categories circle star --model demo --threshold 0.3",
        ),
    ),
    "caption": Command((_IMAGES,), ("ofa-core caption photos/ --model demo --num-beams 3",)),
    "answer": Command(
        (_IMAGES, _text("QUESTION", "what to ask about each of them", "question")),
        (
            'ofa-core answer photo.png "what color is the circle?" --model demo',
            'ofa-core answer photo.png "what color is the circle?" --candidates red blue --model demo',
        ),
    ),
    "oracle": Command(
        (
            _argument("images", nargs=1, metavar="IMAGE", help="a picture"),
            _text("QUESTION", "what to ask about the region", "question"),
            _BOX,
            _argument("--dialog", nargs="+", default=[], metavar="TURN", help=_DIALOG),
        ),
        ('ofa-core oracle photo.png "is it red?" --box 10 10 60 60 --model demo',),
    ),
    "ask": Command(
        (_IMAGES, _argument("--dialog", nargs="+", required=True, metavar="TURN", help=_DIALOG)),
        ('ofa-core ask photo.png --dialog "is it red?" no --model demo',),
    ),
    "describe": Command((_IMAGES, _BOX), ("ofa-core describe photo.png --box 10 10 60 60 --model demo",)),
    "entails": Command(
        (
            _IMAGES,
            _text("TEXT", "what may follow from each of them"),
            _argument("--caption", metavar="TEXT", help="a caption of the pictures"),
        ),
        ('ofa-core entails photo.png "there is a circle" --model demo',),
    ),
    "classify": Command((_IMAGES,), ("ofa-core classify photo.png --labels circle square star --model demo",)),
    "summarize": Command(
        (_argument("texts", nargs="+", metavar="TEXT", help="texts; - reads one from standard input"),),
        ('ofa-core summarize "a red circle is above a blue square" --model demo',),
    ),
    "generate": Command(
        (
            _text("TEXT", "the whole prompt, in which <bin_3> is a symbol"),
            _argument(
                "--image", dest="images", nargs="+", default=[], metavar="IMAGE", help="pictures; none for text alone"
            ),
        ),
        ('ofa-core generate " what does the image describe?" --image photo.png --model demo',),
    ),
    "explain": Command(
        (
            _IMAGES,
            _text("TEXT", "what the model looks for in each of them"),
            _argument("--answer", metavar="TEXT", help="explain this answer instead of the model's own"),
            _OUT,
        ),
        ('ofa-core explain photo.png "the red circle" --model demo --out looked.png',),
    ),
    "imagine": Command(
        (
            _text("TEXT", "what shall be on the pictures"),
            _argument("--out", type=Path, required=True, metavar="PNG", help="the picture; a directory for several"),
        ),
        (
            'ofa-core imagine "a red circle and a blue square" --model demo-pictures --out pictures',
            'ofa-core imagine "a dog on a beach" --model DIR --out pictures --count 4 --seed 1',
        ),
    ),
}


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add a command for every head."""
    common = common_options()
    for name, command in COMMANDS.items():
        head = HEADS[name]
        parser = commands.add_parser(name, parents=[common], help=head.help, examples=command.examples)
        for argument in command.arguments:
            argument.add_to(parser)
        for shared in head.shared:
            shared_argument(head, shared).add_to(parser)
        parser.set_defaults(command=_ask, head=head)


def common_options() -> Parser:
    """The options of all commands that ask a model."""
    common = Parser(add_help=False)
    add_model(common)
    add_image_size(common)
    common.add_argument("--batch-size", type=positive, default=1, metavar="N", help="samples computed at once (1)")
    common.add_argument("--skip-bad", action="store_true", help="leave out and count pictures that cannot be used")
    common.add_argument("--quiet", action="store_true", help="show no progress")
    common.add_argument("--json", action="store_true", help="print one JSON object a picture")
    return common


def _ask(args: argparse.Namespace) -> int:
    from ..heads import ask

    return ask(args)
