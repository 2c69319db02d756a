"""3 × 3 convolutions with fewer multiplications have the results and gradients of direct ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from training.test_fast_step import assert_equal, gradients, made

from ofa_core.training import winograd_gradient
from ofa_core.training.winograd_gradient import WinogradConv2d, _Convolve


def inputs(size: tuple[int, ...], channels: int, channels_out: int) -> tuple[Tensor, Tensor, Tensor]:
    """An input, a kernel and the gradient of the output, in float64."""
    torch.manual_seed(0)
    batch, *sides = size
    x = torch.randn(batch, channels, *sides, dtype=torch.float64)
    weight = torch.randn(channels_out, channels, 3, 3, dtype=torch.float64) / (9 * channels) ** 0.5
    return x, weight, torch.randn(batch, channels_out, *sides, dtype=torch.float64)


def both(direct: bool, x: Tensor, weight: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    """The output, and the gradients of input and kernel."""
    leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
    out = F.conv2d(*leaves, padding=1) if direct else _Convolve.apply(*leaves)
    return out.detach(), *torch.autograd.grad(out, leaves, grad)


@pytest.mark.parametrize("channels", [(1, 1), (3, 5), (16, 8)], ids=str)
@pytest.mark.parametrize("at_once", [1, 30, 256])
@pytest.mark.parametrize("size", [(1, 4, 4), (2, 16, 16), (3, 5, 10), (1, 1, 1), (1, 7, 3), (2, 3, 2)], ids=str)
def test_output_and_gradients_are_those_of_a_direct_convolution(
    size: tuple[int, int, int], channels: tuple[int, int], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd_gradient, "TILES_AT_ONCE", at_once)
    given = inputs(size, *channels)
    for found, expected in zip(both(False, *given), both(True, *given), strict=True):
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_rounding_errors_are_no_larger_than_those_of_a_direct_convolution() -> None:
    given = inputs((2, 16, 16), 256, 256)
    exact = both(True, *given)
    ours, direct = (both(way, *(one.float() for one in given)) for way in (False, True))
    for found, plain, expected in zip(ours, direct, exact, strict=True):
        errors = [float((one.double() - expected).norm() / expected.norm()) for one in (found, plain)]
        assert errors[0] < max(1.5 * errors[1], 1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_gradients_of_a_model_are_equal(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd_gradient, "MIN_CHANNELS", 1)
    monkeypatch.setattr(winograd_gradient, "MIN_TILES", 1)
    used = []
    monkeypatch.setattr(_Convolve, "apply", lambda *given, true=_Convolve.apply: used.append(1) or true(*given))
    model = made(dtype)
    expected = gradients(model, fast=False)
    assert not used
    found = gradients(model, fast=True)
    assert used
    assert_equal(found, expected, 1e-12 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize(
    ("size", "channels", "changes", "expected"),
    [
        ((2, 16, 16), 256, {}, True),
        ((1, 15, 15), 256, {}, True),
        ((1, 14, 14), 256, {}, False),
        ((2, 16, 16), 128, {}, False),
        ((2, 16, 16), 256, {"x": False}, False),
        ((2, 16, 16), 256, {"weight": False}, False),
        ((2, 16, 16), 256, {"grad": False}, False),
        ((2, 16, 16), 256, {"autocast": True}, False),
    ],
    ids=["enough", "odd sides", "few tiles", "few channels", "frozen below", "frozen", "no gradients", "autocast"],
)
def test_where_it_is_used(size: tuple[int, int, int], channels: int, changes: dict[str, bool], expected: bool) -> None:
    layer = WinogradConv2d(channels, channels, 3, padding=1, bias=False)
    layer.weight.requires_grad_(changes.get("weight", True))
    x = torch.randn(size[0], channels, *size[1:]).requires_grad_(changes.get("x", True))
    with (
        torch.set_grad_enabled(changes.get("grad", True)),
        torch.autocast("cpu", torch.bfloat16, enabled=changes.get("autocast", False)),
    ):
        out = layer(x)
    assert (type(out.grad_fn).__name__ == "_ConvolveBackward") == expected
