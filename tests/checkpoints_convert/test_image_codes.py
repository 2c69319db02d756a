"""The network of image codes into a model directory: from Lightning's file, from a zip, from ModelScope's directory."""

from __future__ import annotations

import shutil
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ofa_core
from checkpoints_convert import convert
from checkpoints_convert.cli import main
from checkpoints_convert.image_codes import convert_image_codes, image_codes_beside
from ofa_core import CheckpointError, OFAError, TaskSettings, UnsafePickleError
from ofa_core.checkpoint.verification import verify_directory
from ofa_core.text import small_vocabulary_dir
from ofa_core.vision.vqgan import VQGAN, VQGANConfig
from tests.reference import fairseq_content, quick_config

CODES = 32
CONFIG = VQGANConfig(
    channels=32, multipliers=(1, 1, 1, 2), blocks=1, attention_levels=(3,), latent_channels=8, code_dim=8,
    num_codes=CODES,
)  # fmt: skip


@pytest.fixture(scope="module")
def network() -> VQGAN:
    torch.manual_seed(0)
    return VQGAN(CONFIG).eval().requires_grad_(False)


@pytest.fixture
def lightning_file(network: VQGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file as Lightning writes it: the states of callbacks stand under their classes, which the pickle names."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    for part in ("pytorch_lightning", "pytorch_lightning.callbacks", name):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    callback = type("ModelCheckpoint", (), {"__module__": name})
    sys.modules[name].ModelCheckpoint = callback  # type: ignore[attr-defined]
    path = tmp_path / "last.ckpt"
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(3))])
    content: dict[Any, Any] = {
        "epoch": 12,
        "global_step": 3_000,
        "pytorch-lightning_version": "1.0.8",
        "state_dict": network.state_dict() | {"loss.discriminator.main.0.weight": torch.zeros(4)},
        "callbacks": {callback: {"best_model_score": torch.tensor(0.5), "best_model_path": "/x/last.ckpt"}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [],
    }
    torch.save(content, path)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "image_gen.pt"
    task = TaskSettings(image_size=64, max_image_size=64, code_dict_size=CODES)
    torch.save(fairseq_content(quick_config(task=task, code_image_size=32)), path)
    return path


def check_draws(directory: Path, network: VQGAN) -> None:
    ofa = ofa_core.load(directory)
    codes = np.arange(16).reshape(4, 4)
    due = ofa_core.OFA(ofa.model, ofa.tokenizer, vqgan=network).decode_codes(codes)
    assert ofa.decode_codes(codes).tobytes() == due.tobytes()
    (one,) = ofa.imagine("a dog", count=1, seed=1)
    assert one.image.size == (32, 32)
    verify_directory(directory)


def test_the_network_is_stored_with_a_model_that_is_converted(
    checkpoint: Path, lightning_file: Path, network: VQGAN, tmp_path: Path
) -> None:
    convert(checkpoint, tmp_path / "out", bpe_dir=small_vocabulary_dir(), vqgan=lightning_file)
    check_draws(tmp_path / "out", network)
    ofa_core.load(tmp_path / "out").save(tmp_path / "saved")
    check_draws(tmp_path / "saved", network)


def test_the_network_is_put_into_a_directory_that_is_there(
    checkpoint: Path, lightning_file: Path, network: VQGAN, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    convert(checkpoint, out, bpe_dir=small_vocabulary_dir())
    with pytest.raises(CheckpointError, match=f"convert-ckpt --vqgan last.ckpt {out} puts it there"):
        ofa_core.load(out).imagine("a dog")
    assert main(["--vqgan", str(lightning_file), str(out)]) == 0
    said = capsys.readouterr().out
    assert "left behind: 1 entries (networks of the loss" in said
    check_draws(out, network)
    assert main(["--vqgan", str(lightning_file), str(out)]) == 0  # once more
    check_draws(out, network)


def test_the_zip_of_the_text_to_image_model_converts_as_it_is(
    checkpoint: Path, lightning_file: Path, network: VQGAN, tmp_path: Path
) -> None:
    path = tmp_path / "image_gen_large_best.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.write(checkpoint, "checkpoints/image_gen_large_best.pt")
        file.write(lightning_file, "checkpoints/vqgan/last.ckpt")
        file.writestr("checkpoints/vqgan/model.yaml", "model: {}")
        file.writestr("checkpoints/clip/ViT-B-16.pt", b"not looked at")
    convert(path, tmp_path / "out", bpe_dir=small_vocabulary_dir())
    check_draws(tmp_path / "out", network)


def test_a_damaged_network_in_a_directory_is_told(checkpoint: Path, lightning_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert(checkpoint, out, bpe_dir=small_vocabulary_dir(), vqgan=lightning_file)
    path = out / "vqgan.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(OFAError, match=r"vqgan.safetensors is not as written"):
        ofa_core.load(out).decode_codes([0])


def test_a_file_without_the_network_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert(checkpoint, out, bpe_dir=small_vocabulary_dir())
    with pytest.raises(CheckpointError, match=r"image_gen.pt: no image codes network: the entry decoder.conv_out"):
        convert_image_codes(checkpoint, out)
    assert not (out / "vqgan.safetensors").exists()


def test_a_file_that_would_execute_something_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return shutil.rmtree, (str(tmp_path),)

    out = tmp_path / "out"
    convert(checkpoint, out, bpe_dir=small_vocabulary_dir())
    torch.save({"state_dict": {}, "callbacks": Evil()}, tmp_path / "last.ckpt")
    with pytest.raises(UnsafePickleError, match=r"shutil\.rmtree"):
        convert_image_codes(tmp_path / "last.ckpt", out)


def test_a_directory_that_is_no_model_is_refused(lightning_file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="is not a model directory"):
        convert_image_codes(lightning_file, tmp_path / "empty")


@pytest.mark.parametrize("arguments", [["--vqgan", "last.ckpt"], ["--vqgan", "last.ckpt", "--to", "hf", "model"]])
def test_a_missing_directory_is_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert "the following arguments are required" in capsys.readouterr().err


def test_modelscope_s_directory_brings_the_network(lightning_file: Path, network: VQGAN, tmp_path: Path) -> None:
    assert image_codes_beside(tmp_path) is None
    lightning_file.rename(tmp_path / "vqgan_model.ckpt")
    state = image_codes_beside(tmp_path)
    assert state is not None
    assert torch.equal(state["quantize.embed.weight"], network.quantize.embed.weight)
