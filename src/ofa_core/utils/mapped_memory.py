"""Memory that is mapped from files, and can be given back while it is not used."""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor

#: An entry of /proc/self/pagemap says of a page: it is in memory, it is swapped out, it is a file's and not private.
_PRESENT, _SWAPPED, _OF_FILE = np.uint64(1 << 63), np.uint64(1 << 62), np.uint64(1 << 61)
_DONT_NEED = 4  # MADV_DONTNEED of Linux


def give_back(tensor: Tensor) -> None:
    """Let the system take back the memory of a tensor that is mapped from a file; it is read anew where it is used.

    Nothing happens to a tensor in memory of the process's own, one of which a part was written to since it was mapped,
    and where the system cannot tell.
    """
    if tensor.device.type != "cpu" or not sys.platform.startswith("linux"):
        return
    page = mmap.PAGESIZE
    start = -(-tensor.data_ptr() // page) * page
    end = (tensor.data_ptr() + tensor.nbytes) // page * page
    if start < end and _is_unwritten_file(start // page, end // page):
        madvise = _madvise()
        if madvise is not None:
            madvise(start, end - start, _DONT_NEED)


def _is_unwritten_file(first: int, end: int) -> bool:
    """Tell whether the pages from ``first`` to before ``end`` hold nothing but what stands in a file."""
    try:
        with Path("/proc/self/pagemap").open("rb", buffering=0) as file:
            file.seek(first * 8)
            pages = np.frombuffer(file.read((end - first) * 8), dtype=np.uint64)
    except OSError:
        return False
    own = (pages & (_PRESENT | _SWAPPED) != 0) & (pages & _OF_FILE == 0)
    return len(pages) == end - first and not own.any()


@functools.cache
def _madvise() -> Callable[[int, int, int], int] | None:
    try:
        function = ctypes.CDLL(None, use_errno=True).madvise
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function
