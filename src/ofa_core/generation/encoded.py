"""A batch that was encoded once, for everything that is decoded from it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..model.attention import Attention
from ..model.encoder import ImageFeatures, Memory
from ..model.kv_cache import DecoderCache, LayerCache
from ..model.ofa import OFAModel


@dataclass(frozen=True)
class Encoded:
    """A batch as a model's encoder has read it, with the keys and values that all targets of it attend to."""

    memory: Memory
    #: A cache without target positions; what decodes goes on with a :meth:`DecoderCache.branch` of it.
    shared: DecoderCache


def encode_once(
    model: OFAModel, tokens: Tensor, images: Tensor | ImageFeatures | None, image_mask: Tensor | None = None
) -> Encoded:
    """Encode a batch for several decodings.

    Args:
        model: the model.
        tokens: source tokens [B, N], padded with 1.
        images: normalised pixels [B, 3, h, w] or the stem's features; None for text alone.
        image_mask: [B], False for samples without a picture.

    Returns:
        The encoder's states, and the cross-attention's keys and values of every layer.
    """
    memory = model.encode(tokens, images, image_mask)
    attentions: list[Attention] = [layer.cross_attn for layer in model.decoder.layers]  # type: ignore[misc]
    layers = [LayerCache(cross=attention.keys_values(memory.states)) for attention in attentions]
    return Encoded(memory, DecoderCache(layers, None, model.decoder.cross_position_bias.keys(memory.positions)))
