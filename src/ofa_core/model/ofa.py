"""OFA: one encoder-decoder over pictures, text, boxes and image codes.

Axes, here and everywhere: B batch, S source positions (P patches first, then N text tokens), T target positions,
D width, H heads, E = D/H width of a head, K beams, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ClassificationHeadConfig, OFAConfig
from ..errors import OFAError
from ..text.vocabulary import PAD
from .decoder import Decoder
from .encoder import Encoder, ImageFeatures, Memory
from .kv_cache import DecoderCache
from .position_bias import RelativeBias


class TokenEmbedding(nn.Embedding):
    """Vectors of tokens, which are at the same time the weights of the output."""

    def logits(self, states: Tensor) -> Tensor:
        """Logits [..., V] of decoder ``states`` [..., D]."""
        return F.linear(states, self.weight)


class ClassificationHead(nn.Module):
    """Class scores from the state of one target position: dense, tanh and a projection, or the projection alone."""

    def __init__(self, dim: int, config: ClassificationHeadConfig, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(dim, config.inner_dim) if config.inner_dim else None
        self.out_proj = nn.Linear(config.inner_dim or dim, config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores [B, classes] of states ``x`` [B, D]."""
        if self.dense is not None:
            x = torch.tanh(self.dense(self.dropout(x)))
        return self.out_proj(self.dropout(x))


class OFAModel(nn.Module):
    """The network: tokens and pictures to logits. Freshly made it is random; :func:`ofa_core.load` fills it."""

    def __init__(self, config: OFAConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = TokenEmbedding(config.vocab_size, config.embed_dim)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.classification_heads = nn.ModuleDict(
            {
                name: ClassificationHead(config.embed_dim, head, config.pooler_dropout)
                for name, head in config.classification_heads.items()
            }
        )
        #: How a :class:`~ofa_core.static_decoder.StaticDecoder` takes a step, in a model that decodes in static shapes.
        self.static_step: Callable[[Any], Tensor] | None = None
        self.initialize()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.token_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are."""
        return self.token_embedding.weight.dtype

    def encode(
        self, tokens: Tensor, images: Tensor | ImageFeatures | None = None, image_mask: Tensor | None = None
    ) -> Memory:
        """Encode source ``tokens`` [B, N] (padded with 1) and, if given, normalised ``images`` [B, 3, h, w].

        In place of pixels, ``images`` may be what :meth:`image_features` made of them. ``image_mask`` [B] is False for
        samples without a picture, whose pixels are then ignored.

        Raises:
            OFAError: shapes that do not fit, token ids outside the vocabulary, or more than the position tables hold.
        """
        self.check_tokens(tokens, "source tokens")
        if isinstance(images, Tensor):
            images = self.image_features(images)
        for name, count in (
            ("images", None if images is None else images.patches.shape[0]),
            ("image_mask", None if image_mask is None else image_mask.shape[0]),
        ):
            if count is not None and count != tokens.shape[0]:
                raise OFAError(f"{name} holds {count} samples, the source tokens {tokens.shape[0]}")
        return self.encoder(self.token_embedding(tokens), tokens.eq(PAD), images, image_mask)

    def image_features(self, images: Tensor) -> ImageFeatures:
        """The image stem alone, on normalised ``images`` [B, 3, h, w]; the result serves any number of texts."""
        return self.encoder.image_features(images)

    def decode(
        self, memory: Memory, prefix: Tensor, cache: DecoderCache | None = None, code_mask: Tensor | None = None
    ) -> Tensor:
        """Logits [B*K, T, V] for what follows each position of target ``prefix`` [B*K, T'].

        T is T' without a cache; with one, only the positions it does not hold yet are computed, and it holds them then.
        The K prefixes of a sample stand together. ``code_mask`` [B] is True for samples whose target is image codes.

        Raises:
            OFAError: shapes that do not fit, token ids outside the vocabulary, or more than the position tables hold.
        """
        return self.logits(self.decode_states(memory, prefix, cache, code_mask))

    def decode_states(
        self, memory: Memory, prefix: Tensor, cache: DecoderCache | None = None, code_mask: Tensor | None = None
    ) -> Tensor:
        """The states [B*K, T, D] that :meth:`decode` computes its logits from."""
        self.check_tokens(prefix, "target prefix")
        if prefix.shape[0] % memory.states.shape[0]:
            raise OFAError(f"{prefix.shape[0]} prefixes cannot be shared out over {memory.states.shape[0]} samples")
        if code_mask is not None and code_mask.shape != memory.states.shape[:1]:
            raise OFAError(f"code_mask holds {len(code_mask)} samples, the memory {len(memory.states)}")
        cache = DecoderCache() if cache is None else cache
        if not cache.length < prefix.shape[1]:
            raise OFAError(f"the cache holds {cache.length} positions: a prefix of {prefix.shape[1]} has nothing new")
        positions = torch.arange(prefix.shape[1], device=prefix.device)
        new = positions[cache.length :]
        hidden = None if len(new) == 1 else positions[None, :] > new[:, None]  # [T, T']
        padding = prefix.eq(PAD)[:, None, None, :]  # [B*K, 1, 1, T']
        if padding.any():
            hidden = padding if hidden is None else hidden | padding
        target = self.token_embedding(prefix[:, cache.length :])
        return self.decoder(target, memory, cache, new, hidden, code_mask)

    def logits(self, states: Tensor) -> Tensor:
        """Logits [..., V] of decoder ``states`` [..., D]: the output projection is the token embedding."""
        return self.token_embedding.logits(states)

    def forward(
        self,
        tokens: Tensor,
        prefix: Tensor,
        images: Tensor | ImageFeatures | None = None,
        image_mask: Tensor | None = None,
        code_mask: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, T, V] of a whole target ``prefix`` [B, T] at once; see :meth:`encode` and :meth:`decode`."""
        return self.decode(self.encode(tokens, images, image_mask), prefix, code_mask=code_mask)

    def classify(
        self, head: str, tokens: Tensor, prefix: Tensor, images: Tensor | ImageFeatures | None = None
    ) -> Tensor:
        """Scores [B, classes] of a classification head, read at the last target position that is not padding."""
        if head not in self.classification_heads:
            known = ", ".join(self.classification_heads) or "none"
            raise OFAError(f"this model has no classification head {head!r}; it has {known}")
        states = self.decode_states(self.encode(tokens, images), prefix)
        last = prefix.ne(PAD).long().cumsum(1).argmax(1)
        return self.classification_heads[head](states[torch.arange(len(last), device=last.device), last])

    def initialize(self, std: float = 0.02) -> None:
        """Begin anew: normal weights of standard deviation ``std`` (0.02 as BERT) and zero biases and relative tables.

        The image stem keeps what it has.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, RelativeBias):
                for table in module.parameters():
                    nn.init.zeros_(table)

    def check_tokens(self, tokens: Tensor, name: str) -> None:
        """Raise OFAError unless ``tokens`` is [batch, length], not empty and within the vocabulary."""
        if tokens.dim() != 2 or 0 in tokens.shape:
            raise OFAError(f"{name} must be [batch, length] and not empty, not {list(tokens.shape)}")
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self.config.vocab_size:
            raise OFAError(f"{name} hold id {low if low < 0 else high}; ids run from 0 to {self.config.vocab_size - 1}")
