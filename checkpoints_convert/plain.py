"""Stand-ins for what a pickle names and makes, and the plain data each becomes.

While a pickle is read, every class or function in it is only a :class:`Global`, and every object made by one a
:class:`Stub` that remembers its arguments and state. Afterwards :class:`Plain` turns them into plain data: tensors from
the mapped file, dicts from Namespaces and config nodes, numbers from numpy scalars.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch

from ofa_core.errors import CheckpointError

#: Hostile files nest without end; genuine ones stay below twenty levels.
MAX_DEPTH = 100
#: A tensor may repeat elements by zero strides, but not into something no memory holds.
MAX_REPEATED_ELEMENTS = 2**28
_MAX_DIMENSIONS = 64

SCALARS = (str, int, float, bool, type(None), bytes, bytearray, complex, range, slice)
_KEYS = (str, int, float, bool, type(None), bytes, complex)


DTYPES = {
    f"torch.{name}": getattr(torch, name)
    for name in [
        "float16",
        "bfloat16",
        "float32",
        "float64",
        "half",
        "float",
        "double",
        "uint8",
        "int8",
        "int16",
        "int32",
        "int64",
        "short",
        "int",
        "long",
        "bool",
        "complex64",
        "complex128",
        "uint16",
        "uint32",
        "uint64",
        "float8_e4m3fn",
        "float8_e5m2",
    ]
    if hasattr(torch, name)
}


@dataclass(eq=False, frozen=True, slots=True)
class Global:
    """A class or function that the pickle names."""

    module: str
    name: str

    @property
    def path(self) -> str:
        """The dotted path, spelled as current Python and NumPy spell it."""
        return f"{self.module}.{self.name}"

    @property
    def package(self) -> str:
        """The first part of the module."""
        return self.module.split(".")[0]


@dataclass(eq=False, slots=True)
class Stub:
    """An object that the pickle makes by calling `of`; what it would have been is decided in :class:`Plain`."""

    of: Global
    args: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] | None = None
    elements: list[Any] | None = None


@dataclass(eq=False, frozen=True, slots=True)
class StorageRef:
    """`count` elements of a storage from `start` on."""

    key: str
    dtype: torch.dtype
    start: int
    count: int


def check_key(key: object) -> Any:
    """A key of a dict or set. Python hashes tuples anew each time, so shared nesting could take forever."""
    waiting, budget = [key], 256
    while waiting:
        item = waiting.pop()
        budget -= 1
        if isinstance(item, tuple) and len(item) < budget:
            waiting.extend(item)
        elif budget < 0 or not isinstance(item, (*_KEYS, Global, Stub)):
            raise CheckpointError(f"the pickle uses a {type(item).__name__} as a key: the file is damaged")
    return key


def naturals(values: object, what: str) -> tuple[int, ...]:
    """`values` as sizes, strides or offsets, after checking that they can be."""
    if not isinstance(values, (tuple, list)) or not all(type(value) is int and 0 <= value < 2**62 for value in values):
        raise CheckpointError(f"{what} has a size, stride or offset that is not a sensible number: the file is damaged")
    return tuple(values)


_BUSY = object()


class Plain:
    """Turns what the pickle made into plain data, each object once, so that sharing and cycles survive."""

    def __init__(self, storage: Callable[[StorageRef], torch.UntypedStorage]) -> None:
        self.storage = storage
        self.done: dict[int, Any] = {}

    def convert(self, value: Any, depth: int = 0) -> Any:
        """The plain form of `value`."""
        if type(value) in SCALARS:
            return value
        known = self.done.get(id(value))
        if known is _BUSY:
            raise CheckpointError("an object contains itself in a way that has no plain form: the file is damaged")
        if known is not None:
            return known
        if depth > MAX_DEPTH:
            raise CheckpointError(f"the pickle nests deeper than {MAX_DEPTH} levels, as no checkpoint does")
        if isinstance(value, dict):
            return self._fill_dict(value, value, depth)
        if isinstance(value, list):
            return self._fill_list(value, value, depth)
        self.done[id(value)] = _BUSY
        result = self.done[id(value)] = self._convert_fixed(value, depth + 1)
        return result

    def _fill_dict(self, owner: object, content: dict[Any, Any], depth: int) -> dict[Any, Any]:
        target = self.done[id(owner)] = dict[Any, Any]()
        for key, value in content.items():
            target[check_key(self.convert(key, depth + 1))] = self.convert(value, depth + 1)
        return target

    def _fill_list(self, owner: object, content: list[Any], depth: int) -> list[Any]:
        target = self.done[id(owner)] = list[Any]()
        target.extend(self.convert(value, depth + 1) for value in content)
        return target

    def _convert_fixed(self, value: Any, depth: int) -> Any:
        if isinstance(value, tuple):
            return tuple(self.convert(item, depth) for item in value)
        if isinstance(value, (set, frozenset)):
            return type(value)(check_key(self.convert(item, depth)) for item in value)
        if isinstance(value, Global):
            return DTYPES.get(value.path, f"<{value.path}>")
        if isinstance(value, StorageRef):
            return _tensor(self, value, 0, (value.count,), (1,))
        if isinstance(value, Stub):
            return self._convert_stub(value, depth)
        raise CheckpointError(f"the pickle holds a {type(value).__name__}, which no checkpoint does")

    def _convert_stub(self, stub: Stub, depth: int) -> Any:
        converter = CONVERTERS.get(stub.of.path)
        if converter is not None:
            return converter(self, stub, depth)
        state = _attributes(stub.state)
        if stub.of.package == "omegaconf":
            for field in ("_content", "_val"):
                if field in state:
                    return self.convert(state[field], depth)
        if stub.elements is not None:
            return self._fill_list(stub, stub.elements, depth)
        if stub.items is not None or state:
            return self._fill_dict(stub, {**state, **(stub.items or {})}, depth)
        if len(stub.args) == 1 and type(stub.args[0]) in (str, int, float, bool):  # an enum member, stored by its value
            return stub.args[0]
        return f"<{stub.of.path}>"


def _attributes(state: object) -> dict[Any, Any]:
    """The attributes in the state of an object: a dict, or a pair of dicts where the class has slots."""
    parts = state if isinstance(state, tuple) else (state,)
    return {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}


def _namespace(plain: Plain, stub: Stub, depth: int) -> dict[Any, Any]:
    return plain._fill_dict(stub, _attributes(stub.state), depth)


def _tensor(
    plain: Plain, storage: object, offset: object, size: object, stride: object, dtype: object = None
) -> torch.Tensor:
    """A tensor on the mapped file, after checking that every element it can reach lies in its storage."""
    if not isinstance(storage, StorageRef):
        raise CheckpointError("a tensor has no storage: the file is damaged")
    what = f"a tensor on storage {storage.key!r}"
    (start,), sizes, strides = naturals((offset,), what), naturals(size, what), naturals(stride, what)
    kind = storage.dtype if dtype is None else dtype
    if not isinstance(kind, torch.dtype) or len(sizes) != len(strides) or len(sizes) > _MAX_DIMENSIONS:
        raise CheckpointError(f"{what} is described in an unknown way: the file is damaged")
    elements = math.prod(sizes)
    held = storage.count * storage.dtype.itemsize // kind.itemsize
    last = (
        start + sum((length - 1) * step for length, step in zip(sizes, strides, strict=True)) if elements else start - 1
    )
    if start > held or last >= held:
        raise CheckpointError(f"{what} reaches outside it: the file is damaged or was tampered with")
    if elements > max(held, MAX_REPEATED_ELEMENTS) or max(sizes, default=0) > 2**48 or max(strides, default=0) > 2**48:
        raise CheckpointError(f"{what} repeats it into {elements} elements: the file is damaged or was tampered with")
    start += storage.start * storage.dtype.itemsize // kind.itemsize
    return torch.empty(0, dtype=kind).set_(plain.storage(storage), start, sizes, strides)


def _rebuilt_tensor(plain: Plain, stub: Stub, _depth: int) -> torch.Tensor:
    """_rebuild_tensor(storage, offset, size, stride), in v2 followed by requires_grad, hooks and metadata."""
    if not 4 <= len(stub.args) <= 7:
        raise CheckpointError("a tensor is described in an unknown way: the file is damaged")
    if len(stub.args) == 7 and stub.args[6]:
        raise CheckpointError("the checkpoint holds a conjugated tensor, which OFA never does")
    storage, offset, size, stride = stub.args[:4]
    return _tensor(plain, storage, offset, size, stride)


def _rebuilt_tensor_v3(plain: Plain, stub: Stub, depth: int) -> torch.Tensor:
    """As v2, with the element type named after the hooks; the storage is untyped."""
    if not 7 <= len(stub.args) <= 8:
        raise CheckpointError("a tensor is described in an unknown way: the file is damaged")
    dtype = plain.convert(stub.args[6], depth)
    storage, offset, size, stride = stub.args[:4]
    return _tensor(plain, storage, offset, size, stride, dtype if isinstance(dtype, torch.dtype) else "")


def _parameter(plain: Plain, stub: Stub, depth: int) -> torch.Tensor:
    tensor = plain.convert(stub.args[0], depth) if stub.args else None
    if not isinstance(tensor, torch.Tensor):
        raise CheckpointError("a parameter has no tensor: the file is damaged")
    return tensor


def _device(plain: Plain, stub: Stub, _depth: int) -> str:
    if not 1 <= len(stub.args) <= 2 or not all(type(arg) in (str, int) for arg in stub.args):
        raise CheckpointError("a torch.device is described in an unknown way: the file is damaged")
    return ":".join(str(arg) for arg in stub.args)


def _pure_path(plain: Plain, stub: Stub, _depth: int) -> str:
    if not all(type(arg) is str for arg in stub.args):
        raise CheckpointError("a path is described in an unknown way: the file is damaged")
    return str(PurePosixPath(*stub.args))


def _numpy_dtype(plain: Plain, stub: object) -> np.dtype[Any]:
    """A dtype of plain numbers or text; object arrays hold pickles of their own and are refused."""
    code = stub.args[0] if isinstance(stub, Stub) and stub.of.path == "numpy.dtype" and stub.args else None
    state = stub.state if isinstance(stub, Stub) else None
    if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248]|c(8|16)|[US]\d{1,5})", code):
        raise CheckpointError(f"the checkpoint holds a numpy array of type {str(code)[:40]!r}: only numbers are read")
    big = isinstance(state, tuple) and len(state) > 1 and state[1] == ">"
    return np.dtype(">" + code.lstrip("<>|=") if big else code)


def _array_from(plain: Plain, dtype: object, raw: object, shape: object, fortran: bool) -> np.ndarray[Any, Any]:
    """The array over `raw`, read-only; `raw` must have exactly the bytes that `shape` takes."""
    kind, sizes = _numpy_dtype(plain, dtype), naturals(shape, "a numpy array")
    if not isinstance(raw, (bytes, bytearray)) or len(sizes) > 32 or len(raw) != math.prod(sizes) * kind.itemsize:
        raise CheckpointError("a numpy array does not have the bytes its shape takes: the file is damaged")
    return (
        np.frombuffer(raw, dtype=kind).reshape(sizes, order="F" if fortran else "C") if raw else np.empty(sizes, kind)
    )


def _array(plain: Plain, stub: Stub, _depth: int) -> np.ndarray[Any, Any]:
    """State of an ndarray: (version, shape, dtype, is Fortran order, bytes)."""
    if not isinstance(stub.state, tuple) or len(stub.state) != 5:
        raise CheckpointError("a numpy array is described in an unknown way: the file is damaged")
    _, shape, dtype, fortran, raw = stub.state
    return _array_from(plain, dtype, raw, shape, fortran is True)


def _array_of_buffer(plain: Plain, stub: Stub, _depth: int) -> np.ndarray[Any, Any]:
    """_frombuffer(buffer, dtype, shape, order): the spelling of pickle protocol 5."""
    if len(stub.args) != 4:
        raise CheckpointError("a numpy array is described in an unknown way: the file is damaged")
    raw, dtype, shape, order = stub.args
    return _array_from(plain, dtype, raw, shape, order == "F")


def _numpy_scalar(plain: Plain, stub: Stub, _depth: int) -> Any:
    if len(stub.args) != 2:
        raise CheckpointError("a numpy number is described in an unknown way: the file is damaged")
    return _array_from(plain, stub.args[0], stub.args[1], (), False).item()


#: Made after reading, from the arguments and state of a stub.
CONVERTERS: dict[str, Callable[[Plain, Stub, int], Any]] = {
    "argparse.Namespace": _namespace,
    "torch._utils._rebuild_tensor": _rebuilt_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuilt_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuilt_tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.device": _device,
    "numpy.dtype": lambda plain, stub, _depth: str(_numpy_dtype(plain, stub)),
    "numpy._core.multiarray._reconstruct": _array,
    "numpy._core.numeric._frombuffer": _array_of_buffer,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    **{f"pathlib.{kind}": _pure_path for kind in ("Path", "PosixPath", "PurePath", "PurePosixPath", "WindowsPath")},
}
