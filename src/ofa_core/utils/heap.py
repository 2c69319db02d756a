"""The heap of the C library: memory that is freed and soon wanted again can stay with the process.

glibc asks the system for every large block and gives it back when it is freed. A training step frees and wants again
gigabytes, each page of which the system fills with zeros anew.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# parameters of mallopt(3), and what they are where nobody has said anything
_TRIM_THRESHOLD, _TRIM_DEFAULT = -1, 128 << 10
_MMAP_MAX, _MMAP_DEFAULT = -4, 65536
_NEVER = -1


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Keep what is freed within for what is wanted next; behind it, what is free goes back to the system.

    Nothing changes where the C library is not glibc.
    """
    library = _glibc()
    if library is None:
        yield
        return
    set_option, trim = library
    set_option(_MMAP_MAX, 0)
    set_option(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        set_option(_MMAP_MAX, _MMAP_DEFAULT)
        set_option(_TRIM_THRESHOLD, _TRIM_DEFAULT)
        trim(0)


def _glibc() -> tuple[Callable[[int, int], int], Callable[[int], int]] | None:
    """``mallopt`` and ``malloc_trim``, where there are both."""
    if sys.platform != "linux":
        return None
    process = ctypes.CDLL(None)
    if not all(hasattr(process, name) for name in ("gnu_get_libc_version", "mallopt", "malloc_trim")):
        return None
    return process.mallopt, process.malloc_trim
