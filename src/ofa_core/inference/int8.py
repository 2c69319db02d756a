"""Products with weights of 8 bits on a CPU: each activation tensor is rounded by its own range as it comes (dynamic).

Those of many rows go through oneDNN, as in what ``torch.compile`` makes of a quantised model; those of the few rows of
a decoding step through FBGEMM, which takes a third of oneDNN's time for them and a fifth more for many. A weight is
kept in the layouts that it was asked for. Of the alternatives, torchao's int8 layers take from half to all of float32's
time without ``torch.compile``. FBGEMM's weights are made of a tensor type that torch means to remove: where they cannot
be made, oneDNN computes all.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import OFAError
from ..utils.mapped_memory import give_back
from . import onednn
from .untouched import may_replace
from .weight_cache import DerivedTensors, WeightCache

_ops = torch.ops.onednn

#: The most rows of a product that FBGEMM computes.
FEW_ROWS = 128

#: Rows of a weight that are rounded at a time, so that no copy of a large one is made in float32.
ROWS_AT_ONCE = 4096
#: The largest number of a weight.
LARGEST = 127
#: The bit in which numbers from -128 to 127 and from 0 to 255 differ.
_SIGN = 128

#: Weights of 8 bits in oneDNN's layout, their scales and zeros [out], and the bias [out] if there is one.
Rounded = tuple[Tensor, Tensor, Tensor, Tensor | None]


def check_int8(device: torch.device) -> None:
    """Raise OFAError where int8 cannot be computed."""
    if device.type != "cpu":
        raise OFAError(f"int8 is for CPUs, not for {device}; float16 and bfloat16 are for all")
    try:
        _product(torch.ones(1, 4), _round_weights([torch.ones(2, 4)], torch.ones(2)), gelu=True)
        right = _adds_up(lambda x, weight, bias: _product(x, _round_weights([weight], bias), gelu=False))
    except (RuntimeError, AttributeError, NotImplementedError, TypeError) as error:
        raise OFAError(f"this torch computes no int8 here: {str(error).splitlines()[0]}") from None
    if not right:
        raise OFAError("this torch computes int8 wrongly here: its sums overflow; use float32")


class Int8Product:
    """The product of x with one weight, or with several as one, of 8 bits."""

    def __init__(self, cache: WeightCache) -> None:
        self._cache = cache
        self._rounded: DerivedTensors[Rounded] = DerivedTensors(cache)
        self._for_few: DerivedTensors[torch.ScriptObject] = DerivedTensors(cache)

    def may_use(self, *weights: Tensor | None) -> bool:
        """Tell whether ``weights`` [out, in] may be rounded now, and used so."""
        if not may_replace() or self._cache.memo is None:
            return False
        return all(
            type(weight) is nn.Parameter and weight.dtype == torch.float32 and weight.is_cpu for weight in weights
        )

    def __call__(
        self, x: Tensor, weights: tuple[Tensor, ...], biases: tuple[Tensor, ...] = (), *, gelu: bool = False
    ) -> Tensor:
        """Multiply, where :meth:`may_use` says so.

        Args:
            x: [..., in], of float32.
            weights: [out, in] each.
            biases: [out] each, of all weights or of none.
            gelu: apply GELU, the exact one.

        Returns:
            Results [..., all out], one weight's after the other's.
        """
        sources = (*weights, *biases)
        if x.numel() <= FEW_ROWS * x.shape[-1] and _computes_few():
            few = self._for_few.get(sources, lambda: _pack_for_few(*_rounded(weights), _together(biases)))
            return _product_of_few(x, few, gelu=gelu)
        return _product(x, self._rounded.get(sources, lambda: _round_weights(weights, _together(biases))), gelu=gelu)


class Int8Linear(nn.Linear):
    """A linear layer whose weights are rounded to 8 bits with a scale for each output, and not equal any more."""

    _product: Int8Product

    def attach(self, cache: WeightCache) -> None:
        """Keep what is derived from the weights in ``cache``."""
        self._product = Int8Product(cache)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [..., in] to [..., out], both of float32."""
        return self._multiplied(x, gelu=False)

    def gelu(self, x: Tensor) -> Tensor:
        """GELU, the exact one, of what :meth:`forward` gives for ``x`` [..., in]."""
        return self._multiplied(x, gelu=True)

    def _multiplied(self, x: Tensor, *, gelu: bool) -> Tensor:
        weight = self._parameters.get("weight")
        if weight is None or not self._product.may_use(weight):
            out = super().forward(x)
            return F.gelu(out) if gelu else out
        return self._product(x, (weight,), () if self.bias is None else (self.bias,), gelu=gelu)


def _product(x: Tensor, weight: Rounded, *, gelu: bool) -> Tensor:
    """``x`` [..., in] to [..., out], with a weight that :func:`_round_weights` made."""
    numbers, scale, zero = _round(x)
    packed, weight_scales, weight_zeros, bias = weight
    then = onednn.GELU if gelu else onednn.NOTHING
    return _ops.qlinear_pointwise(
        numbers, scale, zero, packed, weight_scales, weight_zeros, bias,
        1.0, 0, torch.float32, *then,  # scale, zero and type of the result, and what follows
    )  # fmt: skip


def _product_of_few(x: Tensor, weight: torch.ScriptObject, *, gelu: bool) -> Tensor:
    """As :func:`_product`, with a weight that :func:`_pack_for_few` made."""
    out = torch.ops.quantized.linear_dynamic(x, weight)
    return F.gelu(out) if gelu else out


@cache
def _computes_few() -> bool:
    """Tell whether FBGEMM computes products here, tried once with sums as large as they get."""
    if torch.backends.quantized.engine not in ("x86", "fbgemm"):
        return False
    try:
        return _adds_up(
            lambda x, weight, bias: _product_of_few(x, _pack_for_few(*_rounded([weight]), bias), gelu=False)
        )
    except (RuntimeError, AttributeError, NotImplementedError, TypeError):
        return False


def _adds_up(product: Callable[[Tensor, Tensor, Tensor], Tensor]) -> bool:
    """Tell whether ``product`` of x, a weight and a bias is right where its sums are as large as they get."""
    weight = torch.tensor([[1.0, 0.0], [-0.5, -0.5]]).repeat(1, 32)
    found = product(torch.ones(1, 64), weight, torch.tensor([1.0, 2.0]))
    return torch.allclose(found, torch.tensor([[33.0, -30.0]]), rtol=0.01)


def _pack_for_few(numbers: Tensor, scales: Tensor, bias: Tensor | None) -> torch.ScriptObject:
    """A weight of 8 bits [out, in] with its ``scales`` and ``bias`` [out] in FBGEMM's layout."""
    zeros = torch.zeros_like(scales, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*quantized tensor creation functions", category=UserWarning)
        quantized = torch._make_per_channel_quantized_tensor(numbers, scales.double(), zeros, 0)
        return torch.ops.quantized.linear_prepack(quantized, bias)


def _together(biases: tuple[Tensor, ...]) -> Tensor | None:
    return None if not biases else biases[0].detach() if len(biases) == 1 else torch.cat(biases).detach()


def _round_weights(weights: Sequence[Tensor], bias: Tensor | None) -> Rounded:
    """``weights`` [out, in] as one in oneDNN's layout, with ``bias`` [all out]."""
    numbers, scales = _rounded(weights)
    return _ops.qlinear_prepack(numbers, None), scales, torch.zeros_like(scales, dtype=torch.int64), bias


def _rounded(weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """``weights`` [out, in] as one of 8 bits, and its scales [all out]; memory of files that is read is given back."""
    parts: list[tuple[Tensor, Tensor]] = []
    for part in (part for weight in weights for part in weight.detach().split(ROWS_AT_ONCE)):
        scales = (_largest(part) / LARGEST).clamp(min=1e-12)
        parts.append(((part / scales[:, None]).round_().to(torch.int8), scales))
        give_back(part)
    numbers, scales = (torch.cat(each) for each in zip(*parts, strict=True))
    return numbers, scales


def _largest(weight: Tensor) -> Tensor:
    """The size that must have room in the numbers of each row of ``weight`` [out, in], [out].

    Without instructions for such products (VNNI) two neighbours' products are added in 16 bits: there the weights of a
    pair that have one sign must have room together, since 2^15 > 255 · (127 + 1), the one for rounding.
    """
    if _has_int8_products():
        return torch.linalg.vector_norm(weight, torch.inf, dim=1)
    pairs = F.pad(weight, (0, weight.shape[1] % 2)).unflatten(1, (-1, 2))
    return torch.maximum(pairs.clamp(min=0).sum(2).amax(1), -pairs.clamp(max=0).sum(2).amin(1))


def _round(x: Tensor) -> tuple[Tensor, float, int]:
    """``x`` as whole numbers of 8 bits, and the scale and zero with which it is scale · (number - zero).

    A step less than there is room for, and the zero rounded up, so that none of them is beyond an end.
    """
    low, high = (float(limit) for limit in x.aminmax())
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / 254, 1e-12)
    zero = ceil(-low / scale)
    # to numbers with a sign first, which takes a third of the time of those without one
    signed = torch.add(torch.tensor(zero - float(_SIGN)), x, alpha=1 / scale).round_().to(torch.int8)
    return signed.view(torch.uint8).bitwise_xor_(_SIGN), scale, zero


def _has_int8_products() -> bool:
    """Tell whether the CPU has instructions for them (VNNI)."""
    for name in ("_is_vnni_supported", "_is_avx512_vnni_supported"):
        if hasattr(torch.cpu, name):
            return bool(getattr(torch.cpu, name)())
    return False
