"""The names a checkpoint may use: the whole vocabulary stands in the tables below, and any other name is refused.

Nothing named by a pickle is imported or called. The makers here build containers and bytes, which later opcodes fill;
everything else stays a stub until :mod:`checkpoints_convert.plain` decides what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from checkpoints_convert.plain import CONVERTERS, DTYPES, Global, StorageRef, Stub, check_key, naturals
from ofa_core.errors import CheckpointError, UnsafePickleError

_MAX_NAME = 512
#: Python 2 and NumPy 1 spellings (torch.save writes protocol 2, which keeps the former).
_MODULE_ALIASES = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "_operator": "operator",
    "numpy.core.multiarray": "numpy._core.multiarray",
    "numpy.core.numeric": "numpy._core.numeric",
    "torch.cuda": "torch",
    "torch.storage": "torch",
    "torch.nn": "torch.nn.parameter",
    "pathlib._local": "pathlib",
}
_NAME_ALIASES = {"builtins.xrange": "range", "builtins.unicode": "str", "builtins.long": "int"}

#: Classes under these modules are configuration and bookkeeping: kept as their attributes, whatever they are.
STUB_MODULES = [
    "omegaconf",
    "fairseq",
    "fairseq_cli",
    "ofa_module",
    "models",
    "tasks",
    "data",
    "criterions",
    "utils",
    "hydra",
    "antlr4",
    "typing",
    "enum",
    "datetime",
    "pytorch_lightning",
    "lightning",
]

_STORAGES: dict[str, torch.dtype | None] = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.ComplexDoubleStorage": torch.complex128,
    "torch.UntypedStorage": torch.uint8,
    "torch._UntypedStorage": torch.uint8,
    "torch.TypedStorage": None,  # these do not tell their element type
    "torch._TypedStorage": None,
} | {f"torch.{kind}Storage": None for kind in ("QInt8", "QUInt8", "QInt32", "QUInt4x2", "QUInt2x4")}

_UNSUPPORTED = {
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_sparse_csr_tensor": "a sparse tensor",
    "torch._utils._rebuild_qtensor": "a quantized tensor",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without data (meta device)",
    "torch._utils._rebuild_wrapper_subclass": "a tensor subclass",
    "torch._utils._rebuild_device_tensor_from_numpy": "a tensor of an XLA-like device",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": "a tensor of an XLA-like device",
}

#: Types that are only mentioned, as an argument or a value. Calling one is refused.
_MENTIONED = {"builtins.int", "builtins.float", "builtins.bool", "builtins.str", "numpy.ndarray", "torch.Tensor"}


def find_global(module: object, name: object) -> Global:
    """The inert stand-in of `module`.`name`, if a checkpoint has a reason to name it."""
    if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > _MAX_NAME:
        raise CheckpointError("the pickle names a class in a way no pickle does: the file is damaged")
    module = _MODULE_ALIASES.get(module, module)
    name = _NAME_ALIASES.get(f"{module}.{name}", name)
    found = Global(module, name)
    if found.path in _UNSUPPORTED:
        raise CheckpointError(f"the checkpoint holds {_UNSUPPORTED[found.path]}, which OFA never does")
    # A name with dots would be looked up attribute by attribute; no entry of the tables has one.
    tables: tuple[Iterable[str], ...] = (_MAKERS, CONVERTERS, DTYPES, _STORAGES, _MENTIONED)
    if found.package in STUB_MODULES or any(found.path in table for table in tables):
        return found
    raise _refusal(found)


#: Packages of layers: a pickle that names one holds a whole module, not its weights.
_LAYERS = ("torch.nn.modules", "torch.nn.parallel", "torch.distributed", "torch.fx")
WHOLE_MODULE = "refused: the file holds a pickled nn.Module; save its state_dict() instead"


def _refusal(of: Global, what: str = "") -> UnsafePickleError:
    if of.module.startswith(_LAYERS):
        return UnsafePickleError(f"{WHOLE_MODULE} ({of.path})")
    return UnsafePickleError(
        f"refused: the pickle asks for {of.path}{what}, which no checkpoint needs; nothing was executed"
    )


def make(of: object, args: object) -> Any:
    """Make what calling `of` with `args` would: a container, bytes or, for everything else, a stub."""
    if not isinstance(of, Global) or not isinstance(args, tuple):
        raise CheckpointError("the pickle calls something that is not a function: the file is damaged")
    if of.path in _MAKERS:
        maker = _MAKERS[of.path]
        try:
            return maker(*args)
        except (TypeError, ValueError) as error:
            raise _refusal(of, " with unusual arguments") from error
    if of.path in CONVERTERS or of.package in STUB_MODULES:
        return Stub(of, args)
    raise _refusal(of, " to be called")


def make_dict(pairs: object = ()) -> dict[Any, Any]:
    """A dict from pairs or another dict; an OrderedDict becomes one too."""
    if isinstance(pairs, dict):
        return dict(pairs)
    if not isinstance(pairs, (list, tuple)):
        raise TypeError("pairs expected")
    return {check_key(key): value for key, value in pairs}


def _make_default_dict(_factory: object = None, pairs: object = ()) -> dict[Any, Any]:
    return make_dict(pairs)


def _sequence(items: object) -> Iterable[Any]:
    if not isinstance(items, (list, tuple, set, frozenset)):
        raise TypeError("a sequence expected")
    return items


def _make_bytes(value: object = b"", encoding: object = None) -> bytes:
    """Bytes given as such or as latin-1 text; bytes(n), which would allocate at will, is refused."""
    if isinstance(value, (bytes, bytearray)) and encoding is None:
        return bytes(value)
    if isinstance(value, str) and encoding in ("latin1", "latin-1"):
        return value.encode("latin-1")
    raise TypeError("latin-1 text expected")


def _make_encoded(value: object, encoding: object) -> bytes:
    return _make_bytes(value, encoding)


def _make_numbers(kind: Callable[..., Any]) -> Callable[..., Any]:
    def make_checked(*args: object) -> Any:
        if not all(arg is None or isinstance(arg, (int, float)) for arg in args):
            raise TypeError("numbers expected")
        return kind(*args)

    return make_checked


def _make_reconstructed(of: object, base: object = None, state: object = None) -> Any:
    """copyreg._reconstructor: how protocols 0 and 1 make an object."""
    if not isinstance(base, Global) or base.path != "builtins.object" or state is not None:
        raise TypeError("an object expected")
    return make(of, ())


def _make_new(of: object, *args: object) -> Any:
    return make(of, args)


def _make_typing(of: object, _parameters: object) -> Stub:
    """operator.getitem: how typing.Optional[int] is stored."""
    if not isinstance(of, Global) or of.module != "typing":
        raise TypeError("a typing construct expected")
    return Stub(of)


def _make_none_type(value: object) -> Stub:
    if value is not None:
        raise TypeError("None expected")
    return Stub(Global("builtins", "NoneType"))


def _make_array(_kind: object, _shape: object, _code: object) -> Stub:
    """An empty numpy array, filled by the state that follows."""
    return Stub(Global("numpy._core.multiarray", "_reconstruct"))


def _make_from_type(of: object, _kind: object, args: object, _state: object = None) -> Any:
    """A tensor with Python attributes; those are dropped."""
    if not isinstance(of, Global) or not of.path.startswith("torch._utils._rebuild_"):
        raise TypeError("a tensor expected")
    return make(of, args)


#: Made while reading: what must exist to be filled in by later opcodes.
_MAKERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": make_dict,
    "collections.defaultdict": _make_default_dict,
    "collections.Counter": make_dict,
    "builtins.dict": make_dict,
    "builtins.list": lambda items=(): list(_sequence(items)),
    "builtins.tuple": lambda items=(): tuple(_sequence(items)),
    "builtins.set": lambda items=(): {check_key(item) for item in _sequence(items)},
    "builtins.frozenset": lambda items=(): frozenset(check_key(item) for item in _sequence(items)),
    "builtins.bytes": _make_bytes,
    "builtins.bytearray": lambda *args: bytearray(_make_bytes(*args)),
    "builtins.complex": _make_numbers(complex),
    "builtins.range": _make_numbers(range),
    "builtins.slice": _make_numbers(slice),
    "builtins.object": lambda: Stub(Global("builtins", "object")),
    "builtins.type": _make_none_type,
    "operator.getitem": _make_typing,
    "_codecs.encode": _make_encoded,
    "copyreg._reconstructor": _make_reconstructed,
    "copyreg.__newobj__": _make_new,
    "torch.Size": lambda items=(): tuple(_sequence(items)),
    "torch._tensor._rebuild_from_type_v2": _make_from_type,
    "numpy._core.multiarray._reconstruct": _make_array,
}


def storage_ref(pid: object) -> StorageRef:
    """The storage a persistent id stands for: ("storage", type, key, location, count[, view])."""
    if isinstance(pid, tuple) and pid and pid[0] == "module":
        raise UnsafePickleError(WHOLE_MODULE)
    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
        raise CheckpointError("a storage is described in an unknown way: the file is damaged")
    kind, key, count = pid[1], pid[2], pid[4]
    view = pid[5] if len(pid) == 6 else None
    path = kind.path if isinstance(kind, Global) else ""
    if path not in _STORAGES or not isinstance(key, str):
        raise CheckpointError("a storage is described in an unknown way: the file is damaged")
    dtype = _STORAGES[path]
    if dtype is None:
        raise CheckpointError(f"a storage is a {path}, which is quantized or untold: save plain tensors")
    start = 0
    if view is not None:
        if not isinstance(view, tuple) or len(view) != 3:
            raise CheckpointError(f"storage {key!r} has a damaged view")
        _, start, size = view
        naturals((start, size, count), f"storage {key!r}")
        if start + size > count:
            raise CheckpointError(f"the view of storage {key!r} reaches outside it: the file is damaged")
        count = size
    naturals((start, count), f"storage {key!r}")
    return StorageRef(key, dtype, start, count)
