"""Digests of a model directory's files, by which damage that would go unnoticed is found, and of weights in memory.

Those of files stand in ``SHA256SUMS``, in the form that the program ``sha256sum -c`` reads.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..utils.atomic_write import atomic_write_text

DIGESTS_FILE = "SHA256SUMS"

_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/\\]+)")
#: A directory has ten files; one that lists more than this is none that was written here.
_MAX_BYTES = 1 << 16


def sha256(path: Path) -> str:
    """The sha256 of a file, read a piece at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def weights_digest(state: Mapping[str, Tensor], way: str = "") -> bytes:
    """The sha256 of weights with their names, shapes and types, and of the ``way`` in which they compute."""
    digest = hashlib.sha256(way.encode())
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor_bytes(tensor))
    return digest.digest()


def tensor_bytes(tensor: Tensor) -> bytes:
    """The values of a tensor of any type, row by row."""
    return bytes(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())


def write_digests(directory: Path) -> None:
    """Write the digests of all files that stand in a directory."""
    lines = [f"{sha256(path)}  {path.name}\n" for path in sorted(directory.iterdir())]
    (directory / DIGESTS_FILE).write_text("".join(lines), encoding="utf-8")


def renew_digest(path: Path) -> None:
    """Write the digest of one file of a directory anew, where the directory has digests."""
    digests = read_digests(path.parent)
    if digests:
        digests[path.name] = sha256(path)
        lines = [f"{digest}  {name}\n" for name, digest in sorted(digests.items())]
        atomic_write_text(path.parent / DIGESTS_FILE, "".join(lines))


def read_digests(directory: Path) -> dict[str, str]:
    """The digests that were written with a directory, name to sha256; nothing where there are none.

    Raises:
        CheckpointError: the file of the digests is damaged itself.
    """
    path = directory / DIGESTS_FILE
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        lines = file.read(_MAX_BYTES + 1).decode("utf-8", "replace").splitlines()
    digests = {}
    for number, line in enumerate(lines, start=1):
        match = _LINE.fullmatch(line)
        if match is None or number > _MAX_BYTES // 64:
            raise CheckpointError(f"{path}:{number} is not a sha256 and the name of a file: delete that file")
        digests[match[2]] = match[1]
    return digests


def changed_files(directory: Path, names: Iterable[str] | None = None) -> list[str]:
    """Those of ``names``, or of all files with a digest, that are not what they were when it was written.

    Raises:
        CheckpointError: the file of the digests is damaged.
    """
    digests = read_digests(directory)
    return [
        name
        for name, expected in digests.items()
        if (names is None or name in names)
        and not ((directory / name).is_file() and sha256(directory / name) == expected)
    ]


def describe_changes(names: list[str]) -> str:
    """Say that files changed, and what to do if they were meant to."""
    are, lines = ("is", "line") if len(names) == 1 else ("are", "lines")
    return (
        f"{' and '.join(names)} {are} not as written (see {DIGESTS_FILE}): copy the directory again, or delete the "
        f"{lines} there if the change was meant"
    )
