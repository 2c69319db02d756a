"""Freezing, parameter groups and the learning rate's schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from ..errors import OFAError
from ..model.ofa import OFAModel
from .settings import OptimizerSettings, Part

#: The parameters of each part that can be frozen, by name.
PARTS: dict[Part, Callable[[str], bool]] = {
    "stem": lambda name: name.startswith("encoder.image_stem."),
    "embeddings": lambda name: name.startswith("token_embedding."),
    "encoder": lambda name: name.startswith("encoder."),
    "decoder": lambda name: name.startswith("decoder."),
    "all_but_biases": lambda name: not name.endswith("bias"),  # BitFit
    "all_but_adapters": lambda name: ".adapter." not in name,
    "all_but_prompts": lambda name: ".prompt." not in name,
}


def freeze(model: OFAModel, parts: Sequence[Part]) -> None:
    """Keep ``parts`` as they are; everything else moves.

    Raises:
        OFAError: nothing is left that moves.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(PARTS[part](name) for part in parts))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise OFAError(f"with {' and '.join(parts)} frozen nothing is left to train in this model")


def make_optimizer(model: nn.Module, settings: OptimizerSettings) -> AdamW:
    """AdamW on what is not frozen; biases, norms and scales do not decay."""
    moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in moving if p.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in moving if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = all(parameter.device.type == "cpu" for parameter in moving)  # one pass over memory instead of many
    return AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=fused)


def make_schedule(optimizer: AdamW, settings: OptimizerSettings, steps: int) -> LambdaLR:
    """Make the learning rate rise in a line over the warm-up, then fall to its end as a polynomial."""
    warmup = int(steps * settings.warmup_ratio)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        left = max(0.0, 1 - (step - warmup) / max(1, steps - warmup))
        return float(settings.end + (1 - settings.end) * left**settings.power)

    return LambdaLR(optimizer, factor)
