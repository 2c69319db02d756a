"""Scratch directories, in which something is made beside its place, and what killed processes left of theirs.

A scratch directory is called ``.<name>.<8 characters>.tmp`` after what is made in it. Its owner holds a lock on a file
in it, which the system lets go of when the process ends, however it ends: what is not locked has no owner any more.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import OFAError

_LOCK = ".ofa_core.lock"
#: Behind the name of what is made: the characters of ``mkdtemp``.
_SCRATCH = re.compile(r"[a-z0-9_]{8}\.tmp")
#: A directory that was moved away by an earlier version of this package to be replaced.
_MOVED_AWAY = re.compile(r"[a-z0-9_]{8}\.old")
#: Behind the name of what is replaced: where it is until the new one has its place.
OLD = ".old"
#: Descriptors that hold locks of this process.
_held: set[int] = set()


@contextmanager
def scratch_directory(target: Path) -> Iterator[Path]:
    """A directory beside ``target``, in which it is made; it is removed at the end.

    What a process that was killed while it made the same ``target`` has left is removed before. Where it had moved the
    earlier ``target`` away (to ``<name>.old`` in its scratch directory) without a new one in its place, the earlier one
    is put back.
    """
    remove_leftovers(target)
    directory, lock = _owned(target)
    try:
        yield directory
    finally:
        _dispose(directory, target)
        _let_go(lock)


def remove_leftovers(target: Path) -> None:
    """Remove what killed processes left of making ``target``; what a living one is at work on is left alone."""
    for entry in _entries(target.parent, f".{target.name}."):
        rest = entry.name.removeprefix(f".{target.name}.")
        if _SCRATCH.fullmatch(rest) and (lock := _lock(entry, wait=False)) is not None:
            _dispose(entry, target)
            _let_go(lock)
        elif _MOVED_AWAY.fullmatch(rest) and not target.exists():
            entry.rename(target)


def is_scratch(path: str, target: Path) -> bool:
    """Tell whether ``path`` is, or lies in, a scratch directory of ``target``."""
    start = f".{target.name}."
    return any(part.startswith(start) and _SCRATCH.fullmatch(part.removeprefix(start)) for part in Path(path).parts)


@contextmanager
def sole_writer(directory: Path) -> Iterator[None]:
    """Be the only process that writes to ``directory`` in this way, where the file system has locks.

    Raises:
        OFAError: another process is.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    _held.add(descriptor)
    try:
        lock_file(descriptor, directory)
        yield
    finally:
        _let_go(descriptor)


def lock_file(descriptor: int, path: Path) -> None:
    """Lock an open file until it is closed, where the file system has locks.

    Raises:
        OFAError: another process has locked it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OFAError(f"{path} is being written by another process; wait for it, or end it") from None
    except OSError:  # a file system without locks
        return


@contextmanager
def one_at_a_time(path: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """Be the only process within this block for the lock file ``path``, which stays where it is.

    Another one that is in it is waited for, behind a call of ``waiting``, which may tell of it. On a file system
    without locks, nobody waits.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    _held.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        _let_go(descriptor)


def _entries(directory: Path, start: str) -> list[Path]:
    """The directories in ``directory`` whose names begin so."""
    try:
        with os.scandir(directory) as entries:
            return [Path(entry.path) for entry in entries if entry.name.startswith(start) and entry.is_dir()]
    except OSError:  # it is not there yet, or cannot be read: whoever writes will be told
        return []


def _owned(target: Path) -> tuple[Path, int]:
    """A new scratch directory with the descriptor that holds its lock."""
    while True:
        directory = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        lock = _lock(directory, wait=True)
        if lock is not None:
            return directory, lock


def _lock(directory: Path, *, wait: bool) -> int | None:
    """The descriptor that holds a scratch directory's lock; None where it is another's or the directory is gone.

    On a file system without locks, its maker has it, and no other process ever gets it.
    """
    try:
        descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        if directory.exists() and wait:
            raise
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        owned = (directory / _LOCK).exists()  # False where another process cleaned up in between
    except OSError:
        owned = wait
    _held.add(descriptor)
    if not owned:
        _let_go(descriptor)
        return None
    return descriptor


def _let_go(descriptor: int) -> None:
    _held.discard(descriptor)
    os.close(descriptor)


def _forget_in_child() -> None:
    """Close the locks of the parent in a worker that was forked, which may outlive it by seconds."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_forget_in_child)


def _dispose(directory: Path, target: Path) -> None:
    """Remove a scratch directory, but for what may be the only ``target`` there is: that is put back."""
    old = directory / f"{target.name}{OLD}"
    if old.exists() and not target.exists():
        with suppress(OSError):
            old.rename(target)
        if old.exists():
            return
    shutil.rmtree(directory, ignore_errors=True)
