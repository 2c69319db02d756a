"""Plots as SVG to stand in a page, whose style sheet colours them (``report.html``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from .metrics import Score

#: A plot's size and the room around what is drawn, in SVG units.
WIDTH, HEIGHT = 480, 270
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 14, 38
#: Height of a row of :func:`bars`, and the room for names beside them and for numbers behind them.
ROW, NAMES, NUMBERS = 26, 120, 92


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


@dataclass(frozen=True)
class Bar:
    """A bar's name, its length (0 to 1) with the interval, and the number of samples behind it."""

    name: str
    score: Score
    samples: int


def bars(title: str, rows: list[Bar]) -> str:
    """Horizontal bars with whiskers for their intervals, the whole width being 100%."""
    height = ROW * len(rows) + 4
    full = WIDTH - NAMES - NUMBERS
    parts = []
    for number, bar in enumerate(rows):
        y = number * ROW + 4
        middle = y + ROW / 2 - 2
        value, low, high = (NAMES + full * min(max(v, 0.0), 1.0) for v in _three(bar.score))
        name = bar.name if len(bar.name) <= 16 else f"{bar.name[:15]}…"
        parts += [
            f"<g><title>{escape(bar.name)}: {percent(bar.score)} of {bar.samples:,}</title>",
            _text(name, NAMES - 8, middle + 4, "end", "name"),
            f'<rect class="track" x="{NAMES}" y="{y + 3}" width="{full}" height="{ROW - 10}" rx="3"/>',
            f'<rect class="bar" x="{NAMES}" y="{y + 3}" width="{value - NAMES:.1f}" height="{ROW - 10}" rx="3"/>',
            f'<path class="whisker" d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} '
            f'{middle - 4}v8"/>',
            _text(f"{100 * bar.score.value:.1f}", NAMES + full + 40, middle + 4, "end", "number"),
            _text(f"n {bar.samples:,}", WIDTH - 2, middle + 4, "end"),
            "</g>",
        ]
    return _svg(title, WIDTH, height, parts)


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
