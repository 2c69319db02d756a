"""Checkpoints that are loaded as they are: converted once, into the cache."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from ofa_core.checkpoint.model_dir import CONFIG_FILE

from .convert import convert
from .vocabulary_files import cache_directory


def cached_directory(source: str | os.PathLike[str]) -> Path:
    """The model directory of a checkpoint in the cache, made now if it is not there; a line on stderr says so.

    A file that has changed (by its size and time) is converted again. :func:`ofa_core.load` finds this function through
    the entry point ``ofa_core.converters``.

    Raises:
        CheckpointError: as :func:`~checkpoints_convert.convert`.
    """
    source = Path(source).resolve()
    files = sorted(path for path in source.iterdir() if path.is_file()) if source.is_dir() else [source]
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    key = hashlib.sha256(repr((str(source), facts)).encode()).hexdigest()[:16]
    directory = cache_directory().parent / "converted" / f"{source.stem}-{key}"
    if not (directory / CONFIG_FILE).is_file():
        done = convert(source, directory, overwrite=True, progress=True)
        print(f"{source} is a {done.kind}; converted once to {directory}", file=sys.stderr)
        for line in done.assumed:
            print(line, file=sys.stderr)
    return directory
