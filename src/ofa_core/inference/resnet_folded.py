"""The image stem with BatchNorm folded into its convolutions, and ReLU and the residual within them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..utils.mapped_memory import give_back
from ..vision.drop_path import DropPath
from ..vision.resnet import Bottleneck, ResNetStem, Stage
from . import onednn, winograd
from .untouched import may_replace, untouched
from .weight_cache import DerivedTensors, WeightCache
from .winograd import WinogradConvolution


@dataclass(frozen=True)
class _Folded:
    """Weight and bias of a convolution with the BatchNorm behind it."""

    weight: Tensor
    bias: Tensor
    stride: tuple[int, ...]
    padding: tuple[int, ...]


class FoldedConvolution:
    """A convolution with the BatchNorm behind it, in the layouts that oneDNN and Winograd's algorithm take."""

    def __init__(self, cache: WeightCache) -> None:
        self._direct: DerivedTensors[_Folded] = DerivedTensors(cache)
        self._winograd: DerivedTensors[WinogradConvolution] = DerivedTensors(cache)
        self._short: DerivedTensors[_Folded] = DerivedTensors(cache)

    def __call__(self, x: Tensor, plain: nn.Conv2d, norm: nn.BatchNorm2d, *, relu: bool = True) -> Tensor:
        """``norm(plain(x))`` of ``x`` [B, C, h, w], and ReLU if wanted."""
        sources = _sources(plain, norm)
        if relu and plain.kernel_size == (3, 3) and plain.stride == (1, 1) and winograd.should_use(x):
            return self._winograd.get(sources, lambda: _winograd(plain, norm))(x)
        folded = self._folded(x, plain, norm)
        if folded.weight.is_mkldnn:
            return onednn.convolution(x, folded.weight, folded.bias, folded.stride, folded.padding, relu=relu)
        out = F.conv2d(x, folded.weight, folded.bias, folded.stride, folded.padding)
        return out.relu_() if relu else out

    def add_to_(self, total: Tensor, x: Tensor, plain: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
        """relu(``total`` + norm(plain(x))), in the place of ``total``."""
        folded = self._folded(x, plain, norm)
        if folded.weight.is_mkldnn:
            return onednn.add_convolution_(total, x, folded.weight, folded.bias, folded.stride, folded.padding)
        return total.add_(F.conv2d(x, folded.weight, folded.bias, folded.stride, folded.padding)).relu_()

    def _folded(self, x: Tensor, plain: nn.Conv2d, norm: nn.BatchNorm2d) -> _Folded:
        """Weight and bias in the type of ``x``."""
        sources = _sources(plain, norm)
        derived = self._direct if x.dtype == sources[0].dtype else self._short
        return derived.get(sources, lambda: _direct(x, plain, norm))


def _sources(plain: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, ...]:
    """The weight, then the norm's gain, bias, mean and variance."""
    gains, statistics = norm._parameters, norm._buffers
    sources = plain._parameters["weight"], gains["weight"], gains["bias"]
    return *sources, statistics["running_mean"], statistics["running_var"]  # type: ignore[return-value]


def _fold(plain: nn.Conv2d, norm: nn.BatchNorm2d) -> _Folded:
    weight, gain, bias, mean, variance = _sources(plain, norm)
    factor = gain.double() / (variance.double() + norm.eps).sqrt()
    folded = (weight.double() * factor[:, None, None, None]).to(weight.dtype)
    shift = (bias.double() - mean.double() * factor).to(weight.dtype)
    give_back(weight)
    padding = plain.padding if isinstance(plain.padding, tuple) else (0, 0)  # a stem's is never a word
    return _Folded(folded.contiguous(memory_format=torch.channels_last), shift, plain.stride, padding)


def _direct(x: Tensor, plain: nn.Conv2d, norm: nn.BatchNorm2d) -> _Folded:
    folded = _fold(plain, norm)
    folded = replace(folded, weight=folded.weight.to(x.dtype), bias=folded.bias.to(x.dtype))
    if x.device.type != "cpu" or not onednn.available(x.dtype):
        return folded
    return replace(folded, weight=onednn.packed_kernel(folded.weight, folded.stride, folded.padding, x.shape))


def _winograd(plain: nn.Conv2d, norm: nn.BatchNorm2d) -> WinogradConvolution:
    folded = _fold(plain, norm)
    return WinogradConvolution(folded.weight, folded.bias)


def _may_fold(modules: Iterable[nn.Module], cache: WeightCache) -> bool:
    """Tell whether ``modules`` may be computed as one: nobody looks at what goes from one to the next."""
    if not may_replace() or cache.memo is None or torch.is_autocast_enabled("cpu"):
        return False
    modules = list(modules)
    return untouched(modules, _PARTS) and not any(module.training for module in modules)


class FastBottleneck(Bottleneck):
    """A bottleneck block that a :class:`FastStage` computes in three passes over memory instead of eight."""

    _first: FoldedConvolution
    _second: FoldedConvolution
    _third: FoldedConvolution
    _shortcut: FoldedConvolution

    def attach(self, cache: WeightCache) -> None:
        """Keep what is derived from the weights in ``cache``."""
        self._first, self._second = FoldedConvolution(cache), FoldedConvolution(cache)
        self._third, self._shortcut = FoldedConvolution(cache), FoldedConvolution(cache)

    def folded_(self, x: Tensor) -> Tensor:
        """As :meth:`forward`, in the place of ``x`` where the shape stays."""
        downsample = self.downsample
        out = self._second(self._first(x, self.conv1, self.bn1), self.conv2, self.bn2)
        total = self._shortcut(x, *downsample, relu=False) if isinstance(downsample, nn.Sequential) else x
        return self._third.add_to_(total, out, self.conv3, self.bn3)


class FastStage(Stage):
    """A stage whose blocks each write over what the one before has made; its first block makes a new shape."""

    weight_cache: WeightCache

    def attach(self, cache: WeightCache) -> None:
        """Keep what is derived from the weights in ``cache``."""
        self.weight_cache = cache

    def forward(self, x: Tensor) -> Tensor:
        """As :meth:`Stage.forward`."""
        folds = _may_fold(self, self.weight_cache)
        for block in self:
            x = block.folded_(x) if folds and isinstance(block, FastBottleneck) else block(x)
        return x


#: The classes that may be folded.
_PARTS = frozenset({FastStage, FastBottleneck, nn.Conv2d, nn.BatchNorm2d, nn.Sequential, nn.Identity, DropPath})


class FastResNetStem(ResNetStem):
    """The stem with half its passes over memory."""

    weight_cache: WeightCache
    _first: FoldedConvolution

    def attach(self, cache: WeightCache) -> None:
        """Keep what is derived from the weights in ``cache``."""
        self.weight_cache = cache
        self._first = FoldedConvolution(cache)

    def embed(self, images: Tensor) -> Tensor:
        """As :meth:`ResNetStem.embed`."""
        if not _may_fold((self.conv1, self.bn1), self.weight_cache):
            return super().embed(images)
        return self._first(images.contiguous(memory_format=torch.channels_last), self.conv1, self.bn1)


class Int8ResNetStem(FastResNetStem):
    """The stem of a model in int8: in bfloat16 where the CPU computes in it."""

    def forward(self, images: Tensor) -> Tensor:
        """As :meth:`ResNetStem.forward`."""
        folds = onednn.computes_bfloat16() and _may_fold((self.conv1, self.bn1, *self.stages), self.weight_cache)
        if not folds or images.dtype != torch.float32:
            return super().forward(images)
        return super().forward(images.bfloat16()).float()
