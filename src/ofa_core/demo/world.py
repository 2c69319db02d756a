"""Scenes of coloured shapes and their pictures: endless, each made from a number alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ..vision.boxes import Box

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 35, 35),
    "green": (35, 145, 55),
    "blue": (40, 70, 205),
    "yellow": (240, 215, 45),
    "purple": (130, 45, 165),
    "orange": (245, 135, 25),
    "black": (25, 25, 25),
    "white": (248, 248, 248),
}
KINDS = ("circle", "square", "triangle", "star", "cross", "ring")
#: Pairs of a colour and a kind that stand in test pictures only.
UNSEEN = (
    ("red", "star"),
    ("green", "square"),
    ("blue", "ring"),
    ("yellow", "triangle"),
    ("purple", "circle"),
    ("orange", "cross"),
)
#: Sides of a shape as parts of the picture's shorter side: what is called small, what is called big, and the rest.
SIZES = {"small": (0.13, 0.19), "medium": (0.21, 0.27), "big": (0.30, 0.42)}

#: Grounds that shapes lie on; a scene may also be drawn on "grey", which is always the same.
GROUNDS = ("plain", "gradient", "noise")
GREY = (150, 150, 150)
#: Shortest and longest side of a picture in pixels.
SIDES = (120, 200)

Split = Literal["train", "test"]
Point = tuple[float, float]
#: Boxes of two shapes overlap at most this much (intersection over the smaller of them).
MAX_OVERLAP = 0.25
#: Scenes with fewer tries than this for one shape to find a place get along without it.
PLACE_TRIES = 40


@dataclass(frozen=True)
class Thing:
    """A shape: what it is and where, in pixels of its picture."""

    colour: str
    kind: str
    size: str
    box: Box  # xyxy pixels

    @property
    def name(self) -> str:
        """``red circle``."""
        return f"{self.colour} {self.kind}"

    @property
    def centre(self) -> tuple[float, float]:
        """x and y of the middle of the box."""
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        x0, y0, x1, y1 = self.box
        return (x1 - x0) * (y1 - y0)


@dataclass(frozen=True)
class Scene:
    """Two to six shapes, in the order in which they are drawn, and the ground they lie on."""

    seed: str
    width: int
    height: int
    things: tuple[Thing, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height


def make_scene(
    seed: int,
    split: Split = "train",
    *,
    things: tuple[int, int] = (2, 6),
    side: int | None = None,
    sizes: Mapping[str, tuple[float, float]] = SIZES,
) -> Scene:
    """The scene of a seed: other seeds and the other split give others.

    Training scenes hold no pair of :data:`UNSEEN`; in every test scene at least one shape is of such a pair. No colour
    and kind occurs more than twice in a scene. ``things`` are the fewest and the most shapes there shall be, ``side``
    is that of a square picture in pixels, ``sizes`` are what shapes may measure, see :data:`SIZES`.
    """
    random = Random(f"{split} {seed}")
    width, height = (random.randint(*SIDES), random.randint(*SIDES)) if side is None else (side, side)
    wanted = random.randint(*things)
    pairs = [(colour, kind) for colour in COLOURS for kind in KINDS if split == "test" or (colour, kind) not in UNSEEN]
    placed: list[Thing] = []
    while len(placed) < wanted:
        if split == "test" and not placed:
            colour, kind = random.choice(UNSEEN)
        elif placed and random.random() < 0.4:  # something in common with another, so that one word is not enough
            other = random.choice(placed)
            colour, kind = random.choice([p for p in pairs if (p[0] == other.colour) or (p[1] == other.kind)])
        else:
            colour, kind = random.choice(pairs)
        if sum(thing.name == f"{colour} {kind}" for thing in placed) == 2:
            continue
        box_size = _placed(random, width, height, placed, sizes)
        if box_size is None:
            break
        placed.append(Thing(colour, kind, *box_size))
    if len(placed) < min(2, wanted):  # the first shape left no room: another scene takes its place
        return make_scene(seed + 1_000_000_007, split, things=things, side=side, sizes=sizes)
    random.shuffle(placed)
    return Scene(f"{split} {seed}", width, height, tuple(placed))


def _placed(
    random: Random, width: int, height: int, others: list[Thing], sizes: Mapping[str, tuple[float, float]]
) -> tuple[str, Box] | None:
    """A size and a box that no other shape covers much of, None where none was found."""
    for _ in range(PLACE_TRIES):
        size = random.choice(list(sizes))
        side = random.uniform(*sizes[size]) * min(width, height)
        x0, y0 = random.uniform(0, width - side), random.uniform(0, height - side)
        box = (x0, y0, x0 + side, y0 + side)
        if all(_overlap(box, other.box) <= MAX_OVERLAP for other in others):
            return size, box
    return None


def _overlap(first: Box, second: Box) -> float:
    """Intersection over the smaller area."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (first, second)]
    return width * height / min(areas)


def draw(
    scene: Scene,
    colours: Mapping[str, tuple[int, int, int]] = COLOURS,
    outlines: Mapping[str, Sequence[Point]] | None = None,
    grounds: Sequence[str] = GROUNDS,
) -> Image.Image:
    """The picture of a scene, RGB at its size, on one of ``grounds``.

    ``colours`` are what the names of colours look like, ``outlines`` the corners of kinds in the unit square.
    """
    random = Random(f"picture {scene.seed}")
    ground = _ground(random, scene.width, scene.height, grounds)
    scale = 2  # drawn larger and reduced, for smooth edges
    large = ground.resize((scene.width * scale, scene.height * scale))
    pen = ImageDraw.Draw(large)
    for thing in scene.things:
        fill = _shade(random, colours[thing.colour])
        _draw_thing(pen, thing.kind, [value * scale for value in thing.box], fill, outlines or POLYGONS)
    return large.resize(scene.size, Image.Resampling.BOX)


def _shade(random: Random, colour: tuple[int, int, int]) -> tuple[int, ...]:
    return tuple(max(0, min(255, value + random.randint(-14, 14))) for value in colour)


def _ground(random: Random, width: int, height: int, kinds: Sequence[str]) -> Image.Image:
    """A greyish or pastel ground that is none of the colours."""
    level = random.randint(95, 205)
    first = [max(60, min(222, level + random.randint(-18, 18))) for _ in range(3)]
    kind = random.choice(kinds)
    if kind == "grey":
        return Image.new("RGB", (width, height), GREY)
    if kind == "plain":
        return Image.new("RGB", (width, height), tuple(first))
    if kind == "gradient":
        step = random.randint(-45, 45)
        second = [max(60, min(222, value + step + random.randint(-8, 8))) for value in first]
        angle = random.uniform(0, 2 * math.pi)
        x = np.linspace(-1, 1, width)[None, :] * math.cos(angle) + np.linspace(-1, 1, height)[:, None] * math.sin(angle)
        part = ((x / 1.4143 + 1) / 2)[..., None]
        pixels = np.array(first) * (1 - part) + np.array(second) * part
    else:
        noise = np.random.default_rng(random.getrandbits(64)).normal(0, random.uniform(4, 16), (height, width, 1))
        pixels = np.array(first) + noise
    picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return picture.filter(ImageFilter.BoxBlur(1)) if kind == "noise" and random.random() < 0.5 else picture


def _draw_thing(
    pen: ImageDraw.ImageDraw,
    kind: str,
    box: list[float],
    fill: tuple[int, ...],
    outlines: Mapping[str, Sequence[Point]],
) -> None:
    x0, y0, x1, y1 = box
    if kind in outlines:
        pen.polygon([(x0 + x * (x1 - x0), y0 + y * (y1 - y0)) for x, y in outlines[kind]], fill=fill)
    elif kind == "circle":
        pen.ellipse(box, fill=fill)
    else:
        pen.ellipse(box, outline=fill, width=max(2, round((x1 - x0) * 0.2)))


def outline(turns: Sequence[float], radii: Sequence[float]) -> list[Point]:
    """Corners at these turns from the top and distances, stretched to touch all sides of the unit square."""
    points = [(radius * math.sin(turn), -radius * math.cos(turn)) for turn, radius in zip(turns, radii, strict=True)]
    (x0, x1), (y0, y1) = ((min(values), max(values)) for values in zip(*points, strict=True))
    return [((x - x0) / (x1 - x0), (y - y0) / (y1 - y0)) for x, y in points]


#: Corners in the unit square, for shapes with straight sides.
POLYGONS: dict[str, list[Point]] = {
    "square": [(0, 0), (1, 0), (1, 1), (0, 1)],
    "triangle": [(0.5, 0), (1, 1), (0, 1)],
    "cross": [
        (0.33, 0), (0.67, 0), (0.67, 0.33), (1, 0.33), (1, 0.67), (0.67, 0.67),
        (0.67, 1), (0.33, 1), (0.33, 0.67), (0, 0.67), (0, 0.33), (0.33, 0.33),
    ],
    "star": outline([math.pi * i / 5 for i in range(10)], [1, 0.42] * 5),
}  # fmt: skip
