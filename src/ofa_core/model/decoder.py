"""The decoder: target prefixes and the encoder's memory in, states of the new positions out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, is_grad_enabled, nn

from ..config import OFAConfig
from ..errors import OFAError
from ..inference.bias_cache import LayerBias
from ..inference.weight_cache import Following
from .encoder import Memory
from .kv_cache import DecoderCache
from .layers import DecoderLayer, PrefixPrompt
from .position_bias import (
    AbsoluteBias,
    RelativeBias,
    code_position_ids,
    image_buckets,
    num_image_buckets,
    num_token_buckets,
    token_buckets,
)

#: Target positions that a :class:`PositionTable` holds; longer targets are rare.
TABLE_LENGTH = 64


@dataclass(frozen=True)
class TargetPositions:
    """How one kind of target, text or image codes, sees the positions of a step."""

    vectors: Tensor  # [T, D], position vectors of the new positions, before normalisation
    self_bias: LayerBias  # [1, H, T, all positions]
    cross: Tensor  # [1, H, T, S], the cross-attention bias


@dataclass(frozen=True)
class PositionTable:
    """How a target of text sees its first L positions, whatever it says."""

    normed: Tensor  # [L, D], normalised position vectors
    self_bias: Tensor  # [layers, 1, H, L, L]


class Decoder(nn.Module):
    """Embedding of target tokens and the stack of decoder layers."""

    def __init__(self, config: OFAConfig) -> None:
        super().__init__()
        self.config = config
        dim, heads, layers = config.embed_dim, config.num_heads, config.decoder_layers
        self.text_norm = nn.LayerNorm(dim)
        self.code_norm = nn.LayerNorm(dim) if config.code_layernorm else None
        self.dropout = nn.Dropout(config.dropout)

        self.text_positions = nn.Embedding(config.max_target_positions + 2, dim)
        self.image_positions = nn.Embedding(config.image_bucket_size**2 + 1, dim)
        self.text_position_norm = nn.LayerNorm(dim)
        self.image_position_norm = nn.LayerNorm(dim)
        self.self_position_bias = AbsoluteBias(dim, heads, config.attention_scale)
        self.cross_position_bias = AbsoluteBias(dim, heads, config.attention_scale)
        self.text_relative = RelativeBias(layers, num_token_buckets(config.token_bucket_size), heads)
        self.image_relative = RelativeBias(layers, num_image_buckets(config.image_bucket_size), heads)

        rates = torch.linspace(0, config.decoder_drop_path, layers, device="cpu").tolist()
        self.layers = nn.ModuleList(DecoderLayer(config, rate) for rate in rates)
        self.prompt = PrefixPrompt(config, layers, config.decoder_prompt) if config.decoder_prompt else None
        self.final_norm = nn.LayerNorm(dim)
        #: What is known of short targets' positions, in a model for inference; see :mod:`ofa_core.optimize`.
        self.position_table: Following[PositionTable] | None = None

    def forward(
        self,
        target: Tensor,
        memory: Memory,
        cache: DecoderCache,
        positions: Tensor,
        hidden: Tensor | None,
        code_mask: Tensor | None = None,
    ) -> Tensor:
        """States [B*K, T, D] of the T new positions, which ``cache`` then holds as well.

        Args:
            target: embedded target tokens [B*K, T, D] of the new positions.
            memory: the encoder's states of the B samples.
            cache: the earlier positions.
            positions: [T], where in the target each new token stands.
            hidden: True where a key must not be seen, if any; broadcasts to [B*K, H, T, all positions].
            code_mask: [B], True for samples whose target is image codes.
        """
        longest = int(positions.max()) + 1
        if longest > self.config.max_target_positions:
            raise OFAError(
                f"a target of {longest} tokens is too long: this model holds {self.config.max_target_positions}"
            )
        all_positions = positions if cache.positions is None else torch.cat([cache.positions, positions])
        cache.positions = all_positions
        if cache.cross_position_keys is None:
            cache.cross_position_keys = self.cross_position_bias.keys(memory.positions)
        if code_mask is None and self.position_table is not None and longest <= TABLE_LENGTH and not is_grad_enabled():
            kinds = [self.kept_positions(positions, all_positions, longest, cache)]
        else:
            kinds = [
                self._target_positions(positions, all_positions, cache.cross_position_keys, codes)
                for codes in ((False,) if code_mask is None else (False, True))
            ]
        return self.run(target, memory, cache, kinds, hidden, code_mask)

    def run(
        self,
        target: Tensor,
        memory: Memory,
        cache: DecoderCache,
        kinds: list[TargetPositions],
        hidden: Tensor | None,
        code_mask: Tensor | None = None,
    ) -> Tensor:
        """What :meth:`forward` does once it is known how ``kinds`` of target, text and perhaps codes, see positions."""
        beams = target.shape[0] // memory.states.shape[0]
        of_row = None if code_mask is None else code_mask.repeat_interleave(beams)  # [B*K]

        x = self._embed(target, kinds, of_row)
        cross_bias = _choose([kind.cross for kind in kinds], code_mask)
        if memory.padding is not None:
            cross_bias = cross_bias.masked_fill(memory.padding[:, None, None, :], -torch.inf)
        prompts = self.prompt() if self.prompt is not None else [None] * len(self.layers)
        hiding = None if hidden is None else target.new_zeros(hidden.shape).masked_fill_(hidden, -torch.inf)
        for index, (layer, prompt) in enumerate(zip(self.layers, prompts, strict=True)):
            self_bias = _choose([kind.self_bias(index) for kind in kinds], of_row)
            if hiding is not None:
                self_bias = self_bias + hiding
            x = layer(x, memory.states, cache.layer(index), self_bias, cross_bias, prompt)
        return self.final_norm(x)

    def _embed(self, target: Tensor, kinds: list[TargetPositions], of_row: Tensor | None) -> Tensor:
        """Target tokens [B*K, T, D] as they enter the first layer."""
        entangle = self.config.entangle_decoder_positions
        norms = (self.text_norm, self.code_norm or self.text_norm)
        versions = [
            norm(target + kind.vectors if entangle else target) for norm, kind in zip(norms, kinds, strict=False)
        ]
        return self.dropout(_choose(versions, of_row))

    def _target_positions(
        self, positions: Tensor, all_positions: Tensor, cross_keys: Tensor, codes: bool
    ) -> TargetPositions:
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
            vectors=vectors,
            self_bias=lambda layer: absolute + relative(layer, buckets),
            cross=self.cross_position_bias(normed, cross_keys),
        )

    def kept_positions(
        self, positions: Tensor, all_positions: Tensor, longest: int, cache: DecoderCache
    ) -> TargetPositions:
        """What :meth:`_target_positions` gives for text, read off tables of all positions up to a length.

        All positions are below ``longest``.
        """
        table = self.kept_table()
        if cache.cross_bias is None:
            cache.cross_bias = self.cross_position_bias(table.normed, cache.cross_position_keys)
        self_bias = _rows_and_columns(table.self_bias[..., :longest, :longest], positions, all_positions)
        return self.table_positions(positions, self_bias, cache.cross_bias)

    def table_positions(self, positions: Tensor, self_bias: Tensor, cross_bias: Tensor) -> TargetPositions:
        """How text at ``positions`` [T] sees: ``self_bias`` [layers, 1, H, T, ·] is theirs, ``cross_bias`` [1, H, L, S]
        that of the whole table."""
        return TargetPositions(
            vectors=self.text_positions(positions),
            self_bias=lambda layer: self_bias[layer],
            cross=cross_bias.index_select(2, positions),
        )

    def kept_table(self) -> PositionTable:
        """The table of the first :data:`TABLE_LENGTH` positions, from earlier if there is a place to keep it."""
        if self.position_table is None:
            return self._make_position_table()
        sources = (
            self.text_positions, self.text_position_norm, self.self_position_bias, self.cross_position_bias,
            self.text_relative,
        )  # fmt: skip
        weights = (weight for module in sources for weight in module.parameters())
        return self.position_table.get(weights, self._make_position_table)

    def _make_position_table(self) -> PositionTable:
        at = torch.arange(min(TABLE_LENGTH, self.config.max_target_positions), device=self.text_positions.weight.device)
        normed = self.text_position_norm(self.text_positions(at))
        absolute = self.self_position_bias(normed, self.self_position_bias.keys(normed))
        buckets = token_buckets(at, at, self.config.token_bucket_size, self.config.max_target_positions)
        layers = range(len(self.layers))
        return PositionTable(normed, torch.stack([absolute + self.text_relative(layer, buckets) for layer in layers]))


def _rows_and_columns(table: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``table[..., rows, columns]`` of a table [..., R, C]: picking columns is slow, so of as few rows as possible."""
    if len(rows) < table.shape[-2]:
        return table.index_select(-2, rows).index_select(-1, columns)
    return table.index_select(-1, columns).index_select(-2, rows)


def _choose(versions: list[Tensor], code_mask: Tensor | None) -> Tensor:
    """The text version, or row by row the one ``code_mask`` [B] asks for."""
    if code_mask is None:
        return versions[0]
    return torch.where(code_mask.view(-1, *[1] * (versions[0].dim() - 1)), versions[1], versions[0])
