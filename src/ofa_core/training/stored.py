"""The models that a run writes: directories that everything else loads, and beside them the adapters that it trains."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ..api import model_directory
from ..checkpoint.card import CardScore, model_card
from ..checkpoint.image_codes import VQGAN_FILE, vqgan_file
from ..checkpoint.lora import merge, save_adapter
from ..checkpoint.model_dir import empty_model, save_directory
from ..config import OFAConfig
from ..errors import OFAError
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
    scores: tuple[int, Mapping[str, float]] = (0, {}),
) -> None:
    """Write a model as it stands at a step; with ``lora`` its adapter first, and the model with the adapter merged.

    Args:
        name: :data:`LAST` or :data:`BEST`.
        state: whole tensors by name, on a CPU.
        config: the model's settings.
        tokenizer: its tokenizer.
        settings: those of the run.
        step: the steps that were done.
        scores: those of the latest evaluation, and its step, for the model's card.
    """
    provenance: dict[str, Any] = {"trained_for": step, "settings": settings.model_dump(mode="json")}
    if settings.lora is not None:
        base, adapter = split(state, settings.lora)
        save_adapter(settings.out / f"{name}{ADAPTER}", adapter, base, config, provenance, overwrite=True)
        state = merge(base, adapter)
    out = settings.out / name
    parameters = sum(state[name].numel() for name, _ in empty_model(config).named_parameters())
    card = _card(out, config, parameters, settings, step, scores)
    network = image_codes_network(settings)
    files = {VQGAN_FILE: partial(shutil.copyfile, network)} if network else {}
    save_directory(out, state, config, tokenizer, provenance, card=card, overwrite=True, files=files)


def image_codes_network(settings: TrainingSettings) -> Path | None:
    """The file of the network of image codes that goes with a run's models: what makes its codes, or its base model's.

    Raises:
        OFAError: its place holds none, or several sources have their codes of different networks.
    """
    named = {data.codes_from for data in settings.data if data.codes_from is not None}
    if len(named) > 1:
        raise OFAError(f"codes_from is {' and '.join(sorted(map(str, named)))}; a model's codes are of one network")
    if named:
        return _network_at(named.pop())
    return None if settings.model is None else _network_of_base(settings.model)


@cache  # the file is compared with its digest once, not whenever a model is stored
def _network_at(place: Path) -> Path:
    return vqgan_file(place)


@cache
def _network_of_base(model: Path) -> Path | None:
    """The network's file of the model that a run begins with, where it has one."""
    path = model_directory(model) / VQGAN_FILE
    return path if path.is_file() else None


def _card(
    out: Path,
    config: OFAConfig,
    parameters: int,
    settings: TrainingSettings,
    step: int,
    scores: tuple[int, Mapping[str, float]],
) -> str:
    """The card of the model at ``out``: what it learned from, and the scores of the latest evaluation."""
    data = [f"{data.task} ({data.path.name})" if data.path else data.task for data in settings.data]
    scored_at, values = scores
    shown = [CardScore(name, f"after {scored_at:,} steps", "score", f"{value:.4g}") for name, value in values.items()]
    notes = f"Trained for {step:,} of {settings.total_steps:,} steps."
    return model_card(config, parameters, load=str(out), data=data, scores=shown, notes=notes)
