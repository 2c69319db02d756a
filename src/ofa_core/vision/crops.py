"""Crops of pictures and their boxes, drawn at random as in pre-training."""

from __future__ import annotations

from random import Random

from PIL import Image, ImageOps

from .boxes import Box

#: The largest side in pixels of the shorter edge of a picture before a crop of it, and the largest of the other.
SHORT_SIDE, LONGEST_SIDE = 480, 672
#: Scales of a picture before a crop anywhere in it, beside the size of the crop.
JITTER = (1.0, 1.5)


def short_sides(size: int) -> range:
    """The sides of a picture's shorter edge of which one is drawn before a crop of ``size`` pixels a side."""
    return range(size, max(size, SHORT_SIDE) + 1)


def resized_short(image: Image.Image, side: int, longest: int = LONGEST_SIDE) -> Image.Image:
    """Resize a picture in its aspect ratio: its shorter edge to ``side`` pixels, its longer to ``longest`` at most."""
    width, height = image.size
    short, long = min(image.size), max(image.size)
    if long / short * side > longest:
        side = round(longest * short / long)
    if width < height:
        return image.resize((side, int(side * height / width)), Image.Resampling.BICUBIC)
    return image.resize((int(side * width / height), side), Image.Resampling.BICUBIC)


def center_crop(image: Image.Image, size: int, short_side: int) -> Image.Image:
    """Resize a picture so that its shorter edge has ``short_side`` pixels, and cut a square out of its middle."""
    resized = resized_short(image, short_side)
    left, top = round((resized.width - size) / 2), round((resized.height - size) / 2)
    return resized.crop((left, top, left + size, top + size))


def object_crop(image: Image.Image, box: Box, size: int, short_side: int) -> tuple[Image.Image, Box]:
    """Resize a picture and cut a square out of it with an object as near to its middle as the edges allow.

    Args:
        image: the picture.
        box: the object, xyxy in its pixels.
        size: side of the square in pixels; where the picture is smaller, the rest is black.
        short_side: pixels of the picture's shorter edge before the cut.

    Returns:
        The square, and the box on it.
    """
    resized = resized_short(image, short_side)
    x, y = resized.width / image.width, resized.height / image.height
    scaled = (box[0] * x, box[1] * y, box[2] * x, box[3] * y)
    left = _start((scaled[0] + scaled[2]) / 2, size, resized.width)
    top = _start((scaled[1] + scaled[3]) / 2, size, resized.height)
    # the picture is cut at whole pixels, the box is not, as in the original
    square = resized.crop((int(left), int(top), int(left) + size, int(top) + size))
    return square, _cut(scaled, left, top, size)


def _start(center: float, size: int, length: int) -> float:
    """The beginning of a cut of ``size`` around ``center`` that stays within ``length``."""
    return max(center - size / 2 + min(length - center - size / 2, 0), 0)


def _cut(box: Box, left: float, top: float, size: int) -> Box:
    x0, y0, x1, y1 = box
    return (_within(x0 - left, size), _within(y0 - top, size), _within(x1 - left, size), _within(y1 - top, size))


def _within(value: float, size: int) -> float:
    return min(max(value, 0.0), float(size))


def jittered_crop(
    image: Image.Image, boxes: list[Box], size: int, random: Random
) -> tuple[Image.Image, list[Box | None]]:
    """Mirror a picture half of the time, scale it by up to half, and cut a square out of it anywhere.

    Args:
        image: the picture.
        boxes: objects, xyxy in its pixels.
        size: side of the square in pixels.
        random: what draws.

    Returns:
        The square, and each box on it; None for what is not on it.
    """
    if random.random() < 0.5:
        boxes = [(image.width - x1, y0, image.width - x0, y1) for x0, y0, x1, y1 in boxes]
        image = ImageOps.mirror(image)
    target = round(size * random.uniform(*JITTER))
    scale = max(target / image.width, target / image.height)
    resized = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    x, y = resized.width / image.width, resized.height / image.height
    left = int(random.random() * (resized.width - size))
    top = int(random.random() * (resized.height - size))
    found: list[Box | None] = []
    for x0, y0, x1, y1 in boxes:
        cut = _cut((x0 * x, y0 * y, x1 * x, y1 * y), left, top, size)
        found.append(cut if cut[0] < cut[2] and cut[1] < cut[3] else None)
    return resized.crop((left, top, left + size, top + size)), found
