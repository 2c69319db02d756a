from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from ofa_core.vision.boxes import box_area, box_iou

#: Boxes on a 12 × 12 grid: a square, its shift, one inside, one beside (touching), one elsewhere, a line, one inverted.
BOXES = [(0, 0, 6, 6), (3, 2, 9, 8), (1, 1, 3, 5), (6, 0, 12, 6), (9, 9, 12, 11), (2, 2, 2, 9), (8, 8, 1, 1)]


def cells(box: tuple[int, int, int, int]) -> set[tuple[int, int]]:
    """The unit cells of a box with whole corners."""
    return set(itertools.product(range(box[0], box[2]), range(box[1], box[3])))


@pytest.mark.parametrize("box", BOXES)
def test_area_counts_cells(box: tuple[int, int, int, int]) -> None:
    assert box_area(torch.tensor(box, dtype=torch.float32)).item() == len(cells(box))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_iou_counts_cells_for_every_pair(dtype: torch.dtype) -> None:
    boxes = torch.tensor(BOXES, dtype=dtype)
    found = box_iou(boxes[:, None], boxes[None, :])  # [7, 7] by broadcasting
    expected = torch.tensor(
        [[len(cells(a) & cells(b)) / max(len(cells(a) | cells(b)), 1) for b in BOXES] for a in BOXES]
    )
    assert found.shape == expected.shape
    torch.testing.assert_close(found.float(), expected)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0.0, 0.0, 2.0, 2.0), (0.5, 0.5, 1.5, 1.5), 0.25),
        ((10.5, 0.0, 12.5, 1.0), (11.5, 0.0, 13.5, 1.0), 1 / 3),
        ((-2.0, -2.0, 0.0, 0.0), (-1.0, -2.0, 1.0, 0.0), 1 / 3),
    ],
)
def test_iou_of_fractions_and_negative_corners(
    first: tuple[float, ...], second: tuple[float, ...], expected: float
) -> None:
    assert box_iou(torch.tensor(first), torch.tensor(second)).item() == pytest.approx(expected)


def test_eps_is_added_to_the_union() -> None:
    boxes: Tensor = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    assert box_iou(boxes, boxes, eps=1.0).tolist() == [0.5]
    half = torch.tensor([[0.0, 0.0, 1.0, 0.5]], dtype=torch.float64)
    exact, published = box_iou(half, boxes.double()), box_iou(half, boxes.double(), eps=1e-6)
    assert exact.item() == 0.5
    assert published.item() == pytest.approx(0.5 / (1 + 1e-6), abs=1e-12)


def test_two_boxes_without_area_have_iou_zero_with_or_without_eps() -> None:
    line = torch.tensor([2.0, 2.0, 2.0, 9.0])
    assert box_iou(line, line).item() == 0
    assert box_iou(line, line, eps=1e-6).item() == 0
