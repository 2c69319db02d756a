"""Transformer layers: pre-norm residual blocks, with OFA's extra norms and scales where the configuration has them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import OFAConfig, PromptConfig
from ..vision.drop_path import DropPath
from .attention import Attention, KeysValues
from .kv_cache import LayerCache


def _optional_norm(dim: int, present: bool) -> nn.Module:
    return nn.LayerNorm(dim) if present else nn.Identity()


class Adapter(nn.Module):
    """A bottleneck with a residual path: x + up(relu(down(x)))."""

    def __init__(self, dim: int, inner_dim: int) -> None:
        super().__init__()
        self.down: nn.Linear = nn.Linear(dim, inner_dim)
        self.up: nn.Linear = nn.Linear(inner_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [..., D] to [..., D]."""
        return x + self.up(F.relu(self.down(x)))


class FeedForward(nn.Module):
    """fc2(norm(gelu(fc1(x)))), then the adapter where there is one."""

    def __init__(self, config: OFAConfig) -> None:
        super().__init__()
        self.fc1: nn.Linear = nn.Linear(config.embed_dim, config.ffn_dim)
        self.activation: nn.GELU = nn.GELU()
        self.activation_dropout: nn.Dropout = nn.Dropout(config.activation_dropout)
        self.norm: nn.Module = _optional_norm(config.ffn_dim, config.scale_fc)
        self.fc2: nn.Linear = nn.Linear(config.ffn_dim, config.embed_dim)
        self.dropout: nn.Dropout = nn.Dropout(config.dropout)
        self.adapter: Adapter | nn.Identity = (
            Adapter(config.embed_dim, config.adapter_dim) if config.adapter_dim else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [..., D] to [..., D]."""
        x = self.activation_dropout(self.activation(self.fc1(x)))
        return self.adapter(self.dropout(self.fc2(self.norm(x))))


class PrefixPrompt(nn.Module):
    """Learned keys and values that stand in front of every self-attention of a stack (prefix tuning)."""

    def __init__(self, config: OFAConfig, layers: int, prompt: PromptConfig) -> None:
        super().__init__()
        self.layers: int = layers
        self.heads: int = config.num_heads
        out_dim, hidden_dim = layers * 2 * config.embed_dim, prompt.projection_dim
        self.embedding: nn.Embedding = nn.Embedding(prompt.length, config.embed_dim if hidden_dim else out_dim)
        self.projection: nn.Sequential | nn.Identity = (
            nn.Sequential(nn.Linear(config.embed_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim))
            if hidden_dim
            else nn.Identity()
        )

    def forward(self) -> list[KeysValues]:
        """For each layer, keys and values [1, H, length, E]."""
        vectors = self.projection(self.embedding.weight)
        slices = vectors.unflatten(-1, (self.layers, 2, self.heads, -1)).permute(1, 2, 3, 0, 4)  # [layers, 2, H, L, E]
        return [(keys[None], values[None]) for keys, values in slices]


class _Layer(nn.Module):
    """The part that both kinds of layer share: self-attention and feed-forward, each with its residual path."""

    def __init__(self, config: OFAConfig, drop_path: float) -> None:
        super().__init__()
        dim = config.embed_dim
        self.self_attn_norm: nn.LayerNorm = nn.LayerNorm(dim)
        self.self_attn: Attention = Attention(config)
        self.self_attn_out_norm: nn.Module = _optional_norm(dim, config.scale_attn)
        self.ffn_norm: nn.LayerNorm = nn.LayerNorm(dim)
        self.ffn: FeedForward = FeedForward(config)
        self.residual_scale: nn.Parameter | None = nn.Parameter(torch.ones(dim)) if config.scale_resids else None
        self.dropout: nn.Dropout = nn.Dropout(config.dropout)
        self.drop_path: DropPath = DropPath(drop_path)

    def _add_attended(self, x: Tensor, attended: Tensor, out_norm: nn.Module) -> Tensor:
        return x + self.drop_path(self.dropout(out_norm(attended)))

    def _add_feed_forward(self, x: Tensor) -> Tensor:
        residual = x if self.residual_scale is None else x * self.residual_scale
        return residual + self.drop_path(self.ffn(self.ffn_norm(x)))


class EncoderLayer(_Layer):
    """Self-attention and feed-forward."""

    def forward(
        self, x: Tensor, bias: Tensor, key_padding_mask: Tensor | None = None, prompt: KeysValues | None = None
    ) -> Tensor:
        """One layer of the encoder.

        Args:
            x: states [B, S, D].
            bias: position bias; broadcasts to [B, H, S, S].
            key_padding_mask: [B, S], True at positions that are padding; None where there are none.
            prompt: keys and values that stand before those of ``x``, [1, H, length, E] each.

        Returns:
            States [B, S, D].
        """
        h = self.self_attn_norm(x)
        keys, values = self.self_attn.keys_values(h)
        if prompt is not None:
            keys, values, bias = prepend_prompt(prompt, keys, values, bias)
            if key_padding_mask is not None:
                key_padding_mask = F.pad(key_padding_mask, (prompt[0].shape[2], 0))
        x = self._add_attended(x, self.self_attn(h, keys, values, bias, key_padding_mask), self.self_attn_out_norm)
        return self._add_feed_forward(x)


class DecoderLayer(_Layer):
    """Self-attention, attention to the encoder's states, and feed-forward."""

    def __init__(self, config: OFAConfig, drop_path: float) -> None:
        super().__init__(config, drop_path)
        self.cross_attn_norm: nn.LayerNorm = nn.LayerNorm(config.embed_dim)
        self.cross_attn: Attention = Attention(config)
        self.cross_attn_out_norm: nn.Module = _optional_norm(config.embed_dim, config.scale_attn)

    def forward(
        self,
        x: Tensor,
        states: Tensor,
        cache: LayerCache,
        self_bias: Tensor,
        cross_bias: Tensor,
        prompt: KeysValues | None = None,
    ) -> Tensor:
        """One layer of the decoder, on the new positions of K beams a sample.

        Args:
            x: states [B*K, T, D] of the new positions.
            states: the encoder's, [B, S, D].
            cache: keys and values of the earlier positions; those of the new ones are added.
            self_bias: broadcasts to [B*K, H, T, all positions]; -inf where a key must not be seen.
            cross_bias: broadcasts to [B, H, T, S]; -inf at padding.
            prompt: keys and values that stand before all others, [1, H, length, E] each.

        Returns:
            States [B*K, T, D].
        """
        h = self.self_attn_norm(x)
        keys, values = cache.append(*self.self_attn.keys_values(h))
        if prompt is not None:
            keys, values, self_bias = prepend_prompt(prompt, keys, values, self_bias)
        x = self._add_attended(x, self.self_attn(h, keys, values, self_bias), self.self_attn_out_norm)

        if cache.cross is None:
            cache.cross = self.cross_attn.keys_values(states)
        h = self.cross_attn_norm(x)
        x = self._add_attended(x, self._attend_across(h, *cache.cross, cross_bias), self.cross_attn_out_norm)
        return self._add_feed_forward(x)

    def _attend_across(self, h: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """Attend with all beams of a sample as one longer query, so that its keys and values are never copied."""
        rows, length, dim = h.shape
        beams = rows // keys.shape[0]
        folded = h.reshape(-1, beams * length, dim)  # [B, K*T, D]
        bias = bias.unsqueeze(2).expand(-1, -1, beams, -1, -1).flatten(2, 3)  # [1 or B, H, K*T, S]
        return self.cross_attn(folded, keys, values, bias).reshape(rows, length, dim)


def prepend_prompt(prompt: KeysValues, keys: Tensor, values: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Put a prompt's keys and values before the others; it is always visible and has no position.

    Args:
        prompt: keys and values [1, H, length, E].
        keys: [B, H, S, E].
        values: [B, H, S, E].
        bias: [·, H, T, S].

    Returns:
        Keys, values and bias with ``length`` more keys in front.
    """
    front = [part.expand(keys.shape[0], -1, -1, -1) for part in prompt]
    bias = F.pad(bias, (prompt[0].shape[2], 0))
    return torch.cat([front[0], keys], dim=2), torch.cat([front[1], values], dim=2), bias
