from __future__ import annotations

import os
import resource
import subprocess
import sys
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import fairseq_content, quick_config, random_state
from safetensors import SafetensorError
from safetensors.torch import load_file

from checkpoints_convert import save_fairseq
from checkpoints_convert.cli import main
from ofa_core.text import small_vocabulary_dir

CONFIG = quick_config()
BPE = ("--bpe-dir", str(small_vocabulary_dir()))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "small.pt"
    save_fairseq(path, random_state(CONFIG), CONFIG)
    return path


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reaches the network, the user's cache or the user's vocabulary."""

    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    monkeypatch.delenv("OFA_BPE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def error_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What the program prints when it fails: one line on stderr, nothing on stdout, exit code 2."""
    try:
        code: Any = main([str(argument) for argument in arguments])
    except SystemExit as exit_:
        code = exit_.code
    out, err = capsys.readouterr()
    assert code == 2, err
    assert out == ""
    assert err.startswith("convert-ckpt: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert "Traceback" not in err
    return err


# --- success -------------------------------------------------------------------------------------------------------


def test_success_prints_a_summary_and_returns_zero(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([str(checkpoint), str(out), *BPE]) == 0
    printed, err = capsys.readouterr()
    weights = load_file(out / "model.safetensors")
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    parameters = sum(tensor.numel() for name, tensor in weights.items() if not name.endswith(buffers))
    size = sum(tensor.nbytes for tensor in weights.values()) / 1e6
    assert printed.splitlines() == [
        f"{out}: {parameters:,} parameters, {size:,.1f} MB",
        "from a fairseq checkpoint",
        f"width 32, 2+2 layers, 4 heads, vocabulary {CONFIG.vocab_size}",
        "task ofa, pictures 64 × 64 pixels",
        f"vocabulary files from {small_vocabulary_dir()}",
    ]
    assert err == ""


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_dtype_asked_for_is_stored(checkpoint: Path, tmp_path: Path, dtype: str) -> None:
    assert main([str(checkpoint), str(tmp_path / "out"), *BPE, "--dtype", dtype]) == 0
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert stored["token_embedding.weight"].dtype == getattr(torch, dtype)


def test_an_existing_model_directory_is_replaced_only_where_asked(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(checkpoint), str(tmp_path / "out"), *BPE]
    assert main(arguments) == 0
    capsys.readouterr()
    assert "exists already; choose another directory or pass --overwrite" in error_of(capsys, *arguments)
    assert main([*arguments, "--overwrite", "--dtype", "float16"]) == 0
    assert load_file(tmp_path / "out" / "model.safetensors")["token_embedding.weight"].dtype == torch.float16


def test_extra_tokens_are_read_one_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(fairseq_content(quick_config(vocab_size=CONFIG.vocab_size + 3)), tmp_path / "x.pt")
    (tmp_path / "names.txt").write_text("yes\nüber\n", encoding="utf-8")
    assert (
        main([str(tmp_path / "x.pt"), str(tmp_path / "out"), *BPE, "--extra-tokens", str(tmp_path / "names.txt")]) == 0
    )
    assert "1 tokens beyond the vocabulary have no names; give them in --extra-tokens" in capsys.readouterr().out
    assert '"über",' in (tmp_path / "out" / "config.json").read_text(encoding="utf-8")


def test_help_names_every_option_and_returns_zero(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(option in text for option in ("--bpe-dir", "--dtype", "--extra-tokens", "--overwrite", "$OFA_BPE_DIR"))


# --- errors --------------------------------------------------------------------------------------------------------


class Hostile:
    """Unpickling it would create a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


def truncated(path: Path, checkpoint: Path) -> None:
    path.write_bytes(checkpoint.read_bytes()[:-1000])


def middle_lost(path: Path, checkpoint: Path) -> None:
    path.write_bytes(checkpoint.read_bytes()[: checkpoint.stat().st_size // 2])


def flipped(path: Path, checkpoint: Path) -> None:
    data = bytearray(checkpoint.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(data)


#: How each unusable input is made, and what the line must say.
BROKEN: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "missing": (lambda path, _: None, "does not exist"),
    "empty": (lambda path, _: path.write_bytes(b""), "the file is empty"),
    "end lost": (truncated, "damaged or cut short"),
    "half lost": (middle_lost, "damaged or cut short"),
    "bytes lost": (flipped, "damaged"),
    "text": (lambda path, _: path.write_text("weights,please\n"), "not a torch checkpoint"),
    "web page": (lambda path, _: path.write_text("<!DOCTYPE html><html>404"), "this is a web page"),
    "directory": (
        lambda path, _: path.mkdir(),
        "is not a Hugging Face style directory of OFA: it should hold config.json",
    ),
    "hostile": (lambda path, _: torch.save({"model": Hostile(path.parent / "canary")}, path), "nothing was executed"),
    "other model": (
        lambda path, _: torch.save({"model": torch.nn.Linear(2, 2).state_dict()}, path),
        "not a checkpoint",
    ),
    "no weights": (lambda path, _: torch.save({"epoch": 3}, path), "it has no 'model' with tensors"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_unusable_file_is_one_line_that_names_it(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    make, message = BROKEN[name]
    path = tmp_path / "input.pt"
    make(path, checkpoint)
    before = sorted(tmp_path.iterdir())
    err = error_of(capsys, path, tmp_path / "out", *BPE)
    assert message in err
    assert str(path) in err
    assert sorted(tmp_path.iterdir()) == before  # nothing written, and no canary of the hostile file


#: Command lines, where "CHECKPOINT" and "OUT" are filled in, and what the line must say.
MISUSES: dict[str, tuple[list[str], str]] = {
    "nothing": ([], "checkpoint"),
    "no output": (["CHECKPOINT"], "out"),
    "unknown option": (["CHECKPOINT", "OUT", "--fast"], "--fast"),
    "bad dtype": (["CHECKPOINT", "OUT", *BPE, "--dtype", "int8"], "int8"),
    "no value": (["CHECKPOINT", "OUT", "--bpe-dir"], "--bpe-dir"),
    "too much": (["CHECKPOINT", "OUT", "another"], "another"),
    "vocabulary nowhere": (["CHECKPOINT", "OUT"], "pass their directory with --bpe-dir or $OFA_BPE_DIR"),
    "vocabulary missing": (["CHECKPOINT", "OUT", "--bpe-dir", "/nowhere"], "vocabulary directory /nowhere has no"),
    "output below a file": (["CHECKPOINT", "CHECKPOINT/out", *BPE], "small.pt"),
    "output is a file": (["CHECKPOINT", "CHECKPOINT", *BPE, "--overwrite"], "is not a model directory"),
    "no tokens file": (["CHECKPOINT", "OUT", *BPE, "--extra-tokens", "/nowhere.txt"], "/nowhere.txt"),
}


@pytest.mark.parametrize("name", MISUSES)
def test_a_misuse_is_one_line(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    arguments, message = MISUSES[name]
    out = tmp_path / "out"
    filled = [part.replace("CHECKPOINT", str(checkpoint)).replace("OUT", str(out)) for part in arguments]
    assert message in error_of(capsys, *filled)
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "message"), [(b"\xff\xfe", "is not UTF-8 text"), (b"a\nb\n", "these files do not belong to it")]
)
def test_extra_tokens_that_cannot_be_used_are_one_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    (tmp_path / "names.txt").write_bytes(content)
    err = error_of(capsys, checkpoint, tmp_path / "out", *BPE, "--extra-tokens", tmp_path / "names.txt")
    assert message in err


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_full_disk_is_one_line(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("ofa_core.checkpoint.model_dir.save_file", fail)
    assert "No space left on device" in error_of(capsys, checkpoint, tmp_path / "out", *BPE)
    assert list(tmp_path.iterdir()) == []


def test_the_installed_program_converts(checkpoint: Path, tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "convert-ckpt"
    if not program.is_file():
        pytest.skip(f"the package is not installed: there is no {program}")
    command = [str(program), str(checkpoint), str(tmp_path / "out"), *BPE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{tmp_path / 'out'}: ")
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize("kind", ["fairseq", "hf"])
def test_a_full_disk_is_named(tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    assert main([str(checkpoint), str(tmp_path / "model"), "--bpe-dir", str(small_vocabulary_dir())]) == 0
    capsys.readouterr()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        code = main([str(tmp_path / "model"), str(tmp_path / "out"), "--to", kind])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"'{tmp_path}/out'" in err or err.startswith(f"convert-ckpt: {tmp_path}/out cannot be written")
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []
