"""Curves of a training log as an SVG picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, MARGIN = 720, 220, 48
#: Points a curve is reduced to, each the mean of its neighbours.
POINTS = 240
#: Columns of a log that are no curves.
NOT_CURVES = {"step", "seconds"}


def curve_svg(rows: Sequence[Mapping[str, float | None]]) -> str:
    """One panel for each value that the rows of a log hold, against the step; what is not finite is left out."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in NOT_CURVES and value is not None and math.isfinite(value):
                points.setdefault(name, []).append((row["step"] or 0, value))
    panels = [_panel(name, points[name], top * HEIGHT) for top, name in enumerate(points)]
    height = max(1, len(panels)) * HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>{"".join(panels)}</svg>\n'
    )


def _panel(name: str, points: Sequence[tuple[float, float]], top: int) -> str:
    points = _reduced(points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    last = max(x for x, _ in points)
    inner_width, inner_height = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN

    def place(x: float, y: float) -> str:
        part = 0.5 if high == low else (y - low) / (high - low)
        return f"{MARGIN + inner_width * x / max(last, 1):.1f},{top + HEIGHT - MARGIN - inner_height * part:.1f}"

    line = " ".join(place(x, y) for x, y in points)
    bottom = top + HEIGHT - MARGIN
    return (
        f'<text x="{MARGIN}" y="{top + MARGIN - 14}" font-weight="bold">{escape(name)}</text>'
        f'<path d="M{MARGIN} {top + MARGIN}V{bottom}H{WIDTH - MARGIN}" fill="none" stroke="#999"/>'
        f'<text x="{MARGIN - 4}" y="{top + MARGIN + 4}" text-anchor="end">{high:.3g}</text>'
        f'<text x="{MARGIN - 4}" y="{bottom}" text-anchor="end">{low:.3g}</text>'
        f'<text x="{WIDTH - MARGIN}" y="{bottom + 16}" text-anchor="end">step {last:g}</text>'
        f'<polyline points="{line}" fill="none" stroke="#2563eb" stroke-width="1.5"/>'
    )


def _reduced(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most :data:`POINTS` points, each the mean of as many neighbours."""
    size = -(-len(points) // POINTS)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]
