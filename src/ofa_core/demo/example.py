"""The picture that examples are shown on."""

from __future__ import annotations

from PIL import Image, ImageDraw

#: Corners of the blue square in :func:`example_picture`, (x0, y0, x1, y1) in pixels.
BLUE_SQUARE = (380, 80, 540, 240)
_SIZE = (640, 480)
#: Edges are drawn this many times as large, and reduced, so that they are smooth.
_SCALE = 2


def example_picture() -> Image.Image:
    """Draw a red circle, a blue square and a green triangle, on 640 × 480 pixels."""
    width, height = (side * _SCALE for side in _SIZE)
    ground = Image.linear_gradient("L").resize((width, height))  # dark above
    picture = Image.composite(
        Image.new("RGB", ground.size, (168, 174, 182)), Image.new("RGB", ground.size, (190, 195, 200)), ground
    )
    pen = ImageDraw.Draw(picture)
    pen.ellipse([value * _SCALE for value in (60, 120, 220, 280)], fill=(205, 40, 40))
    pen.rectangle([value * _SCALE for value in BLUE_SQUARE], fill=(45, 75, 205))
    pen.polygon([value * _SCALE for value in (300, 440, 380, 300, 460, 440)], fill=(40, 145, 60))
    return picture.resize(_SIZE, Image.Resampling.BOX)
