"""A checkpoint of any kind to a model directory."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor
from tqdm import tqdm

import ofa_core
from ofa_core.checkpoint.image_codes import VQGAN_FILE, write_vqgan
from ofa_core.checkpoint.model_dir import WEIGHTS_FILE, list_names, read_safetensors, save_directory
from ofa_core.checkpoint.verification import not_finite
from ofa_core.config import PRESETS, OFAConfig
from ofa_core.errors import CheckpointError, OFAError, first_problem
from ofa_core.text import Tokenizer
from ofa_core.text.tokenizer import VOCABULARY_KINDS, Kind

from .hub_settings import CARD_SIDES
from .image_codes import read_image_codes
from .infer_config import config_from_fairseq
from .names import DROPPED, TIED, reason_dropped
from .source import Source
from .sources import Weights, open_source
from .state_dict import from_fairseq
from .vocabulary_files import find_vocabulary


@dataclass(frozen=True)
class Conversion:
    """The outcome of a conversion."""

    directory: Path
    kind: str  # of the source
    config: OFAConfig
    parameters: int
    bytes: int
    vocabulary: Path
    #: Rows of the embedding beyond vocabulary files, codes and bins for which no names were given.
    unnamed_tokens: int
    #: True if the source holds a moving average that was not asked for.
    ema_left: bool
    #: Entries of the source that were dropped, with the reason.
    dropped: Mapping[str, str]
    tensors: int
    written: bool
    verified: bool
    #: Lines on what was assumed, each with the way to change it.
    assumed: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """A summary for people."""
        task = self.config.task
        lines = [
            f"{self.directory}: {self.parameters:,} parameters, {self.bytes / 1e6:,.1f} MB",
            f"from a {self.kind}",
            f"width {self.config.embed_dim}, {self.config.encoder_layers}+{self.config.decoder_layers} layers, "
            f"{self.config.num_heads} heads, vocabulary {self.config.vocab_size}",
            f"task {task.name}, pictures {task.image_size} × {task.image_size} pixels",
            f"vocabulary files from {self.vocabulary}",
            *self.assumed,
        ]
        if self.verified:
            lines.append(f"verified: all {self.tensors} tensors are as in the source")
        if not self.written:
            lines += [f"dropped: {name} ({reason})" for name, reason in self.dropped.items()]
            lines.append("nothing was written (--dry-run)")
        if self.ema_left:
            lines.append("the moving average (EMA) in the file was left; --weights ema takes it instead")
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
    weights: Weights = "model",
    dtype: torch.dtype | None = None,
    prefix: str | None = None,
    extra_tokens: Sequence[str] = (),
    arch: str | None = None,
    bpe: Kind | None = None,
    image_size: int | None = None,
    vqgan: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    verify: bool = False,
    progress: bool = False,
) -> Conversion:
    """Turn a checkpoint ``source`` into the model directory ``out_dir``, which appears whole or not at all.

    Args:
        source: a fairseq ``.pt`` file, a state dict (bare or under a key, in a pickle or safetensors, with fairseq's,
            Hugging Face's or mmpretrain's names), a zip around one of these, or a Hugging Face style, ModelScope's or
            Trainer's directory; which of them is recognised.
        out_dir: the directory to write.
        bpe_dir: where encoder.json, vocab.bpe and dict.txt are (vocab.txt and dict.txt for a Chinese model); None
            takes the source's own or searches the usual places.
        weights: the trained weights, or the moving average (``ema``, ``ema-fp32``) that a fairseq checkpoint may hold.
        dtype: store weights as this; None keeps them as they are.
        prefix: what to take off all names; None takes off ``module.`` and ``model.`` where all have it.
        extra_tokens: names of the tokens a fine-tuning added behind the bins, in order.
        arch: the size it must be, ``tiny`` to ``huge``; anything else is an error.
        bpe: the kind of vocabulary of a checkpoint that does not tell it: ``gpt2``, or ``bert`` for a Chinese model.
        image_size: side in pixels of the pictures it reads; None takes what the checkpoint tells.
        vqgan: the network that makes pictures of image codes (``last.ckpt``), which is stored with the model; None
            takes the one that comes with the source, if there is one.
        overwrite: replace a model directory that exists.
        dry_run: do everything but write.
        verify: read the directory back and compare every tensor.
        progress: show a bar while the file is read.

    Returns:
        What was written.

    Raises:
        CheckpointError: a file that is not a whole, finite checkpoint of OFA.
        UnsafePickleError: a file that asks to execute something; nothing of it was.
    """
    source, out_dir = Path(source), Path(out_dir)
    if out_dir.exists() and not overwrite and not dry_run:
        raise CheckpointError(f"{out_dir} exists already; choose another directory or pass --overwrite")
    opened = open_source(source, weights, prefix)
    config, state = _model_of(source, opened, arch)
    config, assumed = _with_side(source, opened, config, image_size)
    with _vocabulary_of(opened, bpe_dir, bpe) as vocabulary:
        tokenizer, config, unnamed = _fit_vocabulary(vocabulary, config, extra_tokens or opened.extra_tokens)
    if dtype is not None:
        state = _cast(source, state, dtype)
    if not dry_run:
        codes = opened.image_codes if vqgan is None else read_image_codes(Path(vqgan))
        files = {} if codes is None else {VQGAN_FILE: partial(write_vqgan, state=codes)}
        with _digest_beside((opened.file, *opened.parts), progress) as digest:
            provenance = partial(_provenance, source, opened, state, weights, digest)
            save_directory(out_dir, state, config, tokenizer, provenance, overwrite=overwrite, files=files)
        if verify:
            _verify(out_dir, state)
    return Conversion(
        directory=out_dir,
        kind=opened.kind,
        config=config,
        parameters=sum(t.numel() for name, t in state.items() if name.rsplit(".", 1)[-1] not in _BUFFERS),
        bytes=sum(t.nbytes for t in state.values()),
        vocabulary=vocabulary if opened.vocabulary is None or bpe_dir is not None else source,
        unnamed_tokens=unnamed,
        ema_left=opened.has_ema and weights == "model",
        dropped={name: reason_dropped(name) for name in opened.state if name in (*DROPPED, *TIED)},
        tensors=len(state),
        written=not dry_run,
        verified=verify and not dry_run,
        assumed=assumed,
    )


def _model_of(source: Path, opened: Source, arch: str | None) -> tuple[OFAConfig, dict[str, Tensor]]:
    """Configuration and weights by our names."""
    try:
        config = config_from_fairseq(opened.state, opened.args, opened.task)
        _check_arch(config, arch)
        return config, from_fairseq(opened.state, config)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None


def _with_side(source: Path, opened: Source, config: OFAConfig, given: int | None) -> tuple[OFAConfig, tuple[str, ...]]:
    """The configuration with the picture's side that was given, told or assumed, and a line on what was assumed."""
    task, stored = config.task, opened.task.get("patch_image_size")
    assumed: tuple[str, ...] = ()
    side = given
    if given is None and stored is None:
        of_card = CARD_SIDES.get(config.embed_dim) if opened.is_of_hub else None
        side = of_card or task.image_size
        why = "as this size's public model card uses" if of_card else "the most common side"
        assumed = (
            f"pictures of {side} × {side} pixels are assumed, {why}: "
            "the checkpoint does not tell; --image-size changes it",
        )
    changes: dict[str, Any] = {"search": dict(opened.search)} if opened.search else {}
    if side is not None:
        changes["image_size"] = side
    try:
        task = type(task).model_validate(task.model_dump() | changes)
    except ValidationError as error:
        raise CheckpointError(f"{source}: {first_problem(error)}") from None
    return config.model_copy(update={"task": task}), assumed


def _provenance(
    source: Path, opened: Source, state: Mapping[str, Tensor], weights: Weights, digest: Callable[[], str]
) -> dict[str, Any]:
    """The provenance of the weights, for the record."""
    return {
        "source": source.name,
        "source_kind": opened.kind,
        "source_sha256": digest(),
        "weights": weights,
        "dtypes": sorted({str(t.dtype).removeprefix("torch.") for t in state.values() if t.is_floating_point()}),
        "ofa_core": ofa_core.__version__,
        "task": opened.task,
    }


def _check_arch(config: OFAConfig, arch: str | None) -> None:
    if arch is None:
        return
    wanted = OFAConfig.preset(arch)  # names a size that does not exist
    for name in PRESETS[arch]:
        if getattr(config, name) != getattr(wanted, name):
            raise CheckpointError(
                f"this is not OFA {arch}: its {name} is {getattr(config, name)}, not {getattr(wanted, name)}"
            )


def _verify(directory: Path, state: Mapping[str, Tensor]) -> None:
    """Compare what was written with what was meant, bit for bit."""
    written = read_safetensors(directory / WEIGHTS_FILE)
    wrong = [name for name in {**state, **written} if name not in written or not _same(state[name], written[name])]
    if wrong:
        raise CheckpointError(f"{directory}: {len(wrong)} entries are not what was converted: {list_names(wrong)}")


def _same(first: Tensor, second: Tensor) -> bool:
    return first.dtype == second.dtype and torch.equal(first, second)


def _cast(source: Path, state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    cast = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    lost = not_finite(cast)
    if lost:
        raise CheckpointError(f"{source}: {len(lost)} entries are too large for {dtype}: {list_names(lost)}")
    return cast


@contextmanager
def _vocabulary_of(source: Source, given: str | os.PathLike[str] | None, bpe: Kind | None) -> Iterator[Path]:
    """The directory of the vocabulary files: the one given, the source's own, or one of the usual places."""
    kind = _vocabulary_kind(source, bpe, given)
    if given is None and source.vocabulary is not None:
        with tempfile.TemporaryDirectory() as directory:
            for name, content in source.vocabulary.items():
                (Path(directory) / name).write_bytes(content)
            yield Path(directory)
    else:
        yield find_vocabulary(given, source.file, source.task.get("bpe_dir"), kind)


#: Leaves of our state dict that are not parameters.
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def _vocabulary_kind(source: Source, asked: Kind | None, given: str | os.PathLike[str] | None) -> Kind:
    """The kind of vocabulary files a checkpoint needs.

    It is the one that is stored, or else asked for, or that of the directory given; files that tell nothing are
    English.
    """
    stored = source.task.get("bpe")
    if stored is not None and stored not in VOCABULARY_KINDS:
        raise CheckpointError(
            f"{source.file} was trained with bpe={stored!r}; {' and '.join(VOCABULARY_KINDS)} are supported"
        )
    if asked is not None and asked not in VOCABULARY_KINDS:
        raise CheckpointError(f"--bpe is {asked!r}; {' and '.join(VOCABULARY_KINDS)} are supported")
    if stored and asked and stored != asked:
        raise CheckpointError(f"{source.file} was trained with bpe={stored!r}, not {asked!r}; leave --bpe out")
    for kind in VOCABULARY_KINDS:
        if kind == (stored or asked):
            return kind
    has = [kind for kind, names in VOCABULARY_KINDS.items() if given and (Path(given) / names[0]).is_file()]
    return has[0] if len(has) == 1 else "gpt2"


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
            + ("; of a Chinese model, pass --bpe bert" if tokenizer.kind == "gpt2" else "")
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


@contextmanager
def _digest_beside(paths: Sequence[Path], progress: bool) -> Iterator[Callable[[], str]]:
    """The digest of files, computed while the block does other work; an error in the block ends it."""
    left = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        try:
            yield thread.submit(_sha256, paths, progress, left).result
        finally:
            left.set()


def _sha256(paths: Sequence[Path], progress: bool, stopped: threading.Event) -> str:
    """The digest of files, one behind the other, unless it is stopped before."""
    digest = hashlib.sha256()
    total = sum(path.stat().st_size for path in paths)
    with tqdm(total=total, unit="B", unit_scale=True, desc="sha256", disable=None if progress else True) as bar:
        for path in paths:
            with path.open("rb") as file:
                while not stopped.is_set() and (block := file.read(1 << 20)):
                    digest.update(block)
                    bar.update(len(block))
    return digest.hexdigest()
