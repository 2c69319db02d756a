"""Pictures in a terminal, decoded again as its protocols say."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from reference import picture

from ofa_core.vision.terminal import SIDE, iterm, kitty, shown_picture, sixel, told_protocol


def decoded(data: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data, validate=True)))


def test_kitty_gets_png_in_pieces() -> None:
    image = picture(1, 70, 90)
    pieces = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", kitty(image))
    assert len(pieces) > 1
    assert pieces[0][0] == "a=T,f=100,m=1"
    assert {keys for keys, _ in pieces[1:-1]} <= {"m=1"}
    assert pieces[-1][0] == "m=0"
    assert all(len(piece) <= 4096 and len(piece) % 4 == 0 for _, piece in pieces)
    assert np.array_equal(np.asarray(decoded("".join(piece for _, piece in pieces))), np.asarray(image))


def test_iterm_gets_one_file() -> None:
    image = picture(2, 20, 30)
    match = re.fullmatch(r"\x1b\]1337;File=inline=1;size=(\d+);preserveAspectRatio=1:([^\x07]*)\x07\n", iterm(image))
    assert match
    assert len(base64.b64decode(match[2])) == int(match[1])
    assert np.array_equal(np.asarray(decoded(match[2])), np.asarray(image))


def pixels_of_sixels(text: str) -> np.ndarray:
    """A decoder written from the description of the DEC VT340: bands of six rows, ``$`` back, ``-`` on."""
    match = re.fullmatch(r'\x1bPq"1;1;(\d+);(\d+)(.*)\x1b\\\n', text, re.DOTALL)
    assert match
    width, height = int(match[1]), int(match[2])
    pixels = np.full((-(-height // 6) * 6, width, 3), -1)
    palette: dict[int, tuple[int, ...]] = {}
    x = top = colour = 0
    for token in tokens(match[3]):
        if token[0] == "#":
            number, *parts = map(int, token[1:].split(";"))
            if parts:
                assert parts[0] == 2
                palette[number] = tuple(parts[1:])
            colour = number
        elif token == "$":
            x = 0
        elif token == "-":
            x, top = 0, top + 6
        else:
            count, bits = (int(token[1:-1]), ord(token[-1]) - 63) if token[0] == "!" else (1, ord(token) - 63)
            for row in range(6):
                if bits >> row & 1:
                    pixels[top + row, x : x + count] = palette[colour]
            x += count
    return pixels[:height]


def tokens(text: str) -> Iterator[str]:
    found = re.findall(r"#\d+(?:;\d+)*|!\d+[?-~]|[$-]|[?-~]", text)
    assert "".join(found) == text
    return iter(found)


def test_sixels_show_every_pixel_in_its_colour() -> None:
    image = Image.new("RGB", (23, 16), (0, 51, 255))
    image.paste((255, 0, 102), (3, 2, 20, 9))
    image.putpixel((22, 15), (255, 255, 255))
    shown = pixels_of_sixels(sixel(image))
    assert np.array_equal(shown, np.asarray(image).astype(int) * 100 // 255)


def test_sixels_of_many_colours_are_close() -> None:
    image = Image.linear_gradient("L").resize((50, 40)).convert("RGB")
    shown = pixels_of_sixels(sixel(image)) * 255 / 100
    assert np.abs(shown - np.asarray(image)).max() <= 6  # a hundred steps, and at most 256 colours


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app", "TERM": "xterm-256color"}, "iterm"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "xterm-256color"}, None),
        ({}, None),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/x"}, None),
    ],
    ids=["kitty", "window", "iterm", "foot", "xterm", "nothing", "tmux"],
)
def test_a_terminal_is_told_by_its_environment(environment: dict[str, str], protocol: str | None) -> None:
    assert told_protocol(environment) == protocol


def test_large_pictures_are_made_smaller() -> None:
    shown = shown_picture(Image.new("L", (2 * SIDE, SIDE)), "iterm")
    assert decoded(shown.partition(":")[2].rstrip("\x07\n")).size == (SIDE, SIDE // 2)
