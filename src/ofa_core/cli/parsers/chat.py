"""The parser of ``ofa-core chat``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..choices import CHAT_STYLES, TERMINAL_PICTURES
from ..options import add_image_size, add_model, positive


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``chat``."""
    parser = commands.add_parser(
        "chat",
        help="a conversation about a picture, in the terminal",
        description="A conversation about a picture. Every line is said to the model; /help lists what else a line may "
        "be. The boxes that it names are drawn in the terminal where that shows pictures, and into a file otherwise.",
        examples=(
            "ofa-core chat photo.png --model demo",
            "ofa-core chat photo.png --style tio --model DIR --out boxes.png",
        ),
    )
    parser.add_argument("image", metavar="IMAGE", help="a picture")
    add_model(parser)
    add_image_size(parser)
    parser.add_argument("--style", choices=CHAT_STYLES, default="invig", help="the kind of conversation (invig)")
    parser.add_argument("--num-beams", type=positive, metavar="N", help="beams of the search; by default 5")
    parser.add_argument(
        "--pictures",
        choices=TERMINAL_PICTURES,
        default="auto",
        help="protocol by which the terminal shows pictures; auto looks at its name, file only writes --out (auto)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="PNG", help="where boxes are drawn; by default chat.png, if the terminal shows none"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a reply, and show no pictures")
    parser.set_defaults(command=_chat)


def _chat(args: argparse.Namespace) -> int:
    from ..chat import chat

    return chat(args)
