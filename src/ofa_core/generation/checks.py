"""Checks of what a search is given, which the network itself does not make: the values of ids."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..errors import OFAError
from ..model.ofa import OFAModel


def check_tokens(tokens: Tensor, vocab_size: int, name: str) -> None:
    """Raise OFAError unless ``tokens`` is [batch, length], not empty and within a vocabulary of ``vocab_size``."""
    if tokens.dim() != 2 or 0 in tokens.shape:
        raise OFAError(f"{name} must be [batch, length] and not empty, not {list(tokens.shape)}")
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= vocab_size:
        raise OFAError(f"{name} hold id {low if low < 0 else high}; ids run from 0 to {vocab_size - 1}")


def check_inputs(models: Sequence[OFAModel], tokens: Tensor, prefix: Tensor | None) -> None:
    """Raise OFAError unless ``models`` can search targets of ``tokens`` [B, N] that begin with ``prefix`` [B, L]."""
    if not models:
        raise OFAError("there is no model to generate with")
    vocab_size = models[0].config.vocab_size
    if any(model.config.vocab_size != vocab_size for model in models):
        raise OFAError("the models of an ensemble must have the same vocabulary")
    check_tokens(tokens, vocab_size, "source tokens")
    if prefix is not None and (prefix.dim() != 2 or prefix.shape[0] != tokens.shape[0]):
        raise OFAError(f"prefix must be [{tokens.shape[0]}, length], not {list(prefix.shape)}")
    if prefix is not None and prefix.numel():
        check_tokens(prefix, vocab_size, "prefix")
