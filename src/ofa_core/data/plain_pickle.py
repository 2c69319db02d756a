"""Pickles of plain data, such as RefCOCO's references: lists, dicts, texts and numbers, and nothing that runs."""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path
from typing import Any

from ..errors import OFAError
from ..utils.input_files import MAX_TABLE, read_whole

#: Errors in which reading a damaged or hostile pickle can end.
_DAMAGED = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    OverflowError,
    MemoryError,
    RecursionError,
    AssertionError,
    struct.error,
)
#: The texts of Python 2 are bytes of either.
_ENCODINGS = ("utf-8", "latin-1")


class _PlainUnpickler(pickle._Unpickler):  # in Python: its memory grows with the file, whatever a number in it says
    """Knows no class and no function, so that nothing can be called."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}; only lists, dicts, texts and numbers are read")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to something outside")


def read_plain_pickle(path: Path) -> Any:
    """The content of a pickle of plain data.

    Raises:
        OFAError: it is too large, damaged, or holds anything else.
    """
    content = read_whole(path, MAX_TABLE)
    for encoding in _ENCODINGS:
        try:
            return _PlainUnpickler(io.BytesIO(content), encoding=encoding).load()
        except UnicodeDecodeError:
            continue
        except _DAMAGED as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise OFAError(f"{path}: not a pickle of plain data: {reason[:200]}") from None
    raise OFAError(f"{path}: not a pickle of plain data: its texts are in no known encoding")
