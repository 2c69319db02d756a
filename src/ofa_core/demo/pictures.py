"""Small square pictures with captions, for the demo model that draws: one or two large shapes on grey."""

from __future__ import annotations

from PIL import Image

from .language import caption
from .world import Scene, Split, draw, make_scene

#: The side of a picture in pixels, and of what is drawn and reduced to it.
SIDE, DRAWN_SIDE = 64, 128
#: Shapes of a picture.
THINGS = (1, 2)
#: Sides of a shape as parts of the picture's.
SIZES = {"medium": (0.27, 0.34), "big": (0.36, 0.46)}


def picture_scene(seed: int, split: Split = "train") -> Scene:
    """The scene of a seed: one or two shapes, which its caption names from left to right."""
    return make_scene(seed, split, things=THINGS, side=DRAWN_SIDE, sizes=SIZES)


def small_picture(scene: Scene) -> Image.Image:
    """The picture of a scene, ``SIDE`` pixels wide and high."""
    return draw(scene, grounds=("grey",)).resize((SIDE, SIDE), Image.Resampling.BOX)


def captioned(seed: int, split: Split = "train") -> tuple[Image.Image, str]:
    """A small picture and its caption."""
    scene = picture_scene(seed, split)
    return small_picture(scene), caption(scene)
