"""A decoder's cache with room for what is to come, so that a step copies its own keys and values and no others."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..model.attention import KeysValues
from ..model.kv_cache import DecoderCache, LayerCache

#: Positions that there is room for at first; then it doubles.
FIRST_ROOM = 32


@dataclass
class GrowingLayer(LayerCache):
    """A layer's keys and values at the beginning of longer tensors."""

    room: KeysValues | None = None  # [B*K, H, more than T, E] each

    def append(self, keys: Tensor, values: Tensor) -> KeysValues:
        """As :meth:`LayerCache.append`."""
        held = 0 if self.own is None else self.own[0].shape[2]
        length = held + keys.shape[2]
        if self.room is None or self.room[0].shape[2] < length or self.room[0].shape[0] != keys.shape[0]:
            self.room = self._moved(keys, values, held, length)
        for place, new in zip(self.room, (keys, values), strict=True):
            place[:, :, held:length] = new
        self.own = (self.room[0][:, :, :length], self.room[1][:, :, :length])
        return self.own

    def _moved(self, keys: Tensor, values: Tensor, held: int, length: int) -> KeysValues:
        """More room, with what is held at its beginning."""
        capacity = max(2 * length, FIRST_ROOM)
        rows, heads, _, width = keys.shape
        room = tuple(new.new_empty(rows, heads, capacity, width) for new in (keys, values))
        if self.own is not None:
            for place, old in zip(room, self.own, strict=True):
                place[:, :, :held] = old
        return room[0], room[1]


class GrowingCache(DecoderCache):
    """A cache of :class:`GrowingLayer`, for prefixes that are not reordered."""

    def layer(self, index: int) -> LayerCache:
        """As :meth:`DecoderCache.layer`."""
        while len(self.layers) <= index:
            self.layers.append(GrowingLayer())
        return self.layers[index]

    def branch(self) -> DecoderCache:
        """As :meth:`DecoderCache.branch`; both go on in rooms of their own."""
        self._leave_rooms()
        return super().branch()

    def reorder(self, rows: Tensor) -> None:
        """As :meth:`DecoderCache.reorder`; the next step makes room anew."""
        super().reorder(rows)
        self._leave_rooms()

    def _leave_rooms(self) -> None:
        for layer in self.layers:
            if isinstance(layer, GrowingLayer):
                layer.room = None
