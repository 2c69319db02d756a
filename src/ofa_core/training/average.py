"""The moving average of a model's weights and statistics."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..model.ofa import OFAModel

#: The parameter that the original knows by three names, and averages as often.
EMBEDDING = "token_embedding.weight"


class WeightAverage(nn.Module):
    """A copy of a model that follows it: average = decay * average + (1 - decay) * weights, behind each step.

    Statistics of BatchNorm are averaged as weights are, counters copied.
    """

    n_averaged: Tensor

    def __init__(self, model: OFAModel, decay: float, *, start: int, embedding: int) -> None:
        """Begin with a copy of ``model``.

        Args:
            model: what is averaged.
            decay: the share of the average that stays in a step.
            start: the first step behind which weights are averaged; behind those before it they are copied.
            embedding: how often the token embedding is averaged in a step.
        """
        super().__init__()
        self.module: OFAModel = copy.deepcopy(model)
        self.register_buffer("n_averaged", torch.tensor(0))
        self.decay, self.start, self.embedding = decay, start, embedding
        self.requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Follow ``model``, whose step has been made."""
        self.n_averaged += 1
        decay = self.decay if int(self.n_averaged) >= self.start else 0.0
        new = model.state_dict()
        for name, average in self.module.state_dict().items():
            if not average.is_floating_point():
                average.copy_(new[name])
            elif decay:
                times = self.embedding if name == EMBEDDING else 1
                average.lerp_(new[name].to(average.dtype), 1 - decay**times)
            else:
                average.copy_(new[name])
