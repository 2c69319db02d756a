"""A model directory in the file formats of others: fairseq's ``.pt`` and Hugging Face style directories."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ofa_core.checkpoint.model_dir import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    atomic_directory,
    load_config,
    load_tokenizer,
    read_safetensors,
)
from ofa_core.config import OFAConfig
from ofa_core.errors import CheckpointError
from ofa_core.utils.atomic_write import atomic_path

from .huggingface import config_to_huggingface, state_to_huggingface, vocabulary_to_huggingface
from .infer_config import arguments_of, task_of
from .state_dict import to_fairseq


def save_fairseq(
    path: str | os.PathLike[str], state: Mapping[str, Tensor], config: OFAConfig, bpe: str | None = None
) -> None:
    """Write weights as a checkpoint in fairseq's file format, which appears whole or not at all.

    It holds what the original's evaluation reads: every entry of the state dict, the model's Namespace and the task
    settings, and no optimizer state.

    Args:
        path: the file.
        state: weights by our names.
        config: the model's configuration.
        bpe: ``bert`` for a Chinese model, else None.

    Raises:
        CheckpointError: ``state`` does not fit ``config``.
    """
    path = Path(path)
    content: dict[str, Any] = {
        "args": None,
        "cfg": {
            "_name": None,
            "model": argparse.Namespace(**arguments_of(config), _name="ofa_base"),
            "task": task_of(config) | {"bpe": bpe},
        },
        "model": to_fairseq(state, config),
        "criterion": None,
        # fairseq looks into both of these when it loads a file, whether it trains or not
        "optimizer_history": [
            {"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {"best": None}, "num_updates": 0}
        ],
        "task_state": {},
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "last_optimizer_state": None,
    }
    with atomic_path(path) as temporary:
        _save(content, temporary, path)


def _save(content: object, path: Path, shown: Path) -> None:
    """Write a pickle; an error of it names the path ``shown``."""
    try:
        torch.save(content, path)
    except RuntimeError as error:  # of torch's writer, which does not repeat what the system said
        raise CheckpointError(
            f"{shown} cannot be written, the disk may be full: {str(error).splitlines()[0]}"
        ) from None


def export_fairseq(directory: Path, out: Path) -> None:
    """A model directory as a fairseq ``.pt`` file."""
    config, state = _read(directory)
    kind = load_tokenizer(directory, config).kind
    save_fairseq(out, state, config, None if kind == "gpt2" else kind)


def export_huggingface(directory: Path, out: Path) -> None:
    """A model directory as a Hugging Face style directory, which appears whole or not at all."""
    config, state = _read(directory)
    vocabulary = vocabulary_to_huggingface(load_tokenizer(directory, config))
    settings = config_to_huggingface(config)
    with atomic_directory(out, overwrite=False) as temporary:
        (temporary / CONFIG_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        for name, content in vocabulary.items():
            (temporary / name).write_bytes(content)
        _save(state_to_huggingface(to_fairseq(state, config)), temporary / "pytorch_model.bin", out)


#: Functions that write a model directory for each ``--to``.
EXPORTS: dict[str, Callable[[Path, Path], None]] = {"fairseq": export_fairseq, "hf": export_huggingface}


def export(directory: str | os.PathLike[str], out: str | os.PathLike[str], to: str) -> None:
    """Write a model in a file format of others.

    Args:
        directory: a model directory.
        out: where to write.
        to: ``fairseq`` for a ``.pt`` file, ``hf`` for a Hugging Face style directory.

    Raises:
        CheckpointError: ``out`` exists, or ``directory`` is not a whole model directory.
    """
    if to not in EXPORTS:
        raise CheckpointError(f"models can be written to {' or '.join(EXPORTS)}, not to {to!r}")
    if Path(out).exists():
        raise CheckpointError(f"{out} exists already; choose another name")
    EXPORTS[to](Path(directory), Path(out))


def _read(directory: Path) -> tuple[OFAConfig, dict[str, Tensor]]:
    """Configuration and weights as they are stored."""
    return load_config(directory), read_safetensors(directory / WEIGHTS_FILE)
