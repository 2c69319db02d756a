"""The picture on which a region is marked: dragged with a mouse or a finger, or typed as four numbers."""

from __future__ import annotations

import math
from html import escape

from PIL import Image

from ..errors import OFAError
from ..vision.boxes import Box
from . import markup

#: The program of the picture: a drag draws a frame, and its end tells the box in pixels of the whole picture.
DRAGGING = """
let from = null;
const place = (picture, event) => {
  const frame = picture.getBoundingClientRect();
  const part = (value, start, length) => Math.min(1, Math.max(0, (value - start) / length));
  return [part(event.clientX, frame.left, frame.width), part(event.clientY, frame.top, frame.height)];
};
const corners = (a, b) => [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
const draw = (box) => {
  const mark = element.querySelector('.ofa-mark');
  mark.style.left = box[0] * 100 + '%';
  mark.style.top = box[1] * 100 + '%';
  mark.style.width = (box[2] - box[0]) * 100 + '%';
  mark.style.height = (box[3] - box[1]) * 100 + '%';
};
element.addEventListener('pointerdown', (event) => {
  const picture = event.target.closest('.ofa-marking img');
  if (!picture || event.button !== 0) return;
  event.preventDefault();
  picture.setPointerCapture(event.pointerId);
  from = place(picture, event);
});
element.addEventListener('pointermove', (event) => {
  const picture = element.querySelector('.ofa-marking img');
  if (from && picture) draw(corners(from, place(picture, event)));
});
element.addEventListener('pointerup', (event) => {
  const picture = element.querySelector('.ofa-marking img');
  if (!from || !picture) return;
  const box = corners(from, place(picture, event));
  from = null;
  if (box[2] - box[0] < 0.005 || box[3] - box[1] < 0.005) return;
  const sides = [Number(picture.dataset.width), Number(picture.dataset.height)];
  trigger('submit', {box: box.map((part, index) => part * sides[index % 2])});
});
element.addEventListener('pointercancel', () => { from = null; });
"""


def marking(picture: Image.Image, box: Box | None) -> str:
    """The picture to drag over, with the frame of the region that is marked."""
    style = "width:0;height:0"
    if box is not None:
        x0, y0, x1, y1 = (100 * value / side for value, side in zip(box, picture.size * 2, strict=True))
        style = f"left:{x0:.2f}%;top:{y0:.2f}%;width:{x1 - x0:.2f}%;height:{y1 - y0:.2f}%"
    told = "the picture; drag over it to mark a region, or type its corners below"
    return (
        f'<div class="ofa-marking"><img draggable="false" src="{markup.data_uri(markup.within(picture))}" '
        f'alt="{escape(told)}" data-width="{picture.width}" data-height="{picture.height}">'
        f'<span class="ofa-mark" style="{style}"></span></div>'
    )


def region_text(box: Box) -> str:
    """A region as it is typed."""
    return ", ".join(f"{value:.0f}" for value in box)


def parsed_region(text: str | None, picture: Image.Image) -> Box | None:
    """The region that was typed or dragged; None where there is none.

    Args:
        text: four numbers, x0, y0, x1 and y1 in pixels of the picture, or nothing.
        picture: the picture.

    Raises:
        OFAError: it is something else, or no region of the picture.
    """
    if text is None or not text.strip():
        return None
    parts = text.replace(",", " ").replace(";", " ").split()
    try:
        x0, y0, x1, y1 = map(float, parts)
    except ValueError:
        raise OFAError(f"a region is four numbers, x0, y0, x1 and y1, not {text[:60]!r}") from None
    width, height = picture.size
    if not all(map(math.isfinite, (x0, y0, x1, y1))) or not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise OFAError(f"{text[:60]!r} is no region of the picture, which is {width} × {height} pixels")
    return x0, y0, x1, y1
