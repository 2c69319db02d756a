"""Curves of a training log as an SVG picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

#: Size of a panel, of which two stand side by side, and the room around its axes.
WIDTH, HEIGHT, MARGIN = 480, 240, 48
COLUMNS = 2
#: Points a curve is reduced to, each the mean of its neighbours.
POINTS = 240
#: About as many ticks stand along an axis.
TICKS = 5
#: The points of a curve are drawn where they are no more than these.
FEW = 30
#: Columns of a log that are no curves.
NOT_CURVES = {"step", "seconds"}
#: Columns that every line of a log has; the others are scores, which stand beside and below the loss.
OF_STEPS = ("loss", "accuracy", "norm", "lr", "left_out")


def curve_svg(rows: Sequence[Mapping[str, float | None]]) -> str:
    """One panel for each value that the rows of a log hold, against the step; what is not finite is left out.

    The loss comes first, then the scores, so that the first of these stands beside it.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in NOT_CURVES and value is not None and math.isfinite(value):
                points.setdefault(name, []).append((row["step"] or 0, value))
    names = sorted(points, key=lambda name: (name != "loss", name in OF_STEPS))  # else in the order of the log
    last = max((x for curve in points.values() for x, _ in curve), default=0)
    panels = [
        _panel(name, points[name], last, number % COLUMNS * WIDTH, number // COLUMNS * HEIGHT)
        for number, name in enumerate(names)
    ]
    width, height = COLUMNS * WIDTH, max(1, -(-len(panels) // COLUMNS)) * HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">'
        f'<rect width="{width}" height="{height}" fill="white"/>{"".join(panels)}</svg>\n'
    )


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to ``high``, about :data:`TICKS` of them."""
    if not low < high:
        return [low]
    rough = (high - low) / TICKS
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _panel(name: str, points: Sequence[tuple[float, float]], last: float, left: int, top: int) -> str:
    points = _reduced(points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    bottom, right = top + HEIGHT - MARGIN, left + WIDTH - MARGIN // 2

    def across(x: float) -> float:
        return left + MARGIN + (right - left - MARGIN) * x / max(last, 1)

    def up(y: float) -> float:
        return bottom - (HEIGHT - 2 * MARGIN) * (0.5 if high == low else (y - low) / (high - low))

    parts = [f'<text x="{left + MARGIN}" y="{top + MARGIN - 14}" font-weight="bold">{escape(name)}</text>']
    for value in ticks(low, high):
        y = f"{up(value):.1f}"
        parts.append(f'<path d="M{left + MARGIN} {y}H{right}" stroke="#e5e5e5"/>')
        parts.append(f'<text x="{left + MARGIN - 6}" y="{up(value) + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for value in ticks(0, last):
        x = f"{across(value):.1f}"
        parts.append(f'<path d="M{x} {bottom}v4" stroke="#999"/>')
        parts.append(f'<text x="{x}" y="{bottom + 17}" text-anchor="middle">{value:g}</text>')
    line = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
    few = points if len(points) <= FEW else []
    dots = [f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="2.5" fill="#2563eb"/>' for x, y in few]
    return "".join(
        [
            *parts,
            f'<path d="M{left + MARGIN} {top + MARGIN}V{bottom}H{right}" fill="none" stroke="#999"/>',
            f'<text x="{right}" y="{bottom + 32}" text-anchor="end">step</text>',
            f'<polyline points="{line}" fill="none" stroke="#2563eb" stroke-width="1.5"/>',
            *dots,
        ]
    )


def _reduced(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most :data:`POINTS` points, each the mean of as many neighbours."""
    size = -(-len(points) // POINTS)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]
