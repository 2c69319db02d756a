"""Low-rank adapters (LoRA) in the files of the library peft: stored by training, merged into the weights at loading.

A directory holds ``adapter_config.json`` and ``adapter_model.safetensors``, which peft reads and writes. Training puts
three more beside them: ``config.json``, the settings that the model was adapted with, ``base_entries.json``, by which
another base is told from the one that was adapted, and the digests of all. Merged, an adapter costs an answer nothing.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..config import OFAConfig
from ..errors import CheckpointError
from ..model.ofa import OFAModel
from ..utils.input_files import read_whole
from .digests import write_digests
from .model_dir import (
    CONFIG_FILE,
    PROVENANCE_FILE,
    atomic_directory,
    check_state,
    compared_files,
    list_names,
    load_model,
    read_config,
    read_safetensors,
)

ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_FILE = "adapter_model.safetensors"
BASE_FILE = "base_entries.json"
#: The files that an answer depends on; the last two are there where training has written them.
ADAPTER_FILES = (ADAPTER_CONFIG_FILE, ADAPTER_FILE, BASE_FILE, CONFIG_FILE)
#: Entries of each adapted weight that are stored, and how far the same may be apart: as far as bfloat16 rounds.
BASE_ENTRIES, BASE_TOLERANCE = 8, 2.0**-8

#: Names in peft's file: that of a module behind the name of its wrapper.
_ENTRY = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<factor>[AB])(?:\.default)?\.weight")
#: Settings of peft that are merged here or change no weight; any other must be off.
_KNOWN = frozenset(
    {"peft_type", "r", "lora_alpha", "use_rslora", "lora_dropout", "rank_pattern", "bias", "init_lora_weights"}
    | {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "inference_mode", "task_type"}
    | {"auto_mapping", "peft_version", "base_model_name_or_path", "revision", "eva_config"}
    | {"megatron_core", "qalora_group_size"}  # which are set where nothing uses them
)
#: Beginnings of the factors that leave the base as it is.
_BEGINNINGS = (True, False, "gaussian", "eva")


@dataclass(frozen=True)
class LoraAdapter:
    """The factors of a change of some linear layers: W + alpha / r * B A, with A [r, in] and B [out, r]."""

    alpha: float
    #: Names of modules or ends of them, as peft has them.
    targets: tuple[str, ...]
    #: A and B of each module by its name.
    factors: Mapping[str, tuple[Tensor, Tensor]]
    dropout: float = 0.0
    #: Scale with the root of r instead of r (rank-stabilised).
    rank_stabilized: bool = False

    def change(self, module: str) -> Tensor:
        """The difference [out, in] that the adapter makes to a module's weight, in the type of the factors."""
        a, b = self.factors[module]
        rank = a.shape[0]
        return (b @ a) * (self.alpha / (math.sqrt(rank) if self.rank_stabilized else rank))


def merge(state: Mapping[str, Tensor], adapter: LoraAdapter, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The tensors of a model with an adapter in them; the sum is made in float32 or better.

    Args:
        state: tensors by name.
        adapter: what is added.
        dtype: the type of the changed weights; None keeps each one's.

    Raises:
        CheckpointError: the adapter has a module that ``state`` has not, or of another shape.
    """
    merged = dict(state)
    for module, (a, b) in adapter.factors.items():
        name = f"{module}.weight"
        weight = state.get(name)
        shape = [b.shape[0], a.shape[1]]
        if weight is None or list(weight.shape) != shape:
            there = "no such layer" if weight is None else f"one of {list(weight.shape)}"
            raise CheckpointError(f"the adapter changes a layer {module} of {shape}, and the model has {there}")
        wide = torch.promote_types(weight.dtype, torch.float32)
        change = adapter.change(module).to(weight.device, wide)
        merged[name] = (weight.to(wide) + change).to(dtype or weight.dtype)
    return merged


def save_adapter(
    directory: str | os.PathLike[str],
    adapter: LoraAdapter,
    base: Mapping[str, Tensor],
    config: OFAConfig,
    provenance: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write an adapter in peft's files. The directory appears whole or not at all.

    Args:
        directory: where it goes.
        adapter: what is stored.
        base: the tensors of the model that is adapted, before.
        config: the model's settings.
        provenance: where it comes from.
        overwrite: whether an earlier one is replaced.

    Raises:
        CheckpointError: ``directory`` exists and ``overwrite`` is off.
    """
    tensors = {}
    for module, factors in adapter.factors.items():
        for letter, factor in zip("AB", factors, strict=True):
            tensors[f"base_model.model.{module}.lora_{letter}.weight"] = factor.contiguous()
    entries = {module: _entries(base[f"{module}.weight"]) for module in adapter.factors}
    with atomic_directory(Path(directory), overwrite) as temporary:
        _write_json(temporary / ADAPTER_CONFIG_FILE, _peft_config(adapter))
        _write_json(temporary / BASE_FILE, entries)
        save_file(tensors, temporary / ADAPTER_FILE, metadata={"format": "pt"})
        (temporary / CONFIG_FILE).write_text(config.model_dump_json(indent=2) + "\n")
        if provenance is not None:
            _write_json(temporary / PROVENANCE_FILE, provenance)
        write_digests(temporary)


def load_adapted(
    directory: str | os.PathLike[str],
    adapter: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> OFAModel:
    """The model of a directory with an adapter merged into its weights; the rest as :func:`load_model` has it.

    Raises:
        CheckpointError: a file is missing or broken, or the adapter is none of this model.
    """
    path = Path(adapter)
    lora = read_adapter(path)
    own_config = read_config(path) if (path / BASE_FILE).is_file() else None

    def adapt(
        state: dict[str, Tensor], config: OFAConfig, kept: torch.dtype | None
    ) -> tuple[dict[str, Tensor], OFAConfig]:
        try:
            _check_base(path, lora, state)
            merged = merge(state, lora, kept)
            if own_config is not None:
                check_state(state, own_config)
        except CheckpointError as error:
            raise CheckpointError(f"{path} is no adapter of {directory}: {error}") from None
        return merged, own_config or config

    return load_model(directory, device, dtype, adapt=adapt)


def read_adapter(directory: str | os.PathLike[str]) -> LoraAdapter:
    """Read an adapter that training or peft wrote.

    Raises:
        CheckpointError: a file is missing or broken, or it is another kind of adapter than plain LoRA of linear layers.
    """
    path = Path(directory)
    for name in (ADAPTER_CONFIG_FILE, ADAPTER_FILE):
        if not (path / name).is_file():
            raise CheckpointError(f"{path} is not an adapter: it has no {name}")
    with compared_files(path, ADAPTER_FILES):
        settings = _read_json(path / ADAPTER_CONFIG_FILE)
        _check_settings(path / ADAPTER_CONFIG_FILE, settings)
        factors = _factors(path / ADAPTER_FILE, read_safetensors(path / ADAPTER_FILE))
    targets = settings.get("target_modules") or ()
    return LoraAdapter(
        alpha=float(settings["lora_alpha"]),
        targets=(targets,) if isinstance(targets, str) else tuple(map(str, targets)),
        factors=factors,
        rank_stabilized=bool(settings.get("use_rslora")),
    )


def _peft_config(adapter: LoraAdapter) -> dict[str, Any]:
    ranks = {a.shape[0] for a, _ in adapter.factors.values()}
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": max(ranks),
        "lora_alpha": adapter.alpha,
        "lora_dropout": adapter.dropout,
        "target_modules": list(adapter.targets),
        "use_rslora": adapter.rank_stabilized,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
    }


def _check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    if settings.get("peft_type") != "LORA":
        raise CheckpointError(f"{path}: peft_type is {settings.get('peft_type')!r}; only LORA is merged")
    alpha = settings.get("lora_alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise CheckpointError(f"{path}: lora_alpha should be a number, not {alpha!r}")
    odd = [name for name, value in settings.items() if value and name not in _KNOWN]
    if settings.get("bias", "none") != "none":
        odd.append("bias")
    if settings.get("init_lora_weights", True) not in _BEGINNINGS:
        odd.append("init_lora_weights")
    if odd:
        told = ", ".join(f"{name} = {json.dumps(settings[name])[:80]}" for name in odd[:3])
        raise CheckpointError(f"{path}: {told} is more than plain LoRA; merge it with peft (merge_and_unload)")


def _factors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of each module, which come in pairs of matrices that fit."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _ENTRY.fullmatch(name)
        if match is None or tensor.dim() != 2 or not tensor.is_floating_point():
            raise CheckpointError(f"{path}: {name} {list(tensor.shape)} is no factor of a linear layer's change")
        found.setdefault(match["module"], {})[match["factor"]] = tensor
    if not found:
        raise CheckpointError(f"{path} holds no factors")
    odd = [
        module
        for module, pair in found.items()
        if pair.keys() != {"A", "B"} or pair["A"].shape[0] != pair["B"].shape[1] or not pair["A"].shape[0]
    ]
    if odd:
        raise CheckpointError(f"{path}: A and B are not a pair that fits in {list_names(odd)}")
    return {module: (pair["A"], pair["B"]) for module, pair in found.items()}


def _entries(weight: Tensor) -> list[float]:
    """A few entries of a weight, evenly spread from the first to the last."""
    flat = weight.detach().reshape(-1)
    count = min(BASE_ENTRIES, flat.numel())
    places = [round(number * (flat.numel() - 1) / max(1, count - 1)) for number in range(count)]
    return flat[places].float().tolist()


def _check_base(path: Path, adapter: LoraAdapter, state: Mapping[str, Tensor]) -> None:
    """Compare the weights with those that the adapter was trained on, as far as they were stored with it."""
    if not (path / BASE_FILE).is_file():
        return  # peft's own
    stored = _read_json(path / BASE_FILE)
    other = []
    for module in adapter.factors:
        weight, then = state.get(f"{module}.weight"), stored.get(module)
        if weight is not None and not _alike(_entries(weight), then):
            other.append(module)
    if other:
        names = list_names(other)
        raise CheckpointError(f"it was trained on a model with other weights in {names}; name that model")


def _alike(now: Sequence[float], then: Any) -> bool:
    return (
        isinstance(then, list)
        and len(now) == len(then)
        and all(isinstance(number, int | float) for number in then)
        and all(math.isclose(a, b, rel_tol=BASE_TOLERANCE, abs_tol=1e-7) for a, b in zip(now, then, strict=True))
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_whole(path).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} should hold one JSON object")
    return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
