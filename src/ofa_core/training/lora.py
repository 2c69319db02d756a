"""Low-rank adaptation (LoRA): linear layers learn a change of rank r beside their weights, which stay as they are.

The layers compute and begin as those of the library peft do, which a test holds, and are stored in its files. They are
not peft's own because a layer is twenty lines, and peft brings transformers and accelerate with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoint.lora import LoraAdapter
from ..checkpoint.model_dir import list_names
from ..errors import OFAError
from ..model.ofa import OFAModel
from .setting_tables import LoraSettings

#: Ends of the names of a layer's own tensors.
FACTORS = ("lora_a", "lora_b")


class LoraLinear(nn.Linear):
    """W x + bias + alpha / r * B A dropout(x); a linear layer becomes one in place, and keeps its tensors' names."""

    lora_a: nn.Parameter  # [r, in]
    lora_b: nn.Parameter  # [out, r]
    lora_scale: float
    lora_dropout: float

    def begin(self, settings: LoraSettings) -> None:
        """Begin with B zero, so that nothing changes yet; W and the bias move no more."""
        self.lora_a = nn.Parameter(self.weight.new_empty(settings.rank, self.in_features))
        self.lora_b = nn.Parameter(self.weight.new_zeros(self.out_features, settings.rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        self.lora_scale, self.lora_dropout = settings.alpha / settings.rank, settings.dropout

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [..., in] to [..., out]."""
        dropped = F.dropout(x, self.lora_dropout, self.training)
        return super().forward(x) + self.lora_scale * F.linear(F.linear(dropped, self.lora_a), self.lora_b)


def add_lora(model: OFAModel, settings: LoraSettings) -> None:
    """Turn the layers that ``settings`` name into :class:`LoraLinear` ones, in place; nothing else moves any more.

    Raises:
        OFAError: a target names no layer, or one that is not linear.
    """
    adapted: dict[str, LoraLinear] = {}
    for target in settings.targets:
        found = {name: module for name, module in model.named_modules() if f".{name}".endswith(f".{target}")}
        odd = [name for name, module in found.items() if type(module) is not nn.Linear]
        if not found or odd:
            problem = f"{list_names(odd)} is no linear layer" if odd else "no layer's name ends so"
            raise OFAError(
                f"lora.targets: {target!r} cannot be adapted: {problem}; such as q_proj, fc1 or image_proj can"
            )
        adapted |= cast("dict[str, LoraLinear]", found)  # which they are in a moment
    model.requires_grad_(False)
    for layer in adapted.values():
        layer.__class__ = LoraLinear
        layer.begin(settings)


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """The adapted layers of a model with their names."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            yield name, module


def remove_lora(model: OFAModel) -> OFAModel:
    """Merge the changes into the weights, in place: the plain model that computes the same; returns it."""
    for _, layer in list(lora_layers(model)):
        with torch.no_grad():
            layer.weight += layer.lora_scale * (layer.lora_b @ layer.lora_a)
        for name in FACTORS:
            delattr(layer, name)
        layer.__class__ = nn.Linear  # type: ignore[assignment]
    return model


def split(state: Mapping[str, Tensor], settings: LoraSettings) -> tuple[dict[str, Tensor], LoraAdapter]:
    """The tensors of a model in two: its base's, and the adapter.

    Args:
        state: whole tensors (not sharded) of a model with :func:`add_lora`.
        settings: those that it was made with.
    """
    factors = {}
    base = {}
    for name, tensor in state.items():
        module, _, leaf = name.rpartition(".")
        if leaf == FACTORS[0]:
            factors[module] = (tensor, state[f"{module}.{FACTORS[1]}"])
        elif leaf not in FACTORS:
            base[name] = tensor
    return base, LoraAdapter(settings.alpha, settings.targets, factors, settings.dropout)
