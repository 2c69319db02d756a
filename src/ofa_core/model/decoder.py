"""The decoder: target prefixes and the encoder's memory in, states of the new positions out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..config import OFAConfig
from .encoder import Memory
from .kv_cache import DecoderCache
from .layers import DecoderLayer, PrefixPrompt
from .position_bias import (
    AbsoluteBias,
    LayerBias,
    RelativeBias,
    code_position_ids,
    image_buckets,
    num_image_buckets,
    num_token_buckets,
    token_buckets,
)


@dataclass(frozen=True)
class TargetPositions:
    """The new positions of a step as one kind of target, text or image codes, sees them."""

    codes: bool  # True for image codes
    vectors: Tensor  # [T, D], position vectors of the new positions, before normalisation
    self_bias: LayerBias  # [1, H, T, all positions]
    cross_bias: Tensor  # [1, H, T, S], or [B, H, T, S] where sources have their own positions


class Decoder(nn.Module):
    """Embedding of target tokens and the stack of decoder layers."""

    def __init__(self, config: OFAConfig) -> None:
        super().__init__()
        self.config = config
        dim, heads, layers = config.embed_dim, config.num_heads, config.decoder_layers
        self.text_norm: nn.LayerNorm = nn.LayerNorm(dim)
        self.code_norm: nn.LayerNorm | None = nn.LayerNorm(dim) if config.code_layernorm else None
        self.dropout: nn.Dropout = nn.Dropout(config.dropout)

        self.text_positions: nn.Embedding = nn.Embedding(config.max_target_positions + 2, dim)
        self.image_positions: nn.Embedding = nn.Embedding(config.image_bucket_size**2 + 1, dim)
        self.text_position_norm: nn.LayerNorm = nn.LayerNorm(dim)
        self.image_position_norm: nn.LayerNorm = nn.LayerNorm(dim)
        self.self_position_bias: AbsoluteBias = AbsoluteBias(dim, heads, config.attention_scale)
        self.cross_position_bias: AbsoluteBias = AbsoluteBias(dim, heads, config.attention_scale)
        self.text_relative: RelativeBias = RelativeBias(layers, num_token_buckets(config.token_bucket_size), heads)
        self.image_relative: RelativeBias = RelativeBias(layers, num_image_buckets(config.image_bucket_size), heads)

        rates = torch.linspace(0, config.decoder_drop_path, layers, device="cpu").tolist()
        self.layers: nn.ModuleList = nn.ModuleList(DecoderLayer(config, rate) for rate in rates)
        self.prompt: PrefixPrompt | None = (
            PrefixPrompt(config, layers, config.decoder_prompt) if config.decoder_prompt else None
        )
        self.final_norm: nn.LayerNorm = nn.LayerNorm(dim)

    def forward(
        self,
        target: Tensor,
        memory: Memory,
        cache: DecoderCache,
        positions: Tensor,
        attn_mask: Tensor | None = None,
        code_mask: Tensor | None = None,
    ) -> Tensor:
        """States of the T new positions of K prefixes a sample; ``cache`` then holds these positions as well.

        Args:
            target: embedded target tokens [B*K, T, D] of the new positions.
            memory: the encoder's states of the B samples.
            cache: the earlier positions.
            positions: [T], where in the target each new token stands.
            attn_mask: True where a key must not be seen; broadcasts to [B*K, H, T, all positions]. None hides none.
            code_mask: [B], True for samples whose target is image codes; None where none is.

        Returns:
            States [B*K, T, D].
        """
        all_positions = cache.extend(positions)
        if cache.cross_position_keys is None:
            cache.cross_position_keys = self.cross_position_bias.keys(memory.positions)
        kinds = [
            self.target_positions(positions, all_positions, cache.cross_position_keys, codes)
            for codes in ([False] if code_mask is None else sorted(set(code_mask.tolist())))
        ]
        return self.run_layers(target, memory, cache, kinds, attn_mask, code_mask)

    def run_layers(
        self,
        target: Tensor,
        memory: Memory,
        cache: DecoderCache,
        kinds: list[TargetPositions],
        attn_mask: Tensor | None = None,
        code_mask: Tensor | None = None,
    ) -> Tensor:
        """Do the rest of :meth:`forward`, given how ``kinds`` of target, text and perhaps codes, see the positions."""
        beams = target.shape[0] // memory.states.shape[0]
        of_row = None if code_mask is None else code_mask.repeat_interleave(beams)  # [B*K]

        x = self._embed(target, kinds, of_row)
        cross_bias = _choose([kind.cross_bias for kind in kinds], code_mask)
        if memory.padding is not None:
            cross_bias = cross_bias.masked_fill(memory.padding[:, None, None, :], -torch.inf)
        mask_bias = None if attn_mask is None else target.new_zeros(attn_mask.shape).masked_fill(attn_mask, -torch.inf)
        prompts = None if self.prompt is None else self.prompt()
        for index, layer in enumerate(self.layers):
            self_bias = _choose([kind.self_bias(index) for kind in kinds], of_row)
            if mask_bias is not None:
                self_bias = self_bias + mask_bias
            prompt = None if prompts is None else prompts[index]
            x = layer(x, memory.states, cache.layer(index), self_bias, cross_bias, prompt)
        return self.final_norm(x)

    def _embed(self, target: Tensor, kinds: list[TargetPositions], of_row: Tensor | None) -> Tensor:
        """Target tokens [B*K, T, D] as they enter the first layer."""
        norms = (self.text_norm, self.code_norm or self.text_norm)
        entangle = self.config.entangle_decoder_positions
        versions = [norms[kind.codes](target + kind.vectors if entangle else target) for kind in kinds]
        return self.dropout(_choose(versions, of_row))

    def target_positions(
        self, positions: Tensor, all_positions: Tensor, cross_keys: Tensor, codes: bool
    ) -> TargetPositions:
        """The new positions of a step as text sees them, or image codes.

        Args:
            positions: [T], the new positions.
            all_positions: [all positions], those of the keys.
            cross_keys: projected source positions [H, S, E], or [B, H, S, E].
            codes: whether the target is image codes.
        """
        config = self.config
        if codes:
            ids, all_ids = (
                code_position_ids(at, config.code_image_size, config.image_bucket_size)
                for at in (positions, all_positions)
            )
            table, norm, relative = self.image_positions, self.image_position_norm, self.image_relative
            buckets = image_buckets(ids, all_ids, config.image_bucket_size)
        else:
            ids, all_ids = positions, all_positions
            table, norm, relative = self.text_positions, self.text_position_norm, self.text_relative
            buckets = token_buckets(ids, all_ids, config.token_bucket_size, config.max_target_positions)
        vectors = table(ids)
        normed = norm(vectors)
        absolute = self.self_position_bias(normed, self.self_position_bias.keys(norm(table(all_ids))))
        return TargetPositions(
            codes=codes,
            vectors=vectors,
            self_bias=lambda layer: absolute + relative(layer, buckets),
            cross_bias=self.cross_position_bias(normed, cross_keys),
        )


def _choose(versions: list[Tensor], code_mask: Tensor | None) -> Tensor:
    """The only version, or row by row, of text's and image codes', the one ``code_mask`` [B] asks for."""
    if code_mask is None or len(versions) == 1:
        return versions[0]
    return torch.where(code_mask.view(-1, *[1] * (versions[0].dim() - 1)), versions[1], versions[0])
