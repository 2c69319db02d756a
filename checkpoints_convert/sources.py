"""Kinds of checkpoint in circulation, each read into fairseq's names, arguments and settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from ofa_core.errors import CheckpointError

from .directories import open_directory
from .image_codes import image_codes_beside, image_codes_in_zip
from .shards import is_shard, merged_state, read_shards
from .source import Source
from .wrappers import (
    INDEX_SUFFIX,
    by_fairseqs_names,
    indexed_files,
    is_state,
    read_weights,
    refuse_other_tasks,
    state_in,
    taken_out_of_zip,
    without_prefix,
)

#: The choice of a checkpoint's weights: those that were trained, their exponential moving average as it is stored, or
#: that average in the float32 copy that training kept of it.
Weights = Literal["model", "ema", "ema-fp32"]
WEIGHTS: tuple[Weights, ...] = ("model", "ema", "ema-fp32")


def open_source(path: Path, weights: Weights = "model", prefix: str | None = None) -> Source:
    """Recognise and read ``path``.

    It may be a fairseq ``.pt`` (or a part of a sharded one, which brings the others), a state dict (bare or under a
    key, in a pickle or in safetensors, in one file or in several with an index), a zip around one of these, or a
    directory: in Hugging Face style, ModelScope's, or a Trainer's.

    Args:
        path: the file or directory.
        weights: which weights of a fairseq checkpoint.
        prefix: what to take off the names; None takes off ``module.`` and ``model.`` where all have it.

    Raises:
        CheckpointError: a file or directory that is none of these, or lacks the weights asked for.
        UnsafePickleError: a file that asks to execute something; nothing of it was.
    """
    if path.is_dir():
        source = replace(open_directory(path, prefix), image_codes=image_codes_beside(path))
    else:
        with taken_out_of_zip(path) as file:
            source = replace(_file(file, weights, prefix), file=path, image_codes=image_codes_in_zip(path))
    if weights != "model" and not source.kind.startswith("fairseq"):
        raise CheckpointError(f"{path} is a {source.kind}: it has no moving average to take with --weights {weights}")
    return source


def _file(path: Path, weights: Weights, prefix: str | None) -> Source:
    content = read_weights(path)
    if is_shard(content):
        parts = read_shards(path)
        content = {**parts[0], "model": merged_state(path, parts)}
    if content.get("cfg") or content.get("args") or "extra_state" in content:
        return _fairseq(path, content, weights, prefix)
    state = by_fairseqs_names(path, without_prefix(path, state_in(path, content), prefix))
    parts_of = indexed_files(path) if path.name.endswith(INDEX_SUFFIX) else ()
    return Source("state dict without arguments", path, state, parts=parts_of)


def _fairseq(path: Path, content: Mapping[str, Any], weights: Weights, prefix: str | None) -> Source:
    cfg = content.get("cfg") or {}
    if not isinstance(cfg, dict):
        raise CheckpointError(f"{path}: the stored cfg is {type(cfg).__name__}, not names and values")
    args = cfg.get("model") or content.get("args") or {}
    task = cfg.get("task") or args
    for name, part in (("model arguments", args), ("task settings", task)):
        if not isinstance(part, dict):
            raise CheckpointError(f"{path}: the stored {name} are {type(part).__name__}, not names and values")
    refuse_other_tasks(path, task)

    def renamed(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return by_fairseqs_names(path, without_prefix(path, state, prefix))

    state = renamed(state_in(path, content))
    extra = content.get("extra_state")
    averages = extra if isinstance(extra, dict) else {}
    source = Source("fairseq checkpoint", path, state, args, task, has_ema=is_state(averages.get("ema")))
    if weights == "model":
        return source
    named = {key: renamed(value) if is_state(value) else value for key, value in averages.items()}
    return replace(source, state=_average(path, state, named, weights))


def _average(
    path: Path, state: Mapping[str, Tensor], averages: Mapping[str, Any], weights: Weights
) -> dict[str, Tensor]:
    """The moving average; what it does not hold (buffers, in its float32 copy) is as in the model."""
    keys = ("ema",) if weights == "ema" else ("ema", "ema_fp32_params")
    if not is_state(averages.get(keys[-1])):
        raise CheckpointError(f"{path} has no {keys[-1]} in its extra_state to take with --weights {weights}")
    averaged = dict(state)
    for part in filter(is_state, map(averages.get, keys)):
        for name, tensor in part.items():
            if name not in state:
                raise CheckpointError(f"{path}: the moving average holds {name}, which the model does not")
            averaged[name] = tensor
    return averaged
