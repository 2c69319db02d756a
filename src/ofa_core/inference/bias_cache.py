"""Position biases of the encoder, kept between batches: they tell where things stand, whatever these are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from .weight_cache import Following

#: Rows and columns of patches; None without a picture.
Grid = tuple[int, int] | None
#: What gives the bias [1, H, S, S] of a layer.
LayerBias = Callable[[int], Tensor]

#: Biases are made for texts of a multiple of this length, so that a few serve all; shorter texts see a part of one.
LENGTH_STEP = 32


@dataclass(frozen=True)
class _Entry:
    """The biases for one grid and texts of up to ``length`` tokens."""

    length: int
    compute: LayerBias
    kept: tuple[Tensor, ...]  # those of the first layers

    def bias(self, layer: int) -> Tensor:
        return self.kept[layer] if layer < len(self.kept) else self.compute(layer)

    @property
    def nbytes(self) -> int:
        return sum(bias.nbytes for bias in self.kept)


class BiasCache:
    """The biases of the grids that were seen last, up to ``max_bytes``.

    Layers for which there is no room are computed anew every time, such as the last ones of the huge size.
    """

    def __init__(self, layers: int, max_bytes: int = 1 << 30) -> None:
        self.layers = layers
        self.max_bytes = max_bytes
        self._entries: Following[dict[Grid, _Entry]] = Following()

    def get(
        self, weights: Iterable[Tensor], grid: Grid, length: int, longest: int, compute: Callable[[int], LayerBias]
    ) -> LayerBias:
        """The biases for a text of ``length`` tokens.

        ``compute`` gives those for any length up to ``longest``, from ``weights``.
        """
        entries = self._entries.get(weights, dict)
        if grid not in entries or entries[grid].length < length:
            entries.pop(grid, None)
            whole = min(-(-length // LENGTH_STEP) * LENGTH_STEP, longest)
            entry = self._keep(whole, compute(whole))
            while entries and entry.nbytes + sum(other.nbytes for other in entries.values()) > self.max_bytes:
                del entries[next(iter(entries))]  # the oldest
            entries[grid] = entry
        entry = entries[grid]
        size = length + (grid[0] * grid[1] if grid is not None else 0)
        return lambda layer: entry.bias(layer)[..., :size, :size]

    def _keep(self, length: int, compute: LayerBias) -> _Entry:
        first = compute(0)
        room = min(self.layers, self.max_bytes // first.nbytes)
        kept = [first, *(compute(layer) for layer in range(1, room))] if room else []
        return _Entry(length, compute, tuple(kept))
