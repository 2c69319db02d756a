from __future__ import annotations

import math
import random
from typing import Any, get_args

import pytest
import torch
from reference import SCORE_TOLERANCE, golden_cases

from ofa_core import BoxCodec, OFAError
from ofa_core.heads.box_codec import Convention

CASES = golden_cases("boxes.json")
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)


def codec_of(case: dict[str, Any]) -> BoxCodec:
    return BoxCodec("refcoco", image_size=case["patch_image_size"], max_image_size=case["max_image_size"])


# Against the original implementation


@pytest.mark.reference
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['width']}x{case['height']}")
def test_refcoco_boxes_equal_the_original(case: dict[str, Any]) -> None:
    codec, size = codec_of(case), (case["width"], case["height"])
    assert codec.encode(case["box"], size) == case["bins"]
    assert codec.decode(case["bins"], size) == pytest.approx(case["decoded"], abs=SCORE_TOLERANCE)


@pytest.mark.reference
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['width']}x{case['height']}")
def test_invig_boxes_equal_the_original(case: dict[str, Any]) -> None:
    codec, size = BoxCodec("invig"), (case["width"], case["height"])
    assert codec.encode(case["box"], size) == case["invig_bins"]
    assert codec.decode(case["invig_bins"], size) == pytest.approx(case["invig_decoded"], abs=SCORE_TOLERANCE)


# The two conventions


@pytest.mark.parametrize(
    ("codec", "size", "bins", "box"),
    [
        # divided by 999, so that the last bin is the far side
        (BoxCodec(), (300, 200), [0, 0, 999, 999], (0, 0, 300, 200)),
        (BoxCodec(), (999, 1998), [1, 1, 500, 500], (1, 2, 500, 1000)),
        # bins count the side of max_image_size, whatever the picture is resized to
        (BoxCodec(image_size=256, max_image_size=512), (999, 999), [100, 100, 400, 499], (200, 200, 800, 998)),
        (BoxCodec(image_size=512, max_image_size=256), (999, 999), [100, 100, 400, 999], (50, 50, 200, 499.5)),
        (BoxCodec(num_bins=101), (500, 200), [10, 20, 100, 50], (50, 40, 500, 100)),
        # divided by 1000 and clipped
        (BoxCodec("invig"), (300, 200), [0, 0, 999, 999], (0.3, 0.2, 299.7, 199.8)),
        (BoxCodec("invig"), (1000, 2000), [1, 2, 500, 600], (1, 4, 500, 1200)),
        (BoxCodec("invig", image_size=256, max_image_size=512), (1000, 1000), [1, 2, 500, 600], (1, 2, 500, 600)),
        (BoxCodec("invig", num_bins=100), (500, 200), [10, 20, 50, 90], (50, 40, 250, 180)),
    ],
)
def test_bins_to_pixels_by_hand(
    codec: BoxCodec, size: tuple[int, int], bins: list[int], box: tuple[float, ...]
) -> None:
    assert codec.decode(bins, size) == pytest.approx(box, abs=SCORE_TOLERANCE, rel=1e-6)


@pytest.mark.parametrize(
    ("codec", "size", "box", "bins"),
    [
        (BoxCodec(), (999, 999), (0.5, 1.5, 2.5, 3.5), [0, 2, 2, 4]),  # half to even
        (BoxCodec(), (300, 200), (0, 0, 300, 200), [0, 0, 999, 999]),
        (BoxCodec(image_size=256, max_image_size=512), (999, 999), (200, 200, 800, 998), [100, 100, 400, 499]),
        (BoxCodec(image_size=512, max_image_size=256), (999, 999), (50, 50, 200, 499), [100, 100, 400, 998]),
        (BoxCodec("invig"), (300, 200), (0, 0, 300, 200), [1, 1, 998, 998]),
        (BoxCodec("invig"), (1000, 1000), (100, 200, 300, 400), [100, 200, 300, 400]),
        (BoxCodec("invig", image_size=256, max_image_size=512), (1000, 1000), (9, 200, 300, 400), [9, 200, 300, 400]),
    ],
)
def test_pixels_to_bins_by_hand(
    codec: BoxCodec, size: tuple[int, int], box: tuple[float, ...], bins: list[int]
) -> None:
    assert codec.encode(box, size) == bins


def random_box(chance: random.Random, width: int, height: int) -> tuple[float, float, float, float]:
    x0, x1 = sorted(chance.uniform(0.01 * width, 0.99 * width) for _ in range(2))
    y0, y1 = sorted(chance.uniform(0.01 * height, 0.99 * height) for _ in range(2))
    return x0, y0, x1, y1


@pytest.mark.parametrize("sides", [(512, 512), (384, 512), (480, 512), (512, 640)], ids=str)
@pytest.mark.parametrize("num_bins", [1000, 64])
def test_refcoco_there_and_back_loses_at_most_half_a_bin(sides: tuple[int, int], num_bins: int) -> None:
    chance, codec = random.Random(0), BoxCodec(num_bins=num_bins, image_size=sides[0], max_image_size=sides[1])
    for _ in range(100):
        size = chance.randint(20, 2000), chance.randint(20, 2000)
        box = random_box(chance, *size)
        back = codec.decode(codec.encode(box, size), size)
        assert back is not None
        for there, here, side in zip(box, back, size * 2, strict=True):
            bin_width = side * sides[1] / sides[0] / (num_bins - 1)
            assert abs(there - here) <= 0.5 * bin_width * (1 + 1e-3)


def test_invig_there_and_back_loses_half_a_bin_and_the_thousandth() -> None:
    """The way there multiplies by 999, the way back divides by 1000: a box shrinks by up to a thousandth."""
    chance, codec = random.Random(0), BoxCodec("invig")
    for _ in range(200):
        size = chance.randint(20, 2000), chance.randint(20, 2000)
        box = random_box(chance, *size)
        back = codec.decode(codec.encode(box, size), size)
        assert back is not None
        for there, here, side in zip(box, back, size * 2, strict=True):
            assert -0.5 * side / 1000 - 1e-6 <= there - here <= 1.5 * side / 1000


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_bins_there_and_back_are_the_same(convention: Convention) -> None:
    codec, chance = BoxCodec(convention), random.Random(1)
    for _ in range(200):
        size = chance.randint(20, 2000), chance.randint(20, 2000)
        x0, x1 = sorted(chance.sample(range(2, 998), 2))
        y0, y1 = sorted(chance.sample(range(2, 998), 2))
        box = codec.decode([x0, y0, x1, y1], size)
        assert box is not None
        drift = 1 if convention == "invig" else 0  # 999 there, 1000 back
        assert all(abs(a - b) <= drift for a, b in zip(codec.encode(box, size), (x0, y0, x1, y1), strict=True))


# What is no box


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("bins", [None, [], [1], [1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, 4] * 2], ids=str)
def test_anything_but_four_bins_is_no_box(convention: Convention, bins: list[int] | None) -> None:
    assert BoxCodec(convention).decode(bins, (300, 200)) is None


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("bins", [[-1, 0, 5, 5], [0, 0, 1000, 5], [0, 0, 5, 58457]], ids=str)
def test_bins_out_of_range_are_an_error(convention: Convention, bins: list[int]) -> None:
    with pytest.raises(OFAError, match=r"bins \[.*\] are not all in 0..999"):
        BoxCodec(convention).decode(bins, (300, 200))


def test_the_range_of_bins_follows_their_number() -> None:
    assert BoxCodec(num_bins=10).decode([0, 0, 9, 9], (30, 20)) is not None
    with pytest.raises(OFAError, match=r"not all in 0..9$"):
        BoxCodec(num_bins=10).decode([0, 0, 9, 10], (30, 20))


BAD_BOXES = [
    ((-1, 0, 5, 5), "is not 0 <= x0 < x1 <= 30 and 0 <= y0 < y1 <= 20"),
    ((0, -0.1, 5, 5), "is not 0 <= x0"),
    ((0, 0, 31, 5), "is not 0 <= x0"),
    ((0, 0, 5, 20.5), "is not 0 <= x0"),
    ((5, 0, 5, 5), "is not 0 <= x0"),
    ((0, 5, 5, 5), "is not 0 <= x0"),
    ((9, 0, 5, 5), "is not 0 <= x0"),
    ((0, 9, 5, 5), "is not 0 <= x0"),
    ((math.nan, 0, 5, 5), "is not 0 <= x0"),
    ((0, 0, 5, math.nan), "is not 0 <= x0"),
    ((0, 0, math.inf, 5), "is not 0 <= x0"),
    ((0.1, 0.2, 0.4, 0.6), r"lies within one pixel: boxes are in pixels, not fractions of the sides"),
    ((0, 0, 1, 1), "lies within one pixel"),
    ((0, 0, 5), r"a box is \(x0, y0, x1, y1\), not \(0, 0, 5\)"),
    ((0, 0, 5, 5, 5), r"a box is \(x0, y0, x1, y1\)"),
    ((), r"a box is \(x0, y0, x1, y1\)"),
    (("a", 0, 5, 5), r"a box is \(x0, y0, x1, y1\), not \('a', 0, 5, 5\)"),
    ((None, 0, 5, 5), r"a box is \(x0, y0, x1, y1\)"),
    (None, r"a box is \(x0, y0, x1, y1\), not None"),
]


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(("box", "message"), BAD_BOXES, ids=[str(box) for box, _ in BAD_BOXES])
def test_what_is_no_box_in_the_picture_is_refused(convention: Convention, box: Any, message: str) -> None:
    with pytest.raises(OFAError, match=message):
        BoxCodec(convention).encode(box, (30, 20))


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-3, 5), (5, -3)], ids=str)
def test_a_picture_without_an_area_is_refused(size: tuple[int, int]) -> None:
    message = r"a picture's size is \(width, height\) in pixels"
    with pytest.raises(OFAError, match=message):
        BoxCodec().encode((0, 0, 1, 1), size)
    with pytest.raises(OFAError, match=message):
        BoxCodec().decode([0, 0, 1, 1], size)


def test_an_unknown_convention_is_refused() -> None:
    with pytest.raises(OFAError, match="'refcoco' or 'invig', not 'coco'"):
        BoxCodec("coco")  # type: ignore[arg-type]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_boxes_may_be_lists_tuples_or_tensors(convention: Convention) -> None:
    codec = BoxCodec(convention)
    expected = codec.encode((3.0, 4.0, 20.0, 15.0), (30, 20))
    assert codec.encode([3, 4, 20, 15], (30, 20)) == expected
    assert codec.encode(torch.tensor([3.0, 4.0, 20.0, 15.0]), (30, 20)) == expected  # type: ignore[arg-type]
    assert all(isinstance(number, int) for number in expected)


def test_a_box_beyond_the_last_bin_is_refused() -> None:
    codec = BoxCodec(image_size=512, max_image_size=256)
    with pytest.raises(OFAError, match=r"image_size 512 is more than max_image_size 256, .*set max_image_size=512 too"):
        codec.encode((50, 50, 800, 999), (999, 999))
