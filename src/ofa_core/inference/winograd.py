"""3 × 3 convolutions with a quarter of the multiplications, on CPUs.

Winograd's F(4 × 4, 3 × 3) as A. Lavin and S. Gray use it ("Fast Algorithms for Convolutional Neural Networks", CVPR
2016): a tile of 4 × 4 outputs depends on 6 × 6 inputs. Seen as polynomials, inputs and kernel are evaluated at points,
multiplied there, channel by channel, and the products are put together again: 36 products of matrices for a tile
instead of 144. With the usual points 0, ±1, ±2 a digit is lost; with these ones rounding errors are less than twice
those of oneDNN's direct convolution.
"""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from . import onednn

#: Side of a tile of outputs, of the inputs it depends on, and of the kernel.
TILE, PATCH, KERNEL = 4, 6, 3
#: Points at which polynomials are evaluated, besides infinity. Of all tried, these give the least rounding errors.
POINTS = (0.0, 3 / 2, -3 / 2, 2 / 3, -2 / 3)
#: Fewer are not worth it: there are four times as many weights to read as of a direct convolution, and with few
#: channels the transforms cost what the products save.
MIN_TILES, MIN_CHANNELS = 16, 128
#: Tiles of one pass: what is made of more of them does not stay in the caches.
TILES_AT_ONCE = 512


def _powers(count: int) -> Tensor:
    """Powers 0 to count - 1 of each point, and of infinity, whose highest power counts alone: [6, count]."""
    finite = [[point**power for power in range(count)] for point in POINTS]
    return torch.tensor([*finite, [0.0] * (count - 1) + [1.0]], dtype=torch.float64)


def _coefficients(roots: tuple[float, ...]) -> list[float]:
    """Coefficients of the polynomial with these roots, constant first, 6 of them."""
    found = [1.0]
    for root in roots:
        found = [low - root * high for low, high in zip([0.0, *found], [*found, 0.0], strict=True)]
    return found + [0.0] * (PATCH - len(found))


def _transforms() -> tuple[Tensor, Tensor, Tensor]:
    """Matrices for a patch [36, 36], a kernel [36, 9] and the way back to a tile [16, 36], rows before columns."""
    others = [tuple(other for other in POINTS if other != point) for point in POINTS]
    patch = torch.tensor([_coefficients(roots) for roots in [*others, POINTS]], dtype=torch.float64)
    spread = [prod(point - other for other in rest) for point, rest in zip(POINTS, others, strict=True)]
    kernel = _powers(KERNEL) / torch.tensor([*spread, 1.0], dtype=torch.float64)[:, None]
    back = _powers(TILE).T
    return torch.kron(patch, patch), torch.kron(kernel, kernel), torch.kron(back, back)


_OF_PATCH, _OF_KERNEL, _BACK = _transforms()
_OF_PATCH_32 = _OF_PATCH.float()
#: The way back, and behind it what adds a row of biases to each of the 16 outputs.
_BACK_AND_BIAS = torch.cat([_BACK, torch.ones(TILE**2, 1)], 1).float()


def _tiles(x: Tensor) -> tuple[int, int]:
    """Rows and columns of tiles that cover ``x`` [B, C, h, w]."""
    return -(-x.shape[2] // TILE), -(-x.shape[3] // TILE)


def should_use(x: Tensor) -> bool:
    """Tell whether a :class:`WinogradConvolution` computes ``x`` [B, C, h, w], and faster than a direct one."""
    rows, columns = _tiles(x)
    large = len(x) * rows * columns >= MIN_TILES and x.shape[1] >= MIN_CHANNELS
    return large and x.dtype == torch.float32 and x.device.type == "cpu" and onednn.available(x.dtype)


class WinogradConvolution:
    """A 3 × 3 convolution with stride 1 and padding 1, and the ReLU behind it, in float32."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """``weight`` [out, in, 3, 3], ``bias`` [out]."""
        out_channels, in_channels = weight.shape[:2]
        kernels = _OF_KERNEL @ weight.double().permute(2, 3, 1, 0).reshape(KERNEL**2, -1)  # [36, in * out]
        #: For every point a matrix that all tiles are multiplied with.
        self.kernels = kernels.float().view(PATCH**2, in_channels, out_channels)
        self.bias = bias
        self.out_channels = out_channels

    def __call__(self, x: Tensor) -> Tensor:
        """``x`` [B, in, h, w] to [B, out, h, w], laid out channels last."""
        (rows, columns), (height, width) = _tiles(x), x.shape[2:]
        out = x.new_empty(len(x), rows, TILE, columns, TILE, self.out_channels)
        images = max(1, TILES_AT_ONCE // (rows * columns))
        for part, part_out in zip(x.split(images), out.split(images), strict=True):
            torch.clamp_min(self._tiles_of(part), 0, out=part_out)
        out = out.view(len(x), rows * TILE, columns * TILE, self.out_channels)[:, :height, :width]
        return out.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def _tiles_of(self, x: Tensor) -> Tensor:
        """Outputs for ``x`` [B, C, h, w], tile by tile: [B, rows, 4, columns, 4, out].

        Points come first in memory, so that every step is a product of whole matrices.
        """
        (rows, columns), (batch, channels, height, width) = _tiles(x), x.shape
        below, right = 1 + rows * TILE - height, 1 + columns * TILE - width
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, right, 1, below))
        patches = padded.unfold(1, PATCH, TILE).unfold(2, PATCH, TILE)  # [B, rows, columns, C, 6, 6]
        patches = patches.permute(4, 5, 0, 1, 2, 3).reshape(PATCH**2, -1)
        at_points = (_OF_PATCH_32 @ patches).view(PATCH**2, -1, channels)  # [36, tiles, C]
        products = x.new_empty(PATCH**2 + 1, at_points.shape[1], self.out_channels)
        torch.bmm(at_points, self.kernels, out=products[:-1])
        products[-1] = self.bias
        back = _BACK_AND_BIAS @ products.flatten(1)  # [16, tiles * out]
        return back.view(TILE, TILE, batch, rows, columns, self.out_channels).permute(2, 3, 0, 4, 1, 5)
