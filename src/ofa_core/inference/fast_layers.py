"""Layers of the transformer that compute faster with the same weights.

Each is a subclass of the plain layer, with the same weights and submodules, and computes as the plain layer does
wherever the faster way would not be the same: where gradients are recorded, a hook wants to see what is skipped, or a
part was replaced.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.attention import Attention, KeysValues
from ..model.layers import Adapter, FeedForward
from ..utils.mapped_memory import give_back
from . import onednn
from .int8 import Int8Linear
from .untouched import may_replace, untouched
from .weight_cache import DerivedTensors, WeightCache

#: oneDNN takes some 15 µs to begin with: products of fewer multiplications are faster without it.
MIN_MULTIPLICATIONS = 1 << 20
#: Bytes that feed-forwards hold inside at a time: larger pieces do not stay in the caches, and every one of over 32 MiB
#: is memory that the C library asks the system for, page by page, and gives back. int8 passes over it more often.
INNER_BYTES, INNER_BYTES_INT8 = 16 << 20, 8 << 20


class PackedProduct:
    """The product x · weightᵀ + bias, and GELU behind it if wanted, with the weight in oneDNN's layout."""

    def __init__(self, cache: WeightCache) -> None:
        self._cache = cache
        self._packed: DerivedTensors[Tensor] = DerivedTensors(cache)

    def should_use(self, x: Tensor, weight: nn.Parameter | None) -> bool:
        """Tell whether oneDNN computes the product of ``x`` [..., in] with ``weight`` [out, in], and faster."""
        return (
            not torch.compiler.is_compiling()
            and self._cache.memo is not None
            and not torch.is_grad_enabled()
            and type(weight) is nn.Parameter  # neither computed, as by parametrizations, nor of another kind of tensor
            and x.is_cpu
            and x.dtype is weight.dtype
            and x.numel() // x.shape[-1] * weight.numel() >= MIN_MULTIPLICATIONS
            and not torch.is_autocast_enabled("cpu")
            and onednn.available(x.dtype)
        )

    def __call__(self, x: Tensor, weight: nn.Parameter, bias: Tensor | None, *, gelu: bool = False) -> Tensor:
        """``x`` [..., in] to [..., out], where :meth:`should_use` says so."""
        return onednn.linear(x, self._packed.get((weight,), lambda: _pack(weight)), bias, gelu=gelu)


def _pack(weight: nn.Parameter) -> Tensor:
    packed = onednn.packed(weight)
    give_back(weight)
    return packed


class FastLinear(nn.Linear):
    """A linear layer through oneDNN on a CPU: somewhat faster for many rows, several times for the few of a step."""

    _product: PackedProduct

    def attach(self, cache: WeightCache) -> None:
        """Keep what is derived from the weights in ``cache``."""
        self._product = PackedProduct(cache)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [..., in] to [..., out]."""
        return self._multiplied(x, gelu=False)

    def gelu(self, x: Tensor) -> Tensor:
        """GELU, the exact one, of what :meth:`forward` gives for ``x`` [..., in]."""
        return self._multiplied(x, gelu=True)

    def _multiplied(self, x: Tensor, *, gelu: bool) -> Tensor:
        weight = self._parameters.get("weight")
        if weight is None or not self._product.should_use(x, weight):
            out = super().forward(x)
            return F.gelu(out) if gelu else out
        return self._product(x, weight, self.bias, gelu=gelu)


class FastAttention(Attention):
    """Attention in which padded samples attend one by one: no mask of all samples, heads, queries and keys is made."""

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, key_padding_mask: Tensor | None
    ) -> Tensor:
        """As :meth:`Attention.attend`."""
        counts = None if key_padding_mask is None else self._key_counts(key_padding_mask, bias)
        if counts is None:
            return super().attend(queries, keys, values, bias, key_padding_mask)
        samples = zip(queries.split(1), keys.split(1), values.split(1), counts, strict=True)
        attend = super().attend
        return torch.cat([attend(q, k[:, :, :n], v[:, :, :n], bias[..., :n], None) for q, k, v, n in samples])

    def _key_counts(self, padding: Tensor, bias: Tensor) -> list[int] | None:
        """Count the keys of each sample before its ``padding`` [B, S]; None where a mask must tell."""
        if padding.device.type != "cpu" or bias.shape[0] != 1 or not may_replace():
            return None
        if bool((padding[:, :-1] & ~padding[:, 1:]).any()):
            return None  # padding stands before something that is seen
        counts: list[int] = (~padding).sum(1).tolist()
        return None if 0 in counts else counts


class FastCrossAttention(FastAttention):
    """Attention to the encoder's states, whose keys and values stand in the order in which every step reads them."""

    def keys_values(self, x: Tensor) -> KeysValues:
        """As :meth:`Attention.keys_values`."""
        keys, values = super().keys_values(x)
        return (keys.contiguous(), values.contiguous()) if x.is_cpu and may_replace() else (keys, values)


class FastFeedForward(FeedForward):
    """A feed-forward with GELU within the product before it, large batches piece by piece."""

    _KINDS = frozenset({FastLinear, Int8Linear, nn.Linear, nn.GELU, nn.Dropout, nn.LayerNorm, nn.Identity, Adapter})

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [..., D] to [..., D]."""
        if self.training or not may_replace() or not untouched(self._modules.values(), self._KINDS):
            return super().forward(x)
        size = x.numel() // x.shape[-1] * self.fc2.in_features * x.element_size()
        limit = INNER_BYTES_INT8 if isinstance(self.fc1, Int8Linear) else INNER_BYTES
        if size <= limit or x.device.type != "cpu":
            return self._whole(x)
        pieces = x.flatten(0, -2).chunk(-(-size // limit))
        return torch.cat([self._whole(piece) for piece in pieces]).view_as(x)

    def _whole(self, x: Tensor) -> Tensor:
        fc1, exact = self.fc1, self.activation.approximate == "none"
        x = fc1.gelu(x) if exact and isinstance(fc1, FastLinear | Int8Linear) else self.activation(fc1(x))
        return self.adapter(self.fc2(self.norm(x)))
