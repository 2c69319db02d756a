"""Boxes as pure functions on tensors. Every box is (x0, y0, x1, y1): left, top, right, bottom, in one unit."""

from __future__ import annotations

import torch
from torch import Tensor

#: x0, y0, x1, y1 in pixels of a picture.
Box = tuple[float, float, float, float]


def box_area(boxes: Tensor) -> Tensor:
    """Areas [...] of boxes [..., 4]; a box that is turned inside out has area 0."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).unbind(-1)
    return width * height


def box_iou(first: Tensor, second: Tensor, eps: float = 0.0) -> Tensor:
    """Intersection over union [...] of boxes [..., 4], pair by pair (the leading shapes broadcast).

    ``eps`` is added to the union; RefCOCO's published score uses 1e-6. Two boxes without any area have IoU 0.
    """
    exact = torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)  # areas overflow float16
    first, second = first.to(exact), second.to(exact)
    top_left = first[..., :2].maximum(second[..., :2])
    bottom_right = first[..., 2:].minimum(second[..., 2:])
    width, height = (bottom_right - top_left).clamp(min=0).unbind(-1)
    intersection = width * height
    union = box_area(first) + box_area(second) - intersection + eps
    return (intersection / union).nan_to_num(nan=0.0)
