from __future__ import annotations

from random import Random

import numpy as np
import pytest
from PIL import Image
from reference import picture

from ofa_core.vision.augment import CHANGES, augmented, random_crop
from ofa_core.vision.crops import center_crop, jittered_crop, object_crop, resized_short


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_keeps_the_size_and_changes_something(name: str) -> None:
    image = picture(0)
    changed = CHANGES[name](image, 0.7, Random(0))
    assert changed.size == image.size
    assert (np.asarray(changed) != np.asarray(image)).any() == (name != "identity")


def test_what_is_drawn_is_drawn_by_the_seed() -> None:
    image = picture(0)
    drawn = [augmented(random_crop(image, Random(seed)), Random(seed)).tobytes() for seed in (*range(12), *range(12))]
    assert drawn[:12] == drawn[12:]
    assert len(set(drawn)) == 12


@pytest.mark.parametrize(
    ("size", "side", "resized"),
    [((800, 400), 384, (672, 336)), ((400, 420), 401, (401, 421)), ((420, 400), 384, (403, 384))],
)
def test_a_picture_is_resized_by_its_shorter_edge(size: tuple[int, int], side: int, resized: tuple[int, int]) -> None:
    assert resized_short(Image.new("RGB", size), side).size == resized


def test_the_middle_is_cut_out() -> None:
    image = picture(0, 100, 200)
    assert (np.asarray(center_crop(image, 50, 100)) == np.asarray(image)[25:75, 75:125]).all()


@pytest.mark.parametrize("box", [(10, 10, 60, 60), (300, 200, 390, 300), (0, 0, 400, 420)])
def test_an_object_is_where_its_box_says(box: tuple[int, int, int, int]) -> None:
    image = Image.new("RGB", (400, 420), "black")
    image.paste((255, 255, 255), box)
    square, found = object_crop(image, box, 384, 420)
    assert square.size == (384, 384)
    white = np.asarray(square.convert("L")) > 127
    ys, xs = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
    assert found == pytest.approx((xs[0], ys[0], xs[-1] + 1, ys[-1] + 1), abs=1.5)


def test_objects_are_where_their_boxes_say_or_not_on_the_piece() -> None:
    boxes = [(10.0, 10.0, 60.0, 90.0), (240.0, 10.0, 290.0, 60.0)]
    kept = []
    for seed in range(40):
        for one in boxes:
            image = Image.new("RGB", (300, 100), "black")
            image.paste((255, 255, 255), tuple(map(int, one)))
            square, (found,) = jittered_crop(image, [one], 64, Random(seed))
            white = np.asarray(square.convert("L")) > 127
            assert square.size == (64, 64)
            kept.append(found is not None)
            if found is not None and (found[2] - found[0]) > 3 and (found[3] - found[1]) > 3:
                ys, xs = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
                assert found == pytest.approx((xs[0], ys[0], xs[-1] + 1, ys[-1] + 1), abs=2)
    assert set(kept) == {True, False}
