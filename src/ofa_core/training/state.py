"""The state of a run in one safetensors file, from which it goes on as if it had never stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from ..checkpoint.model_dir import unshare_tensors
from ..errors import OFAError
from ..utils.atomic_write import atomic_path

STATE_FILE = "state.safetensors"
FORMAT = "ofa_core.training/1"


def optimizer_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors, named after the parameters they belong to."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}/{key}": full_tensor(torch.as_tensor(value))
        for parameter, values in optimizer.state.items()
        for key, value in values.items()
    }


def restore_optimizer(model: nn.Module, optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` gave."""
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        parameter, _, key = name.rpartition("/")
        like = parameters[parameter]
        optimizer.state[like][key] = tensor if key == "step" else shard_like(tensor, like)


def full_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor that may be sharded over processes."""
    full = getattr(tensor, "full_tensor", None)
    return tensor.detach() if full is None else full().detach()


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """``tensor`` where ``like`` is, sharded and laid out in memory as it is: fused optimizers pass over both as one."""
    mesh = getattr(like, "device_mesh", None)
    if mesh is None:
        return torch.empty_like(like, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
    from torch.distributed.tensor import distribute_tensor  # a second of imports that only sharded runs need

    return distribute_tensor(tensor.to(like.device), mesh, like.placements)  # type: ignore[attr-defined]


def save_state(path: Path, groups: dict[str, dict[str, Tensor]], facts: dict[str, Any]) -> None:
    """Write groups of tensors and some facts, beside and renamed."""
    tensors = {f"{group}:{name}": t for group, part in groups.items() for name, t in part.items()}
    metadata = {"format": FORMAT, "facts": json.dumps(facts)}
    with atomic_path(path) as temporary:
        try:
            save_file(unshare_tensors(tensors), temporary, metadata=metadata)
        except SafetensorError as error:
            raise OFAError(f"{path} cannot be written: {error}") from None


def read_state(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read what :func:`save_state` wrote.

    Raises:
        OFAError: the file is not such a state, or broken.
    """
    groups: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise OFAError(f"{path} is not the state of a training run")
            for name in file.keys():  # noqa: SIM118, not a dict
                group, _, rest = name.partition(":")
                groups.setdefault(group, {})[rest] = file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise OFAError(f"{path} cannot be read: {error}") from None
    return groups, json.loads(metadata["facts"])
