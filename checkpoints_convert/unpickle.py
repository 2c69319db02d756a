"""Reads torch checkpoints without executing them: the only place of the project that reads pickles.

A pickle is a program for a small stack machine, and Python's own machine imports and calls what the program names. The
one below has the same opcodes but cannot call anything: names become inert stand-ins from a closed table
(`allowed.py`), and only afterwards does plain data come of them (`plain.py`). The tensors stay in the file, which is
mapped (`archive.py`).
"""

from __future__ import annotations

import mmap
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import torch

from checkpoints_convert.allowed import find_global, make, make_dict, storage_ref
from checkpoints_convert.archive import (
    MAX_PICKLE_BYTES,
    Format,
    Span,
    Window,
    check_crc32,
    legacy_spans,
    map_file,
    storage_on,
    zip_records,
)
from checkpoints_convert.plain import Plain, StorageRef, Stub, check_key
from ofa_core.errors import CheckpointError, UnsafePickleError

#: Opens the legacy format; see torch.serialization.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
#: Containers copied by calls such as list(x), over a whole pickle: bounded, since x may be named again and again.
_MAX_COPIED = 2**24


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file: plain data, and tensors that stay in the mapped file until they are used."""

    path: Path
    format: Format
    content: dict[str, Any]


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a file written by torch.save, in its zip or its legacy format, without executing anything in it.

    Namespaces, omegaconf nodes and instances of fairseq or OFA classes become plain data. Tensors are on the CPU and
    lie in a private mapping of the file: changing one does not change the file. In a zip, the bytes of every tensor are
    compared with their checksum.

    Raises:
        UnsafePickleError: the file asks for something outside the allow-list.
        CheckpointError: the file is missing, damaged, or not a checkpoint.
    """
    path = Path(path)
    try:
        data, kind = map_file(path)
        root, plain = (_read_zip if kind == "zip" else _read_legacy)(data, path)
        if not isinstance(root, dict):
            hint = "; of a model that was pickled whole, save its state_dict()" if isinstance(root, Stub) else ""
            raise CheckpointError(f"a checkpoint is a dict, this file holds a {_kind_of(root)}{hint}")
        return Checkpoint(path, kind, plain.convert(root))
    except CheckpointError as error:
        raise type(error)(f"{path}: {_one_line(error)}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:
        # A damaged pickle can fail in any way a program can; to the user each means the same.
        raise CheckpointError(f"{path}: the file is damaged ({type(error).__name__}: {_one_line(error)})") from error


def _one_line(error: Exception) -> str:
    """The message fit for a terminal: names in it come from the file and may hold anything."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(error)[:400])


def _kind_of(root: object) -> str:
    return root.of.path if isinstance(root, Stub) else type(root).__name__


def _read_zip(data: mmap.mmap, path: Path) -> tuple[Any, Plain]:
    records = zip_records(data, path)
    machine = Machine(Window(data, records.pickle.offset, records.pickle.offset + records.pickle.size))
    return machine.run(), Plain(_Storages(data, records.storages).open)


def _read_legacy(data: mmap.mmap, _path: Path) -> tuple[Any, Plain]:
    """Five pickles (magic number, protocol version, byte order and sizes, the object, storage keys), then the bytes."""
    window = Window(data, 0, MAX_PICKLE_BYTES)
    try:
        magic = Machine(window).run()
    except UnsafePickleError:
        raise
    except Exception as error:
        raise CheckpointError("this is not a torch checkpoint, or its beginning is damaged") from error
    if type(magic) is not int or magic != _LEGACY_MAGIC:
        raise CheckpointError("this is a pickle, but not one written by torch.save")
    version = Machine(window).run()
    if version != _LEGACY_PROTOCOL:
        raise CheckpointError(f"torch serialization protocol {version!r} is unknown, {_LEGACY_PROTOCOL} is expected")
    system = Machine(window).run()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError("the tensors are not little-endian: save it again on a little-endian machine")
    machine = Machine(window)
    root = machine.run()
    keys = Machine(window).run()
    item_sizes = {key: ref.dtype.itemsize for key, ref in machine.storages.items()}
    return root, Plain(_Storages(data, legacy_spans(data, window.tell(), keys, item_sizes)).open)


class _Storages:
    """The storages of one file, each opened once so that tied tensors stay tied."""

    def __init__(self, data: mmap.mmap, spans: Mapping[str, Span]) -> None:
        self.data = data
        self.spans = spans
        self.opened: dict[str, torch.UntypedStorage] = {}

    def open(self, ref: StorageRef) -> torch.UntypedStorage:
        span = self.spans.get(ref.key)
        if span is None:
            raise CheckpointError(f"the record of storage {ref.key!r} is missing: the file is incomplete")
        if (ref.start + ref.count) * ref.dtype.itemsize > span.size:
            raise CheckpointError(f"the record of storage {ref.key!r} is smaller than its tensors: the file is damaged")
        if ref.key not in self.opened:
            check_crc32(self.data, span, f"data/{ref.key}")
            self.opened[ref.key] = storage_on(self.data, span)
        return self.opened[ref.key]


class Machine:
    """The pickle stack machine, for one pickle. It knows no way to call, import or look up anything."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.start = window.tell()
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, StorageRef] = {}
        self.copied = 0

    def run(self) -> Any:
        """The object the pickle builds; afterwards the window stands right behind it."""
        # genops only reads, which is all that an IO[bytes] is asked for here.
        for opcode, arg, _ in pickletools.genops(cast("IO[bytes]", self.window)):
            if opcode.name == "STOP":
                return self.stack.pop()
            operation = _OPERATIONS.get(opcode.name)
            if operation is None:
                raise CheckpointError(f"the pickle uses {opcode.name}, which torch.save never writes")
            operation(self, arg)
        raise CheckpointError("the pickle does not end: the file is cut short")

    def pop_mark(self) -> list[Any]:
        """Pop what was pushed since the last MARK."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def call(self, of: Any, args: Any) -> None:
        """Push what `of(*args)` stands for."""
        if isinstance(args, tuple):
            self.copied += sum(
                len(arg) for arg in args if isinstance(arg, (list, tuple, dict, set, frozenset, str, bytes, bytearray))
            )
        if self.copied > max(_MAX_COPIED, 4 * (self.window.tell() - self.start)):
            raise CheckpointError("the pickle copies the same data over and over, as no checkpoint does")
        self.push(make(of, args))

    def set_items(self, pairs: list[Any]) -> None:
        """Fill the dict on top of the stack with keys and values in turn."""
        target = self.stack[-1]
        if isinstance(target, Stub):
            target.items = {} if target.items is None else target.items
            target = target.items
        if not isinstance(target, dict) or len(pairs) % 2:
            raise CheckpointError("the pickle fills a dict that is none: the file is damaged")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            target[check_key(key)] = value

    def append(self, items: list[Any]) -> None:
        """Extend the list on top of the stack."""
        target = self.stack[-1]
        if isinstance(target, Stub):
            target.elements = [] if target.elements is None else target.elements
            target = target.elements
        if not isinstance(target, list):
            raise CheckpointError("the pickle fills a list that is none: the file is damaged")
        target.extend(items)

    def add(self, items: list[Any]) -> None:
        """Extend the set on top of the stack."""
        if not isinstance(self.stack[-1], set):
            raise CheckpointError("the pickle fills a set that is none: the file is damaged")
        self.stack[-1].update(check_key(item) for item in items)

    def build(self, state: Any) -> None:
        """Keep the state of a stub. An OrderedDict has one too (versions of modules), which nothing needs."""
        target = self.stack[-1]
        if isinstance(target, Stub):
            target.state = state
        elif not isinstance(target, dict):
            raise UnsafePickleError(
                "refused: the pickle sets the state of something that has none; nothing was executed"
            )

    def persistent(self, pid: Any) -> None:
        """Push the storage that a persistent id stands for."""
        ref = storage_ref(pid)
        known = self.storages.setdefault(ref.key, ref)
        # Only the legacy format (a sixth item) counts its storages in elements, so only there must the sizes agree.
        if len(pid) == 6 and known.dtype.itemsize != ref.dtype.itemsize:
            raise CheckpointError(f"storage {ref.key!r} has elements of two sizes: the file is damaged")
        self.push(ref)


def _mark(machine: Machine, _: Any) -> None:
    machine.marks.append(machine.stack)
    machine.stack = []


def _pop(machine: Machine, _: Any) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.pop_mark()


def _put(machine: Machine, index: Any) -> None:
    machine.memo[len(machine.memo) if index is None else index] = machine.stack[-1]


def _global(machine: Machine, names: Any) -> None:
    module, _, name = names.partition(" ")  # pickletools joins the two lines of the opcode by a space
    machine.push(_found(machine, module, name))


def _stack_global(machine: Machine, _: Any) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.push(_found(machine, module, name))


def _found(machine: Machine, module: object, name: object) -> Any:
    """The stand-in of a name; the refusal of one that the whole file is an instance of says what to save instead."""
    try:
        return find_global(module, name)
    except UnsafePickleError as error:
        inside = machine.stack or machine.marks
        if inside and machine.stack[-1:] != ["module"]:  # with which the legacy format begins to describe one
            raise
        raise UnsafePickleError(f"{error}; of a model that was pickled whole, save its state_dict()") from None


def _reduce(machine: Machine, _: Any) -> None:
    args, of = machine.stack.pop(), machine.stack.pop()
    machine.call(of, args)


def _new_with_keywords(machine: Machine, _: Any) -> None:
    keywords, args, of = machine.stack.pop(), machine.stack.pop(), machine.stack.pop()
    if keywords != {}:
        raise CheckpointError("the pickle makes an object by keywords, which torch.save never writes")
    machine.call(of, args)


def _instance(machine: Machine, names: Any) -> None:
    args = tuple(machine.pop_mark())
    _global(machine, names)
    machine.call(machine.stack.pop(), args)


def _object(machine: Machine, _: Any) -> None:
    of, *args = machine.pop_mark()
    machine.call(of, tuple(args))


def _tuple(machine: Machine, count: int) -> None:
    if len(machine.stack) < count:
        raise CheckpointError("the pickle takes more than it put down: the file is damaged")
    machine.stack[-count:] = [tuple(machine.stack[-count:])]


def _dict(machine: Machine, _: Any) -> None:
    items = machine.pop_mark()
    machine.push(make_dict(list(zip(items[::2], items[1::2], strict=True))))


def _refuse_extension(_machine: Machine, code: Any) -> None:
    raise UnsafePickleError(
        f"refused: the pickle asks for extension {code} of the copyreg registry; nothing was executed"
    )


_Operation = Callable[[Machine, Any], Any]
_OPERATIONS: dict[str, _Operation] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": lambda machine, _: machine.pop_mark(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "LIST": lambda machine, _: machine.push(machine.pop_mark()),
    "DICT": _dict,
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "TUPLE1": lambda machine, _: _tuple(machine, 1),
    "TUPLE2": lambda machine, _: _tuple(machine, 2),
    "TUPLE3": lambda machine, _: _tuple(machine, 3),
    "FROZENSET": lambda machine, _: machine.push(frozenset(check_key(item) for item in machine.pop_mark())),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_mark()),
    "ADDITEMS": lambda machine, _: machine.add(machine.pop_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(), machine.stack.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_mark()),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _new_with_keywords,
    "INST": _instance,
    "OBJ": _object,
    "BUILD": lambda machine, _: machine.build(machine.stack.pop()),
    "BINPERSID": lambda machine, _: machine.persistent(machine.stack.pop()),
    "MEMOIZE": _put,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
    **{name: lambda machine, index: machine.push(machine.memo[index]) for name in ("GET", "BINGET", "LONG_BINGET")},
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _refuse_extension),
    **{
        name: lambda machine, value: machine.push(value)
        for name in [
            "INT",
            "BININT",
            "BININT1",
            "BININT2",
            "LONG",
            "LONG1",
            "LONG4",
            "FLOAT",
            "BINFLOAT",
            "STRING",
            "BINSTRING",
            "SHORT_BINSTRING",
            "UNICODE",
            "BINUNICODE",
            "SHORT_BINUNICODE",
            "BINUNICODE8",
            "BINBYTES",
            "SHORT_BINBYTES",
            "BINBYTES8",
            "BYTEARRAY8",
        ]
    },
}
