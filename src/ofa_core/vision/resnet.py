"""The image stem: a stride-16 ResNet (v1.5) without its last stage, pooling and classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .drop_path import DropPath

#: Channels inside a bottleneck block and stride of the first block, stage by stage.
STAGES = ((64, 1), (128, 2), (256, 2))
EXPANSION = 4
#: Channels of the features that leave the stem.
OUT_CHANNELS = STAGES[-1][0] * EXPANSION


class Bottleneck(nn.Module):
    """1×1, 3×3 (with the stride) and 1×1 convolution, each with BatchNorm, beside a residual path."""

    def __init__(self, in_channels: int, channels: int, stride: int, drop_path: float) -> None:
        super().__init__()
        out_channels = channels * EXPANSION
        self.conv1: nn.Conv2d = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1: nn.BatchNorm2d = nn.BatchNorm2d(channels)
        self.conv2: nn.Conv2d = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2: nn.BatchNorm2d = nn.BatchNorm2d(channels)
        self.conv3: nn.Conv2d = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3: nn.BatchNorm2d = nn.BatchNorm2d(out_channels)
        self.drop_path: DropPath = DropPath(drop_path)
        self.downsample: nn.Sequential | nn.Identity = (
            nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
            )
            if stride != 1 or in_channels != out_channels
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C, h, w] to [B, channels * 4, h / stride, w / stride]."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(self.downsample(x) + self.drop_path(out))


class Stage(nn.Sequential):
    """Bottleneck blocks one after the other, the first of which may halve the sides."""


class ResNetStem(nn.Module):
    """Pixels to a grid of 1,024-channel features, one for each 16 × 16 pixels."""

    def __init__(self, depths: Sequence[int], drop_path: float = 0.0) -> None:
        super().__init__()
        self.conv1: nn.Conv2d = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1: nn.BatchNorm2d = nn.BatchNorm2d(64)
        rates = iter(drop_path * i / max(sum(depths) - 1, 1) for i in range(sum(depths)))
        in_channels = 64
        stages = []
        for depth, (channels, stride) in zip(depths, STAGES, strict=True):
            blocks = []
            for index in range(depth):
                blocks.append(Bottleneck(in_channels, channels, stride if index == 0 else 1, next(rates)))
                in_channels = channels * EXPANSION
            stages.append(Stage(*blocks))
        self.stages: nn.ModuleList = nn.ModuleList(stages)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised ``images`` [B, 3, h, w] to features [B, 1024, h/16, w/16] (sides rounded up)."""
        x = F.max_pool2d(self.embed(images), 3, stride=2, padding=1)
        for stage in self.stages:
            x = stage(x)
        return x

    def embed(self, images: Tensor) -> Tensor:
        """Normalised ``images`` [B, 3, h, w] to [B, 64, h/2, w/2]."""
        return F.relu(self.bn1(self.conv1(images)))
