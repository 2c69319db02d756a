"""Tables of target positions, the same whatever a target says: computed once, read at every step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..model.decoder import Decoder, TargetPositions
from ..model.position_bias import (
    CODE_SIZE,
    AbsoluteBias,
    RelativeBias,
    absolute_bias,
    code_position_ids,
    image_buckets,
    token_buckets,
)
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
        return absolute_bias(self.cross_queries.index_select(1, positions), cross_keys)


@dataclass(frozen=True)
class CodeTable:
    """All L positions of a target of image codes. What layers add is read off their own tables, so one table serves."""

    ids: Tensor  # [L], their places in the grid of patches
    absolute: Tensor  # [1, H, L, L], the part of the self-attention bias that all layers share
    cross_queries: Tensor  # [H, L, E], scaled queries of the cross-attention bias


class FastDecoder(Decoder):
    """The decoder with the biases of short targets, and of image codes, read off tables."""

    _KINDS = frozenset({nn.Embedding, nn.LayerNorm, nn.ModuleList, nn.Linear, FastLinear, AbsoluteBias, RelativeBias})

    weight_cache: WeightCache
    _table: DerivedTensors[PositionTable]
    _code_table: DerivedTensors[CodeTable]

    def attach(self, cache: WeightCache) -> None:
        """Keep what is derived from the weights in ``cache``."""
        self.weight_cache = cache
        self._table = DerivedTensors(cache)
        self._code_table = DerivedTensors(cache)

    def target_positions(
        self, positions: Tensor, all_positions: Tensor, cross_keys: Tensor, codes: bool
    ) -> TargetPositions:
        """As :meth:`Decoder.target_positions`."""
        if codes:
            return self._code_positions(positions, all_positions, cross_keys)
        table = self.position_table()
        if table is None or (longest := int(positions.max()) + 1) > table.self_bias.shape[-1]:
            return super().target_positions(positions, all_positions, cross_keys, codes)
        self_bias = _rows_and_columns(table.self_bias[..., :longest, :longest], positions, all_positions)
        return TargetPositions(
            codes=False,
            vectors=self.text_positions(positions),
            self_bias=lambda layer: self_bias[layer],
            cross_bias=table.cross_bias(positions, cross_keys),
        )

    def _code_positions(self, positions: Tensor, all_positions: Tensor, cross_keys: Tensor) -> TargetPositions:
        """The new positions of image codes; a whole target at once is not worth a table."""
        table = self.code_table() if len(positions) < len(all_positions) else None
        if table is None or int(positions.max()) >= len(table.ids):
            return super().target_positions(positions, all_positions, cross_keys, True)
        ids, all_ids = table.ids[positions], table.ids[all_positions]
        absolute = _rows_and_columns(table.absolute, positions, all_positions)
        buckets = image_buckets(ids, all_ids, self.config.image_bucket_size)
        cross_bias = absolute_bias(table.cross_queries.index_select(1, positions), cross_keys)
        return TargetPositions(
            codes=True,
            vectors=self.image_positions(ids),
            self_bias=lambda layer: absolute + self.image_relative(layer, buckets),
            cross_bias=cross_bias,
        )

    def code_table(self) -> CodeTable | None:
        """The table of all positions of image codes; None where the plain decoder has to compute."""
        memo = self.weight_cache.memo if may_replace() else None
        if memo is None:
            return None
        key = (self, "codes")
        if key not in memo:
            memo[key] = self._find_code_table()
        return memo[key]  # type: ignore[return-value]

    def _find_code_table(self) -> CodeTable | None:
        sources = (
            self.image_positions, self.image_position_norm, self.self_position_bias, self.cross_position_bias,
        )  # fmt: skip
        if not untouched((*sources, self.image_relative), self._KINDS):
            return None
        weights = tuple(weight for module in sources for weight in module.parameters())
        return self._code_table.get(weights, self._make_code_table)

    def _make_code_table(self) -> CodeTable:
        config = self.config
        count = min((config.code_image_size // CODE_SIZE) ** 2, config.max_target_positions) + 1  # and <s>
        at = torch.arange(count, device=self.image_positions.weight.device)
        ids = code_position_ids(at, config.code_image_size, config.image_bucket_size)
        normed = self.image_position_norm(self.image_positions(ids))
        absolute = self.self_position_bias(normed, self.self_position_bias.keys(normed))
        return CodeTable(ids, absolute, self.cross_position_bias.queries(normed))

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
