"""The network that makes pictures of image codes, as it is published: a Lightning checkpoint of CompVis' VQGAN.

It stands alone (``last.ckpt``), in the zip of OFA's text-to-image model, or in ModelScope's directory of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from torch import Tensor

from ofa_core.checkpoint.image_codes import VQGAN_FILE, add_vqgan
from ofa_core.errors import CheckpointError
from ofa_core.vision.vqgan import needed_entries

from .wrappers import read_weights, state_in, taken_out_of_zip, zip_member

#: The file in ModelScope's directory.
MODELSCOPE_FILE = "vqgan_model.ckpt"
#: Endings of Lightning's checkpoints, and part of the name of their directory in a zip.
_SUFFIX, _DIRECTORY = ".ckpt", "vqgan"
#: Beginnings of the names of what only training needs, with the reason for which it is left behind.
LEFT_BEHIND = {
    "loss.": "networks of the loss that the code book was trained with: a perceptual net and a discriminator",
}


@dataclass(frozen=True)
class ImageCodes:
    """The outcome of putting a network of image codes into a model directory."""

    directory: Path
    parameters: int
    #: Entries that were left behind, with the reason.
    dropped: Mapping[str, str]

    def lines(self) -> list[str]:
        """A summary for people."""
        lines = [f"{self.directory / VQGAN_FILE}: {self.parameters:,} parameters"]
        reasons = dict.fromkeys(self.dropped.values())
        counts = {reason: sum(of == reason for of in self.dropped.values()) for reason in reasons}
        return lines + [f"left behind: {count} entries ({reason})" for reason, count in counts.items()]


def convert_image_codes(source: str | os.PathLike[str], directory: str | os.PathLike[str]) -> ImageCodes:
    """Put the network of image codes in ``source`` into a model directory.

    Args:
        source: ``last.ckpt``, a zip that holds one, a state dict or safetensors.
        directory: a model directory.

    Returns:
        What was written, and what was left behind.

    Raises:
        CheckpointError: the source holds no such network, or the directory is no model directory.
        UnsafePickleError: a file that asks to execute something; nothing of it was.
    """
    path = Path(source)
    state = image_codes_in_zip(path) or read_image_codes(path)
    add_vqgan(directory, state)
    needed = needed_entries(state)
    dropped = {name: _reason(name) for name in state if name not in needed}
    return ImageCodes(Path(directory), sum(tensor.numel() for tensor in needed.values()), dropped)


def _reason(name: str) -> str:
    return next((reason for start, reason in LEFT_BEHIND.items() if name.startswith(start)), "not part of the network")


def read_image_codes(path: Path) -> dict[str, Tensor]:
    """The state of a file that holds the network of image codes.

    Raises:
        CheckpointError: it holds none, or entries are missing.
    """
    state = state_in(path, read_weights(path))
    try:
        needed_entries(state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return state


def image_codes_beside(directory: Path) -> dict[str, Tensor] | None:
    """The network in ModelScope's directory of a model that makes pictures."""
    path = directory / MODELSCOPE_FILE
    return read_image_codes(path) if path.is_file() else None


def image_codes_in_zip(path: Path) -> dict[str, Tensor] | None:
    """The network in the zip of a model that makes pictures; None where there is none in it."""
    if zip_member(path, _is_image_codes) is None:
        return None
    with taken_out_of_zip(path, _is_image_codes) as file:
        return read_image_codes(file)


def _is_image_codes(name: PurePosixPath) -> bool:
    return name.suffix == _SUFFIX and _DIRECTORY in name.parts
