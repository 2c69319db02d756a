"""Gradients are scaled and clipped as torch does it, in fewer passes over memory."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from ofa_core.training.optim import scale_and_clip


def parameters(dtype: torch.dtype) -> list[Tensor]:
    """Parameters, one of them without a gradient, whose gradients have a norm of about 7."""
    generator = torch.Generator().manual_seed(1)
    made = [nn.Parameter(torch.zeros(size, dtype=dtype)) for size in ((3, 5), (31,), (2, 2), (1,))]
    for parameter in made[:3]:
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(dtype)
    return made


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("factor", "clip_norm"), [(1.0, 1.0), (0.25, 1.0), (0.01, 1.0), (3.0, 0.0), (1.0, 0.0)])
def test_gradients_are_those_of_scaling_and_then_clipping(dtype: torch.dtype, factor: float, clip_norm: float) -> None:
    expected, found = parameters(dtype), parameters(dtype)
    for parameter in expected:
        if parameter.grad is not None:
            parameter.grad.mul_(factor)
    norm = float(clip_grad_norm_(expected, clip_norm or float("inf")))
    tolerance = 1e-14 if dtype == torch.float64 else 1e-6
    assert scale_and_clip(iter(found), factor, clip_norm) == pytest.approx(norm, rel=tolerance)
    assert [parameter.grad is None for parameter in found] == [False, False, False, True]
    for one, other in zip(found[:3], expected[:3], strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=tolerance, atol=0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_gradients_that_are_not_finite_stay_as_they_are(value: float) -> None:
    made = parameters(torch.float32)
    assert made[0].grad is not None
    made[0].grad[0, 0] = value
    before = [parameter.grad.clone() for parameter in made if parameter.grad is not None]
    assert not math.isfinite(scale_and_clip(made, 0.5, 1.0))
    for parameter, grad in zip(made, before, strict=False):
        torch.testing.assert_close(parameter.grad, grad, equal_nan=True, rtol=0, atol=0)
