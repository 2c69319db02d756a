"""Checkpoints that are loaded as they are: converted once, into the cache."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from ofa_core.checkpoint.cache import LOCK, converted
from ofa_core.checkpoint.model_dir import CONFIG_FILE
from ofa_core.utils.scratch import one_at_a_time

from .convert import convert


def cached_directory(source: str | os.PathLike[str], label: str | None = None) -> Path:
    """The model directory of a checkpoint in the cache, made now if it is not there; a line on stderr says so.

    A second process that wants it waits for the first. :func:`ofa_core.load` finds this function through the entry
    point ``ofa_core.converters``.

    Args:
        source: the checkpoint.
        label: the conversion's name in the cache, which tells the content; None makes one of the path, and converts a
            file that has changed (by its size and time) again.

    Raises:
        CheckpointError: as :func:`~checkpoints_convert.convert`.
    """
    source = Path(source)
    directory = converted(label or _label(source.resolve()))
    lock = directory.with_name(f".{directory.name}{LOCK}")
    waiting = f"waiting for another process that converts {source}"
    with one_at_a_time(lock, lambda: print(waiting, file=sys.stderr)):
        if not (directory / CONFIG_FILE).is_file():
            done = convert(source, directory, overwrite=True, progress=True)
            print(f"{source} is a {done.kind}; converted once to {directory}", file=sys.stderr)
            for line in done.assumed:
                print(line, file=sys.stderr)
    return directory


def _label(source: Path) -> str:
    """A name that changes with the sizes and times of a checkpoint's files."""
    files = sorted(path for path in source.iterdir() if path.is_file()) if source.is_dir() else [source]
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    key = hashlib.sha256(repr((str(source), facts)).encode()).hexdigest()[:16]
    return f"{source.stem}-{key}"
