"""Stochastic depth, for the image stem and the transformer layers."""

from __future__ import annotations

from torch import Tensor, nn


class DropPath(nn.Module):
    """Stochastic depth: in training, drops a residual branch for whole samples and scales up the others."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, ...] with a share ``rate`` of the samples set to zero."""
        if not self.training or self.rate == 0:
            return x
        from torchvision.ops import stochastic_depth  # seconds of imports that answering needs not

        return stochastic_depth(x, self.rate, "row")
