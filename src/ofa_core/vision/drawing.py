"""Boxes drawn on pictures, to be seen on any ground, with labels beside what they name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

from .boxes import Box

Color: TypeAlias = tuple[int, int, int]

COLOR: Color = (230, 30, 40)
#: Colours of several boxes, in turn, which differ for colour-blind people too (Okabe and Ito, 2008).
COLORS: tuple[Color, ...] = (COLOR, (0, 114, 178), (0, 158, 115), (230, 159, 0), (204, 121, 167), (86, 180, 233))
_LIGHT, _DARK = (255, 255, 255), (20, 20, 20)
#: A line is one pixel for as many of the picture's shorter side, and at least as many pixels.
_SIDE_PER_PIXEL, _THINNEST = 200, 2
#: Fonts to look for where a label has letters that Pillow's own font lacks.
_WIDE_FONTS = (
    "NotoSansCJK-Regular.ttc", "NotoSansSC-Regular.otf", "wqy-microhei.ttc", "PingFang.ttc", "msyh.ttc",
    "Arial Unicode.ttf", "DejaVuSans.ttf",
)  # fmt: skip
#: The last letter of those that Pillow's own font has (Latin, Greek, Cyrillic).
_LAST_PLAIN = 0x52F


@dataclass(frozen=True)
class Mark:
    """A box on a picture."""

    #: x0, y0, x1, y1 in pixels of the picture; None for a label alone, in the picture's corner.
    box: Box | None
    label: str = ""
    color: Color = COLOR


def draw_box(image: Image.Image, box: Box | None, label: str = "", color: Color = COLOR) -> Image.Image:
    """A copy of ``image`` with one box, see :func:`draw_marks`."""
    return draw_marks(image, [Mark(box, label, color)])


def draw_marks(image: Image.Image, marks: Sequence[Mark]) -> Image.Image:
    """Draw boxes and their labels.

    Args:
        image: the picture, of any mode.
        marks: what to draw.

    Returns:
        A copy of the picture in RGB. Each line of a box has an edge that is light where its colour is dark, and dark
        where it is light; both grow with the picture. A label stands outside its box where there is room for it:
        above, below, or at a side; it covers no other label where that can be.
    """
    picture = image.convert("RGB")
    if picture is image:
        picture = image.copy()
    pen = ImageDraw.Draw(picture)
    unit = line_width(picture.size)
    boxes = [None if mark.box is None else _ordered(mark.box) for mark in marks]
    for mark, box in zip(marks, boxes, strict=True):
        if box is not None:
            _outline(pen, box, unit, mark.color)
    taken: list[Box] = []
    for mark, box in zip(marks, boxes, strict=True):
        if mark.label:
            taken.append(_label(pen, picture.size, box, mark, unit, taken))
    return picture


def line_width(size: tuple[int, int]) -> int:
    """The width in pixels of a box's line on a picture of a width and a height, without its edges."""
    return max(_THINNEST, round(min(size) / _SIDE_PER_PIXEL))


def contrasting(color: Color) -> Color:
    """White on dark colours, black on light ones (by their luminance as Rec. 709 has it)."""
    red, green, blue = color
    return _LIGHT if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 140 else _DARK


def _ordered(box: Box) -> Box:
    return min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])


def _outline(pen: ImageDraw.ImageDraw, box: Box, unit: int, color: Color) -> None:
    """A line of ``unit`` pixels inside the box, with an edge of half of that on either side."""
    x0, y0, x1, y1 = box
    edge = max(1, unit // 2)
    pen.rectangle((x0 - edge, y0 - edge, x1 + edge, y1 + edge), outline=contrasting(color), width=unit + 2 * edge)
    pen.rectangle((x0, y0, x1, y1), outline=color, width=unit)


def _label(
    pen: ImageDraw.ImageDraw, size: tuple[int, int], box: Box | None, mark: Mark, unit: int, taken: Sequence[Box]
) -> Box:
    """Write a label and return the place that it takes."""
    font = _font(mark.label, max(11, 7 * unit))
    left, top, right, bottom = pen.textbbox((0, 0), mark.label, font=font)
    pad = 2 * unit
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    places = [_within(x, y, width, height, size) for x, y in _corners(box, width, height, size, 2 * unit)]
    free = [place for place in places if not any(_touch(place, other) for other in taken)]
    place = (free or places)[0]
    pen.rectangle(place, fill=mark.color)
    pen.text((place[0] + pad - left, place[1] + pad - top), mark.label, fill=contrasting(mark.color), font=font)
    return place


def _corners(
    box: Box | None, width: float, height: float, size: tuple[int, int], gap: float
) -> Iterator[tuple[float, float]]:
    """Upper left corners for a label, the best first: outside of the box, and at last inside."""
    if box is None:
        yield 0, 0
        return
    x0, y0, x1, y1 = box
    if y0 - gap >= height:
        yield x0, y0 - gap - height
        yield x1 - width, y0 - gap - height
    if y1 + gap + height <= size[1]:
        yield x0, y1 + gap
        yield x1 - width, y1 + gap
    if x1 + gap + width <= size[0]:
        yield x1 + gap, y0
    if x0 - gap >= width:
        yield x0 - gap - width, y0
    yield x0, y0


def _within(x: float, y: float, width: float, height: float, size: tuple[int, int]) -> Box:
    """The place of a label, moved into the picture."""
    x, y = max(0.0, min(x, size[0] - width)), max(0.0, min(y, size[1] - height))
    return x, y, x + width, y + height


def _touch(first: Box, second: Box) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def _font(text: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, or one of the machine's that has more letters."""
    if any(ord(letter) > _LAST_PLAIN for letter in text):
        for name in _WIDE_FONTS:
            try:
                return ImageFont.truetype(name, size)
            except OSError:
                continue
    return ImageFont.load_default(size=size)
