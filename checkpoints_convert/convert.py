"""A fairseq checkpoint to a model directory, and a model to fairseq's file format."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import ofa_core
from ofa_core.config import OFAConfig
from ofa_core.errors import CheckpointError, OFAError
from ofa_core.text import Tokenizer
from ofa_core.text.tokenizer import VOCABULARY_KINDS, Kind
from ofa_core.weights import save_directory, summary

from .infer_config import arguments_of, config_from_fairseq, task_of
from .state_dict import from_fairseq, to_fairseq
from .unpickle import Checkpoint, read_checkpoint
from .vocabulary_files import find_vocabulary


@dataclass(frozen=True)
class Conversion:
    """What a conversion wrote."""

    directory: Path
    config: OFAConfig
    parameters: int
    bytes: int
    vocabulary: Path
    #: Rows of the embedding beyond vocabulary files, codes and bins for which no names were given.
    unnamed_tokens: int

    def lines(self) -> list[str]:
        """A summary for people."""
        task = self.config.task
        lines = [
            f"{self.directory}: {self.parameters:,} parameters, {self.bytes / 1e6:,.1f} MB",
            f"width {self.config.embed_dim}, {self.config.encoder_layers}+{self.config.decoder_layers} layers, "
            f"{self.config.num_heads} heads, vocabulary {self.config.vocab_size}",
            f"task {task.name}, pictures {task.image_size} × {task.image_size} pixels",
            f"vocabulary files from {self.vocabulary}",
        ]
        if self.unnamed_tokens:
            lines.append(
                f"{self.unnamed_tokens} tokens beyond the vocabulary have no names; give them in --extra-tokens"
            )
        return lines


def convert(
    source: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    bpe_dir: str | os.PathLike[str] | None = None,
    dtype: torch.dtype | None = None,
    extra_tokens: Sequence[str] = (),
    overwrite: bool = False,
    progress: bool = False,
) -> Conversion:
    """Turn a fairseq checkpoint ``source`` into the model directory ``out_dir``, which appears whole or not at all.

    Args:
        source: the ``.pt`` file.
        out_dir: the directory to write.
        bpe_dir: where encoder.json, vocab.bpe and dict.txt are (vocab.txt and dict.txt for a Chinese model); None
            searches the usual places.
        dtype: store weights as this; None keeps them as they are.
        extra_tokens: names of the tokens a fine-tuning added behind the bins, in order.
        overwrite: replace a model directory that exists.
        progress: show a bar while the file is read.

    Raises:
        CheckpointError: a file that is not a whole, finite checkpoint of OFA.
        UnsafePickleError: a file that asks to execute something; nothing of it was.
    """
    source, out_dir = Path(source), Path(out_dir)
    if out_dir.exists() and not overwrite:
        raise CheckpointError(f"{out_dir} exists already; choose another directory or pass --overwrite")
    checkpoint = read_checkpoint(source)
    try:
        state, args, task = _parts(checkpoint)
        config = config_from_fairseq(state, args, task)
        weights = from_fairseq(state, config)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    vocabulary = find_vocabulary(bpe_dir, task.get("bpe_dir"), _vocabulary_kind(source, task))
    tokenizer, config, unnamed = _fit_vocabulary(vocabulary, config, extra_tokens)
    if dtype is not None:
        weights = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
        lost = [name for name, tensor in weights.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
        if lost:
            raise CheckpointError(f"{source}: {len(lost)} entries are too large for {dtype}: {summary(lost)}")
    provenance = {
        "source": source.name,
        "source_sha256": _sha256(source, progress),
        "source_format": checkpoint.format,
        "weights": "model",
        "dtype": str(dtype or next(iter(weights.values())).dtype).removeprefix("torch."),
        "ofa_core": ofa_core.__version__,
        "task": task,
    }
    save_directory(out_dir, weights, config, tokenizer, provenance, overwrite=overwrite)
    return Conversion(
        directory=out_dir,
        config=config,
        parameters=sum(t.numel() for name, t in weights.items() if name.rsplit(".", 1)[-1] not in _BUFFERS),
        bytes=sum(t.numel() * t.element_size() for t in weights.values()),
        vocabulary=vocabulary,
        unnamed_tokens=unnamed,
    )


#: Leaves of our state dict that are not parameters.
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def save_fairseq(path: str | os.PathLike[str], state: Mapping[str, Tensor], config: OFAConfig) -> None:
    """Write our ``state`` as a checkpoint in fairseq's file format; it appears whole or not at all."""
    args, path = arguments_of(config), Path(path)
    content: dict[str, Any] = {
        "args": None,
        "cfg": {"_name": None, "model": argparse.Namespace(**args), "task": task_of(config)},
        "model": to_fairseq(state, config),
        "criterion": None,
        "optimizer_history": [],
        "task_state": {},
        "extra_state": {},
        "last_optimizer_state": None,
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        torch.save(content, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _parts(checkpoint: Checkpoint) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Weights, model arguments and task settings of a checkpoint's content."""
    state = checkpoint.content.get("model")
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        found = ", ".join(map(str, checkpoint.content)) or "nothing"
        raise CheckpointError(
            f"this is not a fairseq checkpoint: it has no 'model' with tensors (it holds {found[:200]})"
        )
    cfg = checkpoint.content.get("cfg") or {}
    if not isinstance(cfg, dict):
        raise CheckpointError(f"the stored cfg is {type(cfg).__name__}, not names and values")
    args = cfg.get("model") or checkpoint.content.get("args") or {}
    task = cfg.get("task") or args
    for name, part in (("model arguments", args), ("task settings", task)):
        if not isinstance(part, dict):
            raise CheckpointError(f"the stored {name} are {type(part).__name__}, not names and values")
    return state, args, task


def _vocabulary_kind(source: Path, task: Mapping[str, Any]) -> Kind:
    """The kind of vocabulary files a checkpoint needs; files without the setting are English."""
    bpe = task.get("bpe") or "gpt2"
    for kind in VOCABULARY_KINDS:
        if bpe == kind:
            return kind
    raise CheckpointError(f"{source} was trained with bpe={bpe!r}; {' and '.join(VOCABULARY_KINDS)} are supported")


def _fit_vocabulary(
    directory: Path, config: OFAConfig, extra_tokens: Sequence[str]
) -> tuple[Tokenizer, OFAConfig, int]:
    """The tokenizer for a configuration, the configuration with its extra tokens, and how many of them have no name."""

    def tokenizer_with(names: Sequence[str]) -> Tokenizer:
        task = config.task
        return Tokenizer.from_dir(
            directory, code_dict_size=task.code_dict_size, num_bins=task.num_bins, extra_tokens=names
        )

    tokenizer = tokenizer_with(())
    surplus = config.vocab_size - len(tokenizer)
    if surplus < 0 or len(extra_tokens) > surplus:
        raise CheckpointError(
            f"the vocabulary in {directory} makes {len(tokenizer) + len(extra_tokens)} tokens, "
            f"the checkpoint has {config.vocab_size}: these files do not belong to it"
        )
    if not surplus:
        return tokenizer, config, 0
    unnamed = surplus - len(extra_tokens)
    names = (*extra_tokens, *(f"<extra_{i}>" for i in range(len(extra_tokens), surplus)))
    task = config.task.model_copy(update={"extra_tokens": names})
    try:
        tokenizer = tokenizer_with(names)
    except OFAError as error:
        raise CheckpointError(str(error)) from None
    return tokenizer, config.model_copy(update={"task": task}), unnamed


def _sha256(path: Path, progress: bool) -> str:
    digest = hashlib.sha256()
    bar = tqdm(total=path.stat().st_size, unit="B", unit_scale=True, desc="sha256", disable=None if progress else True)
    with path.open("rb") as file, bar:
        while block := file.read(1 << 20):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()
