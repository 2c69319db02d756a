"""One multi-head attention for the encoder, the decoder and across them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import OFAConfig

#: Keys and values, [B, H, S, E] each.
KeysValues = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """softmax(q·k · scale + bias) · v, with a learned factor on each head's output where ``scale_heads`` is on."""

    def __init__(self, config: OFAConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.heads: int = config.num_heads
        self.scale: float = config.attention_scale
        self.dropout: float = config.attention_dropout
        self.q_proj: nn.Linear = nn.Linear(dim, dim)
        self.k_proj: nn.Linear = nn.Linear(dim, dim)
        self.v_proj: nn.Linear = nn.Linear(dim, dim)
        self.out_proj: nn.Linear = nn.Linear(dim, dim)
        self.head_scale: nn.Parameter | None = nn.Parameter(torch.ones(self.heads)) if config.scale_heads else None

    def keys_values(self, x: Tensor) -> KeysValues:
        """Keys and values, each [B, H, S, E], of ``x`` [B, S, D]."""
        return self._split(self.k_proj(x)), self._split(self.v_proj(x))

    def queries(self, x: Tensor) -> Tensor:
        """Queries [B, H, T, E] of ``x`` [B, T, D]."""
        return self._split(self.q_proj(x))

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor, key_padding_mask: Tensor | None = None
    ) -> Tensor:
        """Attend from ``x`` to ``keys`` and ``values``.

        Args:
            x: states [B, T, D] to attend from.
            keys: [B, H, S, E].
            values: [B, H, S, E].
            bias: added to the scores; broadcasts to [B, H, T, S]. -inf where a query must not see a key.
            key_padding_mask: [B, S], True at keys that no query of the sample sees; None where all are seen.

        Returns:
            What is attended to, [B, T, D].
        """
        out = self.attend(self.queries(x), keys, values, bias, key_padding_mask)  # [B, H, T, E]
        if self.head_scale is not None:
            out = out * self.head_scale[:, None, None]
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, key_padding_mask: Tensor | None
    ) -> Tensor:
        """Attend with each head: [B, H, T, E] from ``queries`` [B, H, T, E]; the rest as :meth:`forward` has it."""
        if key_padding_mask is not None:
            bias = bias.masked_fill(key_padding_mask[:, None, None, :], -torch.inf)  # [B, H, T, S]
        dropout = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=bias, dropout_p=dropout, scale=self.scale
        )

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, T, D] -> [B, H, T, E]
