"""Pictures as terminals show them: escape sequences of kitty's and iTerm's protocols, and sixels."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

#: The longest piece of a picture in one sequence of kitty's.
_CHUNK = 4096
#: Pixels of the longer side in a terminal, which is as wide as most windows.
SIDE = 800
#: Colours of a sixel picture, and rows of pixels in a line of it.
_COLOURS, _BAND = 256, 6


def kitty(picture: Image.Image) -> str:
    """The sequences of kitty's graphics protocol: the picture as PNG, in pieces."""
    data = base64.standard_b64encode(_png(picture)).decode()
    pieces = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
    sequences = []
    for number, piece in enumerate(pieces):
        keys = ("a=T,f=100," if number == 0 else "") + f"m={int(number < len(pieces) - 1)}"
        sequences.append(f"\x1b_G{keys};{piece}\x1b\\")
    return "".join(sequences) + "\n"


def iterm(picture: Image.Image) -> str:
    """The sequence of iTerm's inline images."""
    content = _png(picture)
    data = base64.standard_b64encode(content).decode()
    return f"\x1b]1337;File=inline=1;size={len(content)};preserveAspectRatio=1:{data}\x07\n"


def sixel(picture: Image.Image) -> str:
    """The picture in sixels: bands of six rows, each colour of a band after the other."""
    indexed = picture.convert("RGB").quantize(_COLOURS)
    palette = np.asarray(indexed.getpalette("RGB"), dtype=int).reshape(-1, 3)
    pixels = np.asarray(indexed)  # [height, width]
    height, width = pixels.shape
    colours = np.unique(pixels).tolist()
    parts = [f'\x1bPq"1;1;{width};{height}']
    for colour in colours:
        red, green, blue = (palette[colour] * 100 + 127) // 255
        parts.append(f"#{colour};2;{red};{green};{blue}")
    for top in range(0, height, _BAND):
        band = pixels[top : top + _BAND]
        weights = 1 << np.arange(len(band))
        lines = []
        for colour in np.unique(band).tolist():
            columns = ((band == colour) * weights[:, None]).sum(0)
            lines.append(f"#{colour}{_runs(columns.tolist())}")
        parts.append("$".join(lines) + "-")
    return "".join(parts) + "\x1b\\\n"


def _runs(columns: list[int]) -> str:
    """Columns of six pixels as characters, repeated ones with their number."""
    text, start = "", 0
    for at in range(1, len(columns) + 1):
        if at == len(columns) or columns[at] != columns[start]:
            character, length = chr(63 + columns[start]), at - start
            text += f"!{length}{character}" if length > 3 else character * length
            start = at
    return text


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


#: Every protocol by its name.
PROTOCOLS: Mapping[str, Callable[[Image.Image], str]] = {"kitty": kitty, "iterm": iterm, "sixel": sixel}
#: Parts of the values of variables by which terminals tell which protocol they know.
_TOLD: tuple[tuple[str, str, str], ...] = (
    ("KITTY_WINDOW_ID", "", "kitty"),
    ("TERM", "kitty", "kitty"),
    ("TERM_PROGRAM", "ghostty", "kitty"),
    ("TERM_PROGRAM", "iTerm", "iterm"),
    ("TERM_PROGRAM", "WezTerm", "iterm"),
    ("LC_TERMINAL", "iTerm", "iterm"),
    ("TERM", "sixel", "sixel"),
    ("TERM", "mlterm", "sixel"),
    ("TERM", "foot", "sixel"),
)


def told_protocol(environment: Mapping[str, str]) -> str | None:
    """The protocol that a terminal knows as its environment tells; None where it tells none, as within tmux."""
    if "TMUX" in environment or environment.get("TERM", "").startswith("screen"):
        return None
    return next((name for key, part, name in _TOLD if key in environment and part in environment[key]), None)


def shown_picture(picture: Image.Image, protocol: str) -> str:
    """A picture, made smaller where it is large, in the sequences of a protocol of :data:`PROTOCOLS`."""
    small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    return PROTOCOLS[protocol](small)
