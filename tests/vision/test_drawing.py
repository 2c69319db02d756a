from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from reference import synth

from ofa_core.vision.drawing import COLOR, COLORS, Color, Mark, draw_box, draw_marks, line_width

Box = tuple[float, float, float, float]


def picture(height: int = 100, width: int = 120) -> Image.Image:
    return Image.fromarray(synth.synth_image(height, width, 3))


def changed(before: Image.Image, after: Image.Image) -> np.ndarray[Any, Any]:
    """[height, width], True where the two differ."""
    return (np.asarray(before.convert("RGB")) != np.asarray(after)).any(-1)


def colored(image: Image.Image) -> np.ndarray[Any, Any]:
    return (np.asarray(image) == np.array(COLOR)).all(-1)


def ring(shape: tuple[int, int], box: tuple[int, int, int, int], width: int) -> np.ndarray[Any, Any]:
    """The border of ``width`` pixels inside a box whose corners belong to it."""
    x0, y0, x1, y1 = box
    mask = np.zeros(shape, dtype=bool)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    mask[y0 + width : y1 + 1 - width, x0 + width : x1 + 1 - width] = False
    return mask


@pytest.mark.parametrize(("height", "width", "line"), [(100, 120, 2), (500, 700, 2), (1000, 800, 4)])
def test_the_border_of_the_box_is_drawn_with_an_edge_on_both_sides(height: int, width: int, line: int) -> None:
    original = picture(height, width)
    drawn = draw_box(original, (10.0, 20.0, 60.0, 90.0))
    edge = line // 2
    around = ring((height, width), (10 - edge, 20 - edge, 60 + edge, 90 + edge), line + 2 * edge)
    border = ring((height, width), (10, 20, 60, 90), line)
    assert drawn.size == original.size
    assert line_width(drawn.size) == line
    assert (changed(original, drawn) <= around).all()
    assert np.array_equal(colored(drawn), border)
    assert (np.asarray(drawn)[around & ~border] == 255).all(), "the edge of a dark colour is white"


@pytest.mark.parametrize("ground", [(255, 255, 255), (0, 0, 0), COLOR, (128, 128, 128)])
@pytest.mark.parametrize("color", COLORS)
def test_a_box_is_seen_on_any_ground(ground: Color, color: Color) -> None:
    drawn = np.asarray(draw_marks(Image.new("RGB", (100, 100), ground), [Mark((20, 20, 80, 80), "", color)]))
    seen = {tuple(map(int, pixel)) for pixel in drawn[50, 15:30]} - {ground}

    def luminance(one: tuple[int, ...]) -> float:
        return 0.2126 * one[0] + 0.7152 * one[1] + 0.0722 * one[2]

    assert max(abs(luminance(one) - luminance(ground)) for one in seen) > 60


def test_the_picture_itself_is_left_as_it_was() -> None:
    original = picture()
    before = original.tobytes()
    assert draw_box(original, (10, 20, 60, 90), "label") is not original
    assert original.tobytes() == before


@pytest.mark.parametrize("box", [(60, 90, 10, 20), (60, 20, 10, 90), (10, 90, 60, 20)])
def test_a_box_that_is_turned_inside_out_is_drawn_all_the_same(box: Box) -> None:
    assert draw_box(picture(), box, "a").tobytes() == draw_box(picture(), (10, 20, 60, 90), "a").tobytes()


def test_without_a_box_and_a_label_nothing_is_drawn() -> None:
    original = picture()
    assert draw_box(original, None).tobytes() == original.tobytes()


def test_without_a_box_the_label_stands_in_the_corner() -> None:
    original = picture()
    mask = changed(original, draw_box(original, None, "no box"))
    rows, columns = np.nonzero(mask)
    assert (rows.min(), columns.min()) == (0, 0)
    assert rows.max() < 30
    assert mask[:10, :10].all()


def label_rows(box: Box, label: str = "thing") -> np.ndarray[Any, Any]:
    """The rows of the picture that the label, not the border, changes."""
    original = picture()
    return np.nonzero(changed(draw_box(original, box), draw_box(original, box, label)))[0]


def test_the_label_stands_above_the_box_where_there_is_room() -> None:
    rows = label_rows((20, 60, 80, 95))
    assert rows.max() <= 58
    assert 25 < rows.min() < 55


def test_the_label_stands_below_the_box_where_there_is_room_there_alone() -> None:
    rows = label_rows((20, 3, 80, 60))
    assert rows.min() >= 62
    assert rows.max() < 95


def test_the_label_stands_beside_a_tall_box() -> None:
    original, box = picture(), (5.0, 3.0, 30.0, 97.0)
    columns = np.nonzero(changed(draw_box(original, box), draw_box(original, box, "thing")))[1]
    assert columns.min() >= 32


def test_the_label_stands_inside_the_box_where_there_is_no_room_around() -> None:
    rows = label_rows((3, 3, 117, 97))
    assert rows.min() >= 3
    assert rows.max() < 35


def test_labels_do_not_cover_each_other() -> None:
    original = Image.new("RGB", (300, 300))
    marks = [Mark((50, 100, 250, 200), "first", COLORS[0]), Mark((62, 112, 262, 212), "second", COLORS[1])]
    both = np.asarray(draw_marks(original, marks))
    alone = [np.asarray(draw_marks(original, [mark])) for mark in marks]
    for mark, drawn in zip(marks, alone, strict=True):
        own = (both == np.array(mark.color)).all(-1)
        assert own.sum() > 0.9 * (drawn == np.array(mark.color)).all(-1).sum()


@pytest.mark.parametrize("x", [0, 60, 118])
def test_the_label_stays_inside_the_picture(x: int) -> None:
    original = picture()
    drawn = draw_box(original, (x, 60, x + 1, 95), "thing")
    only = draw_box(original, (x, 60, x + 1, 95))
    columns = np.nonzero(changed(only, drawn))[1]
    widths = {np.ptp(np.nonzero(changed(only, drawn))[1]) + 1}
    assert columns.min() >= 0
    assert columns.max() <= 119
    in_full = np.ptp(np.nonzero(changed(original, draw_box(original, None, "thing")))[1]) + 1
    assert abs(widths.pop() - in_full) <= 2  # as wide as where nothing is in its way


def test_the_label_can_be_read() -> None:
    drawn = np.asarray(draw_box(picture(), (20, 60, 80, 95), "thing"))
    light = (drawn > 180).all(-1)  # white on red, with soft edges
    plain = (np.asarray(draw_box(picture(), (20, 60, 80, 95), " ")) > 180).all(-1)
    assert light[30:60, 20:80].sum() > plain[30:60, 20:80].sum() + 20


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA", "RGB"])
def test_pictures_of_any_mode_become_rgb(mode: str) -> None:
    original = picture().convert(mode)
    drawn = draw_box(original, (10, 20, 60, 90))
    assert drawn.mode == "RGB"
    assert colored(drawn)[20, 10:61].all()


@pytest.mark.parametrize(
    ("size", "box", "label"),
    [
        ((100, 120), (-50.0, -20.5, 500.25, 90.9), "outside"),
        ((100, 120), (30.0, 30.0, 30.0, 30.0), "a point"),
        ((1, 1), (0.0, 0.0, 1.0, 1.0), "tiny"),
        ((3, 500), (0.0, 0.0, 499.0, 2.0), "flat"),
        ((100, 120), (10.0, 60.0, 50.0, 90.0), "very long " * 30),
        ((100, 120), (10.0, 60.0, 50.0, 90.0), "zwei\nZeilen, 日本語 🙂"),
    ],
    ids=["outside", "point", "tiny", "flat", "long", "unusual"],
)
def test_unusual_boxes_sizes_and_labels_are_drawn(size: tuple[int, int], box: Box, label: str) -> None:
    original = picture(*size) if min(size) > 8 else Image.new("RGB", (size[1], size[0]))
    drawn = draw_box(original, box, label)
    assert drawn.size == original.size
    assert changed(original, drawn).any()
