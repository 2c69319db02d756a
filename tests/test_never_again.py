"""One test for each fault of earlier ports that no other file covers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from reference import ROOT, fairseq_content, quick_config, random_state
from safetensors.torch import load_file, save_file

import checkpoints_convert
import ofa_core
from checkpoints_convert import convert, from_fairseq
from checkpoints_convert.names import TIED
from ofa_core import BoxCodec, CheckpointError, OFAConfig
from ofa_core.checkpoint.model_dir import load_model
from ofa_core.text import small_vocabulary_dir

CONFIG = quick_config()
SOURCES = sorted(
    path for package in (ofa_core, checkpoints_convert) for path in Path(str(package.__file__)).parent.rglob("*.py")
)


def nodes() -> Iterator[tuple[Path, ast.AST]]:
    """Every node of the library's code with the file it stands in."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            yield path, node


def place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', '?')}"


def imported(node: ast.AST) -> list[str]:
    """The dotted names that an import statement binds."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names]
    return []


def dotted(node: ast.AST) -> str:
    """``torch.load`` of the expression torch.load; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := dotted(node.value)):
        return f"{owner}.{node.attr}"
    return ""


def test_the_scans_see_the_whole_library() -> None:
    found = {str(path.relative_to(ROOT)) for path in SOURCES}
    assert {"src/ofa_core/model/ofa.py", "src/ofa_core/heads/box_codec.py", "checkpoints_convert/unpickle.py"} <= found
    called = {dotted(node.func) for _, node in nodes() if isinstance(node, ast.Call)}
    assert {"safe_open", "torch.save", "json.dumps"} <= called


# --- missing weights filled at random, unknown keys passed through -------------------------------------------------


def test_a_weight_missing_from_a_checkpoint_is_never_made_up(tmp_path: Path) -> None:
    content = fairseq_content(CONFIG)
    del content["model"]["decoder.layers.1.fc2.bias"]
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"1 entry is missing: decoder\.layers\.1\.ffn\.fc2\.bias"):
        convert(tmp_path / "x.pt", tmp_path / "out", bpe_dir=small_vocabulary_dir())
    assert not (tmp_path / "out").exists()


def test_a_weight_missing_from_a_model_directory_is_never_made_up(tmp_path: Path) -> None:
    torch.save(fairseq_content(CONFIG), tmp_path / "x.pt")
    convert(tmp_path / "x.pt", tmp_path / "out", bpe_dir=small_vocabulary_dir())
    weights = {name: tensor.clone() for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items()}
    del weights["decoder.layers.1.ffn.fc2.bias"]
    save_file(weights, tmp_path / "out" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 entry is missing: decoder\.layers\.1\.ffn\.fc2\.bias"):
        load_model(tmp_path / "out")


def test_an_unknown_key_is_never_passed_through(tmp_path: Path) -> None:
    content = fairseq_content(CONFIG)
    content["model"]["encoder.layers.0.gate.weight"] = torch.ones(1)
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"not part of OFA: encoder\.layers\.0\.gate\.weight"):
        convert(tmp_path / "x.pt", tmp_path / "out", bpe_dir=small_vocabulary_dir())


def test_averaged_weights_are_never_taken_silently(tmp_path: Path) -> None:
    averaged = fairseq_content(quick_config())["model"]
    averaged = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in averaged.items()}
    content = fairseq_content(CONFIG, extra_state={"ema": averaged, "ema_fp32_params": averaged}, ema=averaged)
    torch.save(content, tmp_path / "x.pt")
    convert(tmp_path / "x.pt", tmp_path / "out", bpe_dir=small_vocabulary_dir())
    expected = random_state(CONFIG)
    taken = load_model(tmp_path / "out").state_dict()
    assert all(torch.equal(taken[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("length", [1025, 1026])
def test_position_ids_of_either_length_are_accepted(length: int) -> None:
    state = fairseq_content(CONFIG)["model"] | {"decoder.image_position_idx": torch.arange(length)}
    converted = from_fairseq(state, CONFIG)
    expected = random_state(CONFIG)
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[name], tensor) for name, tensor in expected.items())


def test_copies_that_differ_are_never_silently_reduced_to_one() -> None:
    state = fairseq_content(CONFIG)["model"]
    state[TIED[1]] = state[TIED[1]] + 1e-3
    with pytest.raises(CheckpointError, match=r"decoder\.output_projection\.weight differs from"):
        from_fairseq(state, CONFIG)


# --- one constant in one place -------------------------------------------------------------------------------------


def test_each_convention_of_boxes_divides_by_its_own_number() -> None:
    # OFA.md: bin / 999 * 512 for RefCOCO, bin / 1000 for InViG, on a picture of 512 x 256 pixels.
    bins, size = (0, 333, 500, 999), (512, 256)
    refcoco = BoxCodec("refcoco").decode(bins, size)
    assert refcoco == pytest.approx((0, 333 / 999 * 256, 500 / 999 * 512, 256), abs=1e-3)
    invig = BoxCodec("invig").decode(bins, size)
    assert invig == pytest.approx((0.001 * 512, 0.333 * 256, 0.5 * 512, 0.999 * 256), abs=1e-3)
    # On the way there both multiply by 999: 0.25 * 999 = 249.75.
    box = (128.0, 64.0, 512.0, 256.0)
    assert BoxCodec("refcoco").encode(box, size) == [250, 250, 999, 999]
    assert BoxCodec("invig").encode(box, size) == [250, 250, 998, 998]


def test_the_constants_of_boxes_stand_in_the_codec_alone() -> None:
    found = {
        (path.name, node.value)
        for path, node in nodes()
        if isinstance(node, ast.Constant) and node.value in (999, 0.999)
    }
    adam = ("setting_tables.py", 0.999)  # the usual decay of squared gradients
    assert found <= {("box_codec.py", 999), ("box_codec.py", 0.999), adam}


#: The vocabulary's size and the borders of its parts (OFA.md), all of which must follow from the files and settings.
BORDERS = (50257, 50260, 50263, 50264, 50265, 58456, 58457, 59456, 59457)


def test_the_size_of_the_vocabulary_is_only_ever_a_default() -> None:
    found = [
        (path.name, node.value) for path, node in nodes() if isinstance(node, ast.Constant) and node.value in BORDERS
    ]
    assert found == [("config.py", 59457)]
    assert OFAConfig.model_fields["vocab_size"].default == 59457


# --- nothing is executed, nothing is asserted ----------------------------------------------------------------------

#: What unpickles or executes; in these packages nothing may name it.
FORBIDDEN_MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "runpy"}
FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__", "Unpickler"}
FORBIDDEN_PATHS = {
    "torch.load",
    "torch.serialization.load",
    "torch.hub.load",
    "torch.jit.load",
    "os.system",
    "os.popen",
    "sys.modules",
}


#: The ways to code that is not imported by name: the converter, if this project's installation brought it, and a reader
#: of pickles that knows no class and no function.
ALLOWED = {
    ("data/plain_pickle.py", "pickle"),
    ("api/loading.py", "importlib.metadata"),
    ("api/loading.py", "importlib.metadata.entry_points"),
    ("utils/moved_names.py", "importlib.abc"),  # which finds nothing
    ("utils/moved_names.py", "importlib.abc.MetaPathFinder"),
    ("utils/moved_names.py", "importlib.machinery"),
    ("utils/moved_names.py", "importlib.machinery.ModuleSpec"),
    ("utils/lazy_names.py", "importlib.import_module"),  # of the package's own modules, by a table
}


def test_nothing_in_the_library_can_unpickle_or_execute() -> None:
    offences = []
    for path, node in nodes():
        names, file = imported(node), f"{path.parent.name}/{path.name}"
        words = {word for name in names if (file, name) not in ALLOWED for word in name.split(".")}
        called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        allows = isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only")
        if (
            words & (FORBIDDEN_MODULES | {"Unpickler", "subprocess", "importlib"})
            or FORBIDDEN_PATHS & {*names, dotted(node)}
            or called in FORBIDDEN_NAMES
            or allows
        ):
            offences.append(place(path, node))
    assert offences == []


def test_there_are_errors_and_no_asserts() -> None:
    assert [place(path, node) for path, node in nodes() if isinstance(node, ast.Assert)] == []


def test_only_the_reader_of_checkpoints_looks_at_pickles() -> None:
    readers = {path.name for path, node in nodes() for name in imported(node) if name.split(".")[0] == "pickletools"}
    assert readers == {"unpickle.py"}


def test_the_library_does_not_import_the_converter_or_what_it_replaces() -> None:
    banned = {"checkpoints_convert", "fairseq", "omegaconf", "hydra", "transformers", "einops"}
    offences = [
        place(path, node)
        for path, node in nodes()
        for name in imported(node)
        if name.split(".")[0] in banned and not (path.parent.name == "checkpoints_convert" and "convert" in name)
    ]
    assert offences == []
