"""OFA: one encoder-decoder over pictures, text, boxes and image codes.

Axes, here and everywhere: B batch, S source positions (P patches first, then N text tokens), T target positions,
D width, H heads, E = D/H width of a head, K beams, V vocabulary.
"""

from __future__ import annotations

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


class ClassificationHead(nn.Module):
    """Class scores from the state of one target position: dense, tanh and a projection, or the projection alone."""

    def __init__(self, dim: int, config: ClassificationHeadConfig, dropout: float) -> None:
        super().__init__()
        self.dropout: nn.Dropout = nn.Dropout(dropout)
        self.dense: nn.Linear | None = nn.Linear(dim, config.inner_dim) if config.inner_dim else None
        self.out_proj: nn.Linear = nn.Linear(config.inner_dim or dim, config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores [B, classes] of states ``x`` [B, D]."""
        if self.dense is not None:
            x = torch.tanh(self.dense(self.dropout(x)))
        return self.out_proj(self.dropout(x))


class OFAModel(nn.Module):
    """The network: tokens and pictures to logits. Freshly made it is random; :func:`ofa_core.load` fills it.

    It checks shapes, not values: ids outside the vocabulary are torch's error here, and one in words in
    :func:`ofa_core.generate` and :func:`ofa_core.score_candidates`.
    """

    def __init__(self, config: OFAConfig) -> None:
        super().__init__()
        self.config = config
        #: Vectors of tokens, which are at the same time the weights of the output.
        self.token_embedding: nn.Embedding = nn.Embedding(config.vocab_size, config.embed_dim)
        self.encoder: Encoder = Encoder(config)
        self.decoder: Decoder = Decoder(config)
        self.classification_heads: nn.ModuleDict = nn.ModuleDict(
            {
                name: ClassificationHead(config.embed_dim, head, config.pooler_dropout)
                for name, head in config.classification_heads.items()
            }
        )
        self.initialize()

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.token_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return self.token_embedding.weight.dtype

    def encode(
        self, tokens: Tensor, images: Tensor | ImageFeatures | None = None, image_mask: Tensor | None = None
    ) -> Memory:
        """Encode source tokens and, if given, pictures.

        Args:
            tokens: [B, N], padded with 1.
            images: normalised pixels [B, 3, h, w], or what :meth:`image_features` made of them; None for text alone.
            image_mask: [B], False for samples without a picture, whose pixels are then ignored; None: all have one.

        Returns:
            What :meth:`decode` reads.

        Raises:
            OFAError: shapes that do not fit, or more than the position tables hold.
        """
        _check_shape(tokens, "source tokens")
        if isinstance(images, Tensor):
            images = self.image_features(images)
        for name, count in (
            ("images", None if images is None else images.patches.shape[0]),
            ("image_mask", None if image_mask is None else image_mask.shape[0]),
        ):
            if count is not None and count != tokens.shape[0]:
                raise OFAError(f"{name} holds {count} samples, the source tokens {tokens.shape[0]}")
        return self.encoder(self.token_embedding(tokens), self.padding_mask(tokens), images, image_mask)

    def image_features(self, images: Tensor) -> ImageFeatures:
        """The image stem alone, on normalised ``images`` [B, 3, h, w]; the result serves any number of texts."""
        return self.encoder.image_features(images)

    def decode(
        self, memory: Memory, prefix: Tensor, cache: DecoderCache | None = None, code_mask: Tensor | None = None
    ) -> Tensor:
        """Compute logits for what follows each position of a target.

        Args:
            memory: what :meth:`encode` returned for B samples.
            prefix: target tokens [B*K, T'], those of one sample together, padded with 1.
            cache: what was computed for the first positions of ``prefix``; it holds all of them afterwards.
            code_mask: [B], True for samples whose target is image codes; None where none is.

        Returns:
            Logits [B*K, T, V], where T is T' without a cache, and the number of new positions with one.

        Raises:
            OFAError: shapes that do not fit, or more than the position tables hold.
        """
        return self.logits(self.decode_states(memory, prefix, cache, code_mask))

    def decode_states(
        self, memory: Memory, prefix: Tensor, cache: DecoderCache | None = None, code_mask: Tensor | None = None
    ) -> Tensor:
        """Compute the states that :meth:`decode` computes its logits from.

        Args:
            memory: as for :meth:`decode`.
            prefix: as for :meth:`decode`.
            cache: as for :meth:`decode`.
            code_mask: as for :meth:`decode`.

        Returns:
            States [B*K, T, D].

        Raises:
            OFAError: as :meth:`decode`.
        """
        _check_shape(prefix, "target prefix")
        if prefix.shape[0] % memory.states.shape[0]:
            raise OFAError(f"{prefix.shape[0]} prefixes cannot be shared out over {memory.states.shape[0]} samples")
        if code_mask is not None and code_mask.shape != memory.states.shape[:1]:
            raise OFAError(f"code_mask holds {code_mask.shape[0]} samples, the memory {memory.states.shape[0]}")
        longest = self.config.max_target_positions + (code_mask is not None and bool(code_mask.all()))
        if prefix.shape[1] > longest:
            raise OFAError(f"a target of {prefix.shape[1]} tokens is too long: this model holds {longest}")
        cache = DecoderCache() if cache is None else cache
        start = cache.length
        if not start < prefix.shape[1]:
            raise OFAError(f"the cache holds {start} positions: a prefix of {prefix.shape[1]} has nothing new")
        positions = torch.arange(start, prefix.shape[1], device=prefix.device)
        target = self.token_embedding(prefix[:, start:])
        return self.decoder(target, memory, cache, positions, self.target_mask(prefix, start), code_mask)

    def padding_mask(self, tokens: Tensor) -> Tensor | None:
        """[B, N], True where ``tokens`` are padding; a subclass may say None where none is."""
        return tokens.eq(PAD)

    def target_mask(self, prefix: Tensor, start: int) -> Tensor | None:
        """Find what positions of a target must not see: later ones and padding.

        Args:
            prefix: target tokens [B*K, T'].
            start: the first of the T positions that look.

        Returns:
            True where a position must not be seen; broadcasts to [B*K, H, T, T']. A subclass may say None where all
            are.
        """
        at = torch.arange(prefix.shape[1], device=prefix.device)
        return (at[None, :] > at[start:, None]) | prefix.eq(PAD)[:, None, None, :]

    def logits(self, states: Tensor) -> Tensor:
        """Logits [..., V] of decoder ``states`` [..., D]: the output projection is the token embedding."""
        return F.linear(states, self.token_embedding.weight)

    def forward(
        self,
        tokens: Tensor,
        prefix: Tensor,
        images: Tensor | ImageFeatures | None = None,
        image_mask: Tensor | None = None,
        code_mask: Tensor | None = None,
    ) -> Tensor:
        """Compute logits of a whole target at once.

        Args:
            tokens: as for :meth:`encode`.
            prefix: target tokens [B, T], padded with 1.
            images: as for :meth:`encode`.
            image_mask: as for :meth:`encode`.
            code_mask: as for :meth:`decode`.

        Returns:
            Logits [B, T, V].

        Raises:
            OFAError: as :meth:`encode` and :meth:`decode`.
        """
        return self.decode(self.encode(tokens, images, image_mask), prefix, code_mask=code_mask)

    def classify(
        self, head: str, tokens: Tensor, prefix: Tensor, images: Tensor | ImageFeatures | None = None
    ) -> Tensor:
        """Scores of a classification head, read at the last target position that is not padding.

        Args:
            head: the head's name.
            tokens: source tokens [B, N], padded with 1.
            prefix: target tokens [B, T], padded with 1.
            images: normalised pixels [B, 3, h, w] or the stem's features; None for text alone.

        Returns:
            Scores [B, classes].

        Raises:
            OFAError: there is no such head, or shapes do not fit.
        """
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


def _check_shape(tokens: Tensor, name: str) -> None:
    """Raise OFAError unless ``tokens`` is [batch, length] and not empty."""
    if tokens.dim() != 2 or 0 in tokens.shape:
        raise OFAError(f"{name} must be [batch, length] and not empty, not {list(tokens.shape)}")
