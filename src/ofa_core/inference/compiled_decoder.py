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
from ..model.decoder import TargetPositions
from ..model.encoder import Memory
from ..model.kv_cache import DecoderCache, LayerCache
from ..model.ofa import OFAModel
from .position_table import FastDecoder

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
        self.own[0].index_copy_(2, self.at, keys)
        self.own[1].index_copy_(2, self.at, values)
        return self.own


class CompiledDecoder:
    """Decodes prefixes of text that grow by one token at a time, in steps of one shape.

    Args:
        model: a model made faster by :func:`~ofa_core.optimized`.
        memory: the encoder's states of B samples.
        rows: prefixes, as many for each sample.
        length: the most tokens that a prefix may have.
        step: takes a step; :func:`static_step`, or what a compiler made of it.

    Raises:
        OFAError: more tokens than the table of positions holds, or a model without one.
    """

    def __init__(
        self,
        model: OFAModel,
        memory: Memory,
        rows: int,
        length: int,
        step: Callable[[CompiledDecoder], Tensor] | None = None,
    ) -> None:
        table = model.decoder.position_table() if isinstance(model.decoder, FastDecoder) else None
        if table is None:
            raise OFAError("static decoding needs the table of positions of a model that is made faster")
        longest = table.self_bias.shape[-1]
        if length > longest:
            raise OFAError(f"static decoding is for targets of up to {longest} tokens, not {length}")
        capacity = min(-(-length // CAPACITY_STEP) * CAPACITY_STEP, longest)
        device, dtype = memory.states.device, memory.states.dtype
        self.model, self.memory = model, memory
        self._step = step or static_step
        #: The position of the step and its token in each row: what a step reads besides the cache.
        self.at = torch.zeros(1, dtype=torch.long, device=device)
        self.tokens = torch.zeros(rows, dtype=torch.long, device=device)
        self.everywhere = torch.arange(capacity, device=device)
        self.self_bias = table.self_bias[..., :capacity]  # [layers, 1, H, L, capacity]
        keys = model.decoder.cross_position_bias.keys(memory.positions)
        self.cross_bias = table.cross_bias(torch.arange(longest, device=device), keys)  # [1, H, L, S]
        self.cache = DecoderCache()
        shape = (rows, model.config.num_heads, capacity, model.config.head_dim)
        for layer in model.decoder.layers:
            own = (torch.zeros(shape, device=device, dtype=dtype), torch.zeros(shape, device=device, dtype=dtype))
            cross = layer.cross_attn.keys_values(memory.states)  # type: ignore[union-attr, operator]
            self.cache.layers.append(_StaticLayer(own, cross, self.at))

    def logits(self, prefixes: Tensor) -> Tensor:
        """Logits [rows, V] of what follows ``prefixes`` [rows, t], one token longer than in the call before."""
        self.tokens.copy_(prefixes[:, -1])
        self.at.fill_(prefixes.shape[1] - 1)
        return self._step(self)

    def reorder(self, rows: Tensor) -> None:
        """Go on with the prefixes ``rows``."""
        for layer in self.cache.layers:
            for kept in layer.own or ():
                kept.copy_(kept.index_select(0, rows))


def static_step(static: CompiledDecoder) -> Tensor:
    """Take one step: tensors of fixed shapes in, logits out; this is what can be compiled."""
    decoder, at = static.model.decoder, static.at
    self_bias = static.self_bias.index_select(3, at)
    positions = TargetPositions(
        codes=False,
        vectors=decoder.text_positions(at),
        self_bias=lambda layer: self_bias[layer],
        cross_bias=static.cross_bias.index_select(2, at),
    )
    attn_mask = static.everywhere[None] > at[:, None]
    target = static.model.token_embedding(static.tokens)[:, None]
    states = decoder.run_layers(target, static.memory, static.cache, [positions], attn_mask)
    return static.model.logits(states[:, -1])


class CompiledStep:
    """:func:`static_step` through ``torch.compile``; a copied or pickled one is compiled anew when it is taken."""

    def __init__(self, mode: str | None) -> None:
        self.mode = mode
        self._compiled: Callable[[CompiledDecoder], Tensor] | None = None

    def __reduce__(self) -> tuple[type[CompiledStep], tuple[str | None]]:
        return type(self), (self.mode,)

    def __call__(self, static: CompiledDecoder) -> Tensor:
        """Logits [rows, V], as from :func:`static_step`."""
        if self._compiled is None:
            self._compiled = torch.compile(static_step, fullgraph=True, mode=self.mode)
        return self._compiled(static)
