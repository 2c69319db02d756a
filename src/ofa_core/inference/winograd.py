"""3 × 3 convolutions with a quarter of the multiplications, on CPUs.

Winograd's F(4 × 4, 3 × 3) as A. Lavin and S. Gray use it ("Fast Algorithms for Convolutional Neural Networks", CVPR
2016): a tile of 4 × 4 outputs depends on 6 × 6 inputs. Seen as polynomials, inputs and kernel are evaluated at points,
multiplied there, channel by channel, and the products are put together again: 36 products of matrices for a tile
instead of 144. With the usual points 0, ±1, ±2 a digit is lost; with these ones rounding errors are less than twice
those of oneDNN's direct convolution. Tiles of 2 × 2, which training uses, take 16 products instead of 36.
"""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from . import onednn

#: Side of the kernel.
KERNEL = 3
#: Fewer are not worth it: there are four times as many weights to read as of a direct convolution, and with few
#: channels the transforms cost what the products save.
MIN_TILES, MIN_CHANNELS = 16, 128
#: Tiles of one pass: what is made of more of them does not stay in the caches.
TILES_AT_ONCE = 512


class Transforms:
    """Matrices to points and back, rows before columns, in float64; ``points`` are finite, and infinity is one more.

    Attributes:
        tile: side of a tile of outputs.
        side: side of the patch of inputs that it depends on.
        of_patch: from a patch to its values at the points, [side², side²].
        of_kernel: from a kernel, [side², 9].
        back: from products at the points to a tile, [tile², side²].
    """

    def __init__(self, points: tuple[float, ...]) -> None:
        self.side: int = len(points) + 1
        self.tile: int = self.side - KERNEL + 1
        others = [tuple(other for other in points if other != point) for point in points]
        patch = torch.tensor([self._coefficients(roots) for roots in [*others, points]], dtype=torch.float64)
        spread = [prod(point - other for other in rest) for point, rest in zip(points, others, strict=True)]
        kernel = _powers(points, KERNEL) / torch.tensor([*spread, 1.0], dtype=torch.float64)[:, None]
        back = _powers(points, self.tile).T
        self.of_patch, self.of_kernel, self.back = (torch.kron(one, one) for one in (patch, kernel, back))

    def _coefficients(self, roots: tuple[float, ...]) -> list[float]:
        """Coefficients of the polynomial with these roots, constant first, ``side`` of them."""
        found = [1.0]
        for root in roots:
            found = [low - root * high for low, high in zip([0.0, *found], [*found, 0.0], strict=True)]
        return found + [0.0] * (self.side - len(found))

    def tiles(self, x: Tensor) -> tuple[int, int]:
        """Rows and columns of tiles that cover ``x`` [B, C, h, w]."""
        return -(-x.shape[2] // self.tile), -(-x.shape[3] // self.tile)

    def samples_of(self, x: Tensor, tiles: int) -> int:
        """The number of samples of ``x`` [B, C, h, w] that have about so many tiles, at least one."""
        rows, columns = self.tiles(x)
        return max(1, tiles // (rows * columns))

    def kernels(self, weight: Tensor) -> Tensor:
        """A matrix for every point, [side², in, out], of a ``weight`` [out, in, 3, 3]; in its type."""
        at_points = self.of_kernel.to(weight.dtype) @ weight.permute(2, 3, 1, 0).reshape(KERNEL**2, -1)
        return at_points.view(self.side**2, weight.shape[1], weight.shape[0])

    def patches(self, x: Tensor) -> Tensor:
        """Patches of ``x`` [B, C, h, w] with a border of zeros around it, [side², tiles * C], a sample's together.

        Places within a patch come first in memory, so that every step is a product of whole matrices.
        """
        (rows, columns), (height, width) = self.tiles(x), x.shape[2:]
        below, right = 1 + rows * self.tile - height, 1 + columns * self.tile - width
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, right, 1, below))
        found = padded.unfold(1, self.side, self.tile).unfold(2, self.side, self.tile)  # [B, rows, columns, C, ., .]
        return found.permute(4, 5, 0, 1, 2, 3).reshape(self.side**2, -1)


def _powers(points: tuple[float, ...], count: int) -> Tensor:
    """Powers 0 to count - 1 of each point, and of infinity, whose highest power counts alone: [points + 1, count]."""
    finite = [[point**power for power in range(count)] for point in points]
    return torch.tensor([*finite, [0.0] * (count - 1) + [1.0]], dtype=torch.float64)


#: Tiles of 4 × 4. Of all points tried, these give the least rounding errors.
FOUR = Transforms((0.0, 3 / 2, -3 / 2, 2 / 3, -2 / 3))
TILE, PATCH = FOUR.tile, FOUR.side
_OF_PATCH_32 = FOUR.of_patch.float()
#: The way back, and behind it what adds a row of biases to each of the 16 outputs.
_BACK_AND_BIAS = torch.cat([FOUR.back, torch.ones(TILE**2, 1)], 1).float()


def should_use(x: Tensor) -> bool:
    """Tell whether a :class:`WinogradConvolution` computes ``x`` [B, C, h, w], and faster than a direct one."""
    rows, columns = FOUR.tiles(x)
    large = len(x) * rows * columns >= MIN_TILES and x.shape[1] >= MIN_CHANNELS
    return large and x.dtype == torch.float32 and x.device.type == "cpu" and onednn.available(x.dtype)


class WinogradConvolution:
    """A 3 × 3 convolution with stride 1 and padding 1, and the ReLU behind it, in float32."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """``weight`` [out, in, 3, 3], ``bias`` [out]."""
        #: For every point a matrix that all tiles are multiplied with.
        self.kernels = FOUR.kernels(weight.double()).float()
        self.bias = bias
        self.out_channels = len(weight)

    def __call__(self, x: Tensor) -> Tensor:
        """``x`` [B, in, h, w] to [B, out, h, w], laid out channels last."""
        (rows, columns), (height, width) = FOUR.tiles(x), x.shape[2:]
        out = x.new_empty(len(x), rows, TILE, columns, TILE, self.out_channels)
        images = FOUR.samples_of(x, TILES_AT_ONCE)
        for part, part_out in zip(x.split(images), out.split(images), strict=True):
            torch.clamp_min(self._tiles_of(part), 0, out=part_out)
        out = out.view(len(x), rows * TILE, columns * TILE, self.out_channels)[:, :height, :width]
        return out.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def _tiles_of(self, x: Tensor) -> Tensor:
        """Outputs for ``x`` [B, C, h, w], tile by tile: [B, rows, 4, columns, 4, out]."""
        (rows, columns), batch, channels = FOUR.tiles(x), *x.shape[:2]
        at_points = (_OF_PATCH_32 @ FOUR.patches(x)).view(PATCH**2, -1, channels)  # [36, tiles, C]
        products = x.new_empty(PATCH**2 + 1, at_points.shape[1], self.out_channels)
        torch.bmm(at_points, self.kernels, out=products[:-1])
        products[-1] = self.bias
        back = _BACK_AND_BIAS @ products.flatten(1)  # [16, tiles * out]
        return back.view(TILE, TILE, batch, rows, columns, self.out_channels).permute(2, 3, 0, 4, 1, 5)
