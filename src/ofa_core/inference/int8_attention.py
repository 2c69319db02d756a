"""Attention of a model whose weights are of 8 bits: fewer products, and bfloat16 where the CPU computes in it.

Keys, values and biases are no weights, so they are not rounded to 8 bits; in bfloat16 they take half the memory to
read, and its products half the time or less.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..model.attention import KeysValues
from ..model.position_bias import Grid, LayerBias
from . import onednn
from .bias_cache import FastEncoder
from .fast_layers import FastAttention
from .int8 import Int8Linear, Int8Product
from .untouched import untouched
from .weight_cache import WeightCache


class Int8Attention(FastAttention):
    """Attention in bfloat16 where the CPU computes in it."""

    _product: Int8Product
    _cache: WeightCache

    def attach(self, cache: WeightCache) -> None:
        """Keep what is derived from the weights in ``cache``."""
        self._cache = cache
        self._product = Int8Product(cache)

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, key_padding_mask: Tensor | None
    ) -> Tensor:
        """As :meth:`Attention.attend`; ``keys`` and ``values`` may be of bfloat16."""
        dtype = queries.dtype
        short = torch.bfloat16 if self._is_short() else dtype
        queries, keys, values, bias = (part.to(short) for part in (queries, keys, values, bias))
        return super().attend(queries, keys, values, bias, key_padding_mask).to(dtype)

    def _is_short(self) -> bool:
        """Tell whether this call computes in bfloat16."""
        return onednn.computes_bfloat16() and self._product.may_use()

    def _projected(self, x: Tensor, *projections: nn.Linear) -> list[Tensor] | None:
        """Results [B, H, T, E] of several ``projections`` of ``x`` [B, T, D] as one product; None where it may not."""
        if not untouched((self, *projections), _KINDS):
            return None
        weights = [projection.weight for projection in projections]
        biases = tuple(bias for projection in projections if (bias := projection._parameters.get("bias")) is not None)
        if len(biases) < len(weights) or not self._product.may_use(*weights):
            return None
        out = self._product(x, tuple(weights), biases)
        return [self._split(part) for part in out.split(x.shape[-1], dim=-1)]


class Int8SelfAttention(Int8Attention):
    """Self-attention whose queries, keys and values are one product."""

    def keys_values(self, x: Tensor) -> KeysValues:
        """As :meth:`Attention.keys_values`; the queries, which are asked for next, are computed with them."""
        made = self._projected(x, self.q_proj, self.k_proj, self.v_proj)
        memo = self._cache.memo
        if made is None or memo is None:
            return super().keys_values(x)
        queries, keys, values = made
        memo[self] = (x, queries)
        return keys, values

    def queries(self, x: Tensor) -> Tensor:
        """As :meth:`Attention.queries`."""
        made = self._cache.memo and self._cache.memo.pop(self, None)
        if isinstance(made, tuple) and made[0] is x:
            return made[1]
        return super().queries(x)


class Int8CrossAttention(Int8Attention):
    """Attention to the encoder's states, whose keys and values are one product and stand in order for every step."""

    def keys_values(self, x: Tensor) -> KeysValues:
        """As :meth:`Attention.keys_values`."""
        made = self._projected(x, self.k_proj, self.v_proj)
        keys, values = super().keys_values(x) if made is None else made
        dtype = torch.bfloat16 if self._is_short() and "attend" not in vars(self) else x.dtype
        return keys.to(dtype).contiguous(), values.to(dtype).contiguous()


_KINDS = frozenset({Int8SelfAttention, Int8CrossAttention, Int8Linear})


class Int8Encoder(FastEncoder):
    """The encoder with its position biases kept in the type that attention computes in."""

    def _computed(self, length: int, grid: Grid) -> LayerBias:
        compute = super()._computed(length, grid)
        return (lambda layer: compute(layer).bfloat16()) if onednn.computes_bfloat16() else compute
