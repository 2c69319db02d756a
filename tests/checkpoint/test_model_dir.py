from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import EVERYTHING, quick_config, random_state
from safetensors.torch import load_file, save_file
from torch import Tensor

import ofa_core
from ofa_core import CheckpointError, OFAError, Tokenizer
from ofa_core.checkpoint.model_dir import empty_model, load_config, load_model, load_tokenizer, save_directory
from ofa_core.text import small_vocabulary_dir
from ofa_core.text.tokenizer import FILES

CONFIG = quick_config()
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=0)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    directory = tmp_path_factory.mktemp("weights") / "model"
    save_directory(directory, random_state(CONFIG), CONFIG, tokenizer, {"source": "a test"})
    return directory


@pytest.fixture
def directory(shared: Path, tmp_path: Path) -> Path:
    """A model directory for each test to spoil."""
    return Path(shutil.copytree(shared, tmp_path / "model"))


def in_dtype(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and torch.equal(first[name], second[name]) for name in first
    )


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


# --- there and back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [CONFIG, EVERYTHING], ids=["released", "everything"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_survive_bit_for_bit(tmp_path: Path, tokenizer: Tokenizer, config: Any, dtype: torch.dtype) -> None:
    state = in_dtype(random_state(config), dtype)
    save_directory(tmp_path / "model", state, config, tokenizer)
    assert equal(load_file(tmp_path / "model" / "model.safetensors"), state)
    assert load_config(tmp_path / "model") == config
    loaded = load_model(tmp_path / "model", dtype=dtype)
    assert loaded.dtype == dtype
    expected = {
        # Convolutions in float16 are very slow on a CPU, so the stem alone computes in float32.
        name: tensor.float()
        if dtype == torch.float16 and "image_stem" in name and tensor.is_floating_point()
        else tensor
        for name, tensor in state.items()
    }
    assert equal(loaded.state_dict(), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_cpu_computes_in_float32_unless_asked(tmp_path: Path, tokenizer: Tokenizer, dtype: torch.dtype) -> None:
    state = in_dtype(random_state(CONFIG), dtype)
    save_directory(tmp_path / "model", state, CONFIG, tokenizer)
    model = load_model(tmp_path / "model")
    assert model.dtype == torch.float32
    assert equal(model.state_dict(), in_dtype(state, torch.float32))


def test_a_directory_holds_configuration_weights_vocabulary_and_provenance(shared: Path) -> None:
    files = contents(shared)
    assert set(files) == {"config.json", "model.safetensors", "conversion.json", "SHA256SUMS", *FILES}
    assert all(files[name] == (small_vocabulary_dir() / name).read_bytes() for name in FILES)
    assert json.loads(files["conversion.json"]) == {"source": "a test"}


def test_a_directory_that_was_saved_without_provenance_loads(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_directory(tmp_path / "model", random_state(CONFIG), CONFIG, tokenizer)
    assert not (tmp_path / "model" / "conversion.json").exists()
    assert equal(load_model(tmp_path / "model").state_dict(), random_state(CONFIG))


def test_transposed_and_shared_weights_are_saved(tmp_path: Path, tokenizer: Tokenizer) -> None:
    state = random_state(CONFIG)
    name = "encoder.image_proj.weight"
    state[name] = state[name].t().contiguous().t()
    assert not state[name].is_contiguous()
    state["encoder.text_position_norm.weight"] = state["encoder.image_position_norm.weight"]
    save_directory(tmp_path / "model", state, CONFIG, tokenizer)
    assert equal(load_model(tmp_path / "model").state_dict(), state)


# --- loading -------------------------------------------------------------------------------------------------------


def test_loading_draws_nothing_at_random(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = load_model(shared).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert equal(load_model(shared).state_dict(), first)


def test_laying_out_a_model_takes_no_memory_and_no_random_numbers() -> None:
    before = torch.get_rng_state()
    model = empty_model(EVERYTHING)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loaded_model_is_for_evaluation_and_wholly_in_memory(shared: Path) -> None:
    model = load_model(shared)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    held = [*model.parameters(), *model.buffers()]
    assert {tensor.device.type for tensor in held} == {"cpu"}


# --- writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["ofa_core.checkpoint.model_dir.save_file", "ofa_core.Tokenizer.save", "json.dumps"])
@pytest.mark.parametrize("replacing", [False, True])
def test_a_failure_while_writing_leaves_everything_as_it_was(
    directory: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, step: str, replacing: bool
) -> None:
    target = directory if replacing else directory.with_name("new")
    before = contents(directory)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("interrupted")

    monkeypatch.setattr(step, fail)
    with pytest.raises(RuntimeError, match="interrupted"):
        save_directory(target, random_state(CONFIG, 1), CONFIG, tokenizer, {"source": "new"}, overwrite=replacing)
    assert list(directory.parent.iterdir()) == [directory]
    assert contents(directory) == before


def test_a_failure_in_the_last_step_puts_the_old_directory_back(
    directory: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(directory)
    rename = Path.rename

    def fail_to_arrive(self: Path, target: Path) -> Path:
        if Path(target) == directory and not self.name.endswith(".old"):
            raise OSError("interrupted")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_to_arrive)
    with pytest.raises(OSError, match="interrupted"):
        save_directory(directory, random_state(CONFIG, 1), CONFIG, tokenizer, overwrite=True)
    assert list(directory.parent.iterdir()) == [directory]
    assert contents(directory) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_directory_that_a_kill_left_moved_away_is_not_lost(
    directory: Path, tokenizer: Tokenizer, overwrite: bool
) -> None:
    before = contents(directory)
    scratch = directory.with_name(f".{directory.name}.abcdefgh.tmp")
    (scratch / directory.name).mkdir(parents=True)
    directory.rename(scratch / f"{directory.name}.old")  # and here it was killed
    if not overwrite:
        with pytest.raises(CheckpointError, match="exists already"):
            save_directory(directory, random_state(CONFIG, 1), CONFIG, tokenizer)
        assert contents(directory) == before
    else:
        save_directory(directory, random_state(CONFIG, 1), CONFIG, tokenizer, overwrite=True)
        assert contents(directory) != before
    assert list(directory.parent.iterdir()) == [directory]


def test_an_error_of_the_system_names_the_directory(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tokenizer, "save", _full)
    with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}/out'"):
        save_directory(tmp_path / "out", random_state(CONFIG, 1), CONFIG, tokenizer)
    assert list(tmp_path.iterdir()) == []


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_existing_directory_is_kept_unless_asked(directory: Path, tokenizer: Tokenizer) -> None:
    before = contents(directory)
    with pytest.raises(CheckpointError, match="exists already"):
        save_directory(directory, random_state(CONFIG, 1), CONFIG, tokenizer)
    assert contents(directory) == before
    save_directory(directory, random_state(CONFIG, 1), CONFIG, tokenizer, overwrite=True)
    assert equal(load_model(directory).state_dict(), random_state(CONFIG, 1))
    assert not (directory / "conversion.json").exists()  # nothing of the old model stays
    assert list(directory.parent.iterdir()) == [directory]


def test_an_empty_directory_may_be_overwritten(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "model").mkdir()
    save_directory(tmp_path / "model", random_state(CONFIG), CONFIG, tokenizer, overwrite=True)
    assert equal(load_model(tmp_path / "model").state_dict(), random_state(CONFIG))


@pytest.mark.parametrize("name", ["notes.txt", "model.safetensors"])
def test_other_directories_are_never_overwritten(tmp_path: Path, tokenizer: Tokenizer, name: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("precious")
    with pytest.raises(CheckpointError, match="is not a model directory and is not overwritten"):
        save_directory(tmp_path / "mine", random_state(CONFIG), CONFIG, tokenizer, overwrite=True)
    assert contents(tmp_path / "mine") == {name: b"precious"}


def test_overwriting_through_a_link_leaves_nothing_behind(directory: Path, tokenizer: Tokenizer) -> None:
    link = directory.with_name("current")
    link.symlink_to(directory)
    save_directory(link, random_state(CONFIG, 1), CONFIG, tokenizer, overwrite=True)
    assert equal(load_model(link).state_dict(), random_state(CONFIG, 1))
    assert {path.name for path in directory.parent.iterdir()} <= {"model", "current"}


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_a_state_that_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, tokenizer: Tokenizer, change: str
) -> None:
    state = random_state(CONFIG)
    if change == "missing":
        del state["decoder.final_norm.bias"]
    elif change == "extra":
        state["decoder.final_norm.scale"] = torch.zeros(1)
    else:
        state["decoder.final_norm.bias"] = torch.zeros(3)
    expected = {
        "missing": r"1 entry is missing: decoder\.final_norm\.bias",
        "extra": r"1 entry is not part of this model: decoder\.final_norm\.scale",
        "shape": r"1 entry is of the wrong shape: decoder\.final_norm\.bias \[3\] instead of \[32\]",
    }
    with pytest.raises(CheckpointError, match=expected[change]):
        save_directory(tmp_path / "model", state, CONFIG, tokenizer)
    assert list(tmp_path.iterdir()) == []


# --- broken directories --------------------------------------------------------------------------------------------


def changed_config(**changes: object) -> Callable[[Path], object]:
    def change(directory: Path) -> None:
        path = directory / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def changed_weights(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], object]:
    def apply(directory: Path) -> None:
        path = directory / "model.safetensors"
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        change(tensors)
        path.unlink()
        save_file(tensors, path)

    return apply


def cut(name: str, size: int) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_bytes((directory / name).read_bytes()[:size])


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_bytes(content)


def remove(name: str) -> Callable[[Path], object]:
    return lambda directory: (directory / name).unlink()


def to_integers(tensors: dict[str, Tensor]) -> None:
    tensors["encoder.text_norm.weight"] = tensors["encoder.text_norm.weight"].long()


def one_line_less(directory: Path) -> None:
    path = directory / "dict.txt"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no configuration": (remove("config.json"), "is not a model directory: it has no config.json"),
    "no weights": (remove("model.safetensors"), "is not a model directory: it has no model.safetensors"),
    "empty weights": (cut("model.safetensors", 0), "model.safetensors cannot be read"),
    "cut weights": (cut("model.safetensors", 5000), "model.safetensors cannot be read"),
    "one byte lost": (cut("model.safetensors", -1), "model.safetensors cannot be read"),
    "other weights": (write("model.safetensors", b"PK\x03\x04" + bytes(100)), "model.safetensors cannot be read"),
    "a weight missing": (
        changed_weights(lambda tensors: tensors.pop("encoder.final_norm.bias")),
        r"model.safetensors: 1 entry is missing: encoder.final_norm.bias",
    ),
    "a weight too many": (
        changed_weights(lambda tensors: tensors.update(other=torch.zeros(1))),
        "model.safetensors: 1 entry is not part of this model: other",
    ),
    "a weight misshaped": (
        changed_weights(lambda tensors: tensors.update({"encoder.final_norm.bias": torch.zeros(5)})),
        r"model.safetensors: 1 entry is of the wrong shape: encoder.final_norm.bias \[5\] instead of \[32\]",
    ),
    "a weight of integers": (changed_weights(to_integers), "encoder.text_norm.weight"),
    "configuration of another model": (changed_config(ffn_dim=65), "of the wrong shape: encoder.layers.0.ffn.fc1"),
    "no JSON": (write("config.json", b"{"), "config.json is not an OFA configuration"),
    "no text": (write("config.json", b"\xff\xfe\x00"), "config.json is not text"),
    "a list": (write("config.json", b"[1, 2]"), "config.json is not an OFA configuration"),
    "unknown field": (changed_config(sparse=True), "config.json is not an OFA configuration: sparse"),
    "field of another type": (changed_config(embed_dim="wide"), "config.json is not an OFA configuration: embed_dim"),
    "uneven heads": (changed_config(num_heads=5), "embed_dim 32 is not a multiple of num_heads 5"),
    "negative depth": (changed_config(stem_depths=[-1, 1, 1]), "config.json|stem_depths|model.safetensors"),
    "absurd width": (changed_config(embed_dim=4 * 10**12), "config.json|embed_dim|model.safetensors"),
    "no dict.txt": (remove("dict.txt"), "dict.txt is missing from"),
    "no encoder.json": (remove("encoder.json"), "encoder.json is missing from"),
    "a shorter vocabulary": (
        one_line_less,
        f"the vocabulary files make {CONFIG.vocab_size - 1} tokens, the weights have {CONFIG.vocab_size}",
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_broken_directory_is_told_in_one_line(directory: Path, name: str) -> None:
    spoil, message = SPOILED[name]
    spoil(directory)
    with pytest.raises(OFAError, match=message) as caught:
        ofa_core.load(directory)
    assert str(directory) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist; it should be a directory written by convert-ckpt"),
        (lambda path: path.write_bytes(b"PK"), r"is a file; convert it first: convert-ckpt .*model\.pt OUT_DIR"),
        (lambda path: path.mkdir(), r"is not a model directory: it has no config\.json and no model\.safetensors"),
    ],
    ids=["missing", "a file", "empty"],
)
def test_what_is_no_model_directory_is_told_with_what_to_do(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "model.pt")


def test_the_tokenizer_is_laid_out_as_the_configuration_says(shared: Path) -> None:
    tokenizer = load_tokenizer(shared, CONFIG)
    assert len(tokenizer) == CONFIG.vocab_size
    assert tokenizer.vocabulary.code_dict_size == 0
    wrong = CONFIG.model_copy(update={"vocab_size": CONFIG.vocab_size + 1})
    with pytest.raises(CheckpointError, match=f"make {CONFIG.vocab_size} tokens, the weights have"):
        load_tokenizer(shared, wrong)
