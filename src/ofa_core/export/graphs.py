"""The two graphs that leave Python: stem with encoder, and a step of the decoder with its cache.

Everything that a step reads of a picture and its text is made once, by the first graph: keys and values of the
cross-attention, and those of its position bias. Beams have an axis of their own, so that no shape depends on another.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..inference.fast_model import plain
from ..model.encoder import Encoder, Memory
from ..model.kv_cache import DecoderCache, LayerCache
from ..model.layers import DecoderLayer
from ..model.ofa import OFAModel
from ..model.position_bias import Grid, LayerBias, token_buckets


class TracedEncoder(Encoder):
    """The encoder with its position biases put together by padding: engines are slow at writing into a part."""

    def layer_biases(self, positions: Tensor, length: int, grid: Grid, places: Tensor | None = None) -> LayerBias:
        """As :meth:`Encoder.layer_biases`."""
        absolute = self.position_bias(positions, self.position_bias.keys(positions))  # [1, H, S, S]
        at = torch.arange(length, device=positions.device)
        text_buckets = token_buckets(at, at, self.config.token_bucket_size, self.config.max_source_positions)
        patch_buckets = self.patch_buckets(grid, places)
        if patch_buckets is None:
            return lambda layer: absolute + self.text_relative(layer, text_buckets)
        patches = patch_buckets.shape[-1]

        def bias(layer: int) -> Tensor:
            of_patches = F.pad(self.image_relative(layer, patch_buckets), (0, length, 0, length))
            of_text = F.pad(self.text_relative(layer, text_buckets), (patches, 0, patches, 0))
            return absolute + of_patches + of_text

        return bias


@contextmanager
def traced(model: OFAModel) -> Iterator[OFAModel]:
    """The plain model with the encoder that is traced; afterwards it is plain."""
    plain(model)
    before = model.encoder.__class__
    model.encoder.__class__ = TracedEncoder
    try:
        yield model
    finally:
        model.encoder.__class__ = before


class EncoderGraph(nn.Module):
    """Tokens and pixels to all that decoding steps read of them."""

    def __init__(self, model: OFAModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, images: Tensor) -> tuple[Tensor, ...]:
        """Encode a batch.

        Args:
            tokens: [B, N], padded with 1.
            images: normalised pixels [B, 3, h, w].

        Returns:
            The encoder's states [B, S, D]; 0 where a position is seen and -inf at padding [B, S]; keys of the
            cross-attention's position bias [H, S, E]; and keys and values [B, H, S, E] of each decoder layer.
        """
        memory = self.model.encode(tokens, images)
        decoder = self.model.decoder
        layers: list[DecoderLayer] = list(decoder.layers)  # type: ignore[arg-type]  # a ModuleList of these
        keys_values = [part for layer in layers for part in layer.cross_attn.keys_values(memory.states)]
        padding = tokens.eq(1) if memory.padding is None else memory.padding
        return memory.states, padding, decoder.cross_position_bias.keys(memory.positions), *keys_values


class DecoderGraph(nn.Module):
    """A step of the decoder, the first one and any other: new tokens and a cache in, logits and a cache out."""

    def __init__(self, model: OFAModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, tokens: Tensor, padding: Tensor, position_keys: Tensor, cross: list[Tensor], past: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """Take a step.

        Args:
            tokens: [B, K, T], the new tokens of K beams a sample; padding may stand behind them and counts as a token.
            padding: as :class:`EncoderGraph` returns it.
            position_keys: as :class:`EncoderGraph` returns them.
            cross: keys and values [B, H, S, E] of each layer, as :class:`EncoderGraph` returns them.
            past: keys and values [B, K, H, t, E] of each layer for the t earlier tokens; t is 0 at the first step.

        Returns:
            Logits [B, K, T, V], and keys and values [B, K, H, t + T, E] of each layer.
        """
        batch, beams, new = tokens.shape
        earlier = past[0].shape[3]
        for part in (padding, *cross, *past):
            torch._check(part.shape[0] == batch)
        for part in past:
            torch._check(part.shape[1] == beams)
        layers = [
            LayerCache(
                own=(past[2 * i].flatten(0, 1), past[2 * i + 1].flatten(0, 1)), cross=(cross[2 * i], cross[2 * i + 1])
            )
            for i in range(len(cross) // 2)
        ]
        at = torch.arange(earlier + new, device=tokens.device)
        cache = DecoderCache(layers, at[:earlier], position_keys)
        states = cross[0][:, 0]  # in place of the encoder's, of which a filled cache needs the number of samples
        target = self.model.token_embedding(tokens.flatten(0, 1))
        later = at[None, :] > at[earlier:, None]
        found = self.model.decoder(target, Memory(states, padding, states[0]), cache, at[earlier:], later)
        logits = self.model.logits(found).unflatten(0, (batch, beams))
        kept = [part.unflatten(0, (batch, beams)) for layer in cache.layers for part in layer.own or ()]
        return logits, *kept
