"""The part of a decoder's work that is kept between steps, handed to it as an argument."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .attention import KeysValues


@dataclass
class LayerCache:
    """Keys and values of one layer. Self-attention's are one per beam, cross-attention's one per sample."""

    own: KeysValues | None = None  # [B*K, H, T, E] each
    cross: KeysValues | None = None  # [B, H, S, E] each

    def append(self, keys: Tensor, values: Tensor) -> KeysValues:
        """Add the new positions' self-attention keys and values; returns those of all positions so far."""
        if self.own is not None:
            keys, values = torch.cat([self.own[0], keys], dim=2), torch.cat([self.own[1], values], dim=2)
        self.own = (keys, values)
        return self.own


@dataclass
class DecoderCache:
    """Everything a decoder has computed for a batch of prefixes.

    Made empty and passed to every :meth:`ofa_core.OFAModel.decode` of the same prefixes, it grows by the new positions.
    """

    layers: list[LayerCache] = field(default_factory=list)
    #: Target positions [T] of the cached keys.
    positions: Tensor | None = None
    #: Projected source positions that every step's cross-attention bias is computed from: [H, S, E], the same for all
    #: samples, or [B, H, S, E].
    cross_position_keys: Tensor | None = None

    @property
    def length(self) -> int:
        """Number of target positions held."""
        return 0 if self.positions is None else self.positions.shape[0]

    def extend(self, positions: Tensor) -> Tensor:
        """Add target ``positions`` [T]; returns those of all keys so far."""
        self.positions = positions if self.positions is None else torch.cat([self.positions, positions])
        return self.positions

    def layer(self, index: int) -> LayerCache:
        """The part that belongs to one layer."""
        while len(self.layers) <= index:
            self.layers.append(LayerCache())
        return self.layers[index]

    def branch(self) -> DecoderCache:
        """A cache that shares what stands so far and grows by itself."""
        return replace(self, layers=[replace(layer) for layer in self.layers])

    def reorder(self, rows: Tensor) -> None:
        """Keep the beams ``rows`` (indices into B*K), in that order."""
        for layer in self.layers:
            if layer.own is not None:
                layer.own = (layer.own[0].index_select(0, rows), layer.own[1].index_select(0, rows))

    def select_samples(self, samples: Tensor) -> None:
        """Keep the samples ``samples`` (indices into B) of what beams share; call :meth:`reorder` for the rest."""
        for layer in self.layers:
            if layer.cross is not None:
                layer.cross = (layer.cross[0].index_select(0, samples), layer.cross[1].index_select(0, samples))
        if self.cross_position_keys is not None and self.cross_position_keys.dim() == 4:
            self.cross_position_keys = self.cross_position_keys.index_select(0, samples)
