"""The command ``ofa-core chat``: a conversation about a picture, line by line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..errors import OFAError
from ..heads.chat import Chat, ChatTurn
from ..predict.answers import corners
from ..utils.printable import printable, printable_json
from ..vision.images import check_image, open_image
from ..vision.terminal import shown_picture, told_protocol
from .heads import load, save_picture

#: The file that boxes are drawn into where the terminal shows no pictures.
FILE = Path("chat.png")


@dataclass
class _Session:
    """A conversation with the picture as it is, and the way in which boxes are shown."""

    chat: Chat
    picture: Image.Image
    #: The file that boxes are drawn into; None where the terminal shows them and none was named.
    out: Path | None
    protocol: str | None
    json: bool

    def show(self, turn: ChatTurn) -> None:
        """Print a reply, and draw its regions."""
        if self.json:
            _print(printable_json(json.dumps(turn.to_dict() | {"box": turn.box}, ensure_ascii=False)))
            return
        regions = "".join(f"\n  ({corners(region.box)}) {region.label}".rstrip() for region in turn.regions)
        _print(f"{printable(turn.text)}{regions}")
        if turn.regions:
            self._draw(turn)

    def _draw(self, turn: ChatTurn) -> None:
        drawn = turn.draw(self.picture)
        if self.protocol is not None:
            sys.stdout.write(shown_picture(drawn, self.protocol))
            sys.stdout.flush()
        if self.out is not None:
            save_picture(drawn, self.out)
            _print(printable(f"  drawn in {self.out}"))


def chat(args: argparse.Namespace) -> int:
    """Hold a conversation about ``args.image`` until standard input ends."""
    out, protocol = _ways_to_show(args)
    check_image(args.image)
    ofa = load(args)
    options = {} if args.num_beams is None else {"num_beams": args.num_beams}
    picture = open_image(args.image)
    session = _Session(ofa.chat(picture, style=args.style, **options), picture, out, protocol, args.json)
    for line in _lines(args.json):
        try:
            if not _answered(session, line):
                break
        except OFAError as error:  # of one line: the conversation goes on
            print(printable(f"ofa-core: {error}"), file=sys.stderr, flush=True)
    return 0


def _ways_to_show(args: argparse.Namespace) -> tuple[Path | None, str | None]:
    """The file and the protocol by which boxes are shown."""
    protocol: str | None = args.pictures
    if protocol == "auto":
        protocol = told_protocol(os.environ) if sys.stdout.isatty() else None
    if protocol == "file" or args.json:
        protocol = None
    out: Path | None = args.out
    if out is None and protocol is None and not args.json:
        out = FILE
    if out is not None and out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise OFAError(f"--out {out} should end in .png or .jpg")
    return out, protocol


def _lines(quiet: bool) -> Iterator[str]:
    """The lines that a person types, or that standard input holds; empty ones are left out."""
    prompt = "> " if sys.stdin.isatty() and sys.stdout.isatty() and not quiet else ""
    while True:
        try:
            line = input(prompt)
        except EOFError:
            if prompt:
                print()
            return
        if line.strip():
            yield line.strip()


# What a line may be


def _answered(session: _Session, line: str) -> bool:
    """Do what a line says; False where it ends the conversation."""
    if not line.startswith("/"):
        session.show(session.chat.say(line))
        return True
    name, _, rest = line[1:].partition(" ")
    if name in ("quit", "exit"):
        return False
    if name not in COMMANDS:
        raise OFAError(f"there is no /{name}; there are {', '.join(f'/{known}' for known in COMMANDS)} and /quit")
    COMMANDS[name][0](session, rest.strip())
    return True


def _ground(session: _Session, text: str) -> None:
    session.show(session.chat.ground(text))


def _undo(session: _Session, _: str) -> None:
    said, _ = session.chat.undo()
    _print(printable(f"forgotten: {said}"))


def _reset(session: _Session, path: str) -> None:
    if path:
        picture = open_image(path)
        session.chat.reset(picture)
        session.picture = picture
    else:
        session.chat.reset()
    _print("a new conversation")


def _oracle(session: _Session, numbers: str) -> None:
    try:
        box = [float(number) for number in numbers.replace(",", " ").split()]
    except ValueError:
        box = []
    if len(box) != 4:
        raise OFAError(f"/oracle takes the region, X0 Y0 X1 Y1 in pixels, not {numbers!r}")
    session.chat = session.chat.as_oracle(box)
    _print(printable(session.chat.opening or f"ask about ({corners(box)})"))


def _save(session: _Session, path: str) -> None:
    session.chat.save(_named(path, "/save"))
    _print(printable(f"saved in {path}"))


def _load(session: _Session, path: str) -> None:
    session.chat.load(_named(path, "/load"))
    for said, reply in session.chat.history:
        _print(printable(f"> {said}"))
        _print(printable(reply))


def _help(session: _Session, _: str) -> None:
    width = max(map(len, COMMANDS)) + 1
    _print("\n".join(f"/{name:<{width}} {meaning}" for name, (_, meaning) in COMMANDS.items()))
    _print(f"/{'quit':<{width}} end the conversation; so does the end of standard input")


def _named(path: str, command: str) -> Path:
    if not path:
        raise OFAError(f"{command} takes the file of the conversation")
    return Path(path).expanduser()


#: Commands that begin with a slash.
COMMANDS: Mapping[str, tuple[Callable[[_Session, str], None], str]] = {
    "ground": (_ground, "find what was talked about, and a text behind it: /ground [TEXT]"),
    "undo": (_undo, "forget the last round"),
    "reset": (_reset, "begin anew, with another picture if there is one: /reset [IMAGE]"),
    "oracle": (_oracle, "ask about a region that the model means: /oracle X0 Y0 X1 Y1"),
    "save": (_save, "write the conversation: /save FILE"),
    "load": (_load, "go on with one about this picture: /load FILE"),
    "help": (_help, "this list"),
}


def _print(text: str) -> None:
    print(text, flush=True)
