"""oneDNN's products and convolutions on a CPU, with what follows them in one pass over memory.

They are what ``torch.compile`` makes of these layers, and have no public names; where a torch has none or they compute
something else, :func:`available` says so and callers take the usual way.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

_ops = torch.ops.mkldnn

#: Rows that weights are laid out for: good for all, while a layout for one row reads half as fast with several.
ROWS = 64
#: Operations that may follow a product within it, in oneDNN's terms: nothing, or GELU (the exact one).
NOTHING: tuple[str, list[object], str] = ("none", [], "")
GELU: tuple[str, list[object], str] = ("gelu", [], "none")


@cache
def available(dtype: torch.dtype) -> bool:
    """Tell whether everything here works for ``dtype``, tried once."""
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    x, weight, bias = (torch.ones(shape, dtype=dtype) for shape in ((2, 3), (4, 3), (4,)))
    image, kernel = torch.ones(1, 3, 2, 2, dtype=dtype), torch.ones(4, 3, 1, 1, dtype=dtype)
    try:
        if dtype == torch.bfloat16 and not _ops._is_mkldnn_bf16_supported():
            return False
        four = linear(x, packed(weight), bias)
        gelu_of_one = linear(x, packed(weight), -2 * bias, gelu=True)
        there, back = (packed_kernel(k, (1, 1), (0, 0), image.shape) for k in (kernel, -kernel))
        minus = convolution(image, back, bias, (1, 1), (0, 0), relu=False)
        none = convolution(image, back, bias, (1, 1), (0, 0), relu=True)
        six = add_convolution_(torch.full_like(none, 2), image, there, bias, (1, 1), (0, 0))
    except (RuntimeError, AttributeError, NotImplementedError, TypeError):
        return False
    if not torch.allclose(gelu_of_one, F.gelu(torch.ones_like(four)), rtol=0, atol=1e-5):
        return False
    results = ((four, 4), (minus, -2), (none, 0), (six, 6))
    return all(torch.equal(result, torch.full_like(result, value)) for result, value in results)


@cache
def computes_bfloat16() -> bool:
    """Tell whether the CPU has instructions for products in bfloat16, so that they are faster than in float32."""
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return available(torch.bfloat16) and any(getattr(torch.cpu, name)() for name in names if hasattr(torch.cpu, name))


def packed(weight: Tensor) -> Tensor:
    """``weight`` [out, in] in a layout that is good for products with any number of rows."""
    return _ops._reorder_linear_weight(weight, ROWS)


def packed_kernel(weight: Tensor, stride: Sequence[int], padding: Sequence[int], size: Sequence[int]) -> Tensor:
    """A convolution's ``weight`` in the layout that is best for inputs of this ``size``; good for any size."""
    return _ops._reorder_convolution_weight(weight, padding, stride, [1, 1], 1, size)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> Tensor:
    """``x`` [..., in] times a :func:`packed` weight, plus ``bias`` [out]; and GELU if wanted."""
    return _ops._linear_pointwise(x, weight, bias, *(GELU if gelu else NOTHING))


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor, stride: Sequence[int], padding: Sequence[int], *, relu: bool
) -> Tensor:
    """A convolution of ``x`` [B, C, h, w] with a :func:`packed_kernel`, and ReLU if wanted."""
    then = "relu" if relu else "none"
    return _ops._convolution_pointwise(x, weight, bias, padding, stride, [1, 1], 1, then, [], "")


def add_convolution_(
    total: Tensor, x: Tensor, weight: Tensor, bias: Tensor, stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    """relu(``total`` + convolution of ``x``), in the place of ``total``."""
    if x.dtype != torch.float32:  # for which there is nothing of that kind
        return total.add_(convolution(x, weight, bias, stride, padding, relu=False)).relu_()
    operation = _ops._convolution_pointwise_.binary
    return operation(total, x, weight, bias, padding, stride, [1, 1], 1, "add", 1.0, "relu", [], "")
