"""The image stem with BatchNorm folded into its convolutions, for inference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import OFAError
from ..vision.resnet import Bottleneck, ResNetStem
from . import onednn
from .weight_cache import Following
from .winograd import WinogradConvolution, worth_it


@dataclass
class _Convolution:
    """A convolution with the BatchNorm behind it; its weight is laid out for oneDNN when the first input comes."""

    weight: Tensor
    bias: Tensor
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    @classmethod
    def of(cls, plain: nn.Conv2d, norm: nn.BatchNorm2d) -> _Convolution:
        mean, variance = norm.running_mean, norm.running_var
        if mean is None or variance is None or isinstance(plain.padding, str):  # never in a stem
            raise OFAError("this BatchNorm cannot be folded into its convolution")
        factor = norm.weight.double() / (variance.double() + norm.eps).sqrt()
        weight = (plain.weight.double() * factor[:, None, None, None]).to(plain.weight.dtype)
        bias = (norm.bias.double() - mean.double() * factor).to(plain.weight.dtype)
        return cls(weight.contiguous(memory_format=torch.channels_last), bias, plain.stride, plain.padding)

    def __call__(self, x: Tensor, *, relu: bool = True) -> Tensor:
        if self._fuses(x):
            return onednn.convolution(x, self.weight, self.bias, self.stride, self.padding, relu=relu)
        out = F.conv2d(x, self.weight, self.bias, self.stride, self.padding)
        return out.relu_() if relu else out

    def added_to(self, total: Tensor, x: Tensor) -> Tensor:
        """relu(total + convolution of x), in the place of ``total``."""
        if self._fuses(x):
            return onednn.add_convolution_(total, x, self.weight, self.bias, self.stride, self.padding)
        return total.add_(F.conv2d(x, self.weight, self.bias, self.stride, self.padding)).relu_()

    def _fuses(self, x: Tensor) -> bool:
        """Whether oneDNN computes this, with the weights laid out for it."""
        if not self.weight.is_mkldnn and x.device.type == "cpu" and onednn.available(x.dtype):
            self.weight = onednn.packed_kernel(self.weight, self.stride, self.padding, x.shape)
        return self.weight.is_mkldnn


@dataclass
class _Middle(_Convolution):
    """A 3 × 3 convolution of stride 1, with fewer multiplications where that pays."""

    winograd: WinogradConvolution | None = None

    def __post_init__(self) -> None:
        self.kernel = self.weight

    def __call__(self, x: Tensor, *, relu: bool = True) -> Tensor:
        if not relu or not worth_it(x):
            return super().__call__(x, relu=relu)
        if self.winograd is None:
            self.winograd = WinogradConvolution(self.kernel, self.bias)
        return self.winograd(x)


class _Block:
    """A bottleneck block."""

    def __init__(self, plain: Bottleneck) -> None:
        middle = _Middle if plain.conv2.stride == (1, 1) else _Convolution
        self.convolutions = [
            _Convolution.of(plain.conv1, plain.bn1),
            middle.of(plain.conv2, plain.bn2),
            _Convolution.of(plain.conv3, plain.bn3),
        ]
        downsample = plain.downsample
        self.shortcut = _Convolution.of(*downsample) if isinstance(downsample, nn.Sequential) else None

    def __call__(self, x: Tensor) -> Tensor:
        first, second, third = self.convolutions
        out = second(first(x))
        return third.added_to(x if self.shortcut is None else self.shortcut(x, relu=False), out)


class FoldedStem(nn.Module):
    """The stem ``plain`` with half its passes over memory; it follows when the weights of ``plain`` change."""

    def __init__(self, plain: ResNetStem) -> None:
        super().__init__()
        self.plain = plain
        self._folded: Following[tuple[_Convolution, list[_Block]]] = Following()

    @property
    def conv1(self) -> nn.Conv2d:
        """The first convolution, which tells device and type."""
        return self.plain.conv1

    def forward(self, images: Tensor) -> Tensor:
        """As :meth:`ResNetStem.forward`; where gradients or batch statistics are wanted, by the plain stem."""
        if torch.is_grad_enabled() or self.plain.training:
            return self.plain(images)
        tensors = (*self.plain.parameters(), *self.plain.buffers())
        first, blocks = self._folded.get(tensors, self._fold)
        x = first(images.contiguous(memory_format=torch.channels_last))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for block in blocks:
            x = block(x)
        return x

    def _fold(self) -> tuple[_Convolution, list[_Block]]:
        blocks = [_Block(block) for stage in self.plain.stages for block in stage]  # type: ignore[attr-defined]
        return _Convolution.of(self.plain.conv1, self.plain.bn1), blocks
