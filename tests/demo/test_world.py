"""The drawn world: what a scene holds, and that its picture shows it."""

from __future__ import annotations

import numpy as np
import pytest

from ofa_core.demo.world import COLOURS, KINDS, MAX_OVERLAP, SIDES, SIZES, UNSEEN, Scene, Split, draw, make_scene

SPLITS: tuple[Split, ...] = ("train", "test")


def scenes(split: Split, count: int = 300) -> list[Scene]:
    return [make_scene(seed, split) for seed in range(count)]


def test_a_seed_is_a_scene_and_a_picture() -> None:
    assert make_scene(5) == make_scene(5)
    assert draw(make_scene(5)).tobytes() == draw(make_scene(5)).tobytes()
    assert len({scene.things for scene in scenes("train")}) == 300


def test_the_splits_are_different_worlds() -> None:
    assert not {scene.things for scene in scenes("train")} & {scene.things for scene in scenes("test")}
    seen = {(thing.colour, thing.kind) for scene in scenes("train") for thing in scene.things}
    assert seen == {(colour, kind) for colour in COLOURS for kind in KINDS} - set(UNSEEN)
    for scene in scenes("test"):
        assert {(thing.colour, thing.kind) for thing in scene.things} & set(UNSEEN)


@pytest.mark.parametrize("split", SPLITS)
def test_a_scene_holds_two_to_six_shapes_within_the_picture(split: Split) -> None:
    counts = set()
    for scene in scenes(split):
        counts.add(len(scene.things))
        assert all(SIDES[0] <= side <= SIDES[1] for side in scene.size)
        for thing in scene.things:
            x0, y0, x1, y1 = thing.box
            assert 0 <= x0 < x1 <= scene.width
            assert 0 <= y0 < y1 <= scene.height
            low, high = SIZES[thing.size]
            assert low <= (x1 - x0) / min(scene.size) <= high
    assert counts == {2, 3, 4, 5, 6}


def test_nothing_is_hidden_and_nothing_is_there_three_times() -> None:
    for scene in scenes("train"):
        names = [thing.name for thing in scene.things]
        assert max(map(names.count, names)) <= 2
        for first in scene.things:
            for second in scene.things:
                if first is not second:
                    width = min(first.box[2], second.box[2]) - max(first.box[0], second.box[0])
                    height = min(first.box[3], second.box[3]) - max(first.box[1], second.box[1])
                    assert max(width, 0) * max(height, 0) <= MAX_OVERLAP * min(first.area, second.area) + 1e-6


def test_as_many_shapes_as_wanted() -> None:
    assert {len(make_scene(seed, things=(1, 1)).things) for seed in range(50)} == {1}


@pytest.mark.parametrize("seed", range(12))
def test_the_picture_shows_each_shape_in_its_colour_within_its_box(seed: int) -> None:
    scene = make_scene(seed, things=(1, 1))
    pixels = np.asarray(draw(scene)).astype(int)
    thing = scene.things[0]
    close = (np.abs(pixels - COLOURS[thing.colour]) <= 20).all(axis=2)
    rows, columns = np.nonzero(close)
    # the extreme pixels of the shape are those of its box, to a pixel or two of a thin point
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert found == pytest.approx(thing.box, abs=4)


def test_a_later_shape_covers_an_earlier_one() -> None:
    scene = next(
        scene
        for scene in scenes("train", 2000)
        if scene.things[-1].kind == "square"
        and any(
            t.box[0] < scene.things[-1].centre[0] < t.box[2] or t.box[2] > scene.things[-1].box[0] for t in scene.things
        )
    )
    x, y = scene.things[-1].centre
    pixel = draw(scene).getpixel((int(x), int(y)))
    assert np.abs(np.array(pixel) - COLOURS[scene.things[-1].colour]).max() <= 20
