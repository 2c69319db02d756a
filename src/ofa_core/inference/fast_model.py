"""The same model, faster: the same weights and, within rounding, the same results, for inference only.

What changes: linear layers on a CPU run through oneDNN, which is somewhat faster than torch's own choice for many rows
and several times faster for the few of a decoding step; the image stem's BatchNorm is folded into its convolutions, and
those of 3 × 3 take a quarter of the multiplications; position biases are kept instead of computed for every batch;
padded samples attend one by one instead of through a mask for every sample, head, query and key; and the feed-forwards
of large batches run piece by piece.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.layers import FeedForward
from ..model.ofa import OFAModel, TokenEmbedding
from ..vision.resnet import ResNetStem
from . import onednn
from .bias_cache import BiasCache
from .compiled_decoder import CompiledStep
from .int8 import Int8Linear, check_int8
from .resnet_folded import FoldedStem
from .weight_cache import Following

#: oneDNN takes some 15 µs to begin with: products of fewer multiplications are faster without it.
WORTH_IT = 1 << 20
#: What feed-forwards hold inside at a time: larger pieces do not stay in the caches, and every one of over 32 MiB is
#: memory that the C library asks the system for, page by page, and gives back.
INNER_BYTES = 16 << 20


def optimized(model: OFAModel, *, int8: bool = False, compile_steps: bool = False) -> OFAModel:
    """A model that shares the weights of ``model`` and answers faster.

    It follows when these weights are changed. Where gradients are recorded it computes like ``model`` itself. With
    ``int8`` the linear layers of encoder and decoder layers use weights rounded to 8 bits, which is faster still, but
    no longer equal. With ``compile_steps`` decoding steps have fixed shapes and go through ``torch.compile``, which
    pays on GPUs, where it makes them CUDA graphs.

    Raises:
        OFAError: ``int8`` where it cannot be computed.
    """
    if int8:
        check_int8(model.device)
    layers = [*model.encoder.layers, *model.decoder.layers]
    rounded = {id(module) for layer in layers for module in layer.modules()} if int8 else set()
    memo: dict[int, object] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    for module in model.modules():
        kind = Int8Linear if id(module) in rounded else FastLinear
        if isinstance(module, ResNetStem):
            memo[id(module)] = FoldedStem(module)
        elif isinstance(module, FeedForward):
            memo[id(module.fc1)] = kind(module.fc1.weight, module.fc1.bias, gelu=True)
            memo[id(module.activation)] = nn.Identity()
        elif isinstance(module, nn.Linear) and id(module) not in memo:
            memo[id(module)] = kind(module.weight, module.bias)
        elif isinstance(module, TokenEmbedding):
            memo[id(module)] = FastTokenEmbedding(module)
    fast = copy.deepcopy(model, memo)
    fast.encoder.bias_cache = BiasCache(len(model.encoder.layers))
    fast.decoder.position_table = Following()
    if model.device.type == "cpu":
        for layer in (*fast.encoder.layers, *fast.decoder.layers):
            layer.ffn.inner_bytes = INNER_BYTES // 2 if int8 else INNER_BYTES  # int8 passes over it more often
    if compile_steps:
        fast.static_step = CompiledStep("reduce-overhead" if model.device.type == "cuda" else None)
    return fast


class _Product:
    """x · weightᵀ + bias, and GELU if wanted, through oneDNN where that is possible."""

    def __init__(self, gelu: bool = False) -> None:
        self.gelu = gelu
        self._packed: Following[Tensor] = Following()

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.numel() // x.shape[-1]
        if (
            rows * weight.numel() < WORTH_IT
            or x.device.type != "cpu"
            or x.dtype != weight.dtype
            or torch.is_grad_enabled()
            or torch.is_autocast_enabled("cpu")
            or not onednn.available(x.dtype)
        ):
            out = F.linear(x, weight, bias)
            return F.gelu(out) if self.gelu else out
        return onednn.linear(x, self._packed.get((weight,), lambda: onednn.packed(weight)), bias, gelu=self.gelu)


class FastLinear(nn.Module):
    """A linear layer with the weights of a plain one, and GELU behind it if wanted."""

    def __init__(self, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self._product = _Product(gelu)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [..., in] to [..., out]."""
        return self._product(x, self.weight, self.bias)


class FastTokenEmbedding(TokenEmbedding):
    """Token vectors with the weights of a plain embedding."""

    def __init__(self, plain: TokenEmbedding) -> None:
        super().__init__(plain.num_embeddings, plain.embedding_dim, _weight=plain.weight)
        self.weight = plain.weight
        self._product = _Product()

    def logits(self, states: Tensor) -> Tensor:
        """Logits [..., V] of decoder ``states`` [..., D]."""
        return self._product(states, self.weight, None)
