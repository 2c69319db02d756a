"""Plots as SVG to stand in a page, whose style sheet colours them (``report.html``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from .metrics import Score
from .reliability import ReliabilityBin

#: A plot's size and the room around what is drawn, in SVG units.
WIDTH, HEIGHT = 480, 270
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 14, 38
#: Radii of circles of a reliability diagram: of no samples, and of all.
SMALLEST, LARGEST = 3.0, 10.0
#: Height of a row of :func:`bars`, the room for names beside them, that of a letter, and between columns.
ROW, NAMES, LETTER, GAP = 26, 120, 8, 12


def threshold_plot(accuracies: Mapping[float, Score]) -> str:
    """Accuracy (0 to 1) over the IoU threshold, with a band for its intervals."""
    points = [(_across(threshold), score) for threshold, score in accuracies.items()]
    above = [f"{x:.1f},{_down(score.high):.1f}" for x, score in points]
    below = [f"{x:.1f},{_down(score.low):.1f}" for x, score in reversed(points)]
    line = " ".join(f"{x:.1f},{_down(score.value):.1f}" for x, score in points)
    parts = [*_grid(), f'<polygon class="band" points="{" ".join(above + below)}"/>']
    parts.append(f'<polyline class="line" points="{line}"/>')
    for (threshold, score), (x, _) in zip(accuracies.items(), points, strict=True):
        told = f"IoU {threshold:.1f}: {percent(score)}"
        parts.append(
            f'<circle class="dot" cx="{x:.1f}" cy="{_down(score.value):.1f}" r="3.5"><title>{told}</title></circle>'
        )
        parts.append(_text(f"{threshold:.1f}", x, HEIGHT - BOTTOM + 18, "middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(_text("IoU threshold", middle, HEIGHT - 4, "middle", "label"))
    return _svg("accuracy in per cent by IoU threshold", WIDTH, HEIGHT, parts)


def reliability_plot(title: str, bins: Sequence[ReliabilityBin]) -> str:
    """The share that came true over what was stated, a circle for each bin as large as its share of the samples."""
    samples = sum(one.samples for one in bins)
    line = " ".join(f"{_across(one.confidence):.1f},{_down(one.accuracy):.1f}" for one in bins)
    parts = [
        *_grid(),
        f'<path class="ideal" d="M{_across(0):.1f} {_down(0):.1f}L{_across(1):.1f} {_down(1):.1f}"/>',
        f'<polyline class="line" points="{line}"/>',
    ]
    for one in bins:
        told = f"stated {100 * one.confidence:.1f}%, true {100 * one.accuracy:.1f}% of {one.samples:,}"
        radius = SMALLEST + (LARGEST - SMALLEST) * (one.samples / samples) ** 0.5
        x, y = _across(one.confidence), _down(one.accuracy)
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{told}</title></circle>')
    ticks = range(0, 101, 25)
    parts += [_text(f"{tick}", _across(tick / 100), HEIGHT - BOTTOM + 18, "middle") for tick in ticks]
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(_text("stated probability in per cent", middle, HEIGHT - 4, "middle", "label"))
    return _svg(title, WIDTH, HEIGHT, parts)


@dataclass(frozen=True)
class Bar:
    """A bar's name, its length (0 to 1) with the interval, and the number of samples behind it."""

    name: str
    score: Score
    samples: int


def bars(title: str, rows: list[Bar], *, shares: bool = True) -> str:
    """Horizontal bars with whiskers for their intervals, and behind each its number and its count of samples.

    The whole width is 100% of ``shares``, else the end of the longest whisker.
    """
    height = ROW * len(rows) + 4
    numbers = [f"{100 * bar.score.value:.1f}" if shares else f"{bar.score.value:.3f}" for bar in rows]
    counts = [f"n {bar.samples:,}" for bar in rows]
    ends = WIDTH - GAP - _room(counts)  # right ends of the numbers; nothing is ever drawn over another
    full = ends - _room(numbers) - GAP - NAMES
    whole = 1.0 if shares else max([bar.score.high for bar in rows] + [1e-9])
    parts = []
    for place, (bar, number, count) in enumerate(zip(rows, numbers, counts, strict=True)):
        y = place * ROW + 4
        middle = y + ROW / 2 - 2
        value, low, high = (NAMES + full * min(max(v / whole, 0.0), 1.0) for v in _three(bar.score))
        name = bar.name if len(bar.name) <= 16 else f"{bar.name[:15]}…"
        told = percent(bar.score) if shares else number
        parts += [
            f"<g><title>{escape(bar.name)}: {told} of {bar.samples:,}</title>",
            _text(name, NAMES - 8, middle + 4, "end", "name"),
            f'<rect class="track" x="{NAMES}" y="{y + 3}" width="{full:.1f}" height="{ROW - 10}" rx="3"/>',
            f'<rect class="bar" x="{NAMES}" y="{y + 3}" width="{value - NAMES:.1f}" height="{ROW - 10}" rx="3"/>',
            f'<path class="whisker" d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} '
            f'{middle - 4}v8"/>',
            _text(number, ends, middle + 4, "end", "number"),
            _text(count, WIDTH - 2, middle + 4, "end"),
            "</g>",
        ]
    return _svg(title, WIDTH, height, parts)


def _room(texts: list[str]) -> float:
    """The width that the longest of ``texts`` may take, whatever the font."""
    return LETTER * max(map(len, texts), default=0)


def percent(score: Score) -> str:
    """``63.2% (60.1 to 66.3)``."""
    value, low, high = (100 * number for number in _three(score))
    return f"{value:.1f}% ({low:.1f} to {high:.1f})"


def _three(score: Score) -> tuple[float, float, float]:
    return score.value, score.low, score.high


def _across(threshold: float) -> float:
    return LEFT + threshold * (WIDTH - LEFT - RIGHT)


def _down(share: float) -> float:
    return TOP + (1 - share) * (HEIGHT - TOP - BOTTOM)


def _grid() -> list[str]:
    lines = []
    for tick in range(0, 101, 25):
        y = _down(tick / 100)
        lines.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        lines.append(_text(f"{tick}", LEFT - 8, y + 4, "end"))
    return lines


def _text(text: str, x: float, y: float, anchor: str, kind: str = "tick") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(title: str, width: int, height: int, parts: list[str]) -> str:
    label = escape(title)
    return f'<svg class="plot" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
