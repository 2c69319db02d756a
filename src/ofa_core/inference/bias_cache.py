"""Position biases of the encoder, kept between batches: they tell where things stand, whatever these are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn

from ..model.encoder import Encoder
from ..model.position_bias import AbsoluteBias, Grid, LayerBias, RelativeBias
from .fast_layers import FastLinear
from .untouched import may_replace, untouched
from .weight_cache import DerivedTensors, WeightCache

#: Biases are made for texts of a multiple of this length, so that a few serve all; shorter texts see a part of one.
LENGTH_STEP = 32
#: Bytes that the biases of one model may take.
MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class _Entry:
    """The biases for one grid and texts of up to ``length`` tokens."""

    length: int
    kept: tuple[Tensor, ...]  # those of the first layers

    @property
    def nbytes(self) -> int:
        return sum(bias.nbytes for bias in self.kept)


class BiasCache:
    """The biases of the grids that were seen last, up to ``max_bytes``.

    Layers for which there is no room are computed anew every time, such as the last ones of the huge size.
    """

    def __init__(self, layers: int, max_bytes: int = MAX_BYTES) -> None:
        self.layers = layers
        self.max_bytes = max_bytes
        self.entries: dict[Grid, _Entry] = {}

    def get(self, grid: Grid, length: int, longest: int, compute: Callable[[int], LayerBias]) -> LayerBias:
        """The biases for a text on a grid of patches.

        Args:
            grid: rows and columns of patches; None without a picture.
            length: tokens of the text.
            longest: tokens of the longest text.
            compute: gives the biases for a text of any length up to ``longest``.

        Returns:
            A function from a layer's index to its bias [1, H, S, S].
        """
        entry = self.entries.get(grid)
        if entry is None or entry.length < length:
            self.entries.pop(grid, None)
            whole = min(-(-length // LENGTH_STEP) * LENGTH_STEP, longest)
            entry = self._keep(whole, compute(whole))
            while self.entries and entry.nbytes + sum(e.nbytes for e in self.entries.values()) > self.max_bytes:
                del self.entries[next(iter(self.entries))]  # the oldest
            self.entries[grid] = entry
        size = length + (grid[0] * grid[1] if grid is not None else 0)
        kept = entry.kept
        rest = compute(entry.length) if len(kept) < self.layers else None

        def bias(layer: int) -> Tensor:
            whole = kept[layer] if rest is None or layer < len(kept) else rest(layer)
            return whole[..., :size, :size]

        return bias

    def _keep(self, length: int, compute: LayerBias) -> _Entry:
        """Compute the biases of as many layers as there is room for; nothing that leads back to the model is kept."""
        first = compute(0)
        room = min(self.layers, self.max_bytes // first.nbytes)
        return _Entry(length, tuple([first, *(compute(layer) for layer in range(1, room))] if room else []))


class FastEncoder(Encoder):
    """The encoder with its position biases kept from earlier batches."""

    _KINDS = frozenset({nn.Embedding, nn.LayerNorm, nn.ModuleList, nn.Linear, FastLinear, AbsoluteBias, RelativeBias})

    weight_cache: WeightCache
    _biases: DerivedTensors[BiasCache]

    def attach(self, cache: WeightCache) -> None:
        """Keep what is derived from the weights in ``cache``."""
        self.weight_cache = cache
        self._biases = DerivedTensors(cache)

    def layer_biases(self, positions: Tensor, length: int, grid: Grid, places: Tensor | None = None) -> LayerBias:
        """As :meth:`Encoder.layer_biases`."""
        sources = (
            self.text_positions, self.image_positions, self.text_position_norm, self.image_position_norm,
            self.position_bias, self.text_relative, self.image_relative,
        )  # fmt: skip
        usual = places is None and may_replace()
        if not (usual and self.weight_cache.memo is not None and untouched(sources, self._KINDS)):
            return super().layer_biases(positions, length, grid, places)
        weights = tuple(weight for module in sources for weight in module.parameters())
        biases = self._biases.get(weights, lambda: BiasCache(len(self.layers)))
        return biases.get(grid, length, self.config.max_source_positions, lambda whole: self._computed(whole, grid))

    def add_patch_bias(self, bias: Tensor, layer: int, buckets: Tensor, grid: Grid) -> None:
        """As :meth:`Encoder.add_patch_bias`, in half the time: what is added depends on offsets alone.

        So each row of patches adds a part of one small table; NumPy adds what stands in it backwards, without a copy.
        """
        size = self.config.image_bucket_size
        by_offset = grid is not None and max(grid) <= size and buckets.dim() == 2
        in_numpy = may_replace() and bias.device.type == "cpu" and bias.dtype == torch.float32
        if grid is None or not (by_offset and in_numpy and untouched((self.image_relative,), self._KINDS)):
            super().add_patch_bias(bias, layer, buckets, grid)
            return
        weight = self.image_relative.tables[layer].get_parameter("weight").detach()
        learned = weight[: (2 * size - 1) ** 2].unflatten(0, (2 * size - 1, -1)).numpy()  # [offsets down, across, H]
        rows, columns = (slice(size - count, size + count - 1) for count in grid)
        table = np.ascontiguousarray(learned[rows, columns].transpose(2, 0, 1)[:, ::-1, ::-1])
        windows = sliding_window_view(table, grid, axis=(1, 2))  # [H, R, C, R, C], queries from the last to the first
        sums = bias[0].unflatten(-1, grid).unflatten(1, grid).numpy()
        sums += windows[:, ::-1, ::-1]

    def _computed(self, length: int, grid: Grid) -> LayerBias:
        positions = self.normalized_positions(*self.position_vectors(length, grid))
        return super().layer_biases(positions, length, grid)
