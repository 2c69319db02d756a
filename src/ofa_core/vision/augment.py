"""Pictures changed a little at random, as in training: colours, small turns and shifts, crops."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from random import Random

from PIL import Image, ImageEnhance, ImageOps

#: The largest strength of a change; those that shear, shift and turn, at this strength.
MOST, SHEAR, SHIFT, TURN = 10, 0.3, 10.0, 30.0
#: The colour that comes in from beyond the edge.
GREY = (128, 128, 128)
#: Shares of a picture's area and ratios of its sides of which a crop is drawn, and attempts before all of it is taken.
CROP_AREA, CROP_RATIO, CROP_ATTEMPTS = (0.08, 1.0), (3 / 4, 4 / 3), 10

Change = Callable[[Image.Image, float, Random], Image.Image]


def _enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Change:
    return lambda image, strength, _: kind(image).enhance(strength * 1.8 + 0.1)


def _moved(*coefficients: Callable[[float], float]) -> Change:
    """An affine change by the coefficients of a strength, which is drawn to be positive or negative."""

    def change(image: Image.Image, strength: float, random: Random) -> Image.Image:
        signed = strength if random.random() < 0.5 else -strength
        data = [of(signed) for of in coefficients]
        return image.transform(image.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR, fillcolor=GREY)

    return change


def _turned(image: Image.Image, strength: float, random: Random) -> Image.Image:
    degrees = strength * TURN * (1 if random.random() < 0.5 else -1)
    return image.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=GREY)


def _zero(_: float) -> float:
    return 0.0


def _one(_: float) -> float:
    return 1.0


def _shear(strength: float) -> float:
    return strength * SHEAR


def _shift(strength: float) -> float:
    return strength * SHIFT


#: The changes that are drawn from; a strength is from 0 to 1.
CHANGES: Mapping[str, Change] = {
    "identity": lambda image, strength, random: image,
    "autocontrast": lambda image, strength, random: ImageOps.autocontrast(image),
    "equalize": lambda image, strength, random: ImageOps.equalize(image),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
    "shear_x": _moved(_one, _shear, _zero, _zero, _one, _zero),
    "shear_y": _moved(_one, _zero, _zero, _shear, _one, _zero),
    "shift_x": _moved(_one, _zero, _shift, _zero, _one, _zero),
    "shift_y": _moved(_one, _zero, _zero, _zero, _one, _shift),
    "turn": _turned,
}


def augmented(image: Image.Image, random: Random, count: int = 2, strength: int = 7) -> Image.Image:
    """Draw ``count`` changes of one strength (0 to 10) and make each of them half of the time (RandAugment)."""
    for name in random.choices(tuple(CHANGES), k=count):
        if random.random() < 0.5:
            image = CHANGES[name](image, strength / MOST, random)
    return image


def random_crop(image: Image.Image, random: Random) -> Image.Image:
    """Cut a piece of any size out of a picture, about as wide as high, and mirror it half of the time."""
    piece = _piece(image.size, random)
    image = image if piece is None else image.crop(piece)
    return ImageOps.mirror(image) if random.random() < 0.5 else image


def _piece(size: tuple[int, int], random: Random) -> tuple[int, int, int, int] | None:
    width, height = size
    for _ in range(CROP_ATTEMPTS):
        area = width * height * random.uniform(*CROP_AREA)
        ratio = math.exp(random.uniform(*map(math.log, CROP_RATIO)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            return (left, top, left + w, top + h)
    return None
