"""Model directories: config.json, model.safetensors, the vocabulary files and digests, written beside and renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..config import OFAConfig, TaskSettings
from ..errors import CheckpointError, OFAError
from ..model.ofa import OFAModel
from ..text import Tokenizer
from ..text.tokenizer import VOCABULARY_KINDS
from ..utils.atomic_write import naming_errors, permissions_of_new_files
from ..utils.input_files import check_regular, read_whole
from ..utils.scratch import OLD, remove_leftovers, scratch_directory
from .card import CARD_FILE
from .digests import changed_files, describe_changes, sha256, write_digests

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
#: The provenance of the weights; written by the converter, not needed to run.
PROVENANCE_FILE = "conversion.json"
#: Types that weights are stored in.
WEIGHT_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

#: A function from the tensors of a file, the configuration and the type to compute in (None: the stored one) to the
#: tensors and the configuration to use.
Adapt = Callable[[dict[str, Tensor], OFAConfig, torch.dtype | None], tuple[dict[str, Tensor], OFAConfig]]


def save_directory(
    directory: str | os.PathLike[str],
    state: Mapping[str, Tensor],
    config: OFAConfig,
    tokenizer: Tokenizer,
    provenance: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
    *,
    card: str | None = None,
    overwrite: bool = False,
    files: Mapping[str, Callable[[Path], None]] | None = None,
) -> None:
    """Write a model directory. It appears whole or not at all.

    ``files`` are further files by their names, and what writes each to a path. A ``card`` is its README.md, which
    people may change. ``provenance`` may be a function that is asked when the weights are written, of what is computed
    meanwhile.

    Raises:
        CheckpointError: ``directory`` exists and ``overwrite`` is off, or ``state`` does not fit ``config``.
    """
    check_state(state, config)
    with atomic_directory(Path(directory), overwrite) as temporary:
        (temporary / CONFIG_FILE).write_text(config.model_dump_json(indent=2, exclude_defaults=False) + "\n")
        try:
            save_file(unshare_tensors(state), temporary / WEIGHTS_FILE)
        except SafetensorError as error:
            raise CheckpointError(f"{directory} cannot be written: {error}") from None
        tokenizer.save(temporary)
        if provenance is not None:
            told = provenance() if callable(provenance) else provenance
            (temporary / PROVENANCE_FILE).write_text(json.dumps(told, indent=2, default=str) + "\n")
        for name, write in (files or {}).items():
            write(temporary / name)
        write_digests(temporary)
        if card is not None:
            (temporary / CARD_FILE).write_text(card, encoding="utf-8")


def load_config(directory: str | os.PathLike[str]) -> OFAConfig:
    """The configuration of a model directory.

    Raises:
        CheckpointError: the directory is none, or its config.json is wrong or not what was written.
    """
    with compared_files(checked_directory(directory), (CONFIG_FILE,)):
        return read_config(directory)


def read_config(directory: str | os.PathLike[str]) -> OFAConfig:
    """The configuration in a directory, which need not be a whole model's."""
    path = Path(directory) / CONFIG_FILE
    try:
        return OFAConfig.from_json(read_whole(path).decode("utf-8"), str(path))
    except UnicodeDecodeError:
        raise CheckpointError(f"{path} is not text") from None


def make_tokenizer(directory: str | os.PathLike[str], task: TaskSettings) -> Tokenizer:
    """Make a tokenizer of the vocabulary files in a directory, laid out as ``task`` says."""
    return Tokenizer.from_dir(
        directory, code_dict_size=task.code_dict_size, num_bins=task.num_bins, extra_tokens=task.extra_tokens
    )


def load_tokenizer(directory: str | os.PathLike[str], config: OFAConfig) -> Tokenizer:
    """The tokenizer of a model directory, laid out as ``config`` says.

    Raises:
        CheckpointError: the vocabulary files are missing, wrong, not those of the weights or not what was written.
    """
    with compared_files(Path(directory), {name for names in VOCABULARY_KINDS.values() for name in names}):
        tokenizer = make_tokenizer(directory, config.task)
        if len(tokenizer) != config.vocab_size:
            raise CheckpointError(
                f"{directory}: the vocabulary files make {len(tokenizer)} tokens, the weights have {config.vocab_size}"
            )
        return tokenizer


@contextmanager
def compared_files(directory: Path, names: Collection[str]) -> Iterator[None]:
    """Compare files with their digests behind the block that uses them: a change is an error, or the cause of one."""
    error = None
    try:
        yield
    except OFAError as caught:
        error = str(caught)
    changed = changed_files(directory, names)
    if changed:
        told = f"{directory}: {describe_changes(changed)}"
        raise CheckpointError(told if error is None else f"{told}; {error}")
    if error is not None:
        raise CheckpointError(error)


def read_safetensors(path: Path, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on a CPU mapped from the file."""
    try:
        check_regular(path)
        with safe_open(path, framework="pt", device=str(device)) as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
    except (SafetensorError, OSError, OFAError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


def weights_sha256(directory: str | os.PathLike[str]) -> str:
    """The sha256 of a model directory's weights, computed anew."""
    return sha256(checked_directory(directory) / WEIGHTS_FILE)


def load_model(
    directory: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    *,
    adapt: Adapt | None = None,
) -> OFAModel:
    """The model of a directory in evaluation mode.

    ``dtype`` None means float32 on a CPU, as the original computes there, and the stored one elsewhere.
    Nothing is initialised at random: the network is laid out without memory and takes the file's tensors, or what
    ``adapt`` makes of them.

    Raises:
        CheckpointError: the directory or a file in it is missing, broken or does not fit the configuration.
    """
    path = checked_directory(directory) / WEIGHTS_FILE
    on_cpu = torch.device(device).type == "cpu"
    dtype = dtype or (torch.float32 if on_cpu else None)
    with compared_files(path.parent, (CONFIG_FILE,)):
        config = read_config(directory)
        state = read_safetensors(path, device)
        try:
            model = check_state(state, config)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
    if adapt is not None:
        state, config = adapt(state, config, dtype)
        model = empty_model(config)
    model.load_state_dict(state, assign=True)
    model.to(dtype=dtype)
    if on_cpu and model.dtype == torch.float16:
        model.encoder.image_stem.float()  # float16 convolutions are a hundred times slower on a CPU
    return model.eval().requires_grad_(False)


def unshare_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors, none of which is another: safetensors stores no sharing."""
    seen: set[int] = set()
    unshared = {}
    for name, tensor in state.items():
        plain = tensor.contiguous()
        unshared[name] = plain.clone() if plain.data_ptr() in seen else plain
        seen.add(plain.data_ptr())
    return unshared


def empty_model(config: OFAConfig) -> OFAModel:
    """The network without memory for its weights (on torch's meta device)."""
    with torch.device("meta"), _NoInitialisation():
        return OFAModel(config)


class _NoInitialisation(TorchFunctionMode):
    """Leaves tensors as they are made. Filling tensors that have no memory would still import half of torch."""

    _IN_PLACE = ("normal_", "uniform_", "fill_", "zero_")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init" or func.__name__ in self._IN_PLACE:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def check_state(state: Mapping[str, Tensor], config: OFAConfig) -> OFAModel:
    """The network that ``state`` fits, without memory yet.

    Raises:
        CheckpointError: ``state`` does not hold exactly the entries of ``config``, each in its shape.
    """
    try:
        network = empty_model(config)
    except (RuntimeError, KeyError) as error:  # of sizes, and of the names of classification heads
        raise CheckpointError(f"no model can have these sizes: {str(error).splitlines()[0]}") from None
    model = network.state_dict()
    expected = {name: tensor.shape for name, tensor in model.items()}
    odd = [
        f"{name} ({str(state[name].dtype).removeprefix('torch.')})"
        for name, tensor in model.items()
        if name in state and tensor.is_floating_point() and state[name].dtype not in WEIGHT_DTYPES
    ]
    wrong = [
        f"{name} {list(state[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in state and state[name].shape != shape
    ]
    for problem, names in (
        ("missing", [name for name in expected if name not in state]),
        ("not part of this model", [name for name in state if name not in expected]),
        ("of the wrong shape", wrong),
        ("of a type no model computes with", odd),
    ):
        if names:
            raise CheckpointError(
                f"{len(names)} {'entry is' if len(names) == 1 else 'entries are'} {problem}: {list_names(names)}"
            )
    return network


def list_names(names: list[str], shown: int = 3) -> str:
    """The first few names and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


@contextmanager
def atomic_directory(target: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary directory beside ``target`` that takes its place when the block ends without an error.

    A kill between the two renames leaves the earlier directory in the scratch directory, from where the next one who
    writes ``target`` puts it back.
    """
    remove_leftovers(target.resolve())
    if target.exists() and not overwrite:
        raise CheckpointError(f"{target} exists already; choose another directory or ask to overwrite it")
    if target.exists() and not (target / CONFIG_FILE).is_file() and not (target.is_dir() and not any(target.iterdir())):
        raise CheckpointError(f"{target} is not a model directory and is not overwritten")
    target = target.resolve()  # through a link, the directory itself is replaced
    with naming_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch_directory(target) as scratch:
            temporary = scratch / target.name
            temporary.mkdir()
            mode = permissions_of_new_files(temporary / "permissions")
            yield temporary
            for file in temporary.iterdir():
                file.chmod(mode)
            if target.exists():
                target.rename(scratch / f"{target.name}{OLD}")  # which is put back if the next line fails
            temporary.rename(target)


def checked_directory(directory: str | os.PathLike[str]) -> Path:
    """The path of a model directory.

    Raises:
        CheckpointError: it is none.
    """
    path = Path(directory)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; it should be a directory written by convert-ckpt")
    if not path.is_dir():
        raise CheckpointError(f"{path} is a file; convert it first: convert-ckpt {path} OUT_DIR")
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (path / name).is_file()]
    if missing:
        raise CheckpointError(f"{path} is not a model directory: it has no {' and no '.join(missing)}")
    return path
