"""3 × 3 convolutions whose gradients take fewer multiplications, too.

Winograd's F(2 × 2, 3 × 3), see :mod:`..inference.winograd`: 16 products of matrices for a tile instead of 36, forward
and for each of both gradients, which are the transposes of the same few steps. Rounding errors are less than those of
a direct convolution.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ..inference.winograd import KERNEL, Transforms

#: Tiles of 2 × 2, with points whose transforms round least.
TWO = Transforms((0.0, 1.0, -1.0))
TILE, SIDE = TWO.tile, TWO.side
#: With fewer channels the transforms cost what the products save; fewer tiles do not pay for those of the weights.
MIN_CHANNELS, MIN_TILES = 256, 64
#: Tiles of one pass: what is made of more of them does not stay in the caches.
TILES_AT_ONCE = 256


@cache
def _matrices(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """``of_patch``, ``of_kernel`` and ``back`` of :data:`TWO`."""
    return TWO.of_patch.to(dtype), TWO.of_kernel.to(dtype), TWO.back.to(dtype)


class WinogradConv2d(nn.Conv2d):
    """A convolution of 3 × 3 with stride 1, padding 1 and no bias, of which both gradients are wanted."""

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C, h, w] to [B, C', h, w]."""
        if not self._pays(x):
            return super().forward(x)
        convolved: Tensor = _Convolve.apply(x, self.weight)
        return convolved

    def _pays(self, x: Tensor) -> bool:
        rows, columns = TWO.tiles(x)
        large = min(self.weight.shape[:2]) >= MIN_CHANNELS and len(x) * rows * columns >= MIN_TILES
        trained = torch.is_grad_enabled() and x.requires_grad and self.weight.requires_grad
        return large and trained and x.dtype == self.weight.dtype and not torch.is_autocast_enabled("cpu")


class _Convolve(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        kernels = TWO.kernels(weight)
        ctx.save_for_backward(x, kernels)  # patches are four times as large as x, which is kept anyway
        return torch.cat([_untiled(_at_points(part) @ kernels, part) for part in _parts(x)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of ``x`` and of the weight."""
        x, kernels = ctx.saved_tensors
        _, of_kernel, back = _matrices(grad.dtype)
        of_kernels, of_x = torch.zeros_like(kernels), []
        for part, of_part in zip(_parts(x), _parts(grad), strict=True):
            of_products = (back.t() @ _tiled(of_part)).view(SIDE**2, -1, grad.shape[1])  # [16, tiles, C']
            of_kernels.baddbmm_(_at_points(part).transpose(1, 2), of_products)
            of_x.append(_summed(of_products @ kernels.transpose(1, 2), part))
        of_weight = (of_kernel.t() @ of_kernels.flatten(1)).view(KERNEL, KERNEL, *kernels.shape[1:])
        return torch.cat(of_x), of_weight.permute(3, 2, 0, 1)


def _parts(x: Tensor) -> tuple[Tensor, ...]:
    """The samples of ``x`` [B, C, h, w] that go through together."""
    return x.split(TWO.samples_of(x, TILES_AT_ONCE))


def _at_points(x: Tensor) -> Tensor:
    """Transforms [16, tiles, C] of the patches of ``x`` [B, C, h, w]."""
    of_patch, *_ = _matrices(x.dtype)
    return (of_patch @ TWO.patches(x)).view(SIDE**2, -1, x.shape[1])


def _untiled(products: Tensor, x: Tensor) -> Tensor:
    """The output [B, C', h, w] of products [16, tiles, C'] for ``x`` [B, C, h, w]."""
    *_, back = _matrices(products.dtype)
    (rows, columns), (batch, _, height, width) = TWO.tiles(x), x.shape
    out = (back @ products.flatten(1)).view(TILE, TILE, batch, rows, columns, -1).permute(2, 3, 0, 4, 1, 5)
    return out.reshape(batch, rows * TILE, columns * TILE, -1)[:, :height, :width].permute(0, 3, 1, 2)


def _tiled(x: Tensor) -> Tensor:
    """Tiles of ``x`` [B, C, h, w], with zeros behind its edges: [tile², tiles * C]."""
    (rows, columns), (batch, channels, height, width) = TWO.tiles(x), x.shape
    padded = nn.functional.pad(x.permute(0, 2, 3, 1), (0, 0, 0, columns * TILE - width, 0, rows * TILE - height))
    tiles = padded.reshape(batch, rows, TILE, columns, TILE, channels)
    return tiles.permute(2, 4, 0, 1, 3, 5).reshape(TILE**2, -1)


def _summed(of_patches: Tensor, x: Tensor) -> Tensor:
    """The gradient of ``x`` [B, C, h, w], of which patches were cut, of that of their transforms [16, tiles, C]."""
    of_patch, *_ = _matrices(of_patches.dtype)
    (rows, columns), (batch, channels, height, width) = TWO.tiles(x), x.shape
    parts = (of_patch.t() @ of_patches.flatten(1)).view(2, TILE, 2, TILE, batch, rows, columns, channels)
    # a patch is two tiles wide and high: each tile is part of four patches
    total = of_patches.new_zeros(batch, rows + 1, TILE, columns + 1, TILE, channels)
    for down in (0, 1):
        for right in (0, 1):
            part = parts[down, :, right].permute(2, 3, 0, 4, 1, 5)
            total[:, down : down + rows, :, right : right + columns] += part
    summed = total.view(batch, (rows + 1) * TILE, (columns + 1) * TILE, channels)
    return summed[:, 1 : 1 + height, 1 : 1 + width].permute(0, 3, 1, 2)
