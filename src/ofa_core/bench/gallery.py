"""The samples that a report shows: chosen in one pass over the rows, and laid out as cards with both boxes."""

from __future__ import annotations

import base64
import heapq
import random
from collections.abc import Callable, Iterable, Sequence
from html import escape
from io import BytesIO

import numpy as np
from PIL import Image

from ..errors import OFAError
from ..text.dialog import AGENT, DIALOG_TASKS, HUMAN
from ..vision.boxes import Box
from . import metrics
from .games import is_closed
from .results import NO_PICTURE, Header, Row
from .summary import task_scores

#: Longer side of a picture in the page, in pixels, and the quality of its JPEG.
THUMBNAIL, QUALITY = 400, 80

LoadImage = Callable[[Row], Image.Image | None]

#: The dialog task whose first speaker is that of a benchmark's dialogs. Games begin with the person's query, by the
#: closed protocol with the agent's question.
_DIALOGS = {"guesswhat_grounding_end2end": "agent", "invig_grounding_end2end": "agent"}
_CLOSED = "guesswhat_grounding"


class _Best:
    """The rows of the highest keys among those that were offered; of equal ones the earlier."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: list[tuple[tuple[float, float], int, Row]] = []

    def offer(self, key: tuple[float, float], row: Row) -> None:
        heapq.heappush(self._kept, (key, -row.index, row))  # an index occurs once, so rows are never compared
        if len(self._kept) > self._count:
            heapq.heappop(self._kept)

    def rows(self) -> list[Row]:
        return [row for _, _, row in sorted(self._kept, key=lambda kept: kept[:2], reverse=True)]


def choose_samples(header: Header, rows: Iterable[Row], count: int, seed: int = 0) -> dict[str, list[Row]]:
    """``count`` rows each of the ``best`` and the ``worst`` (best and worst first) and at ``random`` (in file order).

    The best have the highest IoU, or the right answer; the worst the lowest, or a wrong one. Of equal ones those of
    the highest confidence come first, so the worst are the mistakes that the model was surest of.
    """
    samples = task_scores(header.task).samples()
    best, worst = _Best(count), _Best(count)
    drawn: list[Row] = []
    generator = random.Random(seed)
    for seen, row in enumerate(rows):
        quality = samples.quality(row)
        best.offer((quality, row.score), row)
        worst.offer((-quality, row.score), row)
        place = seen if seen < count else generator.randrange(seen + 1)  # Vitter's algorithm R
        if place < count:
            drawn[place : place + 1] = [row]
    return {"best": best.rows(), "worst": worst.rows(), "random": sorted(drawn, key=lambda row: row.index)}


def first_speaker(header: Header) -> str:
    """The speaker of the first turn in the dialogs of a run, ``agent`` or ``human``."""
    closed = is_closed(header) and task_scores(header.task).kind == "selfplay"
    name = _CLOSED if closed else _DIALOGS.get(header.task, header.task)
    return DIALOG_TASKS[name].first if name in DIALOG_TASKS else HUMAN


def card(row: Row, header: Header, load_image: LoadImage) -> str:
    """A row as HTML: under what was asked, the picture with both boxes, what was due and what was said."""
    scores = task_scores(header.task)
    if row.iou is not None:
        right = _hit(row.iou, header)
        badge = f"IoU {row.iou:.2f}"
    else:
        quality = scores.samples().quality(row)
        right = quality >= metrics.HEADLINE_THRESHOLD
        badge = {0.0: "wrong", 1.0: "right"}.get(quality, f"right by {quality:.2f}")
    asked = "1 question" if row.questions == 1 else f"{row.questions} questions"
    played = f"<span>{asked}</span>" if row.questions is not None else ""
    category = f"<span>{escape(row.category)}</span>" if row.category else ""
    missing = '<p class="missing">no box</p>' if row.found is None and scores.has_boxes else ""
    return (
        f'<article class="card {"right" if right else "wrong"}" data-id="{escape(row.id)}">{_asked(row, header)}'
        f'<div class="shot">{_picture(row, load_image)}{missing}</div>'
        f'<div class="facts"><b class="badge">{badge}</b><span class="id">{escape(row.id)}</span>{category}{played}'
        f"</div>{_answers(row, header)}{_source(row)}</article>"
    )


def _hit(iou: float, header: Header) -> bool:
    ious = np.array([iou])
    return bool(metrics.hits(ious, metrics.HEADLINE_THRESHOLD, task_scores(header.task).convention)[0])


def _picture(row: Row, load_image: LoadImage) -> str:
    """The picture and the boxes over it, in the unit of ``row.size``."""
    try:
        picture = load_image(row)
    except OFAError:  # a report comes after hours of work, and the message was told when the row was read
        picture = None
    width, height = row.size
    if row.size == NO_PICTURE:
        return ""
    if picture is None:
        shown = f'<div class="blank" style="aspect-ratio:{width}/{height}"><span>picture not at hand</span></div>'
    else:
        shown = f'<img src="{thumbnail(picture)}" alt="{escape(row.image)}" loading="lazy">'
    boxes = "".join(_box(kind, box, label) for kind, box, label in _boxes(row))
    return f'{shown}<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none" aria-hidden="true">{boxes}</svg>'


def _boxes(row: Row) -> list[tuple[str, Box, str]]:
    named = [("target", row.box, "target"), ("found", row.found, "found by the model")]
    named += [("target", one.box, one.label or "target") for one in row.targets or ()]
    named += [("found", one.box, one.label or "found by the model") for one in row.detected]
    return [(kind, box, label) for kind, box, label in named if box is not None]


def _box(kind: str, box: Box, label: str) -> str:
    x0, y0, x1, y1 = box
    place = f'x="{min(x0, x1):g}" y="{min(y0, y1):g}" width="{abs(x1 - x0):g}" height="{abs(y1 - y0):g}"'
    return f'<rect class="halo of-{kind}" {place}/><rect class="{kind}" {place}><title>{escape(label)}</title></rect>'


def thumbnail(picture: Image.Image) -> str:
    """A picture as a ``data:`` address of a JPEG of at most :data:`THUMBNAIL` pixels a side."""
    small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    data = BytesIO()
    small.save(data, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def _asked(row: Row, header: Header) -> str:
    """The headline of a card: the phrase, the dialog, or the oracle's question with what was said before it."""
    if not row.turns:
        return f'<h4 class="asked">{escape((row.text or row.source).strip()) or "(nothing was said)"}</h4>'
    if task_scores(header.task).kind != "oracle":
        return f'<div class="asked">{_dialog(row.turns, header)}</div>'
    earlier = _dialog(row.turns[:-1], header) if len(row.turns) > 1 else ""
    return f'<h4 class="asked">{escape(row.turns[-1])}</h4>{earlier}'


def _dialog(said: Sequence[str], header: Header) -> str:
    speakers = (AGENT, HUMAN) if first_speaker(header) == AGENT else (HUMAN, AGENT)
    turns = [
        f'<li class="{speakers[number % 2]}"><span>{speakers[number % 2]}</span> {escape(turn)}</li>'
        for number, turn in enumerate(said)
    ]
    return f'<ol class="dialog">{"".join(turns)}</ol>'


def _answers(row: Row, header: Header) -> str:
    """The target and the output, with boxes in pixels where the file knows these."""
    has_boxes = task_scores(header.task).has_boxes
    in_pixels = {name: "" if header.format == "lists" else _pixels(box) for name, box, _ in _boxes(row)}
    target, region = (in_pixels.get("target", ""), "") if has_boxes else ("", in_pixels.get("target", ""))
    shares = ", ".join(f"{escape(answer)} {share:.2f}" for answer, share in row.probabilities.items())
    rows = {
        "region": region,
        "target": f"<code>{escape(row.target)}</code>{target}",
        "output": f"<code>{escape(row.output) or '(nothing)'}</code>{in_pixels.get('found', '')}",
        "confidence": shares or f"{row.score:.3f}",
    }
    told = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows.items() if value)
    return f'<dl class="answers">{told}</dl>'


def _pixels(box: Box) -> str:
    """A box as its corners in pixels, to a tenth."""
    corners = ", ".join(f"{round(value, 1):g}" for value in box)
    return f'<span class="pixels">{corners} px</span>'


def _source(row: Row) -> str:
    if not row.source:
        return ""
    return f"<details><summary>what the model read</summary><pre>{escape(row.source.strip())}</pre></details>"
