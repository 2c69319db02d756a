from __future__ import annotations

import contextlib
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import ofa_core
from ofa_core import OFA, CheckpointError, OFAConfig, OFAError, OFAModel, Tokenizer, UnsafePickleError
from ofa_core.checkpoint.card import model_card

CONFIG, WEIGHTS = "config.json", "model.safetensors"
EMBEDDING = "token_embedding.weight"


@pytest.fixture
def directory(small_directory: Path, tmp_path: Path) -> Path:
    """A model directory of the test's own, to break."""
    return Path(shutil.copytree(small_directory, tmp_path / "model"))


# Loading


def test_a_loaded_model_is_the_saved_one(directory: Path) -> None:
    ofa = ofa_core.load(directory)
    saved, loaded = load_file(directory / WEIGHTS), ofa.model.state_dict()
    assert saved.keys() == loaded.keys()
    for name, tensor in saved.items():
        assert torch.equal(loaded[name], tensor), name
    assert ofa.model.config == OFAConfig.from_json((directory / CONFIG).read_text())
    assert len(ofa.tokenizer) == ofa.model.config.vocab_size


def test_a_loaded_model_is_ready_to_evaluate(directory: Path) -> None:
    ofa = ofa_core.load(str(directory))
    assert not any(module.training for module in ofa.model.modules())
    assert not any(parameter.requires_grad for parameter in ofa.model.parameters())
    assert not any(tensor.is_meta for tensor in ofa.model.state_dict().values())


def test_loading_does_not_depend_on_chance(directory: Path) -> None:
    torch.manual_seed(1)
    first = ofa_core.load(directory).model.state_dict()
    state = torch.random.get_rng_state()
    second = ofa_core.load(directory).model.state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("wanted", [None, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_model_computes_in_the_dtype_asked_for(
    directory: Path, stored: torch.dtype, wanted: torch.dtype | None
) -> None:
    original = load_file(directory / WEIGHTS)
    rewrite(lambda state: {n: t.to(stored) if t.is_floating_point() else t for n, t in state.items()})(directory)
    ofa = ofa_core.load(directory, dtype=wanted)
    expected = wanted or torch.float32  # on a CPU the original computes in float32
    assert ofa.model.dtype == expected
    outside = [p.dtype for name, p in ofa.model.named_parameters() if not name.startswith("encoder.image_stem")]
    assert set(outside) == {expected}
    precise = original[EMBEDDING].to(stored).to(expected)
    assert torch.equal(ofa.model.token_embedding.weight, precise)
    found = ofa.ground(Image.new("RGB", (50, 40), "red"), "it", bins_only=True, num_beams=2)
    assert found.box is not None
    assert 0 < found.score < 1


# Directories that cannot be loaded

Break = Callable[[Path], object]


def rewrite(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Break:
    """Change the tensors of a directory."""

    def rewritten(directory: Path) -> None:
        other = directory / "other.safetensors"  # the tensors that are read map the file, so that it must not change
        save_file(change(load_file(directory / WEIGHTS)), other)
        other.replace(directory / WEIGHTS)

    return rewritten


def reconfigure(**changes: Any) -> Break:
    """Change entries of config.json, or take those away that become None; on purpose, so without its digest."""

    def apply(directory: Path) -> None:
        (directory / "SHA256SUMS").unlink()
        path = directory / CONFIG
        config = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))

    return apply


def remove(*names: str) -> Break:
    return lambda directory: [(directory / name).unlink() for name in names]


def write(name: str, content: bytes) -> Break:
    return lambda directory: (directory / name).write_bytes(content)


def truncate(name: str, part: float) -> Break:
    def apply(directory: Path) -> None:
        content = (directory / name).read_bytes()
        (directory / name).write_bytes(content[: int(len(content) * part)])

    return apply


def make_file(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.write_bytes(b"a checkpoint")


def without(*names: str) -> Break:
    return rewrite(lambda state: {name: tensor for name, tensor in state.items() if name not in names})


BROKEN: dict[str, tuple[Break, str]] = {
    "no_directory": (shutil.rmtree, r"model does not exist; it should be a directory written by convert-ckpt"),
    "a_file": (make_file, r"model: this is not a torch checkpoint"),
    "no_config": (remove(CONFIG), r"model is not a model directory: it has no config\.json$"),
    "no_weights": (remove(WEIGHTS), r"model is not a model directory: it has no model\.safetensors$"),
    "neither": (remove(CONFIG, WEIGHTS), r"it has no config\.json and no model\.safetensors$"),
    "no_encoder_json": (remove("encoder.json"), r"encoder\.json is missing from .*model"),
    "no_merges": (remove("vocab.bpe"), r"vocab\.bpe is missing from .*model"),
    "no_dictionary": (remove("dict.txt"), r"dict\.txt is missing from .*model"),
    "config_not_json": (write(CONFIG, b"{ not json"), r"config\.json is not an OFA configuration: .*JSON"),
    "config_empty": (write(CONFIG, b""), r"config\.json is not an OFA configuration: "),
    "config_a_list": (write(CONFIG, b"[1, 2]"), r"config\.json is not an OFA configuration: "),
    "config_binary": (write(CONFIG, b"\xff\xfe\x00"), r"config\.json is not text"),
    "config_unknown_key": (
        reconfigure(colour=3),
        r"config\.json is not an OFA configuration: colour: there is no such setting",
    ),
    "config_unknown_task_key": (
        reconfigure(task={"colour": 3}),
        r"config\.json .*: task\.colour: there is no such setting",
    ),
    "config_missing_key": (reconfigure(embed_dim=None), r"config\.json .*: embed_dim: Field required"),
    "config_bad_value": (reconfigure(num_heads=-1), r"config\.json .*: num_heads: .*greater than 0"),
    "config_bad_type": (reconfigure(embed_dim="wide"), r"config\.json .*: embed_dim: .*integer"),
    "config_heads": (
        reconfigure(num_heads=5),
        r"config\.json is not an OFA configuration: embed_dim 32 is not a multiple of num_heads 5",
    ),
    "weights_empty": (write(WEIGHTS, b""), r"model\.safetensors cannot be read: "),
    "weights_not_safetensors": (write(WEIGHTS, b"PK\x03\x04" * 99), r"model\.safetensors cannot be read: "),
    "weights_header_cut": (truncate(WEIGHTS, 0.0001), r"model\.safetensors cannot be read: "),
    "weights_cut": (truncate(WEIGHTS, 0.6), r"model\.safetensors cannot be read: "),
    "one_missing": (
        without("decoder.layers.1.ffn.fc1.bias"),
        r"model\.safetensors: 1 entry is missing: decoder\.layers\.1\.ffn\.fc1\.bias$",
    ),
    "many_missing": (
        without(*(f"encoder.layers.0.self_attn.{part}_proj.{kind}" for part in "qkv" for kind in ("weight", "bias"))),
        r"6 entries are missing: encoder\.layers\.0\.self_attn\.q_proj\.weight, .* and 3 more$",
    ),
    "one_too_many": (
        rewrite(lambda state: {**state, "surprise": torch.ones(2)}),
        r"1 entry is not part of this model: surprise$",
    ),
    "wrong_shape": (
        rewrite(lambda state: {**state, "decoder.final_norm.bias": torch.ones(31)}),
        r"1 entry is of the wrong shape: decoder\.final_norm\.bias \[31\] instead of \[32\]$",
    ),
    "more_layers_configured": (reconfigure(decoder_layers=3), r"entries are missing: decoder\..*\.2\."),
    "fewer_layers_configured": (reconfigure(decoder_layers=1), r"entries are not part of this model: decoder\..*\.1\."),
    "another_vocabulary_size": (
        reconfigure(vocab_size=99),
        r"token_embedding\.weight \[\d+, 32\] instead of \[99, 32\]",
    ),
    "vocabulary_does_not_fit": (
        reconfigure(task={"code_dict_size": 10}),
        r"the vocabulary files make \d+ tokens, the weights have \d+$",
    ),
    "dictionary_cut": (truncate("dict.txt", 0.5), r"dict\.txt:\d+: expected|the vocabulary files make \d+ tokens"),
    "encoder_not_json": (write("encoder.json", b"{"), r"encoder\.json"),
    "merges_nonsense": (write("vocab.bpe", b"a b c d e\n"), r"vocab\.bpe"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_directory_is_named_with_what_is_wrong(name: str, directory: Path) -> None:
    damage, message = BROKEN[name]
    damage(directory)
    with pytest.raises(CheckpointError, match=message):
        ofa_core.load(directory)


def test_a_message_is_one_line(directory: Path) -> None:
    write(CONFIG, b"{ not\njson")(directory)
    with pytest.raises(OFAError) as caught:
        ofa_core.load(directory)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU here")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda")], ids=str)
def test_a_gpu_that_is_not_there_is_named(small_directory: Path, device: str | torch.device) -> None:
    with pytest.raises(OFAError, match=f"device '{device}' is not available here: torch finds no CUDA GPU"):
        ofa_core.load(small_directory, device=device)


def test_a_device_that_does_not_exist_is_not_blamed_on_the_file(small_directory: Path) -> None:
    with pytest.raises(OFAError, match="device 'gpu'"):
        ofa_core.load(small_directory, device="gpu")


def test_a_dtype_that_is_no_float_is_refused(small_directory: Path) -> None:
    with pytest.raises(OFAError, match=r"dtype .*torch\.int64"):
        ofa_core.load(small_directory, dtype=torch.int64)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("float16", torch.float16),
        ("half", torch.float16),
        ("torch.bfloat16", torch.bfloat16),
        ("float32", torch.float32),
        ("float64", torch.float64),
    ],
)
def test_a_dtype_may_be_named(small_directory: Path, name: str, dtype: torch.dtype) -> None:
    assert ofa_core.load(small_directory, dtype=name).model.dtype == dtype
    assert ofa_core.load(small_directory, dtype="int8").dtype == "int8"


@pytest.mark.parametrize("name", ["float17", "int32", "tensor", "", "cuda"])
def test_a_name_of_no_dtype_is_refused(small_directory: Path, name: str) -> None:
    with pytest.raises(OFAError, match=rf"^dtype must be float32, float16, bfloat16 or int8, not {name}$"):
        ofa_core.load(small_directory, dtype=name)


def test_a_model_in_the_home_directory_is_found(small_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(small_directory.parent))
    assert ofa_core.load(f"~/{small_directory.name}").model.config == ofa_core.load(small_directory).model.config


# The interface

DESIGNED = [
    "BoxCodec", "GenerationOptions", "Hypothesis", "OFA", "OFAConfig", "OFAModel", "Tokenizer", "generate", "load",
    "score_candidates",
]  # fmt: skip


@pytest.mark.parametrize("name", sorted({*DESIGNED, *ofa_core.__all__}))
def test_a_public_name_exists_and_is_listed(name: str) -> None:
    assert hasattr(ofa_core, name)
    assert name in ofa_core.__all__


def test_public_objects_are_documented() -> None:
    for name in ofa_core.__all__:
        thing = getattr(ofa_core, name)
        assert isinstance(thing, str) or (thing.__doc__ or "").strip(), name


def test_errors_are_one_family() -> None:
    assert issubclass(UnsafePickleError, CheckpointError)
    assert issubclass(CheckpointError, OFAError)
    assert issubclass(OFAError, ValueError)


def test_an_ofa_can_be_made_from_its_parts(small_directory: Path) -> None:
    loaded = ofa_core.load(small_directory)
    model: OFAModel = loaded.model
    tokenizer: Tokenizer = loaded.tokenizer
    picture = Image.new("RGB", (50, 40), "red")
    assert OFA(model, tokenizer).ground(picture, "it") == loaded.ground(picture, "it")


def test_a_model_shows_itself_in_one_line(small_directory: Path) -> None:
    loaded = ofa_core.load(small_directory)
    count = sum(parameter.numel() for parameter in loaded.model.parameters())
    assert repr(loaded) == f"<OFA 'small': {count:,} parameters, task 'ofa', float32 on cpu>"
    other = ofa_core.load(small_directory, name="refcoco", dtype="bfloat16")
    assert repr(other).endswith(", task 'refcoco', bfloat16 on cpu>")
    made = OFA(loaded.model, loaded.tokenizer)
    assert made.name is None
    assert repr(made) == repr(loaded).replace(" 'small'", "")
    made.name = "two\nlines"
    assert "\n" not in repr(made)


def test_a_model_of_a_released_size_shows_the_size(small_directory: Path) -> None:
    loaded = ofa_core.load(small_directory)
    loaded.model.config = OFAConfig.preset("large")
    assert repr(loaded) == "<OFA 'small': large, task 'ofa', float32 on cpu>"
    assert "# OFA large, task ofa" in model_card(loaded.model.config, 1).splitlines()
    shallow = OFAConfig.preset("large", encoder_layers=2)  # as wide, and another model
    assert "# OFA, task ofa" in model_card(shallow, 1).splitlines()


def test_a_pickled_model_answers_alike(small_directory: Path) -> None:
    loaded = ofa_core.load(small_directory)
    copy = pickle.loads(pickle.dumps(loaded))
    picture = Image.new("RGB", (50, 40), "red")
    assert repr(copy) == repr(loaded)
    assert copy.ground(picture, "it", num_beams=1) == loaded.ground(picture, "it", num_beams=1)


def test_what_was_public_in_the_one_file_is_in_the_package() -> None:
    assert (ofa_core.api.OFA, ofa_core.api.load) == (OFA, ofa_core.load)
    assert set(ofa_core.api.__all__) == {"OFA", "load", "model_directory"}


ASKED: dict[str, Callable[[OFA], object]] = {
    "caption": lambda ofa: ofa.caption(Image.new("RGB", (50, 40), "red"), num_beams=1),
    "imagine": lambda ofa: ofa.imagine("a dog"),
    "infill": lambda ofa: ofa.infill(Image.new("RGB", (50, 40), "red")),
}


@pytest.mark.parametrize("name", ASKED)
def test_a_warning_points_at_the_line_that_asked(name: str, small_directory: Path) -> None:
    ofa = ofa_core.load(small_directory, name="refcoco")
    with pytest.warns(UserWarning, match=f"not for what {name} asks") as told, contextlib.suppress(OFAError):
        ASKED[name](ofa)  # or refuses, behind its warning, to draw without image codes
    assert [warning.filename for warning in told] == [__file__]


def modules_after(statement: str) -> set[str]:
    """The modules that a fresh interpreter holds after ``statement``."""
    program = f"{statement}\nimport sys; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_the_library_does_not_import_the_converter() -> None:
    modules = modules_after("import ofa_core, ofa_core.cli.main; ofa_core.OFA")
    assert "ofa_core.api" in modules
    assert not [name for name in modules if name.startswith("checkpoints_convert")]
    assert not {"fairseq", "omegaconf", "hydra", "transformers", "einops", "tiktoken"} & modules


PICTURE = Image.new("RGB", (80, 60), (90, 140, 30))


def test_a_model_moves_to_another_type_as_if_it_were_loaded_in_it(small_directory: Path) -> None:
    moved, loaded = ofa_core.load(small_directory), ofa_core.load(small_directory, dtype="bfloat16")
    first = moved.ground(PICTURE, "a dog", max_new_tokens=4)
    assert moved.to("cpu", "bfloat16") is moved
    assert moved.dtype == loaded.dtype == "bfloat16"
    assert moved.device == torch.device("cpu")
    assert moved.config is moved.model.config
    assert moved.ground(PICTURE, "a dog", max_new_tokens=4) == loaded.ground(PICTURE, "a dog", max_new_tokens=4)
    assert moved.ground(PICTURE, "a dog", max_new_tokens=4) != first
    assert "bfloat16 on cpu" in repr(moved)
    assert moved.to() is moved
    assert moved.dtype == "bfloat16"


def test_a_model_does_not_move_where_it_cannot_compute(small_directory: Path) -> None:
    ofa = ofa_core.load(small_directory)
    for wrong in ({"dtype": "int8"}, {"dtype": "float31"}, {"device": "nowhere"}):
        with pytest.raises(OFAError):
            ofa.to(**wrong)
    with pytest.raises(OFAError, match=r"^int8 is chosen when a model is loaded, and stays on the CPU"):
        ofa_core.load(small_directory, dtype="int8").to(dtype="float32")
    assert ofa.dtype == "float32"
