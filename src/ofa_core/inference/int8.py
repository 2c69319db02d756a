"""Products with weights of 8 bits on a CPU: each activation tensor is rounded by its own range as it comes (dynamic).

They go through oneDNN, as in what ``torch.compile`` makes of a quantised model. Of the alternatives,
torchao's int8 layers take from half to all of float32's time without ``torch.compile``, these a third or a quarter; and
torch's ``quantized`` operators need tensor types that are about to be removed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import OFAError
from . import onednn
from .weight_cache import Following

_ops = torch.ops.onednn


def check_int8(device: torch.device) -> None:
    """Raise OFAError where int8 cannot be computed."""
    if device.type != "cpu":
        raise OFAError(f"int8 is for CPUs, not for {device}; float16 and bfloat16 are for all")
    try:
        Int8Linear(torch.ones(2, 4), torch.ones(2), gelu=True)(torch.ones(1, 4))
    except (RuntimeError, AttributeError, NotImplementedError, TypeError) as error:
        raise OFAError(f"this torch computes no int8 here: {str(error).splitlines()[0]}") from None


class Int8Linear(nn.Module):
    """A linear layer with the weights of a plain one, rounded to 8 bits with a scale for each output.

    With ``gelu`` that follows it, the exact one.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> None:
        super().__init__()
        self.weight, self.bias, self.gelu = weight, bias, gelu
        self._rounded: Following[tuple[Tensor, Tensor, Tensor]] = Following()

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [..., in] to [..., out], both of float32."""
        rounded, scale, zero = _round(x)
        weight, weight_scales, weight_zeros = self._rounded.get((self.weight,), self._round_weight)
        then = onednn.GELU if self.gelu else onednn.NOTHING
        return _ops.qlinear_pointwise(
            rounded, scale, zero, weight, weight_scales, weight_zeros, self.bias,
            1.0, 0, torch.float32, *then,  # scale, zero and type of the result, and what follows
        )  # fmt: skip

    def _round_weight(self) -> tuple[Tensor, Tensor, Tensor]:
        """The weight in oneDNN's layout, and its scales and zeros [out]."""
        weight = self.weight.detach()
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
    """Whether the CPU has instructions for them (VNNI)."""
    for name in ("_is_vnni_supported", "_is_avx512_vnni_supported"):
        if hasattr(torch.cpu, name):
            return bool(getattr(torch.cpu, name)())
    return False
