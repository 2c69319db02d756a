"""Kinds of checkpoint in circulation, each read into fairseq's names, arguments and settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeGuard

from torch import Tensor

from ofa_core.checkpoint.model_dir import CONFIG_FILE, WEIGHTS_FILE, read_safetensors
from ofa_core.errors import CheckpointError, OFAError
from ofa_core.utils.input_files import parse_json, read_text_file

from .huggingface import (
    arguments_from_huggingface,
    is_huggingface,
    state_from_huggingface,
    vocabulary_from_huggingface,
    vocabulary_settings,
)
from .shards import is_shard, merged_state, read_shards
from .unpickle import read_checkpoint

#: The choice of a checkpoint's weights: those that were trained, their exponential moving average as it is stored, or
#: that average in the float32 copy that training kept of it.
Weights = Literal["model", "ema", "ema-fp32"]
WEIGHTS: tuple[Weights, ...] = ("model", "ema", "ema-fp32")

#: The prefix that a Trainer puts before every name.
TRAINER_PREFIX = "model."
_HUGGINGFACE_WEIGHTS = ("pytorch_model.bin", WEIGHTS_FILE)


@dataclass(frozen=True)
class Source:
    """A checkpoint, whatever it was stored as."""

    kind: str  # in words, for people
    file: Path  # where the weights are
    state: Mapping[str, Tensor]  # by fairseq's names
    args: Mapping[str, Any] = field(default_factory=dict)
    task: Mapping[str, Any] = field(default_factory=dict)
    #: Vocabulary files that came with it, name to content.
    vocabulary: Mapping[str, bytes] | None = None
    extra_tokens: tuple[str, ...] = ()
    #: True if there is a moving average beside the weights that were taken.
    has_ema: bool = False


def open_source(path: Path, weights: Weights = "model", prefix: str | None = None) -> Source:
    """Recognise and read ``path``.

    It may be a fairseq ``.pt`` (or a part of a sharded one, which brings the others), a bare state dict, or a Hugging
    Face style directory.

    Args:
        path: the file or directory.
        weights: which weights of a fairseq checkpoint.
        prefix: what to take off the names of a bare state dict; None takes off ``model.`` where all have it.

    Raises:
        CheckpointError: a file or directory that is none of these, or lacks the weights asked for.
        UnsafePickleError: a file that asks to execute something; nothing of it was.
    """
    if path.is_dir():
        source = _huggingface_directory(path, prefix)
    else:
        content = read_checkpoint(path).content
        if is_shard(content):
            parts = read_shards(path)
            content = {**parts[0], "model": merged_state(path, parts)}
        bare = bool(content) and all(isinstance(value, Tensor) for value in content.values())
        source = _bare(path, content, prefix) if bare else _fairseq(path, content, weights)
    if weights != "model" and not source.kind.startswith("fairseq"):
        raise CheckpointError(f"{path} is a {source.kind}: it has no moving average to take with --weights {weights}")
    return source


def _fairseq(path: Path, content: Mapping[str, Any], weights: Weights) -> Source:
    state = content.get("model")
    if not _is_state(state):
        found = ", ".join(map(str, content)) or "nothing"
        raise CheckpointError(
            f"{path}: this is not a fairseq checkpoint: it has no 'model' with tensors (it holds {found[:200]})"
        )
    cfg = content.get("cfg") or {}
    if not isinstance(cfg, dict):
        raise CheckpointError(f"{path}: the stored cfg is {type(cfg).__name__}, not names and values")
    args = cfg.get("model") or content.get("args") or {}
    task = cfg.get("task") or args
    for name, part in (("model arguments", args), ("task settings", task)):
        if not isinstance(part, dict):
            raise CheckpointError(f"{path}: the stored {name} are {type(part).__name__}, not names and values")
    extra = content.get("extra_state")
    averages = extra if isinstance(extra, dict) else {}
    source = Source("fairseq checkpoint", path, state, args, task, has_ema=_is_state(averages.get("ema")))
    return source if weights == "model" else replace(source, state=_average(path, state, averages, weights))


def _average(
    path: Path, state: Mapping[str, Tensor], averages: Mapping[str, Any], weights: Weights
) -> dict[str, Tensor]:
    """The moving average; what it does not hold (buffers, in its float32 copy) is as in the model."""
    keys = ("ema",) if weights == "ema" else ("ema", "ema_fp32_params")
    if not _is_state(averages.get(keys[-1])):
        raise CheckpointError(f"{path} has no {keys[-1]} in its extra_state to take with --weights {weights}")
    averaged = dict(state)
    for part in filter(_is_state, map(averages.get, keys)):
        for name, tensor in part.items():
            if name not in state:
                raise CheckpointError(f"{path}: the moving average holds {name}, which the model does not")
            averaged[name] = tensor
    return averaged


def _bare(path: Path, state: Mapping[str, Tensor], prefix: str | None) -> Source:
    """A state dict and nothing else, as a Trainer writes it."""
    state = _stripped(path, state, prefix)
    if is_huggingface(state):
        state = state_from_huggingface(state)
    return Source("state dict without arguments", path, state)


def _stripped(path: Path, state: Mapping[str, Tensor], prefix: str | None) -> Mapping[str, Tensor]:
    if prefix is None:
        prefix = TRAINER_PREFIX if all(name.startswith(TRAINER_PREFIX) for name in state) else ""
    odd = next((name for name in state if not name.startswith(prefix)), None)
    if odd is not None:
        raise CheckpointError(f"{path}: entry {odd} does not begin with the prefix {prefix!r}")
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def _huggingface_directory(path: Path, prefix: str | None) -> Source:
    has = {name for name in (CONFIG_FILE, "vocab.json", "merges.txt", *_HUGGINGFACE_WEIGHTS) if (path / name).is_file()}
    files = [path / name for name in _HUGGINGFACE_WEIGHTS if name in has]
    if CONFIG_FILE not in has or "vocab.json" not in has or not files:
        hint = "it is a model directory already; ofa_core.load takes it as it is" if _is_ours(path) else (
            f"it should hold {CONFIG_FILE}, vocab.json, merges.txt and {' or '.join(_HUGGINGFACE_WEIGHTS)}"
        )  # fmt: skip
        raise CheckpointError(f"{path} is not a Hugging Face style directory of OFA: {hint}")
    file = files[-1]
    content = read_safetensors(file) if file.name == WEIGHTS_FILE else read_checkpoint(file).content
    if not _is_state(content):
        raise CheckpointError(f"{file} holds no state dict")
    state = _stripped(file, content, prefix)
    args, task = arguments_from_huggingface(_json(path / CONFIG_FILE))
    settings = vocabulary_settings(path)
    extra_tokens = tuple(settings.pop("extra_tokens", ()))
    return Source(
        "Hugging Face style directory",
        file,
        state_from_huggingface(state) if is_huggingface(state) else state,
        args,
        task | settings,
        vocabulary_from_huggingface(path),
        extra_tokens,
    )


def _is_ours(path: Path) -> bool:
    try:
        return "embed_dim" in _json(path / CONFIG_FILE)
    except (CheckpointError, OSError):
        return False


def _json(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(read_text_file(path))
    except OFAError as error:
        raise CheckpointError(str(error)) from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} should hold one JSON object")
    return content


def _is_state(value: object) -> TypeGuard[dict[str, Tensor]]:
    return isinstance(value, dict) and bool(value) and all(isinstance(tensor, Tensor) for tensor in value.values())
