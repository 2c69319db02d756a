"""One gradient for all uses of the token embedding: lookups of sources and targets, and the output projection."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ..model.ofa import OFAModel


class TokenGradient:
    """The gradient [V, D] of the token embedding while a backward pass adds to it, instead of one for each use.

    All uses look at the weight through one node of the graph, which autograd reaches behind all of them. Other uses of
    the weight are autograd's as ever.
    """

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        self._seen: Tensor | None = None
        self._cast: Tensor | None = None  # the weight in another type
        self._total: Tensor | None = None

    def lookup(self, ids: Tensor) -> Tensor:
        """Vectors [..., D] of ``ids`` [...]."""
        vectors: Tensor = _Lookup.apply(self._node(), ids, self)
        return vectors

    def project(self, states: Tensor) -> Tensor:
        """Logits [..., V] of ``states`` [..., D], under autocast in its type."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else self._weight.dtype
        logits: Tensor = _Project.apply(states, self._node(), self, dtype)
        return logits

    def _node(self) -> Tensor:
        if self._seen is None:
            self._seen = _Uses.apply(self._weight, self)
        return self._seen

    def weight_as(self, dtype: torch.dtype) -> Tensor:
        """The weight in ``dtype``."""
        if dtype == self._weight.dtype:
            return self._weight.detach()
        if self._cast is None or self._cast.dtype != dtype:
            self._cast = self._weight.detach().to(dtype)
        return self._cast

    def add_rows(self, ids: Tensor, grad: Tensor) -> None:
        """Add ``grad`` [..., D] to the rows ``ids`` [...]."""
        if self._total is None:
            self._total = torch.zeros_like(self._weight)
        self._total.index_add_(0, ids.flatten(), grad.reshape(-1, grad.shape[-1]).to(self._total.dtype))

    def add_product(self, grad: Tensor, states: Tensor) -> None:
        """Add gradᵀ · states, of ``grad`` [N, V] and ``states`` [N, D]."""
        if self._total is not None and states.dtype == self._total.dtype:
            self._total.addmm_(grad.t(), states)
            return
        product = (grad.t() @ states).to(self._weight.dtype)
        self._total = product if self._total is None else self._total.add_(product)

    def take(self, grad: Tensor | None) -> Tensor | None:
        """Everything that was added, and ``grad``; what follows begins anew."""
        total, self._total, self._seen, self._cast = self._total, None, None, None
        if total is None or grad is None:
            return grad if total is None else total
        return total.add_(grad)


class _Uses(Function):
    """The weight as its uses see it."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, gradient: TokenGradient) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.gradient = gradient
        return weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None]:
        return ctx.gradient.take(grad), None


class _Lookup(Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, gradient: TokenGradient) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.gradient = gradient
        return F.embedding(ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None]:
        (ids,) = ctx.saved_tensors
        ctx.gradient.add_rows(ids, grad)
        return None, None, None


class _Project(Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, gradient: TokenGradient, dtype: torch.dtype) -> Tensor:
        kept = states.to(dtype)
        cast = gradient.weight_as(dtype)
        # the weight by its node, too: who writes to it before the backward pass is told so
        ctx.save_for_backward(kept, cast, weight)
        ctx.gradient, ctx.dtype = gradient, states.dtype
        with torch.autocast("cpu", enabled=False):
            return F.linear(kept, cast)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, None]:
        states, weight, _ = ctx.saved_tensors
        ctx.gradient.add_product(grad.flatten(0, -2), states.flatten(0, -2))
        return (grad @ weight).to(ctx.dtype) if ctx.needs_input_grad[0] else None, None, None, None


class LookupEmbedding(nn.Embedding):
    """The token embedding whose gradient is added up by a :class:`TokenGradient`."""

    token_gradient: TokenGradient

    def forward(self, ids: Tensor) -> Tensor:
        """``ids`` [...] to vectors [..., D]."""
        return self.token_gradient.lookup(ids) if torch.is_grad_enabled() else super().forward(ids)


class ProjectingModel(OFAModel):
    """The model whose output projection adds to the same gradient."""

    def logits(self, states: Tensor) -> Tensor:
        """As :meth:`OFAModel.logits`."""
        tokens = self.token_embedding
        if not torch.is_grad_enabled() or not isinstance(tokens, LookupEmbedding):
            return super().logits(states)
        return tokens.token_gradient.project(states)
