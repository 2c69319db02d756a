"""The models that a run writes: directories that everything else loads, and beside them the adapters that it trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..checkpoint.lora import merge, save_adapter
from ..checkpoint.model_dir import save_directory
from ..config import OFAConfig
from ..text import Tokenizer
from .lora import split
from .settings import TrainingSettings

#: The models of a run: the present one, and the best by the first score.
LAST, BEST = "last", "best"
#: Behind a model's name: the directory of the adapter that is merged in it.
ADAPTER = "-adapter"


def stored_names(settings: TrainingSettings) -> list[str]:
    """The names of the directories that a run of ``settings`` writes its models to."""
    adapters = [f"{name}{ADAPTER}" for name in (LAST, BEST)] if settings.lora is not None else []
    return [LAST, BEST, *adapters]


def store_model(
    name: str,
    state: Mapping[str, Tensor],
    config: OFAConfig,
    tokenizer: Tokenizer,
    settings: TrainingSettings,
    step: int,
) -> None:
    """Write a model as it stands at a step; with ``lora`` its adapter first, and the model with the adapter merged.

    Args:
        name: :data:`LAST` or :data:`BEST`.
        state: whole tensors by name, on a CPU.
        config: the model's settings.
        tokenizer: its tokenizer.
        settings: those of the run.
        step: the steps that were done.
    """
    provenance: dict[str, Any] = {"trained_for": step, "settings": settings.model_dump(mode="json")}
    if settings.lora is not None:
        base, adapter = split(state, settings.lora)
        save_adapter(settings.out / f"{name}{ADAPTER}", adapter, base, config, provenance, overwrite=True)
        state = merge(base, adapter)
    save_directory(settings.out / name, state, config, tokenizer, provenance, overwrite=True)
