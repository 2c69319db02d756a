"""Files that appear whole or not at all: written beside their place and renamed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .scratch import is_scratch, scratch_directory


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, of its name, that takes its place when the block ends without an error.

    The file is readable as any new one there is, whatever permissions a library wrote it with.

    Raises:
        OSError: it cannot be written; the error names ``path``.
    """
    with naming_errors(path), scratch_directory(path) as scratch:
        temporary = scratch / path.name
        mode = permissions_of_new_files(temporary)
        yield temporary
        temporary.chmod(mode)
        temporary.replace(path)


def atomic_write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, in a directory that is made if need be, and return when it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def naming_errors(path: Path) -> Iterator[None]:
    """Let an error of the system that names no file, or one beside ``path``, name ``path``, which is being written.

    ``write`` says "No space left on device" and not where.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        unnamed = error.filename is None or is_scratch(os.fsdecode(error.filename), path)
        if error.errno is None or not unnamed:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def permissions_of_new_files(path: Path) -> int:
    """The permissions that a new file at ``path``, where none is, gets from the umask and its directory."""
    path.touch(exist_ok=False)
    try:
        return stat.S_IMODE(path.stat().st_mode)
    finally:
        path.unlink()
