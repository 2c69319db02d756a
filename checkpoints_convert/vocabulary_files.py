"""Finding the official vocabulary files, which are third-party data and not part of this project."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from ofa_core.checkpoint.cache import cache_directory
from ofa_core.errors import CheckpointError
from ofa_core.text.tokenizer import FILES, VOCABULARY_KINDS, Kind
from ofa_core.utils.atomic_write import atomic_path

#: sha256 of the official files, which every released checkpoint was trained with.
OFFICIAL_SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "dict.txt": "2c31c5b236661067fe8626775eb995ef5fe808ac87d2ad4a6ddbef68550f5cc6",
}
#: fairseq's public place for them.
PUBLIC_LOCATION = "https://dl.fbaipublicfiles.com/fairseq/gpt2_bpe/"


def find_vocabulary(
    given: str | os.PathLike[str] | None, checkpoint: Path, recorded: str | None, kind: Kind = "gpt2"
) -> Path:
    """The directory of the vocabulary files of a ``kind``.

    The one ``given``, or else the first that has them of the directory in which the ``checkpoint`` lies,
    ``$OFA_BPE_DIR``, the directory ``recorded`` in the checkpoint and the cache, into which those of ``gpt2`` are
    downloaded once if need be.

    Raises:
        CheckpointError: the directory given lacks a file, or none has them and the download fails.
    """
    if given is not None:
        missing = [name for name in VOCABULARY_KINDS[kind] if not (Path(given) / name).is_file()]
        if missing:
            raise CheckpointError(f"vocabulary directory {given} has no {', no '.join(missing)}")
        return Path(given)
    for directory in (checkpoint.parent, *_usual_places(recorded)):
        if all((directory / name).is_file() for name in VOCABULARY_KINDS[kind]):
            return directory
    if kind != "gpt2":
        wanted = " and ".join(VOCABULARY_KINDS[kind])
        raise CheckpointError(f"this checkpoint needs {wanted}; pass their directory with --bpe-dir or $OFA_BPE_DIR")
    return _download(_cached())


def _cached() -> Path:
    """The cache's directory of vocabulary files."""
    return cache_directory() / "bpe"


def _usual_places(recorded: str | None) -> Iterator[Path]:
    if from_environment := os.environ.get("OFA_BPE_DIR"):
        yield Path(from_environment)
    if recorded:
        yield Path(recorded)
    yield _cached()


def _download(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, expected in OFFICIAL_SHA256.items():
        try:
            with urllib.request.urlopen(PUBLIC_LOCATION + name, timeout=30) as response:
                content = response.read()
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            raise CheckpointError(
                f"the vocabulary files ({', '.join(FILES)}) are not here and {PUBLIC_LOCATION} cannot be reached "
                f"({getattr(error, 'reason', error)}); pass their directory with --bpe-dir or $OFA_BPE_DIR"
            ) from None
        if hashlib.sha256(content).hexdigest() != expected:
            raise CheckpointError(f"{PUBLIC_LOCATION + name} is not the file it should be: its sha256 differs")
        with atomic_path(directory / name) as temporary:
            temporary.write_bytes(content)
    return directory
