"""Activations that are computed again in the backward pass instead of being kept, to save memory."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..model.kv_cache import LayerCache
from ..model.layers import DecoderLayer, EncoderLayer
from ..model.ofa import OFAModel


def checkpoint_activations(model: OFAModel) -> None:
    """Make every encoder and decoder layer keep its input alone while it is trained.

    The stem is left out: its BatchNorm would count every batch twice.
    """
    for module in model.modules():
        if isinstance(module, EncoderLayer):
            module.forward = _recomputed(module, module.forward)  # type: ignore[method-assign]
        elif isinstance(module, DecoderLayer):
            module.forward = _recomputed(module, _without_cache(module.forward))  # type: ignore[method-assign]


def _recomputed(module: Any, forward: Any) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not module.training:
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run


def _without_cache(forward: Any) -> Any:
    """A decoder layer adds to its cache what it computes, which must not happen twice; in training it begins empty."""

    def run(x: Tensor, states: Tensor, cache: LayerCache, *args: Any, **kwargs: Any) -> Any:
        return forward(x, states, LayerCache(), *args, **kwargs)

    return run
