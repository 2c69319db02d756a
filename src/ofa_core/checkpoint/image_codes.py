"""The network of image codes in a model directory: ``vqgan.safetensors``, beside the weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CheckpointError
from ..utils.atomic_write import atomic_path
from ..vision.vqgan import VQGAN, VQGANConfig, needed_entries
from .digests import changed_files, describe_changes, renew_digest
from .model_dir import checked_directory, read_safetensors

VQGAN_FILE = "vqgan.safetensors"


@dataclass(frozen=True)
class StoredVQGAN:
    """The network of image codes that a model directory may hold; a call loads it as :func:`load_vqgan` does."""

    directory: Path
    device: str | torch.device = "cpu"
    dtype: torch.dtype | None = None

    @property
    def is_there(self) -> bool:
        """True if the directory holds one."""
        return (self.directory / VQGAN_FILE).is_file()

    def __call__(self) -> VQGAN:
        """Load it."""
        return load_vqgan(self.directory, self.device, self.dtype)


def load_vqgan(
    directory: str | os.PathLike[str], device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> VQGAN:
    """The network of image codes of a model directory, in evaluation mode; ``dtype`` None means float32.

    ``directory`` may be a file that :func:`write_vqgan` wrote, too.

    Raises:
        CheckpointError: there is none, or it is broken or not what was written.
    """
    path = vqgan_file(directory)
    try:
        return make_vqgan(read_safetensors(path, device), dtype or torch.float32)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def vqgan_file(place: str | os.PathLike[str]) -> Path:
    """The file of the network of image codes: that of a model directory, as it was written there, or ``place`` itself.

    Raises:
        CheckpointError: there is none, or it is not what was written.
    """
    if Path(place).suffix == ".safetensors" and Path(place).is_file():
        return Path(place)
    path = checked_directory(place) / VQGAN_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{place} has no {VQGAN_FILE}, which pictures and image codes need: "
            f"convert-ckpt --vqgan last.ckpt {place} puts it there"
        )
    changed = changed_files(path.parent, (VQGAN_FILE,))
    if changed:
        raise CheckpointError(f"{place}: {describe_changes(changed)}")
    return path


def make_vqgan(state: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> VQGAN:
    """The network of a state, in evaluation mode, its convolutions in the layout that is fastest."""
    needed = needed_entries(state)
    with torch.device("meta"):
        vqgan = VQGAN(VQGANConfig.from_state(needed))
    vqgan.load_state_dict(needed, assign=True)
    return vqgan.to(dtype=dtype, memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]


def add_vqgan(directory: str | os.PathLike[str], state: Mapping[str, Tensor]) -> None:
    """Put a network of image codes into a model directory; one that is there is replaced.

    Raises:
        CheckpointError: the directory is none, or the state is no such network's.
    """
    path = checked_directory(directory) / VQGAN_FILE
    write_vqgan(path, state)
    renew_digest(path)


def write_vqgan(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write what is needed of a state to ``path``."""
    tensors = {name: tensor.contiguous() for name, tensor in needed_entries(state).items()}
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary)
        except SafetensorError as error:
            raise CheckpointError(f"{path} cannot be written: {error}") from None
