"""The log of a run and its curves."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ofa_core.training.log import Log
from ofa_core.training.plot import HEIGHT, POINTS, WIDTH, curve_svg, ticks


def test_lines_are_kept_up_to_a_step_and_broken_ones_are_dropped(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for step in (1, 2, 3):
        log.write(step, {"loss": 1 / step})
    with log.path.open("a") as file:
        file.write('{"step": 4, "lo')
    assert [row["step"] for row in log.rows()] == [1, 2, 3]
    log.cut(2)
    assert log.path.read_text() == '{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 0.5}\n'


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    log = Log(tmp_path / "run", writes=False)
    log.write(1, {"loss": 1.0})
    log.plot()
    assert not (tmp_path / "run").exists()
    assert log.rows() == []


def panels(svg: str) -> dict[str, list[tuple[float, float]]]:
    """The points of each curve by its title."""
    root = ElementTree.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    titles = [text.text or "" for text in root.iter(f"{space}text") if text.get("font-weight")]
    lines = [
        [tuple(map(float, p.split(","))) for p in line.get("points", "").split()]
        for line in root.iter(f"{space}polyline")
    ]
    return dict(zip(titles, lines, strict=True))  # type: ignore[arg-type]


def test_a_plot_shows_every_value_against_the_step(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for step in range(1, 11):
        log.write(step, {"loss": 10 - step, "seconds": 1.0})
    log.write(10, {"score<1>": 0.5})
    log.plot()
    found = panels((tmp_path / "loss.svg").read_text())
    assert list(found) == ["loss", "score<1>"]
    xs, ys = zip(*found["loss"], strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys), "a falling loss goes down, where y grows"
    assert len(found["loss"]) == 10


def test_axes_have_round_ticks_and_the_score_stands_beside_the_loss(tmp_path: Path) -> None:
    rows = [{"step": float(step), "accuracy": 0.5, "loss": 2 + step / 100, "lr": 1e-3} for step in range(0, 201, 10)]
    svg = curve_svg([*rows, {"step": 200.0, "score": 0.7}])
    found = panels(svg)
    assert list(found) == ["loss", "score", "accuracy", "lr"]
    (x_loss, y_loss), (x_score, y_score) = found["loss"][0], found["score"][0]
    assert x_loss < WIDTH < x_score
    assert max(y_loss, y_score) < HEIGHT < found["accuracy"][0][1]
    texts = re.findall(r">([^<>]+)</text>", svg)
    for tick in ("2", "3", "4", "50", "100", "150", "200", "step"):
        assert tick in texts, tick


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0.31, 0.74, [0.4, 0.5, 0.6, 0.7]),
        (7, 7, [7]),
        (0, 40000, [0, 10000, 20000, 30000, 40000]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_long_logs_are_averaged() -> None:
    rows = [{"step": float(step), "loss": float(step % 2)} for step in range(10_000)]
    (points,) = panels(curve_svg(rows)).values()
    assert len(points) <= POINTS
    assert len({y for _, y in points}) == 1, "neighbours' mean"


def test_an_empty_log_is_an_empty_picture() -> None:
    assert re.fullmatch(r"<svg .*</svg>\n", curve_svg([]))
