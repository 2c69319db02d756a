from __future__ import annotations

import argparse
import collections
import copyreg
import datetime
import enum
import gzip
import io
import json
import mmap
import pathlib
import pickle
import random
import struct
import subprocess
import sys
import time
import types
import typing
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checkpoints_convert.unpickle import Checkpoint, read_checkpoint
from ofa_core.errors import CheckpointError, UnsafePickleError

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
from synth import synth_state

ROOT = Path(__file__).parents[2]
MAGIC = 0x1950A86A20F9469CFC6C


def write_zip(path: Path, program: bytes, records: dict[str, bytes] | None = None, root: str = "archive/") -> Path:
    """A zip checkpoint around any pickle; a record whose name begins with "/" lies outside `data/`."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{root}data.pkl", program)
        for name, content in (records or {}).items():
            archive.writestr(root + (name[1:] if name.startswith("/") else f"data/{name}"), content)
    return path


def write_legacy(path: Path, program: bytes, **changes: Any) -> Path:
    parts = {"magic": MAGIC, "protocol": 1001, "system": {"little_endian": True}, **changes}
    keys, tail = parts.pop("keys", []), parts.pop("tail", b"")
    path.write_bytes(
        b"".join(pickle.dumps(part, 2) for part in parts.values()) + program + pickle.dumps(keys, 2) + tail
    )
    return path


def save(path: Path, content: object, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def in_dict(value: bytes) -> bytes:
    return b"\x80\x02}" + text("x") + value + b"s."


def tensor(
    key: str = "0", kind: str = "FloatStorage", count: int = 4, offset: int = 0, size: Any = (4,), stride: Any = (1,)
) -> bytes:
    pid = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(count) + b"tQ"
    rest = number(offset) + pickle.dumps(size, 2)[2:-1] + pickle.dumps(stride, 2)[2:-1]
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + rest + b"\x89}tR"


def equal(left: Any, right: Any) -> bool:
    if isinstance(right, torch.Tensor):
        return left.dtype == right.dtype and left.shape == right.shape and torch.equal(left, right)
    if isinstance(right, argparse.Namespace):
        return equal(left, vars(right))
    if isinstance(right, dict):
        return isinstance(left, dict) and list(left) == list(right) and all(equal(left[k], right[k]) for k in right)
    if isinstance(right, (list, tuple)):
        return type(left) is type(right) and len(left) == len(right) and all(map(equal, left, right))
    return type(left) is type(right) and bool(left == right)


# --- genuine checkpoints -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["refcoco_cfg", "vqa_namespace"])
def test_genuine_checkpoints_equal_a_full_unpickling_and_their_source(
    genuine_checkpoints: dict[str, Path], name: str
) -> None:
    path = genuine_checkpoints[name]
    read = read_checkpoint(path)
    assert read.format == "zip"
    assert read.path == path
    content = torch.load(path, weights_only=False)
    assert equal(read.content, content)
    source = json.loads(path.with_suffix(".json").read_text())
    assert list(read.content["model"]) == list(source["shapes"])
    for key, value in synth_state(source["shapes"], source["salt"]).items():
        assert torch.equal(read.content["model"][key], torch.from_numpy(value).half()), key
    filled = "cfg" if name == "refcoco_cfg" else "args"
    assert type(read.content[filled]) is dict
    assert read.content[{"cfg": "args", "args": "cfg"}[filled]] is None


def test_the_legacy_twin_of_a_genuine_checkpoint_is_equal(genuine_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    content = torch.load(genuine_checkpoints["refcoco_cfg"], weights_only=False)
    content.pop("last_optimizer_state")
    path = save(tmp_path / "legacy.pt", content, _use_new_zipfile_serialization=False)
    read = read_checkpoint(path)
    assert read.format == "legacy"
    assert equal(read.content, content)


# --- what is read --------------------------------------------------------------------------------------------------

FORMATS = pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])


def small_content() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 5, generator=generator)
    return {
        "args": argparse.Namespace(arch="ofa", lr=[1e-3], nested=argparse.Namespace(deep=(1, 2.5, "x"))),
        "model": collections.OrderedDict(
            {
                "a": weight,
                "tied": weight,
                "view": weight[1:, 2:4],
                "transposed": weight.t(),
                "half": weight.half(),
                "brain": weight.bfloat16(),
                "empty": torch.zeros(0, 3),
                "scalar": torch.tensor(7),
                "flags": torch.tensor([True, False]),
                "bytes": torch.arange(5, dtype=torch.uint8),
                "wave": torch.complex(weight, weight),
                "expanded": torch.ones(1).expand(3, 4),
            }
        ),
        "extra_state": {"best": 0.5, "steps": 2**70, "none": None, "set": {1, 2}, "bytes": b"\xff\x00", "e": []},
    }


@FORMATS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_everything_a_checkpoint_holds_is_read(tmp_path: Path, new: bool, protocol: int) -> None:
    content = small_content()
    path = save(tmp_path / "c.pt", content, _use_new_zipfile_serialization=new, pickle_protocol=protocol)
    assert equal(read_checkpoint(path).content, content)


@FORMATS
def test_tied_tensors_stay_tied_and_the_file_is_never_written(tmp_path: Path, new: bool) -> None:
    path = save(tmp_path / "c.pt", small_content(), _use_new_zipfile_serialization=new)
    before = path.read_bytes()
    model = read_checkpoint(str(path)).content["model"]
    assert model["a"].data_ptr() == model["tied"].data_ptr() == model["transposed"].data_ptr()
    model["a"][1, 2] = 42
    assert model["tied"][1, 2] == model["view"][0, 0] == 42
    assert path.read_bytes() == before


@FORMATS
def test_parameters_attributes_and_small_dtypes(tmp_path: Path, new: bool) -> None:
    parameter = torch.nn.Parameter(torch.arange(3.0))
    marked = torch.nn.Parameter(torch.ones(2))
    marked.expert = True  # type: ignore[attr-defined]
    wide = torch.arange(4, dtype=torch.int32).to(torch.uint16)
    content = {"p": parameter, "m": marked, "u": wide, "d": torch.float16, "device": torch.device("cuda:1")}
    content["size"] = torch.Size([2, 3])
    read = read_checkpoint(save(tmp_path / "c.pt", content, _use_new_zipfile_serialization=new)).content
    assert torch.equal(read["p"], parameter)
    assert type(read["p"]) is torch.Tensor
    assert not read["p"].requires_grad
    assert torch.equal(read["m"], marked)
    assert read["u"].dtype == torch.uint16
    assert read["u"].tolist() == [0, 1, 2, 3]
    assert read["d"] is torch.float16
    assert read["device"] == "cuda:1"
    assert read["size"] == (2, 3)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_numpy_numbers_and_arrays(tmp_path: Path, protocol: int) -> None:
    grid = np.arange(6, dtype=np.int16).reshape(2, 3)
    content = {
        "number": np.float64(0.25),
        "flag": np.bool_(True),
        "grid": grid,
        "fortran": np.asfortranarray(grid),
        "big": grid.astype(">i4"),
        "empty": np.zeros((0, 2)),
        "dtype": np.dtype("float32"),
    }
    read = read_checkpoint(save(tmp_path / "c.pt", content, pickle_protocol=protocol)).content
    assert read["number"] == 0.25
    assert type(read["number"]) is float
    assert read["flag"] is True
    for name in ("grid", "fortran", "big"):
        assert np.array_equal(read[name], grid), name
    assert read["empty"].shape == (0, 2)
    assert read["dtype"] == "float32"


def test_harmless_types(tmp_path: Path) -> None:
    default = collections.defaultdict(list, {"a": [1]})
    content = {
        "default": default,
        "path": pathlib.PurePosixPath("/a/b"),
        "any": typing.Any,
        "optional": typing.Union[int, str],  # noqa: UP007
        "none": type(None),
        "type": str,
        "when": datetime.datetime(2022, 1, 1),
        "range": range(3),
        "slice": slice(1, 2),
        "complex": 1 + 2j,
        "frozen": frozenset({"a"}),
        "bytearray": bytearray(b"ab"),
        "empty": b"",
    }
    read = read_checkpoint(save(tmp_path / "c.pt", content)).content
    assert read["default"] == {"a": [1]}
    assert type(read["default"]) is dict
    assert read["path"] == "/a/b"
    assert read["any"] == "<typing.Any>"
    assert read["type"] == "<builtins.str>"
    assert all(isinstance(read[name], str) for name in ("optional", "none"))
    for name in ("range", "slice", "complex", "frozen", "bytearray", "empty"):
        assert read[name] == content[name], name


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_the_machine_agrees_with_python_on_plain_pickles(tmp_path: Path, protocol: int) -> None:
    shared = ["shared"]
    content = {
        "a": [shared, shared, (shared,), {"k": shared}],
        "numbers": [0, 1, 255, 256, 65536, -1, 2**31, -(2**40), 2**2100, 1.5, float("inf"), True, False, None],
        "text": ["", "ä€\U0001f600\n\\", "x" * 300],
        "bytes": [b"", b"\x00\xff" * 200],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "sets": [set(), {1, "a"}, frozenset({(1, 2)})],
        (1, ("k",)): {3: {}},
    }
    read = read_checkpoint(write_zip(tmp_path / "c.pt", pickle.dumps(content, protocol))).content
    assert read == content
    assert read["a"][0] is read["a"][1] is read["a"][2][0] is read["a"][3]["k"]


def test_cycles_survive(tmp_path: Path) -> None:
    loop: dict[str, Any] = {"list": []}
    loop["list"].append(loop)
    namespace = argparse.Namespace()
    namespace.me = namespace
    loop["namespace"] = namespace
    read = read_checkpoint(save(tmp_path / "c.pt", loop)).content
    assert read["list"][0] is read
    assert read["namespace"]["me"] is read["namespace"]


# --- classes that are not installed --------------------------------------------------------------------------------


@pytest.fixture
def modules() -> Iterator[Callable[..., type]]:
    """Makes classes in modules that exist only while the fixture's test pickles; `forget()` removes them."""
    made: list[str] = []

    def define(path: str, **attributes: Any) -> type:
        module, name = path.rsplit(".", 1)
        for end in range(1, module.count(".") + 2):
            part = ".".join(module.split(".")[:end])
            if part not in sys.modules:
                sys.modules[part] = types.ModuleType(part)
                made.append(part)
        bases = attributes.pop("bases", (object,))
        kind = types.new_class(name, bases, exec_body=lambda body: body.update(attributes, __module__=module))
        setattr(sys.modules[module], name, kind)
        return kind

    def forget() -> None:
        while made:
            del sys.modules[made.pop()]

    define.forget = forget  # type: ignore[attr-defined]
    yield define
    forget()


def with_state(kind: type, **state: Any) -> Any:
    made = kind.__new__(kind)
    made.__dict__.update(state)
    return made


@FORMATS
def test_omegaconf_configs_become_plain(tmp_path: Path, modules: Any, new: bool) -> None:
    mapping = modules("omegaconf.dictconfig.DictConfig")
    listing = modules("omegaconf.listconfig.ListConfig")
    node, enum_node = modules("omegaconf.nodes.AnyNode"), modules("omegaconf.nodes.EnumNode")
    metadata = modules("omegaconf.base.ContainerMetadata")
    choice = enum.Enum("Choices", {"NO_C10D": "no_c10d"}, module="fairseq.dataclass.constants", qualname="Choices")
    modules("fairseq.dataclass.constants.Other")
    sys.modules["fairseq.dataclass.constants"].Choices = choice  # type: ignore[attr-defined]

    root = with_state(mapping, _parent=None, _metadata=with_state(metadata, ref_type=typing.Any, object_type=dict))

    def child(kind: type, **state: Any) -> Any:
        return with_state(kind, _parent=root, _metadata=with_state(metadata, key="k", key_type=str), **state)

    root._content = {
        "num_bins": child(node, _val=1000),
        "nothing": child(node, _val=None),
        "missing": child(mapping, _content="???"),
        "absent": child(mapping, _content=None),
        "backend": child(enum_node, _val=choice.NO_C10D, enum_type=choice),
        "betas": child(listing, _content=[child(node, _val=0.9), child(node, _val=0.98)]),
        "model": argparse.Namespace(arch="ofa_large"),
    }
    path = save(tmp_path / "c.pt", {"cfg": root, "again": root}, _use_new_zipfile_serialization=new)
    modules.forget()
    assert "omegaconf" not in sys.modules
    read = read_checkpoint(path).content
    assert read["cfg"] == {
        "num_bins": 1000,
        "nothing": None,
        "missing": "???",
        "absent": None,
        "backend": "no_c10d",
        "betas": [0.9, 0.98],
        "model": {"arch": "ofa_large"},
    }
    assert read["again"] is read["cfg"]


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_instances_of_fairseq_and_ofa_classes_become_their_attributes(
    tmp_path: Path, modules: Any, protocol: int
) -> None:
    meter = modules("fairseq.logging.meters.AverageMeter")
    slotted = modules("tasks.mm_tasks.refcoco.Slotted", __slots__=("a", "__dict__"))
    table = modules("fairseq.data.Table", bases=(dict,))
    rows = modules("data.Rows", bases=(list,))
    made = slotted()
    made.a, made.b = 1, 2
    content = {
        "meter": with_state(meter, val=1.5, sum=torch.ones(2) if protocol >= 2 else 0),
        "slotted": made if protocol >= 2 else with_state(meter, a=1, b=2),
        "table": table(k=1) if protocol >= 2 else {"k": 1},
        "rows": rows([1, 2]) if protocol >= 2 else [1, 2],
        "class": meter,
        "bare": meter(),
    }
    if protocol >= 2:
        path = save(tmp_path / "c.pt", content, pickle_protocol=protocol)
    else:
        path = write_zip(tmp_path / "c.pt", pickle.dumps(content, protocol))
    modules.forget()
    read = read_checkpoint(path).content
    assert read["meter"]["val"] == 1.5
    assert read["slotted"] == {"a": 1, "b": 2}
    assert read["table"] == {"k": 1}
    assert read["rows"] == [1, 2]
    assert read["class"] == read["bare"] == "<fairseq.logging.meters.AverageMeter>"


# --- hostile pickles -----------------------------------------------------------------------------------------------


def touch(path: str) -> str:
    return f"touch {path}"


def call(module: str, name: str, *args: bytes) -> bytes:
    return f"c{module}\n{name}\n(".encode() + b"".join(args) + b"tR"


def stack_call(module: str, name: str, *args: bytes) -> bytes:
    return text(module) + text(name) + b"\x93(" + b"".join(args) + b"tR"


NAMESPACE = b"cargparse\nNamespace\n)\x81"
#: Every way to execute that pickles offer; {canary} is the file that must not appear.
HOSTILE: dict[str, tuple[Callable[[str], bytes], str]] = {
    "os.system": (lambda c: call("os", "system", text(touch(c))), "os.system"),
    "posix.system": (lambda c: call("posix", "system", text(touch(c))), "posix.system"),
    "nt.system": (lambda c: call("nt", "system", text(touch(c))), "nt.system"),
    "subprocess": (lambda c: call("subprocess", "check_output", text(touch(c))), "subprocess.check_output"),
    "exec": (lambda c: call("builtins", "exec", text(f"open({c!r}, 'w')")), "builtins.exec"),
    "exec of python 2": (lambda c: call("__builtin__", "eval", text(f"open({c!r}, 'w')")), "builtins.eval"),
    "open": (lambda c: call("io", "open", text(c), text("w")), "io.open"),
    "import": (lambda c: call("builtins", "__import__", text("os")), "builtins.__import__"),
    "getattr chain": (lambda c: call("builtins", "getattr", b"ctorch\nSize\n", text("__class__")), "builtins.getattr"),
    "webbrowser": (lambda c: call("webbrowser", "open", text("file:///")), "webbrowser.open"),
    "torch.load": (lambda c: call("torch", "load", text(c)), "torch.load"),
    "torch.hub": (lambda c: call("torch.hub", "load", text(c)), "torch.hub.load"),
    "numpy.load": (lambda c: call("numpy", "load", text(c)), "numpy.load"),
    "runpy": (lambda c: call("runpy", "_run_code", text(f"open({c!r}, 'w')")), "runpy._run_code"),
    "dotted name": (lambda c: stack_call("torch", "serialization.os.system", text(touch(c))), "torch.serialization.os"),
    "dotted name in torch.storage": (lambda c: stack_call("torch.storage", "io.open", text(c), text("w")), "torch.io"),
    "dotted name in collections": (lambda c: stack_call("collections", "_sys.exit"), "collections._sys.exit"),
    "type of three": (lambda c: call("builtins", "type", text("T"), b")", b"}"), "builtins.type with unusual"),
    "operator.getitem": (lambda c: call("operator", "getitem", b"ccollections\nOrderedDict\n", text("a")), "getitem"),
    "functools.partial": (lambda c: call("functools", "partial", b"cos\nsystem\n"), "functools.partial"),
    "INST": (lambda c: b"(" + text(touch(c)) + b"ios\nsystem\n", "os.system"),
    "OBJ": (lambda c: b"(cos\nsystem\n" + text(touch(c)) + b"o", "os.system"),
    "NEWOBJ": (lambda c: b"csubprocess\nPopen\n(" + text(touch(c)) + b"t\x81", "subprocess.Popen"),
    "NEWOBJ_EX": (lambda c: b"csubprocess\nPopen\n(" + text(touch(c)) + b"t}\x92", "subprocess.Popen"),
    "reconstructor": (lambda c: call("copyreg", "_reconstructor", b"cos\nsystem\n", b"N", b"N"), "os.system"),
    "copyreg extension": (lambda c: b"\x82\x01" + b"(" + text(touch(c)) + b"tR", "extension 1"),
    "state of a function": (lambda c: b"ccollections\nOrderedDict\n}" + text("__code__") + b"Nsb", "sets the state"),
    "state of a class": (
        lambda c: b"cargparse\nNamespace\nN}" + text("__init__") + b"cos\nsystem\ns\x86b",
        "os.system",
    ),
    "defaultdict factory": (lambda c: call("collections", "defaultdict", b"cos\nsystem\n"), "os.system"),
    "codecs bomb": (lambda c: call("_codecs", "encode", text("x"), text("zip")), "_codecs.encode with unusual"),
    "codecs of bytes": (lambda c: call("_codecs", "encode", b"C\x01a", text("latin1")), "_codecs.encode with unusual"),
    "many zero bytes": (lambda c: call("builtins", "bytes", number(2**50)), "builtins.bytes with unusual"),
    "many zeroes": (lambda c: call("builtins", "bytearray", number(2**50)), "builtins.bytearray with unusual"),
    "long list": (lambda c: call("builtins", "list", call("builtins", "range", number(2**50))), "builtins.list with"),
    "calling int": (lambda c: call("builtins", "int", text("9" * 10)), "builtins.int to be called"),
    "ndarray itself": (lambda c: call("numpy", "ndarray", b"(" + number(2**50) + b"t"), "numpy.ndarray to be called"),
    "storage itself": (lambda c: call("torch", "FloatStorage", number(2**50)), "torch.FloatStorage to be called"),
    "a module": (
        lambda c: b"(" + text("module") + b"cargparse\nNamespace\n" + text("f") + text("s") + b"tQ",
        "nn.Module",
    ),
    "tensor subclass": (
        lambda c: call("torch._tensor", "_rebuild_from_type_v2", b"ccollections\nOrderedDict\n", b"N", b")", b"N"),
        "_rebuild_from_type_v2 with unusual",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
@FORMATS
def test_hostile_pickles_are_refused_by_name_and_never_run(tmp_path: Path, name: str, new: bool) -> None:
    program, message = HOSTILE[name]
    canary = tmp_path / "canary"
    path = (write_zip if new else write_legacy)(tmp_path / "evil.pt", in_dict(program(str(canary))))
    with pytest.raises(UnsafePickleError) as caught:
        read_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: refused: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not canary.exists()


def test_a_hostile_name_cannot_spoil_the_terminal(tmp_path: Path) -> None:
    program = in_dict(text("os\n\x1b[2J") + text("sys\ntem") + b"\x93")
    with pytest.raises(UnsafePickleError, match=r"asks for os\?\?\[2J\.sys\?tem"):
        read_checkpoint(write_zip(tmp_path / "evil.pt", program))


def test_the_canary_would_be_created_by_python(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    pickle.loads(in_dict(call("os", "system", text(touch(str(canary))))))
    assert canary.exists()


def test_a_registered_extension_is_not_looked_up(tmp_path: Path) -> None:
    copyreg.add_extension("os", "system", 0xF1)
    try:
        with pytest.raises(UnsafePickleError, match="extension 241"):
            read_checkpoint(write_zip(tmp_path / "c.pt", in_dict(b"\x82\xf1")))
    finally:
        copyreg.remove_extension("os", "system", 0xF1)


def test_states_with_dunder_names_are_only_data(tmp_path: Path) -> None:
    state = b"}" + b"".join(text(name) + text("x") + b"s" for name in ("__class__", "__setstate__", "__dict__", "of"))
    fairseq = b"cfairseq.os\nsystem\n(" + text("touch /nowhere") + b"tR"
    program = in_dict(NAMESPACE + state + b"b")[:-1] + text("y") + fairseq + b"s."
    read = read_checkpoint(write_zip(tmp_path / "c.pt", program)).content
    assert read["x"] == {"__class__": "x", "__setstate__": "x", "__dict__": "x", "of": "x"}
    assert read["y"] == "touch /nowhere"


def test_a_hostile_magic_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    path.write_bytes(b"\x80\x02" + call("os", "system", text("true")) + b".")
    with pytest.raises(UnsafePickleError, match=r"os\.system"):
        read_checkpoint(path)


# --- pickles that exhaust, and tensors that reach outside ----------------------------------------------------------


def doubling(levels: int) -> bytes:
    """Tuples each holding the previous one twice: 2**levels leaves in a few bytes."""
    return b")" + b"2\x86" * levels


def laughing(levels: int) -> bytes:
    """The same with lists, by way of the memo."""
    steps = (b"(h%ch%clq%c0" % (level, level, level + 1) for level in range(levels))
    return b"]q\x000" + b"".join(steps) + b"h%c" % levels


def array(dtype: str, raw: bytes, shape: bytes) -> bytes:
    made = call("numpy.core.multiarray", "_reconstruct", b"cnumpy\nndarray\n", b"K\x00\x85", text("b"))
    return made + b"(K\x01" + shape + call("numpy", "dtype", text(dtype), b"\x89\x88") + b"\x89" + raw + b"tb"


BROKEN: dict[str, tuple[bytes, str]] = {
    "no dict": (b"\x80\x02]." , "a checkpoint is a dict, this file holds a list"),
    "only a namespace": (b"\x80\x02" + NAMESPACE + b".", "holds a argparse.Namespace"),
    "deep lists": (in_dict(b"]" * 100_000 + b"a" * 99_999), "nests deeper than"),
    "deep tuples": (in_dict(b")" + b"\x85" * 100_000), "nests deeper than"),
    "doubling key": (b"\x80\x02}" + doubling(60) + b"Ns.", "as a key"),
    "unhashable key": (b"\x80\x02}]Ns.", "uses a list as a key"),
    "copies": (
        in_dict(b"](" + b"N" * 100_000 + b"e" + b"q\x000" + call("builtins", "list", b"h\x00") * 1000),
        "copies the same data",
    ),
    "huge memo index": (in_dict(b"r\xff\xff\xff\x7fj\x00\x00\x00\x70"), "damaged"),
    "huge string": (b"\x80\x02\x8d" + struct.pack("<Q", 2**60) + b"abc.", "damaged"),
    "negative string": (b"\x80\x02T" + struct.pack("<i", -5) + b"abc.", "damaged"),
    "long decimal": (b"\x80\x02L" + b"9" * 10_000 + b"L\n.", "damaged"),
    "unknown opcode": (b"\x80\x02\xee.", "damaged"),
    "text persistent id": (b"\x80\x02Pabc\n.", "PERSID"),
    "out of band buffer": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    "empty stack": (b"\x80\x02.", "damaged"),
    "no stop": (b"\x80\x02}", "damaged"),
    "no mark": (b"\x80\x02}u.", "damaged"),
    "calls a number": (in_dict(b"K\x01)R"), "calls something that is not a function"),
    "appends to a dict": (in_dict(b"}Na"), "fills a list that is none"),
    "keywords": (in_dict(b"cargparse\nNamespace\n)}" + text("a") + b"Ns\x92"), "by keywords"),
    "namespace in itself": (
        in_dict(b"comegaconf\nDictConfig\n)\x81q\x00}" + text("_content") + b"h\x00sb"),
        "contains itself",
    ),
    "array of objects": (in_dict(array("O8", b"]Na", b"K\x01\x85")), "only numbers are read"),
    "array too short": (in_dict(array("f4", b"C\x04abcd", b"K\x02\x85")), "the bytes its shape takes"),
    "array absurd": (in_dict(array("f4", b"C\x04abcd", b"(" + number(2**61) + b"t")), "the bytes its shape takes"),
    "array negative": (in_dict(array("f4", b"C\x04abcd", b"(" + number(-1) + b"t")), "not a sensible number"),
    "sparse": (in_dict(call("torch._utils", "_rebuild_sparse_tensor")), "holds a sparse tensor"),
    "quantized": (in_dict(call("torch._utils", "_rebuild_qtensor")), "holds a quantized tensor"),
    "quantized storage": (in_dict(tensor(kind="QInt8Storage")), "torch.QInt8Storage"),
    "size too large": (in_dict(tensor(size=(5,))), "reaches outside it"),
    "offset too large": (in_dict(tensor(offset=1)), "reaches outside it"),
    "stride too large": (in_dict(tensor(stride=(2,))), "reaches outside it"),
    "negative size": (in_dict(tensor(size=(-1,))), "not a sensible number"),
    "negative stride": (in_dict(tensor(stride=(-1,))), "not a sensible number"),
    "negative offset": (in_dict(tensor(offset=-1)), "not a sensible number"),
    "text as size": (in_dict(tensor(size=("4",))), "not a sensible number"),
    "sizes without strides": (in_dict(tensor(size=(2, 2))), "described in an unknown way"),
    "absurd offset": (in_dict(tensor(offset=2**80)), "not a sensible number"),
    "absurd storage": (in_dict(tensor(count=2**61)), "smaller than its tensors"),
    "repeated without end": (in_dict(tensor(size=(2**40,), stride=(0,))), "repeats it into"),
    "empty but absurd": (in_dict(tensor(size=(0, 2**60), stride=(1, 1))), "repeats it into"),
    "too many dimensions": (in_dict(tensor(size=(1,) * 100, stride=(1,) * 100)), "described in an unknown way"),
    "storage larger than its record": (in_dict(tensor(count=8)), "smaller than its tensors"),
    "missing record": (in_dict(tensor(key="7")), "the record of storage '7' is missing"),
    "record outside": (in_dict(tensor(key="../version")), "the record of storage '../version' is missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_pickles_give_one_clear_line(tmp_path: Path, name: str) -> None:
    program, message = BROKEN[name]
    path = write_zip(tmp_path / "broken.pt", program, {"0": bytes(16)})
    start = time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert not isinstance(caught.value, UnsafePickleError)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 10


def test_sharing_is_converted_once(tmp_path: Path) -> None:
    program = in_dict(doubling(60))[:-1] + text("y") + laughing(60) + b"s."
    read = read_checkpoint(write_zip(tmp_path / "c.pt", program)).content
    assert read["x"][0] is read["x"][1]
    assert read["y"][0] is read["y"][1]


# --- files that are no checkpoints, and damaged archives -----------------------------------------------------------


def complaint(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


MISTAKEN = {
    "empty": (b"", "the file is empty"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "this is a git-lfs pointer"),
    "html": (b"\n<!DOCTYPE html><html></html>", "this is a web page"),
    "safetensors": (struct.pack("<Q", 20) + b'{"a":{"dtype":"F32"}}', "this is a safetensors file"),
    "gzip": (gzip.compress(b"abc"), "gunzip it first"),
    "xz": (b"\xfd7zXZ\x00rest", "unxz"),
    "zstd": (b"\x28\xb5\x2f\xfd", "unzstd"),
    "tar": (bytes(257).replace(b"\x00", b"a") + b"ustar\x0000", "this is a tar archive"),
    "text": (b"hello world", "this is not a torch checkpoint"),
    "one byte": (b"\x80", "this is not a torch checkpoint"),
    "plain pickle": (pickle.dumps({"a": 1}, 2), "a pickle, but not one written by torch.save"),
    "cut zip": (b"PK\x03\x04" + bytes(100), "cut short"),
    "empty zip": (b"PK\x05\x06" + bytes(18), "a zip without data.pkl"),
}


@pytest.mark.parametrize("name", MISTAKEN)
def test_files_given_by_mistake_are_recognised(tmp_path: Path, name: str) -> None:
    content, message = MISTAKEN[name]
    path = tmp_path / "file.pt"
    path.write_bytes(content)
    assert message in complaint(path)


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    assert "this is a directory" in complaint(tmp_path)
    assert "no such file" in complaint(tmp_path / "absent.pt")
    assert "not a regular file" in complaint(Path("/dev/null"))


def test_damaged_archives(tmp_path: Path) -> None:
    good = in_dict(tensor())
    data = {"0": bytes(16)}
    path = tmp_path / "c.pt"
    assert read_checkpoint(write_zip(path, good, {**data, "/byteorder": b"little"})).content["x"].tolist() == [0] * 4
    assert "not little-endian" in complaint(write_zip(path, good, {**data, "/byteorder": b"big"}))
    assert "TorchScript" in complaint(write_zip(path, good, {**data, "/constants.pkl": b""}))
    assert "TorchScript" in complaint(write_zip(path, good, {**data, "/code/a.py": b""}))
    with pytest.warns(UserWarning, match="Duplicate"):
        write_zip(path, good, {**data, "/data/0": bytes(16)})
    assert "'archive/data/0' twice" in complaint(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", good)
    assert "save the checkpoint again with torch.save" in complaint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")
    assert "a zip without data.pkl" in complaint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", good)
        archive.writestr("b/data.pkl", good)
    assert "more than one data.pkl" in complaint(path)


def zip_with_storages(path: Path, **options: Any) -> tuple[Path, list[zipfile.ZipInfo]]:
    """A checkpoint with tensors of less than a page and of some; and its records that are read."""
    tensors = {name: torch.arange(start, end) for name, start, end in (("a", 1, 9), ("b", 10, 5000), ("c", -3, -1))}
    save(path, {"model": tensors}, **options)
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    return path, [entry for entry in entries if "/data/" in entry.filename or entry.filename.endswith("data.pkl")]


@pytest.mark.parametrize("piece", [mmap.PAGESIZE, 8 * 1024**2])
def test_a_damaged_byte_of_any_record_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr("checkpoints_convert.archive._PIECE", piece)
    path, entries = zip_with_storages(tmp_path / "x.pt")
    whole = path.read_bytes()
    assert len(entries) == 4
    assert torch.equal(read_checkpoint(path).content["model"]["b"], torch.arange(10, 5000))
    for entry in entries:
        start = whole.index(zipfile.ZipFile(path).read(entry))
        for at in {start, start + entry.file_size // 2, start + entry.file_size - 1}:
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            name = entry.filename.partition("/")[2]
            with pytest.raises(CheckpointError, match=f"x.pt: the zip record '.*{name}' is damaged: .*CRC-32"):
                read_checkpoint(path)
        path.write_bytes(whole)


def test_a_zip_without_checksums_is_read(tmp_path: Path) -> None:
    """torch can be told to compute none, and then stores zeros."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        path, entries = zip_with_storages(tmp_path / "x.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    assert {entry.CRC for entry in entries} == {0}
    assert torch.equal(read_checkpoint(path).content["model"]["b"], torch.arange(10, 5000))


def test_zip_entries_that_overlap_or_lead_astray(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "c.pt", in_dict(tensor()), {"0": bytes(16)})
    whole = path.read_bytes()
    directory = whole.index(b"PK\x01\x02")
    second = whole.index(b"PK\x01\x02", directory + 4)

    def patched(at: int, value: int) -> str:
        path.write_bytes(whole[:at] + struct.pack("<I", value) + whole[at + 4 :])
        return complaint(path)

    assert "overlaps another" in patched(second + 42, 0)
    assert "no header where the directory says" in patched(second + 42, 20_000)
    path.write_bytes(whole[: second + 20] + struct.pack("<II", 99_999, 99_999) + whole[second + 28 :])
    assert "reaches outside the file" in complaint(path)
    path.write_bytes(whole[:-30])
    assert "damaged or cut short" in complaint(path)


def test_a_pickle_over_the_cap_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checkpoints_convert.archive.MAX_PICKLE_BYTES", 10)
    assert "data.pkl has" in complaint(write_zip(tmp_path / "c.pt", in_dict(tensor()), {"0": bytes(16)}))


def test_any_record_directory_is_found(tmp_path: Path) -> None:
    for root in ("", "model_best/", "a b.c/"):
        path = write_zip(tmp_path / "c.pt", in_dict(tensor()), {"0": bytes(16)}, root=root)
        assert read_checkpoint(path).content["x"].shape == (4,)


def test_damaged_legacy_files(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    good, record = in_dict(tensor()), struct.pack("<q", 4) + struct.pack("<4f", 1, 2, 3, 4)
    assert read_checkpoint(write_legacy(path, good, keys=["0"], tail=record)).content["x"].tolist() == [1, 2, 3, 4]
    assert "not one written by torch.save" in complaint(write_legacy(path, good, magic=5))
    assert "protocol 1002 is unknown" in complaint(write_legacy(path, good, protocol=1002))
    assert "not little-endian" in complaint(write_legacy(path, good, system={"little_endian": False}))
    assert "is missing" in complaint(write_legacy(path, good))
    assert "list of storages is damaged" in complaint(write_legacy(path, good, keys={"0": 1}))
    assert "belongs to no tensor" in complaint(write_legacy(path, good, keys=["9"], tail=record))
    assert "listed twice" in complaint(write_legacy(path, good, keys=["0", "0"], tail=record * 2))
    assert "ends before storage '0'" in complaint(write_legacy(path, good, keys=["0"]))
    assert "reaches outside the file" in complaint(write_legacy(path, good, keys=["0"], tail=record[:-1]))
    for count in (-1, 2**62):
        tail = struct.pack("<q", count) + bytes(16)
        assert "reaches outside the file" in complaint(write_legacy(path, good, keys=["0"], tail=tail))
    tail = struct.pack("<q", 3) + bytes(16)
    assert "smaller than its tensors" in complaint(write_legacy(path, good, keys=["0"], tail=tail))


def test_views_of_legacy_storages(tmp_path: Path) -> None:
    def view(start: int, size: int) -> bytes:
        described = b"(" + text("v") + number(start) + number(size) + b"t"
        pid = (
            b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(4) + described + b"tQ"
        )
        return in_dict(b"ctorch._utils\n_rebuild_tensor\n(" + pid + b"K\x00" + number(size) + b"\x85K\x01\x85tR")

    tail = struct.pack("<q", 4) + struct.pack("<4f", 1, 2, 3, 4)
    path = tmp_path / "c.pt"
    assert read_checkpoint(write_legacy(path, view(1, 2), keys=["0"], tail=tail)).content["x"].tolist() == [2, 3]
    assert "reaches outside it" in complaint(write_legacy(path, view(3, 2), keys=["0"], tail=tail))
    assert "not a sensible number" in complaint(write_legacy(path, view(-1, 2), keys=["0"], tail=tail))


# --- memory and damage at random -----------------------------------------------------------------------------------

MEASURE = """
import sys
from checkpoints_convert.unpickle import read_checkpoint

def resident():
    with open("/proc/self/status") as status:
        return {line.split(":")[0]: int(line.split()[1]) for line in status if line.startswith("Rss")}

read_checkpoint(sys.argv[1])
before = resident()
read = read_checkpoint(sys.argv[2])
after = resident()
state = read.content["last_optimizer_state"]
assert state["exp_avg"][-1] == 1 and state["exp_avg"].numel() == 2**24
print(after["RssAnon"] - before["RssAnon"], after["RssFile"] - before["RssFile"])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured through /proc")
@FORMATS
def test_the_optimizer_state_is_not_read_into_memory(tmp_path: Path, new: bool) -> None:
    small = save(tmp_path / "small.pt", {"model": {"w": torch.ones(2)}}, _use_new_zipfile_serialization=new)
    state = {"exp_avg": torch.ones(2**24)}  # 64 MB
    large = save(tmp_path / "large.pt", {"last_optimizer_state": state}, _use_new_zipfile_serialization=new)
    command = [sys.executable, "-c", MEASURE, str(small), str(large)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    anonymous, mapped = map(int, done.stdout.split())
    assert anonymous < 8_000  # kB
    assert mapped < 16_000


def outcome(path: Path) -> Checkpoint | CheckpointError:
    try:
        read = read_checkpoint(path)
    except CheckpointError as error:
        return error
    for value in read.content.get("model", {}).values() if isinstance(read.content.get("model"), dict) else ():
        if isinstance(value, torch.Tensor):
            value.clone()  # touches every byte: a tensor outside the file would crash here
    return read


@FORMATS
def test_damage_ends_in_a_result_or_a_clear_error(tmp_path: Path, new: bool) -> None:
    buffer = io.BytesIO()
    torch.save(small_content(), buffer, _use_new_zipfile_serialization=new)
    whole, draw = buffer.getvalue(), random.Random(0)
    start = time.monotonic()
    for turn in range(400):
        data = bytearray(whole)
        if turn % 4 == 0:
            del data[draw.randrange(len(data)) :]
        else:
            span = len(data) if turn % 2 else min(2500, len(data))  # the pickle lies in front
            for _ in range(draw.choice((1, 1, 2, 8))):
                data[draw.randrange(span)] = draw.randrange(256)
        path = tmp_path / f"damaged{turn}.pt"
        path.write_bytes(data)
        outcome(path)
        path.unlink()
    assert time.monotonic() - start < 60
