"""Boxes drawn on pictures."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from .boxes import Box

COLOR = (255, 40, 40)


def draw_box(image: Image.Image, box: Box | None, label: str = "", color: tuple[int, int, int] = COLOR) -> Image.Image:
    """A copy of ``image`` with ``box`` (x0, y0, x1, y1 in its pixels) and a label above or inside it."""
    picture = image.convert("RGB")
    if picture is image:
        picture = image.copy()
    draw = ImageDraw.Draw(picture)
    unit = max(1, round(min(picture.size) / 200))  # line width; text is legible at any size
    font = ImageFont.load_default(size=max(10, 7 * unit))
    x0, y0 = (0.0, 0.0) if box is None else (min(box[0], box[2]), min(box[1], box[3]))
    if box is not None:
        draw.rectangle((x0, y0, max(box[0], box[2]), max(box[1], box[3])), outline=color, width=unit)
    if label:
        left, top, right, bottom = draw.textbbox((0, 0), label, font=font)
        width, height = right - left + 4 * unit, bottom - top + 4 * unit
        x0 = max(0, min(x0, picture.width - width))
        y0 = y0 - height if y0 >= height else y0
        draw.rectangle((x0, y0, x0 + width, y0 + height), fill=color)
        draw.text((x0 + 2 * unit - left, y0 + 2 * unit - top), label, fill="white", font=font)
    return picture
