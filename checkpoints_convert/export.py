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

from ofa_core.checkpoint.card import CARD_FILE
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

from .fork_files import (
    TOKENIZER_FILE,
    fork_card,
    preprocessor_config,
    state_of_fork,
    tokenizer_config,
)
from .hub_settings import PREPROCESSOR_FILE
from .huggingface import config_to_huggingface, vocabulary_to_huggingface
from .infer_config import arguments_of, task_of
from .state_dict import to_fairseq

#: Task settings that the original's evaluation overrides, which only settings that a file has can be.
_OVERRIDDEN = ("data", "selected_cols", "bpe_dir")
#: The search settings that fairseq keeps in its files, at their defaults; its loader wants the section to be there.
_GENERATION: dict[str, Any] = {
    "_name": None,
    "beam": 5,
    "nbest": 1,
    "max_len_a": 0.0,
    "max_len_b": 200,
    "min_len": 1,
    "match_source_len": False,
    "unnormalized": False,
    "no_early_stop": False,
    "no_beamable_mm": False,
    "lenpen": 1.0,
    "unkpen": 0.0,
    "replace_unk": None,
    "sacrebleu": False,
    "score_reference": False,
    "prefix_size": 0,
    "no_repeat_ngram_size": 0,
    "sampling": False,
    "sampling_topk": -1,
    "sampling_topp": -1.0,
    "constraints": None,
    "temperature": 1.0,
    "diverse_beam_groups": -1,
    "diverse_beam_strength": 0.5,
    "diversity_rate": -1.0,
    "print_alignment": None,
    "print_step": False,
    "lm_path": None,
    "lm_weight": 0.0,
    "iter_decode_eos_penalty": 0.0,
    "iter_decode_max_iter": 10,
    "iter_decode_force_max_iter": False,
    "iter_decode_with_beam": 1,
    "iter_decode_with_external_reranker": False,
    "retain_iter_history": False,
    "retain_dropout": False,
    "retain_dropout_modules": None,
    "decoding_format": None,
    "no_seed_provided": False,
}


def _task_arguments(config: OFAConfig) -> dict[str, Any]:
    """The task settings as the model's arguments: the original's network reads the picture's side there."""
    settings = task_of(config)
    return {"task": settings.pop("_name")} | settings | dict.fromkeys(_OVERRIDDEN)


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
            "generation": dict(_GENERATION),
            "model": argparse.Namespace(**arguments_of(config), **_task_arguments(config), _name="ofa_base"),
            "task": task_of(config) | dict.fromkeys(_OVERRIDDEN) | {"bpe": bpe},
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
    files = vocabulary_to_huggingface(load_tokenizer(directory, config)) | {
        CONFIG_FILE: _json(config_to_huggingface(config)),
        PREPROCESSOR_FILE: _json(preprocessor_config(config.task)),
        TOKENIZER_FILE: _json(tokenizer_config()),
        CARD_FILE: fork_card(config, sum(tensor.numel() for tensor in state.values())).encode(),
    }
    with atomic_directory(out, overwrite=False) as temporary:
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        _save(state_of_fork(to_fairseq(state, config)), temporary / "pytorch_model.bin", out)


def _json(content: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(content, indent=2)}\n".encode()


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
