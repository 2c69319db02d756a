"""One multi-head attention for the encoder, the decoder and across them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import OFAConfig

KeysValues = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """softmax(q·k · scale + bias) · v, with a learned factor on each head's output where ``scale_heads`` is on."""

    def __init__(self, config: OFAConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.heads = config.num_heads
        self.scale = config.attention_scale
        self.dropout = config.attention_dropout
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)
        self.head_scale = nn.Parameter(torch.ones(self.heads)) if config.scale_heads else None

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2)  # [B, T, D] -> [B, H, T, E]

    def keys_values(self, x: Tensor) -> KeysValues:
        """Keys and values, each [B, H, S, E], of ``x`` [B, S, D]."""
        return self._split(self.k_proj(x)), self._split(self.v_proj(x))

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor, key_counts: list[int] | None = None
    ) -> Tensor:
        """Attend from ``x`` [B, T, D] to ``keys`` and ``values`` [B, H, S, E].

        ``bias`` broadcasts to [B, H, T, S] and holds the positions' part and -inf where a key must not be seen. Where
        ``key_counts`` are given, each sample sees so many of its first keys only, and ``bias`` is one for all: no mask
        of all samples, heads, queries and keys is needed.
        """
        queries = self._split(self.q_proj(x))
        if key_counts is None:
            out = self._attend(queries, keys, values, bias)  # [B, H, T, E]
        else:
            samples = zip(queries.split(1), keys.split(1), values.split(1), key_counts, strict=True)
            out = torch.cat([self._attend(q, k[:, :, :n], v[:, :, :n], bias[..., :n]) for q, k, v, n in samples])
        if self.head_scale is not None:
            out = out * self.head_scale[:, None, None]
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=bias, dropout_p=dropout, scale=self.scale
        )
