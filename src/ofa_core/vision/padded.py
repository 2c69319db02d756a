"""Pictures of writing: the aspect ratio is kept, and what is missing of the square repeats the edge (OCR)."""

from __future__ import annotations

from random import Random

import numpy as np
from PIL import Image

#: The least side in pixels of what a picture is resized to.
LEAST_SIDE = 64
#: A line of a document is resized to this width and height and cut into so many parts, which stand on each other.
LINE_SIZE, LINE_PARTS = (1920, 64), 4


def padded(image: Image.Image, side: int, *, document: bool = False, random: Random | None = None) -> Image.Image:
    """Resize a picture with its aspect ratio, and repeat its edge until it is a square.

    Args:
        image: the picture in RGB.
        side: side of the square in pixels.
        document: whether it is one long line of a document, which is cut into four parts from left to right.
        random: draws where in the square the picture stands, as in training; None puts it into the middle.

    Returns:
        The square picture.
    """
    if document:
        small = _stacked(image.resize(LINE_SIZE, Image.Resampling.BICUBIC))
        small = small.crop((0, 0, min(small.width, side), min(small.height, side)))
    else:
        width, height = image.size
        longest = max(width, height)
        size = tuple(min(max(LEAST_SIDE, int(side * length / longest)), side) for length in (width, height))
        small = image.resize((size[0], size[1]), Image.Resampling.BICUBIC)
    left, top = (_offset(side - length, random) for length in small.size)
    margins = ((top, side - small.height - top), (left, side - small.width - left), (0, 0))
    return Image.fromarray(np.pad(np.asarray(small), margins, mode="edge"))


def _stacked(line: Image.Image) -> Image.Image:
    """The parts of a line from left to right, on each other."""
    width = line.width // LINE_PARTS
    stacked = Image.new("RGB", (width, line.height * LINE_PARTS))
    for part in range(LINE_PARTS):
        stacked.paste(line.crop((part * width, 0, (part + 1) * width, line.height)), (0, part * line.height))
    return stacked


def _offset(free: int, random: Random | None) -> int:
    return free // 2 if random is None else random.randint(0, free)
