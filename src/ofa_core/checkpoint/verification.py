"""A check of all that a model directory holds: files by their digests, weights by their values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..utils.mapped_memory import give_back
from .digests import changed_files, describe_changes, read_digests
from .model_dir import (
    WEIGHT_DTYPES,
    WEIGHTS_FILE,
    check_state,
    checked_directory,
    list_names,
    load_config,
    read_safetensors,
)

#: Parts of names of entries that may well be all zeros: they begin so, and what is not used stays as it began.
_MAY_BE_ZERO = ("bias", "running_mean", "_relative.tables.")


@dataclass(frozen=True)
class Verification:
    """The extent of a check that found nothing wrong."""

    #: Files that are as their digests say; none where no digests were written.
    files: int
    tensors: int

    def line(self) -> str:
        """A line for people."""
        files = f"{self.files} files are as they were written" if self.files else "no digests were written"
        return f"verified: {files}; all {self.tensors} tensors are finite and in use"


def verify_directory(directory: str | PathLike[str]) -> Verification:
    """Check every file of a model directory, and every weight.

    Raises:
        CheckpointError: files that are not as they were written, weights that are not finite, or all zeros where no
            model has that; the first of each are named.
    """
    directory = checked_directory(directory)
    changed = changed_files(directory)
    problems = [describe_changes(changed)] * bool(changed)
    state = read_safetensors(directory / WEIGHTS_FILE)
    for one, more, names in (
        ("holds NaN or infinity", "hold NaN or infinity", not_finite(state)),
        ("is all zeros", "are all zeros", all_zero(state)),
    ):
        if names:
            problem = f"tensor {one}" if len(names) == 1 else f"tensors {more}"
            problems.append(f"{len(names)} {problem}: {list_names(names)}")
    if problems:
        raise CheckpointError(f"{directory}: {'; '.join(problems)}")
    check_state(state, load_config(directory))
    return Verification(len(read_digests(directory)), len(state))


def not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """The entries that hold NaN or infinity."""
    return [name for name, tensor in state.items() if not all(map(math.isfinite, _range(tensor)))]


def all_zero(state: Mapping[str, Tensor]) -> list[str]:
    """The weights that are nothing but zeros, though no model that was trained has them so."""
    return [
        name
        for name, tensor in state.items()
        if not any(part in name for part in _MAY_BE_ZERO) and tensor.numel() > 0 and _range(tensor) == (0, 0)
    ]


def _range(tensor: Tensor) -> tuple[float, float]:
    """The least and the greatest value of a weight, both NaN where one is; 1 and 1 for what is no weight."""
    if tensor.numel() == 0 or tensor.dtype not in WEIGHT_DTYPES:
        return (1.0, 1.0)
    low, high = torch.aminmax(tensor)  # many times faster than asking every value
    give_back(tensor)  # one after the other, a mapped checkpoint needs little memory
    return (float(low), float(high))
