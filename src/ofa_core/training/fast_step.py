"""The same training step, faster on a CPU: modules that compute equal gradients with less memory to pass through.

While a step is made, some modules are of a subclass of what they are, in place, as in :mod:`ofa_core.inference`;
behind it they are what they were. What changes: all uses of the token embedding add to one gradient
(:mod:`.token_gradient`); the encoder attends, and adds up its biases, in functions whose backward passes keep no mask
and no bias; convolutions of 1 × 1 are matrix products, and those of 3 × 3 take fewer (:mod:`.winograd_gradient`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ..inference.untouched import untouched
from ..model.attention import Attention
from ..model.encoder import Encoder
from ..model.ofa import OFAModel
from ..model.position_bias import Grid, LayerBias, RelativeBias, token_buckets
from .token_gradient import LookupEmbedding, ProjectingModel, TokenGradient
from .winograd_gradient import WinogradConv2d


class PointwiseConv2d(nn.Conv2d):
    """A convolution of 1 × 1 as a matrix product, where channels are last in memory."""

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C, h, w] to [B, C', h', w']."""
        if not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x)
        rows, columns = self.stride
        x = x.permute(0, 2, 3, 1)[:, ::rows, ::columns]
        return F.linear(x, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class BiasedAttention(Attention):
    """Attention with a bias that is trained, too, none of which is kept for the backward pass."""

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, key_padding_mask: Tensor | None
    ) -> Tensor:
        """As :meth:`Attention.attend`, with a finite ``bias``."""
        hides_all = key_padding_mask is not None and bool(key_padding_mask.all(1).any())
        if self.dropout or hides_all or not bias.requires_grad or not torch.is_grad_enabled():
            return super().attend(queries, keys, values, bias, key_padding_mask)
        if key_padding_mask is not None and not bool(key_padding_mask.any()):
            key_padding_mask = None
        attended: Tensor = _Attend.apply(queries, keys, values, bias, key_padding_mask, self.scale)
        return attended


class _Attend(Function):
    """softmax(q·k · scale + bias) · v; of what is [B, H, T, S], the probabilities alone are kept."""

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, padding: Tensor | None, scale: float
    ) -> Tensor:
        """As :meth:`Attention.attend`; under autocast in the type of ``values``."""
        with torch.autocast("cpu", enabled=False):
            queries = (queries * scale).to(values.dtype).contiguous()
            scores = queries @ keys.to(values.dtype).transpose(-1, -2)  # [B, H, T, S]
            scores += bias
            if padding is not None:
                scores.masked_fill_(padding[:, None, None, :], -torch.inf)
            probabilities = scores.softmax(-1)
            ctx.save_for_backward(queries, keys, values, probabilities)
            ctx.scale, ctx.bias_shape, ctx.bias_dtype = scale, bias.shape, bias.dtype
            return probabilities @ values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of queries, keys, values and bias."""
        queries, keys, values, probabilities = ctx.saved_tensors
        grad = grad.to(values.dtype).contiguous()
        of_values = probabilities.transpose(-1, -2) @ grad
        of_probabilities = grad @ values.transpose(-1, -2)
        of_scores = torch._softmax_backward_data(of_probabilities, probabilities, -1, values.dtype)
        of_queries = (of_scores @ keys.to(values.dtype)).mul_(ctx.scale)
        of_keys = of_scores.transpose(-1, -2) @ queries
        of_bias = of_scores.sum_to_size(ctx.bias_shape).to(ctx.bias_dtype) if ctx.needs_input_grad[3] else None
        return of_queries, of_keys.to(keys.dtype), of_values, of_bias, None, None


class BlockBiasEncoder(Encoder):
    """An encoder that puts the bias of a layer together, and its gradient apart, in one function."""

    def layer_biases(self, positions: Tensor, length: int, grid: Grid, places: Tensor | None = None) -> LayerBias:
        """As :meth:`Encoder.layer_biases`."""
        if not untouched([self.text_relative, self.image_relative], {RelativeBias, nn.ModuleList, nn.Embedding}):
            return super().layer_biases(positions, length, grid, places)
        absolute = self.position_bias(positions, self.position_bias.keys(positions))  # [1 or B, H, S, S]
        at = torch.arange(length, device=positions.device)
        of_text = token_buckets(at, at, self.config.token_bucket_size, self.config.max_source_positions)
        of_patches = self.patch_buckets(grid, places)

        def bias(layer: int) -> Tensor:
            text, image = (part.tables[layer].weight for part in (self.text_relative, self.image_relative))
            summed: Tensor = _BlockBias.apply(absolute, text, of_text, image, of_patches)
            return summed

        return bias


class _BlockBias(Function):
    """An absolute bias, to which relative ones are added in the block of the text and in that of the patches."""

    @staticmethod
    def forward(
        ctx: Any, absolute: Tensor, text: Tensor, of_text: Tensor, image: Tensor, of_patches: Tensor | None
    ) -> Tensor:
        """Bias [1 or B, H, S, S] of tables ``text`` and ``image`` [buckets, H] and the buckets of both blocks."""
        ctx.buckets, ctx.sizes, ctx.dtypes = (of_text, of_patches), (len(text), len(image)), (text.dtype, image.dtype)
        dtype = torch.promote_types(absolute.dtype, text.dtype)
        bias = absolute.to(dtype, copy=True)
        first = bias.shape[-1] - len(of_text)
        bias[..., first:, first:] += _looked_up(text, of_text)
        if of_patches is not None:
            bias[..., :first, :first] += _looked_up(image, of_patches)
        ctx.absolute_dtype = absolute.dtype
        return bias

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the absolute bias and of the tables."""
        of_text, of_patches = ctx.buckets
        first = grad.shape[-1] - len(of_text)
        text = image = None
        if ctx.needs_input_grad[1]:
            text = _added_up(grad[..., first:, first:], of_text, ctx.sizes[0]).to(ctx.dtypes[0])
        if ctx.needs_input_grad[3] and of_patches is not None:
            image = _added_up(grad[..., :first, :first], of_patches, ctx.sizes[1]).to(ctx.dtypes[1])
        return grad.to(ctx.absolute_dtype), text, None, image, None


def _looked_up(table: Tensor, buckets: Tensor) -> Tensor:
    """[1 or B, H, Q, K], the rows of ``table`` [·, H] that ``buckets`` [Q, K] or [B, Q, K] name."""
    by_head = table.t().contiguous()
    batch = buckets if buckets.dim() == 3 else buckets[None]
    return torch.stack([by_head.index_select(1, one.flatten()).unflatten(1, one.shape) for one in batch])


def _added_up(grad: Tensor, buckets: Tensor, size: int) -> Tensor:
    """[size, H], sums of ``grad`` [B, H, Q, K] over all that has a bucket of ``buckets`` [Q, K] or [B, Q, K]."""
    if buckets.dim() == 2:
        grad, buckets = grad.sum(0, keepdim=True) if len(grad) > 1 else grad, buckets[None]
    heads = grad.shape[1]
    sums = grad.new_zeros(heads, size)
    for of_sample, one in zip(grad, buckets, strict=True):
        sums.scatter_add_(1, one.flatten().expand(heads, -1), of_sample.flatten(1))
    return sums.t().contiguous()


def _replacements(model: OFAModel) -> Iterator[tuple[nn.Module, type[nn.Module], type[nn.Module]]]:
    """Modules of ``model`` that can be faster, the class that each must be of, and the one that is faster."""
    if _learns_tokens(model):
        yield model.token_embedding, nn.Embedding, LookupEmbedding
        yield model, OFAModel, ProjectingModel
    yield model.encoder, Encoder, BlockBiasEncoder
    for layer in model.encoder.layers:
        yield layer.self_attn, Attention, BiasedAttention  # type: ignore[misc]
    for module in model.encoder.image_stem.modules():
        if isinstance(module, nn.Conv2d) and (faster := _faster_convolution(module)) is not None:
            yield module, nn.Conv2d, faster


def _learns_tokens(model: OFAModel) -> bool:
    """Tell whether the token embedding is trained, and only looked up and multiplied with."""
    tokens = model.token_embedding
    weight = tokens._parameters.get("weight")
    plain = type(tokens) is nn.Embedding and tokens.max_norm is None and not tokens.scale_grad_by_freq
    return plain and weight is not None and weight.requires_grad and weight.is_leaf


def _faster_convolution(module: nn.Conv2d) -> type[nn.Conv2d] | None:
    """The class that computes a convolution faster, if any."""
    kind = module.kernel_size, module.padding, module.dilation, module.groups
    if kind == ((1, 1), (0, 0), (1, 1), 1):
        return PointwiseConv2d
    plain = module.stride == (1, 1) and module.bias is None and module.padding_mode == "zeros"
    return WinogradConv2d if plain and kind == ((3, 3), (1, 1), (1, 1), 1) else None


@contextmanager
def fast_step(model: OFAModel) -> Iterator[None]:
    """Make what is computed and differentiated within faster, where ``model`` is on a CPU.

    Modules of other classes stay what they are, and parameters, hooks and names do so everywhere.
    """
    changed: list[tuple[nn.Module, type[nn.Module]]] = []
    try:
        for module, kind, faster in list(_replacements(model)) if model.device.type == "cpu" else ():
            if type(module) is kind:
                module.__class__ = faster
                changed.append((module, kind))
                if isinstance(module, LookupEmbedding):
                    module.token_gradient = TokenGradient(module.weight)
        yield
    finally:
        for module, kind in changed:
            vars(module).pop("token_gradient", None)
            module.__class__ = kind
