"""Checkpoints that fully sharded training wrote in parts: ``NAME-shard0.pt``, ``NAME-shard1.pt`` and so on.

Each part holds a slice of every flat parameter, padded to the same length, and metadata that names the parameters a
flat one was made of, with their shapes (the layout of fairscale's FullyShardedDataParallel, as fairseq stores it).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ofa_core.errors import CheckpointError

from .unpickle import read_checkpoint

_SHARD = re.compile(r"(.*)-shard(\d+)\.pt")
#: Keys of a part's metadata in fairseq's releases.
_METADATA_KEYS = ("fsdp_metadata", "shard_metadata")


def is_shard(content: Mapping[str, Any]) -> bool:
    """Tell whether a checkpoint's content is one part of several."""
    return any(content.get(key) is not None for key in _METADATA_KEYS)


def read_shards(path: Path) -> list[dict[str, Any]]:
    """The contents of all parts of which ``path`` is one, in order.

    Raises:
        CheckpointError: the name is not that of a part, or a part is missing.
    """
    match = _SHARD.fullmatch(path.name)
    if match is None:
        raise CheckpointError(f"{path} is one part of a sharded checkpoint; its name should end in -shard0.pt")
    found = {}
    for sibling in path.parent.iterdir():
        other = _SHARD.fullmatch(sibling.name)
        if other is not None and other[1] == match[1]:
            found[int(other[2])] = sibling
    missing = next((index for index in range(len(found)) if index not in found), None)
    if missing is not None:
        raise CheckpointError(f"{path.with_name(f'{match[1]}-shard{missing}.pt')} is missing beside the other parts")
    contents = [read_checkpoint(found[index]).content for index in range(len(found))]
    for index, content in enumerate(contents):
        if not is_shard(content):
            raise CheckpointError(f"{found[index]} is not part of a sharded checkpoint: it has no {_METADATA_KEYS[0]}")
    return contents


def merged_state(path: Path, contents: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """The whole state dict of a sharded checkpoint.

    Raises:
        CheckpointError: metadata of another layout, or parts that do not fit together.
    """
    weights = [content.get("model") for content in contents]
    metadata = [next(content[key] for key in _METADATA_KEYS if content.get(key) is not None) for content in contents]
    state: dict[str, Tensor] = {}
    try:
        for index, unit in enumerate(metadata[0]["param_metadata"]):
            for flat_name, layout in unit["params"].items():
                key = _joined(unit["fsdp_path"], flat_name)
                paddings = [part["param_metadata"][index]["params"][flat_name]["padding"] for part in metadata]
                slices = [part[key] for part in weights]  # type: ignore[index]
                if unit.get("no_broadcast_optim_state"):  # not sharded: every part holds the whole
                    slices, paddings = slices[:1], paddings[:1]
                flat = torch.cat([tensor[: tensor.numel() - pad] for tensor, pad in zip(slices, paddings, strict=True)])
                if flat.numel() != sum(layout["numels"]):
                    raise CheckpointError(
                        f"{path}: the {len(contents)} parts of {key} hold {flat.numel()} of {sum(layout['numels'])} "
                        "numbers: a part is missing"
                    )
                parts = flat.split(layout["numels"])
                for name, tensor, shape in zip(layout["names"], parts, layout["shapes"], strict=True):
                    state[_joined(unit["fsdp_path"], name)] = tensor.view(tuple(shape))
            for source, copy in unit.get("shared_param_info", ()):
                state[copy] = state[source]
        for name in metadata[0].get("buffer_names", ()):
            state[name] = weights[0][name]  # type: ignore[index]
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, RuntimeError) as error:
        if isinstance(error, CheckpointError):
            raise
        problem = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{path}: the sharding metadata are not of the known layout ({problem})") from None
    return state


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
