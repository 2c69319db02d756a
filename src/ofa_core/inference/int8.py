"""Products with weights of 8 bits on a CPU: each activation tensor is rounded by its own range as it comes (dynamic).

They go through oneDNN, as in what ``torch.compile`` makes of a quantised model. Of the alternatives,
torchao's int8 layers take from half to all of float32's time without ``torch.compile``, these a third or a quarter; and
torch's ``quantized`` operators need tensor types that are about to be removed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import OFAError
from ..utils.mapped_memory import give_back
from . import onednn
from .untouched import may_replace
from .weight_cache import DerivedTensors, WeightCache

_ops = torch.ops.onednn


def check_int8(device: torch.device) -> None:
    """Raise OFAError where int8 cannot be computed."""
    if device.type != "cpu":
        raise OFAError(f"int8 is for CPUs, not for {device}; float16 and bfloat16 are for all")
    try:
        _product(torch.ones(1, 4), _round_weight(torch.ones(2, 4)), torch.ones(2), gelu=True)
    except (RuntimeError, AttributeError, NotImplementedError, TypeError) as error:
        raise OFAError(f"this torch computes no int8 here: {str(error).splitlines()[0]}") from None


class Int8Linear(nn.Linear):
    """A linear layer whose weights are rounded to 8 bits with a scale for each output, and not equal any more."""

    _cache: WeightCache
    _rounded: DerivedTensors[tuple[Tensor, Tensor, Tensor]]

    def attach(self, cache: WeightCache) -> None:
        """Keep what is derived from the weights in ``cache``."""
        self._cache = cache
        self._rounded = DerivedTensors(cache)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [..., in] to [..., out], both of float32."""
        weight = self._usable_weight()
        if weight is None:
            return super().forward(x)
        return _product(x, self._rounded.get((weight,), lambda: _rounded(weight)), self.bias, gelu=False)

    def gelu(self, x: Tensor) -> Tensor:
        """GELU, the exact one, of what :meth:`forward` gives for ``x`` [..., in]."""
        weight = self._usable_weight()
        if weight is None:
            return F.gelu(super().forward(x))
        return _product(x, self._rounded.get((weight,), lambda: _rounded(weight)), self.bias, gelu=True)

    def _usable_weight(self) -> nn.Parameter | None:
        """The weight, where it may be rounded and used so."""
        weight = self._parameters.get("weight")
        right = type(weight) is nn.Parameter and weight.dtype == torch.float32 and weight.device.type == "cpu"
        return weight if right and may_replace() and self._cache.memo is not None else None


def _product(x: Tensor, weight: tuple[Tensor, Tensor, Tensor], bias: Tensor | None, *, gelu: bool) -> Tensor:
    """``x`` [..., in] to [..., out], with a weight that :func:`_round_weight` made."""
    rounded, scale, zero = _round(x)
    packed, weight_scales, weight_zeros = weight
    then = onednn.GELU if gelu else onednn.NOTHING
    return _ops.qlinear_pointwise(
        rounded, scale, zero, packed, weight_scales, weight_zeros, bias,
        1.0, 0, torch.float32, *then,  # scale, zero and type of the result, and what follows
    )  # fmt: skip


def _rounded(weight: nn.Parameter) -> tuple[Tensor, Tensor, Tensor]:
    rounded = _round_weight(weight.detach())
    give_back(weight)
    return rounded


def _round_weight(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``weight`` [out, in] of 8 bits in oneDNN's layout, and its scales and zeros [out]."""
    scales = (weight.abs().amax(1) / 127).clamp(min=1e-12)
    rounded = (weight / scales[:, None]).round().to(torch.int8)
    return _ops.qlinear_prepack(rounded, None), scales, torch.zeros_like(scales, dtype=torch.int64)


def _round(x: Tensor) -> tuple[Tensor, float, int]:
    """``x`` as whole numbers of 8 bits, and the scale and zero with which it is scale · (number - zero)."""
    low, high = (float(limit) for limit in x.aminmax())
    low, high = min(low, 0.0), max(high, 0.0)
    top = 255 if _has_int8_products() else 127  # lest sums of two products overflow 16 bits
    scale = max((high - low) / top, 1e-12)
    zero = round(-low / scale)
    numbers = torch.mul(x, 1 / scale).add_(zero + 0.5).clamp_(0, top)  # which the conversion rounds down
    return numbers.to(torch.uint8), scale, zero


def _has_int8_products() -> bool:
    """Tell whether the CPU has instructions for them (VNNI)."""
    for name in ("_is_vnni_supported", "_is_avx512_vnni_supported"):
        if hasattr(torch.cpu, name):
            return bool(getattr(torch.cpu, name)())
    return False
