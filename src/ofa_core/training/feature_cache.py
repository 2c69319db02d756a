"""Features of pictures on the disk, for runs whose image stem stays as it is: each picture goes through it once.

An entry is found by what it was made of: the picture's pixels as the model takes them, the stem's weights, and the type
in which it computes. Nothing else has a say, so runs may share a directory, and an entry is never stale. It is written
beside its place and renamed, and holds a digest: a damaged one is computed again.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from ..checkpoint.digests import tensor_bytes, weights_digest
from ..model.encoder import ImageFeatures
from ..model.ofa import OFAModel
from ..utils.atomic_write import atomic_path
from ..utils.printable import printable

#: Names of an entry's tensors: features [rows, columns, 1024], and their digest.
PATCHES, DIGEST = "patches", "sha256"


@dataclass(frozen=True)
class KnownFeatures:
    """The features of pictures of one side, as far as they are in a cache."""

    keys: tuple[str, ...]  # of all the pictures, some of which may be the same
    found: tuple[str, ...]  # those whose features are known
    patches: Tensor  # [found, rows, columns, 1024]

    @property
    def lacking(self) -> dict[str, int]:
        """Of what is not known, the keys, and where in ``keys`` each stands first."""
        return {key: self.keys.index(key) for key in dict.fromkeys(self.keys) if key not in self.found}

    def changed(self, change: Callable[[Tensor], Tensor]) -> KnownFeatures:
        """The same with ``change`` made to its tensor."""
        return replace(self, patches=change(self.patches))


class FeatureCache:
    """Features of pictures in a directory.

    Args:
        directory: where they are; several runs, and several processes of one, may share it.
        narrow: the type in which features are kept; None: as the stem gives them. Those that it cannot hold, or with
            ``exact`` not exactly, are kept as they are.
        exact: whether features are read as they were written, to the last bit.
        max_bytes: the most that is kept; None: as much as the disk holds.
        processes: processes of a run that write.
    """

    def __init__(
        self,
        directory: Path,
        *,
        narrow: torch.dtype | None = None,
        exact: bool = True,
        max_bytes: int | None = None,
        processes: int = 1,
    ) -> None:
        self.directory = directory
        self.narrow, self.exact = narrow, exact
        self.max_bytes, self.processes = max_bytes, processes
        self._stem = b""
        self._bytes = 0
        self._ended = False

    def begin(self, model: OFAModel, way: str) -> None:
        """Look at the weights of ``model``'s stem, which stay as they are from here on, and at what is there.

        ``way`` says how it computes: features of other types are not equal.
        """
        self._stem = weights_digest(model.encoder.image_stem.state_dict(), way)
        self._bytes = self.bytes_there()

    def bytes_there(self) -> int:
        """Bytes of all entries."""
        return sum(path.stat().st_size for path in self.directory.glob("*/*.safetensors") if path.is_file())

    def known(self, pixels: Tensor) -> KnownFeatures:
        """Look up pictures ``pixels`` [pictures, 3, h, w]."""
        keys = tuple(map(self.key, pixels))
        entries = {key: self.read(key) for key in dict.fromkeys(keys)}
        found = {key: entry.float() for key, entry in entries.items() if entry is not None}
        return KnownFeatures(keys, tuple(found), torch.stack([*found.values()]) if found else torch.empty(0, 0, 0, 0))

    def key(self, pixels: Tensor) -> str:
        """The name of the entry of a picture ``pixels`` [3, h, w]."""
        digest = hashlib.sha256(self._stem)
        digest.update(f"{list(pixels.shape)} {pixels.dtype} {self.narrow} {self.exact}\n".encode())
        digest.update(tensor_bytes(pixels))
        return digest.hexdigest()

    def read(self, key: str) -> Tensor | None:
        """The features [rows, columns, 1024] of an entry; None where there is none, or it is damaged."""
        try:
            content = load_file(self.path(key))
        except (OSError, SafetensorError):
            return None
        patches, digest = content.get(PATCHES), content.get(DIGEST)
        if patches is None or digest is None or patches.dim() != 3 or not digest.equal(_digest(patches)):
            return None
        return patches

    def write(self, key: str, patches: Tensor) -> None:
        """Write features [rows, columns, 1024], if there is room; where the disk refuses them, that is said once."""
        kept = patches.cpu().contiguous()
        path = self.path(key)
        added = 0 if path.exists() else kept.nbytes * self.processes
        full = self.max_bytes is not None and self._bytes + added > self.max_bytes
        if self._ended or full:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                save_file({PATCHES: kept, DIGEST: _digest(kept)}, temporary)
        except (OSError, SafetensorError) as error:
            self._ended = True
            said = f"cache_features: {self.directory} takes no more ({error}); other pictures are computed every time"
            tqdm.write(printable(said), file=sys.stderr)
        else:
            self._bytes += added

    def path(self, key: str) -> Path:
        """The file of an entry."""
        return self.directory / key[:2] / f"{key[2:]}.safetensors"

    def complete(self, pixels: Tensor, known: KnownFeatures, model: OFAModel) -> ImageFeatures:
        """Features of all pictures of one side; those that are lacking are computed of their ``pixels``, and kept.

        Each is computed by itself and taken as it is kept, so that a run is the same to the last bit whatever of it was
        there before.
        """
        by_key = dict(zip(known.found, known.patches.to(model.dtype), strict=True))
        for key, picture in zip(known.lacking, pixels, strict=True):
            with torch.no_grad():
                computed = model.image_features(picture[None])
            kept = self._narrowed(computed.patches[0].unflatten(0, computed.grid))
            self.write(key, kept)
            by_key[key] = kept.to(model.dtype)
        whole = torch.stack([by_key[key] for key in known.keys])
        rows, columns = whole.shape[1:3]
        return ImageFeatures(whole.flatten(1, 2), (rows, columns))

    def _narrowed(self, patches: Tensor) -> Tensor:
        if self.narrow is None:
            return patches
        narrow = patches.to(self.narrow)
        fits = narrow.to(patches.dtype).equal(patches) if self.exact else bool(narrow.isfinite().all())
        return narrow if fits else patches


def room_text(cache: FeatureCache, pictures: Sequence[tuple[int, int]], free: int) -> str:
    """Say what a run may keep: the room of ``pictures``, how many of how many patches each, and what there is."""
    width = 1024 * (torch.float32 if cache.narrow is None else cache.narrow).itemsize
    most = sum(count * patches * width for count, patches in pictures)
    count = sum(count for count, _ in pictures)
    limit = "" if cache.max_bytes is None else f", at most {_gib(cache.max_bytes)} of them"
    return (
        f"cache_features: {cache.directory} may hold features of {count:,} pictures, {_gib(most)}{limit}; "
        f"{_gib(cache.bytes_there())} are there, {_gib(free)} are free"
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:,.2f} GiB"


def _digest(patches: Tensor) -> Tensor:
    """The sha256 [32] of a tensor's shape, type and values."""
    digest = hashlib.sha256(f"{list(patches.shape)} {patches.dtype}\n".encode())
    digest.update(tensor_bytes(patches))
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)
