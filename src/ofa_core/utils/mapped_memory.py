"""Memory that is mapped from files: whether it was written to, and giving it back while it is not used.

Both read ``/proc/self/pagemap``, in which Linux tells of each page whether it is in memory and whether it is still the
file's. A page that is neither was written to, and is the process's own from then on.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

PAGE = mmap.PAGESIZE
#: The uppermost three bits of an entry of the page map: in memory, swapped out, a file's.
_BITS, _OF_FILE = 61, 1
_ENTRY = 8  # bytes
#: Ranges of pages with fewer between them are read at once.
_GAP = 4096
_DONT_NEED = 4  # MADV_DONTNEED of Linux

#: First page and the one behind the last.
Pages = tuple[int, int]


class MappedTensors:
    """Tensors that are mapped from files, to be asked again and again whether they were written to."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._groups: list[list[Pages]] = []
        for first, end in sorted(_pages(tensor) for tensor in tensors):
            if not self._groups or first - self._groups[-1][-1][1] > _GAP:
                self._groups.append([])
            self._groups[-1].append((first, end))

    def unwritten(self) -> bool:
        """Tell whether all of them still are what stands in their files; False where the system does not tell."""
        return all(map(_unwritten, self._groups))


def is_unwritten(tensor: Tensor) -> bool:
    """Tell whether a tensor is mapped from a file and was not written to since; False where the system cannot tell.

    A part of a page counts for all of it. Memory that was asked for and never used is as good as a file's.
    """
    return tensor.device.type == "cpu" and tensor.nbytes > 0 and _unwritten([_pages(tensor)])


def give_back(tensor: Tensor) -> None:
    """Let the system take back the memory of a tensor that is mapped from a file; it is read anew where it is used.

    Nothing happens to a tensor in memory of the process's own, to one that was written to, and where the system cannot
    tell.
    """
    if tensor.device.type != "cpu":
        return
    first, end = -(-tensor.data_ptr() // PAGE), (tensor.data_ptr() + tensor.nbytes) // PAGE
    madvise = _madvise()
    if first < end and madvise is not None and _unwritten([(first, end)]):
        madvise(first * PAGE, (end - first) * PAGE, _DONT_NEED)


def _pages(tensor: Tensor) -> Pages:
    """All pages on which a tensor stands, wholly or in part."""
    return tensor.data_ptr() // PAGE, -(-(tensor.data_ptr() + tensor.nbytes) // PAGE)


def _unwritten(ranges: list[Pages]) -> bool:
    """Tell whether every page that is held in ``ranges``, which are in order, is a file's."""
    base = ranges[0][0]
    entries = _page_map(base, ranges[-1][1])
    if entries is None:
        return False
    held = np.concatenate([entries[first - base : end - base] for first, end in ranges])
    held = held[held != 0] >> _BITS
    return not ((held != 0) & (held & _OF_FILE == 0)).any()


def _page_map(first: int, end: int) -> npt.NDArray[np.uint64] | None:
    """The entries of the pages from ``first`` to before ``end``; None where the system does not tell."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        with Path("/proc/self/pagemap").open("rb", buffering=0) as file:
            file.seek(first * _ENTRY)
            content = file.read((end - first) * _ENTRY)
    except OSError:
        return None
    return np.frombuffer(content, dtype=np.uint64) if len(content) == (end - first) * _ENTRY else None


@functools.cache
def _madvise() -> Callable[[int, int, int], int] | None:
    try:
        function = ctypes.CDLL(None, use_errno=True).madvise
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function
