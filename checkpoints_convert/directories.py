"""Directories of weights: Hugging Face style ones, ModelScope's, and what a Trainer leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ofa_core.checkpoint.model_dir import CONFIG_FILE, WEIGHTS_FILE
from ofa_core.errors import CheckpointError, shown

from .hub_settings import CONFIGURATION_FILE, PREPROCESSOR_FILE, modelscope_settings, preprocessor_settings
from .huggingface import (
    BERT_FILE,
    MERGES_FILE,
    VOCAB_FILE,
    arguments_from_huggingface,
    vocabulary_from_huggingface,
    vocabulary_settings,
)
from .source import Source
from .wrappers import (
    INDEX_SUFFIX,
    by_fairseqs_names,
    indexed_files,
    read_json,
    read_weights,
    state_in,
    without_prefix,
)

_BIN = "pytorch_model.bin"
#: Files of weights, the first that is there counts.
WEIGHTS_FILES = (WEIGHTS_FILE, _BIN, WEIGHTS_FILE + INDEX_SUFFIX, _BIN + INDEX_SUFFIX)


def open_directory(path: Path, prefix: str | None) -> Source:
    """Recognise and read a directory.

    Raises:
        CheckpointError: it is none of the kinds, or broken.
        UnsafePickleError: a file that asks to execute something; nothing of it was.
    """
    file = next((path / name for name in WEIGHTS_FILES if (path / name).is_file()), None)
    config = read_json(path / CONFIG_FILE) if (path / CONFIG_FILE).is_file() else None
    if config is not None and "embed_dim" in config:
        raise CheckpointError(
            f"{path} is not a Hugging Face style directory of OFA: "
            "it is a model directory already; ofa_core.load takes it as it is"
        )
    if file is None:
        raise CheckpointError(
            f"{path} is not a Hugging Face style directory of OFA: it should hold {CONFIG_FILE}, {VOCAB_FILE}, "
            f"{MERGES_FILE} and {_BIN} or {WEIGHTS_FILE}"
        )
    args, task = arguments_from_huggingface(config) if config is not None else ({}, {})
    if (path / PREPROCESSOR_FILE).is_file():
        task |= preprocessor_settings(path)
    search: dict[str, int | float | bool] = {}
    if (path / CONFIGURATION_FILE).is_file():
        told, search = modelscope_settings(path)
        task |= told
        kind = "ModelScope directory"
    else:
        kind = "Hugging Face style directory" if config is not None else "directory of weights without arguments"
    vocabulary, settings = _vocabulary(path, task)
    extra_tokens = tuple(settings.pop("extra_tokens", ()))
    state = without_prefix(file, state_in(file, read_weights(file)), prefix)
    return Source(
        kind,
        file,
        by_fairseqs_names(file, state),
        args,
        task | settings,
        vocabulary,
        extra_tokens,
        parts=indexed_files(file) if file.name.endswith(INDEX_SUFFIX) else (),
        search=search,
        is_of_hub=config is not None,
    )


def _vocabulary(path: Path, task: dict[str, Any]) -> tuple[dict[str, bytes] | None, dict[str, Any]]:
    """The vocabulary files that a directory brings, None where it brings none, and settings that they tell."""
    english, chinese = (path / VOCAB_FILE).is_file(), (path / BERT_FILE).is_file()
    if not english and not chinese:
        return None, {}
    kind = "gpt2" if english else "bert"
    if task.get("bpe", kind) != kind:
        name = VOCAB_FILE if english else BERT_FILE
        raise CheckpointError(
            f"{path / CONFIGURATION_FILE} asks for bpe {shown(task['bpe'])}, but {name} is of {kind!r}"
        )
    return vocabulary_from_huggingface(path), {"bpe": kind} | vocabulary_settings(path)
