"""Biases from where tokens and patches stand: buckets of relative distance (pure functions), and two kinds of bias."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

#: Rows and columns of patches; None without a picture.
Grid = tuple[int, int] | None
#: A function from a layer's index to its bias.
LayerBias = Callable[[int], Tensor]

#: Pixels a patch covers, a side.
PATCH_SIZE = 16
#: Pixels an image code covers, a side.
CODE_SIZE = 8


def num_token_buckets(bucket_size: int) -> int:
    """Rows of a table of relative text positions."""
    return 2 * bucket_size - 1


def num_image_buckets(bucket_size: int) -> int:
    """Rows of a table of relative patch positions: two-dimensional offsets, and three for the first position."""
    return (2 * bucket_size - 1) ** 2 + 3


def token_buckets(queries: Tensor, keys: Tensor, bucket_size: int = 256, max_positions: int = 1024) -> Tensor:
    """Buckets [Q, K] of the distances between text positions ``queries`` [Q] and ``keys`` [K].

    Distances of up to half the bucket size have a bucket each, longer ones share logarithmically wider buckets.
    """
    distance = queries[:, None] - keys[None, :]
    near = bucket_size // 2
    length = distance.abs().clamp(min=near - 1)  # keeps the logarithm finite where its value is not used
    far = (length / near).log() / math.log((max_positions - 1) / near) * (near - 1)
    bucket = torch.where(distance.abs() <= near, distance, distance.sign() * (far.ceil().long() + near))
    return bucket + bucket_size - 1


def image_buckets(queries: Tensor, keys: Tensor, bucket_size: int = 42) -> Tensor:
    """Buckets [..., Q, K] of the offsets between patch position ids ``queries`` [..., Q] and ``keys`` [..., K].

    Ids count a ``bucket_size`` × ``bucket_size`` grid from 1, row by row; id 0 stands before the grid.
    """
    span = 2 * bucket_size - 1
    row_q, column_q = (queries - 1) // bucket_size, (queries - 1) % bucket_size
    row_k, column_k = (keys - 1) // bucket_size, (keys - 1) % bucket_size
    rows = row_q[..., :, None] - row_k[..., None, :] + bucket_size - 1
    columns = column_q[..., :, None] - column_k[..., None, :] + bucket_size - 1
    bucket = rows * span + columns
    from_first, to_first = (queries == 0)[..., :, None], (keys == 0)[..., None, :]
    special = span**2
    bucket = torch.where(from_first, special, bucket)
    bucket = torch.where(to_first, special + 1, bucket)
    return torch.where(from_first & to_first, special + 2, bucket)


def patch_position_ids(height: int, width: int, bucket_size: int = 42, device: torch.device | None = None) -> Tensor:
    """Position ids [P] of a grid of ``height`` × ``width`` patches, row by row."""
    rows = torch.arange(height, device=device)[:, None] * bucket_size
    return (rows + torch.arange(width, device=device)[None, :] + 1).flatten()


def code_position_ids(positions: Tensor, code_image_size: int, bucket_size: int = 42) -> Tensor:
    """Patch position ids of image codes at target ``positions``: 0, then the code window row by row, then 1024."""
    side = code_image_size // CODE_SIZE
    row, column = (positions - 1) // side, (positions - 1) % side
    ids = torch.where(positions <= side * side, row * bucket_size + column + 1, 1024)
    return torch.where(positions == 0, 0, ids)


def absolute_bias(queries: Tensor, keys: Tensor) -> Tensor:
    """Bias [1 or B, H, Q, K] of projected positions, [H, ·, E] where all samples have the same, else [B, H, ·, E]."""
    bias = queries @ keys.transpose(-1, -2)
    return bias if bias.dim() == 4 else bias.unsqueeze(0)


class AbsoluteBias(nn.Module):
    """Bias from where query and key stand: the scaled product of two projections of their position vectors.

    Position vectors are [·, D], the same for all samples, or [B, ·, D]; what is made of them is so, too.
    """

    def __init__(self, dim: int, heads: int, scale: float) -> None:
        super().__init__()
        self.heads = heads
        self.scale = scale
        self.query: nn.Linear = nn.Linear(dim, dim)
        self.key: nn.Linear = nn.Linear(dim, dim)

    def queries(self, vectors: Tensor) -> Tensor:
        """Projected and scaled queries [H, Q, E] of position vectors [Q, D]."""
        return self.query(vectors).unflatten(-1, (self.heads, -1)).transpose(-3, -2) * self.scale

    def keys(self, vectors: Tensor) -> Tensor:
        """Projected keys [H, K, E] of position vectors [K, D]; worth keeping where they serve many steps."""
        return self.key(vectors).unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def forward(self, vectors: Tensor, keys: Tensor) -> Tensor:
        """Bias [1 or B, H, Q, K] of query position vectors [Q, D] against :meth:`keys` [H, K, E]."""
        return absolute_bias(self.queries(vectors), keys)


class RelativeBias(nn.Module):
    """Bias from the distance between query and key: a learned table of buckets for each layer."""

    def __init__(self, layers: int, buckets: int, heads: int) -> None:
        super().__init__()
        self.tables: nn.ModuleList = nn.ModuleList(nn.Embedding(buckets, heads) for _ in range(layers))

    def forward(self, layer: int, buckets: Tensor) -> Tensor:
        """Bias [1, H, Q, K] of one layer for ``buckets`` [Q, K], or [B, H, Q, K] for [B, Q, K]."""
        bias: Tensor = self.tables[layer](buckets).movedim(-1, -3)
        return bias if bias.dim() == 4 else bias.unsqueeze(0)
