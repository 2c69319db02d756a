"""A table of the first positions of a target of text, the same whatever it says: computed once, read at every step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..model.decoder import Decoder, TargetPositions
from ..model.position_bias import AbsoluteBias, RelativeBias, token_buckets
from .fast_layers import FastLinear
from .untouched import may_replace, untouched
from .weight_cache import DerivedTensors, WeightCache

#: Target positions that a :class:`PositionTable` holds; longer targets are rare.
TABLE_LENGTH = 64


@dataclass(frozen=True)
class PositionTable:
    """The first L positions of a target of text."""

    self_bias: Tensor  # [layers, 1, H, L, L]
    cross_queries: Tensor  # [H, L, E], scaled queries of the cross-attention bias

    def cross_bias(self, positions: Tensor, cross_keys: Tensor) -> Tensor:
        """The cross-attention bias [1, H, T, S] of ``positions`` [T] against projected source positions [H, S, E]."""
        return (self.cross_queries.index_select(1, positions) @ cross_keys.transpose(-1, -2)).unsqueeze(0)


class FastDecoder(Decoder):
    """The decoder with the biases of short targets read off a table."""

    _KINDS = frozenset({nn.Embedding, nn.LayerNorm, nn.ModuleList, nn.Linear, FastLinear, AbsoluteBias, RelativeBias})

    weight_cache: WeightCache
    _table: DerivedTensors[PositionTable]

    def attach(self, cache: WeightCache) -> None:
        """Keep what is derived from the weights in ``cache``."""
        self.weight_cache = cache
        self._table = DerivedTensors(cache)

    def target_positions(
        self, positions: Tensor, all_positions: Tensor, cross_keys: Tensor, codes: bool
    ) -> TargetPositions:
        """As :meth:`Decoder.target_positions`."""
        table = None if codes else self.position_table()
        if table is None or (longest := int(positions.max()) + 1) > table.self_bias.shape[-1]:
            return super().target_positions(positions, all_positions, cross_keys, codes)
        self_bias = _rows_and_columns(table.self_bias[..., :longest, :longest], positions, all_positions)
        return TargetPositions(
            vectors=self.text_positions(positions),
            self_bias=lambda layer: self_bias[layer],
            cross_bias=table.cross_bias(positions, cross_keys),
        )

    def position_table(self) -> PositionTable | None:
        """The table of the first :data:`TABLE_LENGTH` positions; None where the plain decoder has to compute."""
        memo = self.weight_cache.memo if may_replace() else None
        if memo is None:
            return None
        if self not in memo:
            memo[self] = self._find_table()
        return memo[self]  # type: ignore[return-value]

    def _find_table(self) -> PositionTable | None:
        sources = (
            self.text_positions, self.text_position_norm, self.self_position_bias, self.cross_position_bias,
            self.text_relative,
        )  # fmt: skip
        if not untouched(sources, self._KINDS):
            return None
        return self._table.get(tuple(weight for module in sources for weight in module.parameters()), self._make_table)

    def _make_table(self) -> PositionTable:
        at = torch.arange(min(TABLE_LENGTH, self.config.max_target_positions), device=self.text_positions.weight.device)
        normed = self.text_position_norm(self.text_positions(at))
        absolute = self.self_position_bias(normed, self.self_position_bias.keys(normed))
        buckets = token_buckets(at, at, self.config.token_bucket_size, self.config.max_target_positions)
        layers = range(len(self.layers))
        return PositionTable(
            self_bias=torch.stack([absolute + self.text_relative(layer, buckets) for layer in layers]),
            cross_queries=self.cross_position_bias.queries(normed),
        )


def _rows_and_columns(table: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``table[..., rows, columns]`` of a table [..., R, C]: picking columns is slow, so of as few rows as possible."""
    if len(rows) < table.shape[-2]:
        return table.index_select(-2, rows).index_select(-1, columns)
    return table.index_select(-1, columns).index_select(-2, rows)
