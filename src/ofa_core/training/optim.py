"""Freezing, the optimizer and the learning rate's schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from ..config import OFAConfig
from ..errors import OFAError
from ..model.ofa import OFAModel
from .setting_tables import OptimizerSettings, Part
from .settings import TrainingSettings
from .state import full_tensor

#: A small number that torch, as the original, adds to a norm before it divides by it.
CLIP_MARGIN = 1e-6
#: Ends of the names of the biases that the original's BitFit moves: those that it calls ``layer_norm`` or ``fc``.
BITFIT = (
    *(f"{norm}.bias" for norm in ("self_attn_norm", "cross_attn_norm", "ffn_norm", "final_norm")),
    "ffn.fc1.bias",
    "ffn.fc2.bias",
)
#: The parameters of each part that can be frozen, by name.
PARTS: dict[Part, Callable[[str], bool]] = {
    "stem": lambda name: name.startswith("encoder.image_stem."),
    "embeddings": lambda name: name.startswith("token_embedding."),
    "encoder": lambda name: name.startswith("encoder."),
    "decoder": lambda name: name.startswith("decoder."),
}
#: Parameters that a part which is all but them leaves to be trained; two such parts leave the parameters of both.
SPARED: dict[Part, Callable[[str], bool]] = {
    "all_but_biases": lambda name: name.endswith("bias"),
    "all_but_bitfit": lambda name: name.endswith(BITFIT),
    "all_but_adapters": lambda name: ".adapter." in name,
    "all_but_prompts": lambda name: ".prompt." in name,
}


def original_parts(config: OFAConfig) -> tuple[Part, ...]:
    """The parts that the original freezes in a model by itself."""
    if config.encoder_prompt or config.decoder_prompt:
        return ("all_but_prompts", "all_but_adapters")
    return ("embeddings",) if config.adapter_dim else ()


def frozen_names(model: OFAModel, settings: TrainingSettings) -> set[str]:
    """Names of the parameters that ``settings`` keep as they are."""
    parts: list[Part] = [part for part in settings.freeze if part != "as_original"]
    if "as_original" in settings.freeze:
        parts += original_parts(model.config)
    whole = [PARTS[part] for part in parts if part in PARTS]
    spared = [SPARED[part] for part in parts if part in SPARED]
    names = [name for name, _ in model.named_parameters()]
    frozen = {name for name in names if any(holds(name) for holds in whole)}
    if spared:
        frozen |= {name for name in names if not any(spares(name) for spares in spared)}
    if settings.freeze_batch_norm and settings.freeze_batch_norm_affine:
        frozen |= set(_batch_norm_parameters(model))
    return frozen


def _batch_norm_parameters(model: nn.Module) -> Iterator[str]:
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            yield from (f"{name}.{leaf}" for leaf, _ in module.named_parameters())


def freeze(model: OFAModel, settings: TrainingSettings) -> None:
    """Keep what ``settings`` freeze as it is; everything else moves.

    Raises:
        OFAError: nothing is left that moves.
    """
    frozen = frozen_names(model, settings)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise OFAError(f"with {' and '.join(settings.freeze)} frozen nothing is left to train in this model")


class UncorrectedAdamW(AdamW):
    """AdamW whose ``eps`` is added before the bias correction: p -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps).

    That is torch's AdamW with eps / sqrt(1 - b2^t), so torch makes the step with all that it knows of speed and shards.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Make a step; parameters that have moved equally often share their ``eps``."""
        groups = self.param_groups
        self.param_groups = [part for group in groups for part in self._by_age(group)]
        try:
            return super().step(closure)
        finally:
            self.param_groups = groups

    def _by_age(self, group: dict[str, Any]) -> Iterator[dict[str, Any]]:
        ages: dict[int, list[Tensor]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                age = self.state[parameter]["step"] if self.state[parameter] else 0
                ages.setdefault(int(age) + 1, []).append(parameter)
        for age, parameters in ages.items():
            eps = group["eps"] / math.sqrt(1 - group["betas"][1] ** age)
            yield {**group, "params": parameters, "eps": eps}


def scale_and_clip(parameters: Iterable[Tensor], factor: float, clip_norm: float) -> float:
    """Scale gradients, and clip them to a norm, in one pass over memory behind the one that measures them.

    Args:
        parameters: what the gradients are of.
        factor: what they are multiplied with.
        clip_norm: their largest norm, that of all together; 0 does not clip.

    Returns:
        The norm of the scaled gradients before clipping. Where it is not finite, gradients stay as they were.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    length = float(full_tensor(get_total_norm(gradients))) * factor
    if clip_norm:
        factor *= min(1.0, clip_norm / (length + CLIP_MARGIN))
    if math.isfinite(length) and factor != 1:
        for gradient in gradients:
            gradient.mul_(factor)
    return length


def make_optimizer(model: nn.Module, settings: OptimizerSettings) -> AdamW:
    """AdamW on what is not frozen, with the rules of ``settings`` on what decays and where ``eps`` is added."""
    moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [_group(moving, settings.weight_decay)]
    if settings.decay == "matrices":
        matrices = [p for p in moving if p.dim() > 1]
        groups = [_group(matrices, settings.weight_decay), _group((p for p in moving if p.dim() <= 1), 0.0)]
    groups = [group for group in groups if group["params"]]
    # in one pass over the weights, without copies; elsewhere torch counts steps on a CPU and chooses itself
    fused = True if all(parameter.device.type == "cpu" for parameter in moving) else None
    kind = AdamW if settings.eps_rule == "corrected" else UncorrectedAdamW
    return kind(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=fused)


def _group(parameters: Iterable[Tensor], weight_decay: float) -> dict[str, Any]:
    return {"params": list(parameters), "weight_decay": weight_decay}


def make_schedule(
    optimizer: AdamW, settings: OptimizerSettings, steps: int, steps_per_epoch: int | None = None
) -> LambdaLR:
    """Make the learning rate rise in a line over the warm-up, then fall to its end as a polynomial.

    Args:
        optimizer: what has the learning rate.
        settings: the shape of the schedule.
        steps: where it ends.
        steps_per_epoch: steps between two epochs, which ``force_anneal`` counts; None: all are one epoch.
    """
    warmup = int(steps * settings.warmup_ratio) if settings.warmup_steps is None else settings.warmup_steps
    end = settings.end if settings.end_lr is None else settings.end_lr / settings.lr

    def reached(step: int, peak: float) -> float:
        """The rate of a step as a share of ``lr``, where the warm-up leads to ``peak``."""
        risen = step + (not settings.warmup_from_zero)
        if warmup and risen <= warmup:
            return peak * risen / warmup
        if step >= steps:
            return end
        left = 1 - (step - warmup) / (steps - warmup)
        return float(end + (peak - end) * left**settings.power)

    def factor(step: int) -> float:
        peak = 1.0
        if settings.force_anneal is not None and steps_per_epoch is not None:
            for first in range((settings.force_anneal - 1) * steps_per_epoch, step + 1, steps_per_epoch):
                peak = reached(first, peak)  # an epoch begins with the rate that it finds
        return reached(step, peak)

    return LambdaLR(optimizer, factor)
