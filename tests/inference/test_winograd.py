"""Convolutions with fewer multiplications compute what direct ones do, and are used where they pay."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from inference.models import faster
from reference import tiny_model
from torch import Tensor

from ofa_core.inference import onednn, winograd
from ofa_core.inference.winograd import Transforms, WinogradConvolution, should_use

needs_onednn = pytest.mark.skipif(not onednn.available(torch.float32), reason="this torch has no oneDNN operators")


def layer(in_channels: int, out_channels: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A kernel and a bias whose outputs are about as large as the inputs."""
    torch.manual_seed(seed)
    return torch.randn(out_channels, in_channels, 3, 3) / (9 * in_channels) ** 0.5, torch.randn(out_channels)


def direct(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x.double(), weight.double(), bias.double(), padding=1).relu()


@pytest.mark.parametrize("points", [(0.0, 1.0, -1.0), (0.0, 3 / 2, -3 / 2, 2 / 3, -2 / 3)], ids=str)
def test_the_transforms_are_a_convolution_in_exact_arithmetic(points: tuple[float, ...]) -> None:
    torch.manual_seed(0)
    at = Transforms(points)
    patch, kernel = torch.randn(at.side, at.side, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    products = (at.of_patch @ patch.flatten()) * (at.of_kernel @ kernel.flatten())
    expected = F.conv2d(patch[None, None], kernel[None, None])[0, 0]
    torch.testing.assert_close((at.back @ products).view(at.tile, at.tile), expected, atol=1e-12, rtol=0)


def test_biases_are_added_on_the_way_back() -> None:
    products = torch.cat([torch.zeros(36), torch.full((1,), 7.0)])
    torch.testing.assert_close(winograd._BACK_AND_BIAS @ products, torch.full((16,), 7.0))


@needs_onednn
@pytest.mark.parametrize("channels", [(3, 5), (16, 16), (128, 64)], ids=str)
@pytest.mark.parametrize("size", [(1, 4, 4), (2, 16, 16), (3, 5, 10), (1, 1, 1), (1, 7, 32), (2, 3, 2)], ids=str)
@torch.inference_mode()
def test_it_computes_what_a_direct_convolution_does(size: tuple[int, int, int], channels: tuple[int, int]) -> None:
    weight, bias = layer(*channels)
    x = torch.randn(size[0], channels[0], *size[1:])
    found = WinogradConvolution(weight, bias)(x)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), direct(x, weight, bias), atol=2e-5, rtol=0)


@needs_onednn
@torch.inference_mode()
def test_rounding_errors_are_like_those_of_a_direct_one() -> None:
    weight, bias = layer(256, 256)
    x = torch.randn(1, 256, 32, 32).contiguous(memory_format=torch.channels_last)
    kernel = onednn.packed_kernel(weight.contiguous(memory_format=torch.channels_last), (1, 1), (1, 1), x.shape)
    results = (WinogradConvolution(weight, bias)(x), onednn.convolution(x, kernel, bias, (1, 1), (1, 1), relu=True))
    of_this, of_direct = ((result - direct(x, weight, bias)).pow(2).mean().sqrt() for result in results)
    assert of_this < 1.5e-6  # 2.4e-6 with the usual points, where outputs are about 1
    assert of_direct < 1.5e-6


@needs_onednn
@torch.inference_mode()
def test_large_batches_go_through_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, bias = layer(128, 128)  # as many channels as it is used for
    convolution, x = WinogradConvolution(weight, bias), torch.randn(5, 128, 16, 14)
    whole = convolution(x)
    monkeypatch.setattr(winograd, "TILES_AT_ONCE", 33)  # two pictures of 16 tiles
    torch.testing.assert_close(convolution(x), whole, atol=1e-6, rtol=0)


@needs_onednn
@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (torch.empty(1, 128, 16, 16), True),
        (torch.empty(16, 256, 1, 1), True),
        (torch.empty(1, 64, 64, 64), False),
        (torch.empty(1, 128, 12, 16), False),
        (torch.empty(1, 128, 16, 16, dtype=torch.bfloat16), False),
        (torch.empty(1, 128, 16, 16, device="meta"), False),
    ],
    ids=["enough", "many small ones", "few channels", "few tiles", "bfloat16", "not on a CPU"],
)
def test_where_it_is_used(x: Tensor, expected: bool) -> None:
    assert should_use(x) == expected


def test_it_is_not_used_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "available", lambda dtype: False)
    assert not should_use(torch.empty(1, 128, 16, 16))


@needs_onednn
@torch.inference_mode()
def test_a_stem_uses_it_for_large_pictures_and_goes_on_with_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    plain = tiny_model(stem_depths=(2, 3, 3))
    for module in plain.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    fast, used = faster(plain), []
    call = WinogradConvolution.__call__
    monkeypatch.setattr(WinogradConvolution, "__call__", lambda self, x: used.append(tuple(x.shape)) or call(self, x))
    wanted = {32: [], 256: [(1, 128, 32, 32)] * 2 + [(1, 256, 16, 16)] * 2, 100: [(1, 128, 13, 13)] * 2}
    for side in (32, 256, 32, 100):
        used.clear()
        images = torch.randn(1, 3, side, side)
        found, expected = (model.image_features(images).patches for model in (fast, plain))
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
        assert used == wanted[side]
