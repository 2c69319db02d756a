"""Decoding steps that all have one shape and read nothing back, as ``torch.compile`` and CUDA graphs want them.

The usual cache grows with every step; here it has its full size from the start, what is not written yet is hidden, and
where a step stands is itself a tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import OFAError
from ..model.attention import KeysValues
from ..model.decoder import TABLE_LENGTH
from ..model.encoder import Memory
from ..model.kv_cache import DecoderCache, LayerCache
from ..model.ofa import OFAModel

#: Sizes of caches are multiples of this, so that a few compiled steps serve all lengths.
CAPACITY_STEP = 8


@dataclass
class _StaticLayer(LayerCache):
    """A layer's keys and values of full size, written at ``at``."""

    at: Tensor | None = None  # [1]

    def append(self, keys: Tensor, values: Tensor) -> KeysValues:
        """Put the keys and values of one position where it stands; returns those of all positions."""
        if self.own is None or self.at is None:
            raise OFAError("a static cache is made whole")
        for kept, new in zip(self.own, (keys, values), strict=True):
            kept.index_copy_(2, self.at, new)
        return self.own


class StaticDecoder:
    """Decodes prefixes of text that grow by one token at a time, ``rows`` of them, up to ``length`` tokens.

    Raises:
        OFAError: more tokens than the table of positions holds.
    """

    def __init__(self, model: OFAModel, memory: Memory, rows: int, length: int) -> None:
        decoder, config = model.decoder, model.config
        longest = min(TABLE_LENGTH, config.max_target_positions)
        if length > longest:
            raise OFAError(f"static decoding is for targets of up to {longest} tokens, not {length}")
        capacity = min(-(-length // CAPACITY_STEP) * CAPACITY_STEP, longest)
        device, dtype = memory.states.device, memory.states.dtype
        self.model, self.memory = model, memory
        #: Where the step stands, and its token in each row: what a step reads besides the cache.
        self.at = torch.zeros(1, dtype=torch.long, device=device)
        self.tokens = torch.zeros(rows, dtype=torch.long, device=device)
        self.everywhere = torch.arange(capacity, device=device)
        table = decoder.kept_table()
        self.table = table.self_bias[..., :capacity]  # [layers, 1, H, L, capacity]
        keys = decoder.cross_position_bias.keys(memory.positions)
        self.cross_bias: Tensor = decoder.cross_position_bias(table.normed, keys)  # [1, H, L, S]
        self.cache = DecoderCache()
        shape = (rows, config.num_heads, capacity, config.head_dim)
        for layer in decoder.layers:
            own = (torch.zeros(shape, device=device, dtype=dtype), torch.zeros(shape, device=device, dtype=dtype))
            cross = layer.cross_attn.keys_values(memory.states)  # type: ignore[union-attr, operator]
            self.cache.layers.append(_StaticLayer(own, cross, self.at))

    def step(self, tokens: Tensor, position: int) -> Tensor:
        """Logits [rows, V] of what follows ``tokens`` [rows], which stand at ``position``."""
        self.tokens.copy_(tokens)
        self.at.fill_(position)
        return (self.model.static_step or static_step)(self)

    def reorder(self, rows: Tensor) -> None:
        """Go on with the prefixes ``rows``."""
        for layer in self.cache.layers:
            for kept in layer.own or ():
                kept.copy_(kept.index_select(0, rows))


def static_step(static: StaticDecoder) -> Tensor:
    """The step itself: tensors of fixed shapes in, logits out; this is what can be compiled."""
    decoder, cache, at = static.model.decoder, static.cache, static.at
    positions = decoder.table_positions(at, static.table.index_select(3, at), static.cross_bias)
    hidden = static.everywhere[None] > at[:, None]
    target = static.model.token_embedding(static.tokens)[:, None]
    states = decoder.run(target, static.memory, cache, [positions], hidden)
    return static.model.logits(states[:, -1])


class CompiledStep:
    """:func:`static_step` through ``torch.compile``; a copied or pickled one is compiled anew when it is taken."""

    def __init__(self, mode: str | None) -> None:
        self.mode = mode
        self._compiled: Callable[[StaticDecoder], Tensor] | None = None

    def __reduce__(self) -> tuple[type[CompiledStep], tuple[str | None]]:
        return type(self), (self.mode,)

    def __call__(self, static: StaticDecoder) -> Tensor:
        """Logits [rows, V], as from :func:`static_step`."""
        if self._compiled is None:
            self._compiled = torch.compile(static_step, fullgraph=True, mode=self.mode)
        return self._compiled(static)
