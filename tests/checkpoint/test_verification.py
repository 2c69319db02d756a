"""Damage to a model directory is found: by digests in small files always, everywhere where it is asked for."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import quick_config, random_state
from safetensors.torch import load_file, save_file
from torch import Tensor

import ofa_core
from ofa_core import CheckpointError, Tokenizer
from ofa_core.checkpoint.digests import DIGESTS_FILE, changed_files
from ofa_core.checkpoint.model_dir import load_config, load_model, load_tokenizer, read_safetensors, save_directory
from ofa_core.checkpoint.verification import verify_directory
from ofa_core.cli.main import main
from ofa_core.text import small_vocabulary_dir

CONFIG = quick_config()
FILES = ["config.json", "conversion.json", "dict.txt", "encoder.json", "model.safetensors", "vocab.bpe"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("weights") / "model"
    tokenizer = Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=0)
    save_directory(directory, random_state(CONFIG), CONFIG, tokenizer, {"source": "a test"})
    return directory


@pytest.fixture
def directory(shared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shared, tmp_path / "model"))


def shuffle_merges(directory: Path) -> None:
    path = directory / "vocab.bpe"
    first, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    random.Random(0).shuffle(lines)
    path.write_text("".join([first, *lines]), encoding="utf-8")


def change_config(directory: Path) -> None:
    """Another scale of attention fits the weights just as well."""
    path = directory / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"attn_scale_factor": 3.0}))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "shuffled merges": (shuffle_merges, "vocab.bpe"),
    "an empty dict.txt": (lambda directory: (directory / "dict.txt").write_bytes(b""), "dict.txt"),
    "a configuration that fits": (change_config, "config.json"),
    "an encoder cut short": (lambda directory: (directory / "encoder.json").write_bytes(b"{"), "encoder.json"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_small_file_is_named_when_a_model_is_loaded(directory: Path, name: str) -> None:
    damage, file = DAMAGE[name]
    damage(directory)
    expected = rf"^{directory}: {file} is not as written \(see SHA256SUMS\): copy the directory again, or delete the"
    for read in (ofa_core.load, verify_directory):
        with pytest.raises(CheckpointError, match=expected) as caught:
            read(directory)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["shuffled merges", "a configuration that fits"])
def test_a_change_that_was_meant_is_let_through_as_the_message_says(directory: Path, name: str) -> None:
    damage, file = DAMAGE[name]
    damage(directory)
    digests = directory / DIGESTS_FILE
    lines = digests.read_text().splitlines(keepends=True)
    digests.write_text("".join(line for line in lines if not line.endswith(f"  {file}\n")))
    ofa_core.load(directory)
    assert verify_directory(directory).files == len(FILES) - 1


def test_a_directory_without_digests_loads(directory: Path, capsys: Any) -> None:
    (directory / DIGESTS_FILE).unlink()
    ofa_core.load(directory)
    assert main(["inspect", "--verify", str(directory)]) == 0
    count = len(load_file(directory / "model.safetensors"))
    expected = f"verified: no digests were written; all {count} tensors are finite and in use"
    assert capsys.readouterr().out.splitlines()[-1] == expected


def test_digests_are_of_every_file_and_in_the_form_of_sha256sum(shared: Path) -> None:
    lines = (shared / DIGESTS_FILE).read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == FILES
    assert changed_files(shared) == []
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--strict", "--quiet", DIGESTS_FILE], cwd=shared, check=True)


@pytest.mark.parametrize("content", [b"{}", b"\xff\xfe", b"0" * 64 + b"  ../secret", b"x" * (1 << 20)])
def test_damaged_digests_are_named(directory: Path, content: bytes) -> None:
    (directory / DIGESTS_FILE).write_bytes(content)
    for read in (ofa_core.load, verify_directory, load_config, lambda path: load_tokenizer(path, CONFIG)):
        with pytest.raises(CheckpointError, match=r"SHA256SUMS:1 is not a sha256 and the name of a file"):
            read(directory)


# --- weights -------------------------------------------------------------------------------------------------------


def change_weights(directory: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(directory / "model.safetensors").items()}
    change(tensors)
    (directory / "model.safetensors").unlink()
    save_file(tensors, directory / "model.safetensors")


@pytest.mark.parametrize("digests", [True, False])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_weights_that_no_model_has_are_named(directory: Path, capsys: Any, value: float, digests: bool) -> None:
    names = ["encoder.layers.0.ffn.fc1.weight", "decoder.layers.0.self_attn.q_proj.weight"]

    def change(tensors: dict[str, Tensor]) -> None:
        tensors[names[0]].fill_(value)
        tensors[names[1]].flatten()[-1 if value else slice(None)] = value
        for name, tensor in tensors.items():  # which begin as zeros, and stay so where they are not used
            if "relative.tables" in name or name.endswith((".bias", ".running_mean")):
                tensor.zero_()

    change_weights(directory, change)
    if not digests:
        (directory / DIGESTS_FILE).unlink()
    load_model(directory)  # which does not look at gigabytes
    assert main(["inspect", "--verify", str(directory)]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert ("model.safetensors is not as written" in printed) == digests
    problem = "are all zeros" if value == 0 else "hold NaN or infinity"
    assert f"2 tensors {problem}: {', '.join(sorted(names))}" in printed


def test_one_changed_bit_of_the_weights_is_found_where_it_is_asked_for(directory: Path, capsys: Any) -> None:
    change_weights(directory, lambda tensors: tensors["token_embedding.weight"][3, 3].add_(1e-6))
    load_model(directory)
    assert main(["inspect", str(directory)]) == 0
    assert main(["inspect", "--verify", str(directory)]) == 2
    assert "model.safetensors is not as written (see SHA256SUMS)" in capsys.readouterr().err


def test_what_is_whole_is_verified(shared: Path, capsys: Any) -> None:
    assert main(["inspect", "--verify", str(shared)]) == 0
    count = len(random_state(CONFIG))
    expected = f"verified: 6 files are as they were written; all {count} tensors are finite and in use"
    assert capsys.readouterr().out.splitlines()[-1] == expected
    assert main(["inspect", "--verify", "--json", str(shared)]) == 0
    assert json.loads(capsys.readouterr().out)["verified"] == {"files": 6, "tensors": count}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_verified(tmp_path: Path, dtype: torch.dtype) -> None:
    tokenizer = Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=0)
    state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in random_state(CONFIG).items()}
    save_directory(tmp_path / "model", state, CONFIG, tokenizer)
    assert verify_directory(tmp_path / "model").files == len(FILES) - 1
    change_weights(tmp_path / "model", lambda tensors: tensors["token_embedding.weight"].zero_())
    with pytest.raises(CheckpointError, match=r"1 tensor is all zeros: token_embedding\.weight"):
        verify_directory(tmp_path / "model")


def test_a_state_of_another_model_is_told(directory: Path) -> None:
    change_weights(directory, lambda tensors: tensors.pop("encoder.final_norm.bias"))
    (directory / DIGESTS_FILE).unlink()
    with pytest.raises(CheckpointError, match=r"1 entry is missing: encoder\.final_norm\.bias"):
        verify_directory(directory)


@pytest.mark.parametrize("name", FILES)
def test_a_named_pipe_in_place_of_a_file_is_not_waited_for(directory: Path, name: str) -> None:
    (directory / name).unlink()
    os.mkfifo(directory / name)
    with pytest.raises(CheckpointError, match=name):
        verify_directory(directory)
    if name not in ("conversion.json", "model.safetensors"):  # which need not be there, or is asked for first
        with pytest.raises(CheckpointError, match=name):
            ofa_core.load(directory)
    os.mkfifo(directory / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"x\.safetensors is a named pipe; a file is expected here"):
        read_safetensors(directory / "x.safetensors")
