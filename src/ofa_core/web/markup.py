"""HTML of results: pictures with what was found drawn on them, conversations, and probabilities."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import cycle

from PIL import Image

from ..vision.boxes import Box
from ..vision.drawing import COLORS, Mark, draw_marks

#: The longer side, in pixels, with which a picture is shown at most.
LONGEST = 900
#: The least width, in pixels, with which a picture that was drawn is shown.
NARROWEST = 256


def data_uri(picture: Image.Image) -> str:
    """A picture as an address that holds it."""
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=88)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def within(picture: Image.Image, longest: int = LONGEST) -> Image.Image:
    """A picture whose longer side has at most so many pixels."""
    factor = longest / max(picture.size)
    if factor >= 1:
        return picture
    return picture.resize((max(1, round(picture.width * factor)), max(1, round(picture.height * factor))))


def enlarged(picture: Image.Image, narrowest: int = NARROWEST) -> Image.Image:
    """A picture at least so many pixels wide, its own pixels being seen."""
    times = -(-narrowest // picture.width)
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


def with_boxes(picture: Image.Image, boxes: Sequence[tuple[Box, str]], longest: int = LONGEST) -> Image.Image:
    """A picture as it is shown, with boxes in pixels of the whole picture, and their labels."""
    shown = within(picture, longest)
    x, y = shown.width / picture.width, shown.height / picture.height
    return draw_marks(
        shown,
        [
            Mark((x0 * x, y0 * y, x1 * x, y1 * y), label, color)
            for ((x0, y0, x1, y1), label), color in zip(boxes, cycle(COLORS), strict=False)
        ],
    )


def figure(picture: Image.Image, text: str) -> str:
    """A picture with what it shows, for those who see it and for those who do not."""
    return (
        f'<figure class="ofa-figure"><img src="{data_uri(picture)}" alt="{escape(text)}">'
        f"<figcaption>{escape(text)}</figcaption></figure>"
    )


def figures(parts: Iterable[str]) -> str:
    """Several figures, beside each other where there is room."""
    return f'<div class="ofa-figures">{"".join(parts)}</div>'


def result(text: str, *details: str) -> str:
    """The result in large letters, and details below it."""
    below = "".join(f"<p>{escape(detail)}</p>" for detail in details)
    return f'<div class="ofa-result"><p class="ofa-answer">{escape(text)}</p>{below}</div>'


def probabilities(shares: Mapping[str, float]) -> str:
    """A bar for each answer, the most probable first."""
    rows = "".join(
        f"<tr><th scope='row'>{escape(name)}</th>"
        f"<td><span class='ofa-bar' style='width:{share * 100:.1f}%'></span></td>"
        f"<td class='ofa-number'>{share:.1%}</td></tr>"
        for name, share in sorted(shares.items(), key=lambda item: -item[1])
    )
    return f"<table class='ofa-shares'><caption>probability of each answer</caption>{rows}</table>"


def conversation(turns: Iterable[tuple[str, str, str]]) -> str:
    """A conversation, turn by turn: the one who speaks, the text, and HTML below it."""
    lines = "".join(
        f'<li class="ofa-turn ofa-{escape(who)}"><span class="ofa-who">{escape(who)}</span> {escape(text)}{more}</li>'
        for who, text, more in turns
    )
    return f'<ol class="ofa-conversation" role="log" aria-live="polite">{lines}</ol>'


def status(text: str, *, is_error: bool = False) -> str:
    """A line that tells what is being done, or what is wrong; screen readers say it when it changes."""
    role, kind = ("alert", "ofa-error") if is_error else ("status", "ofa-status")
    return f'<p class="{kind}" role="{role}">{escape(text)}</p>'


def box_text(box: Box) -> str:
    """A box as people read it."""
    return "box " + ", ".join(f"{value:.0f}" for value in box)
