from __future__ import annotations

import argparse
import hashlib
import http.client
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from reference import ROOT, fairseq_content, golden, quick_config, random_state, synth
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

import ofa_core
from checkpoints_convert import convert, save_fairseq, vocabulary_files
from checkpoints_convert.infer_config import arguments_of, task_of
from checkpoints_convert.names import DROPPED, FROM_FAIRSEQ, TIED
from ofa_core import CheckpointError, OFAConfig, TaskSettings, UnsafePickleError
from ofa_core.checkpoint.model_dir import load_config, load_tokenizer
from ofa_core.text import small_vocabulary_dir
from ofa_core.text.tokenizer import FILES

CONFIG = quick_config()
MODEL_FILES = {"config.json", "model.safetensors", "conversion.json", "SHA256SUMS", *FILES}
SMALL = {name: (small_vocabulary_dir() / name).read_bytes() for name in FILES}


class NoNetwork:
    """Stands for urlopen: serves the files it was given, and everything else is unreachable."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.files: dict[str, bytes] = {}
        self.error: Exception = urllib.error.URLError("no network in tests")

    def __call__(self, url: str, timeout: float) -> io.BytesIO:
        self.asked.append(url)
        name = url.rsplit("/", 1)[-1]
        if name not in self.files:
            raise self.error
        return io.BytesIO(self.files[name])


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> NoNetwork:
    """No test reaches the network, the user's cache or the user's vocabulary."""
    network = NoNetwork()
    monkeypatch.setattr("urllib.request.urlopen", network)
    monkeypatch.delenv("OFA_BPE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return network


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights with the small vocabulary."""
    path = tmp_path_factory.mktemp("checkpoint") / "small.pt"
    save_fairseq(path, random_state(CONFIG), CONFIG)
    return path


def write(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def convert_small(source: Path, out: Path, **options: Any) -> Any:
    return convert(source, out, bpe_dir=small_vocabulary_dir(), **options)


def entries(directory: Path) -> dict[str, Tensor]:
    return load_file(directory / "model.safetensors")


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and torch.equal(first[name], second[name]) for name in first
    )


# --- the genuine checkpoints ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "task", "source_tokens"), [("refcoco_cfg", "refcoco", 80), ("vqa_namespace", "vqa_gen", 80)]
)
def test_a_genuine_checkpoint_converts_loads_and_grounds(
    genuine_checkpoints: dict[str, Path],
    official_bpe: Path,
    photos: list[Path],
    tmp_path: Path,
    name: str,
    task: str,
    source_tokens: int,
) -> None:
    source, out = genuine_checkpoints[name], tmp_path / "out"
    done = convert(source, out, bpe_dir=official_bpe)
    assert set(contents(out)) == MODEL_FILES
    assert done.parameters == golden("forward_nano.json")["meta"]["parameters"]
    assert done.unnamed_tokens == 0
    assert done.config == load_config(out)
    assert (done.config.task.name, done.config.task.max_source_tokens) == (task, source_tokens)
    assert done.config.vocab_size == 59457

    made_from = json.loads(source.with_suffix(".json").read_text())
    synthetic = synth.synth_state(made_from["shapes"], made_from["salt"])
    expected = {FROM_FAIRSEQ(key): torch.from_numpy(value).half() for key, value in synthetic.items()}
    stored = entries(out)
    counters = {key for key in stored if key.endswith("num_batches_tracked")}
    weights = {key: value for key, value in expected.items() if key is not None}
    assert stored.keys() - counters == weights.keys()
    assert all(torch.equal(stored[key], value) and stored[key].dtype == value.dtype for key, value in weights.items())

    record = json.loads((out / "conversion.json").read_text())
    assert record["source"] == f"{name}.pt"
    assert record["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (record["source_kind"], record["weights"]) == ("fairseq checkpoint", "model")
    assert record["dtypes"] == ["float16"]
    assert record["ofa_core"] == ofa_core.__version__
    assert record["task"]["bpe_dir" if name == "refcoco_cfg" else "task"] in ("../../utils/BPE", "vqa_gen")

    ofa = ofa_core.load(out)
    loaded = ofa.model.state_dict()
    assert ofa.model.dtype == torch.float32
    assert all(torch.equal(loaded[key], value.float()) for key, value in weights.items())
    found = ofa.ground(photos[0], "a person")
    assert found.text
    assert 0 < found.score <= 1
    assert ofa.ground(photos[0], "a person") == found


# --- what is written -----------------------------------------------------------------------------------------------


def test_a_conversion_writes_weights_configuration_vocabulary_and_record(checkpoint: Path, tmp_path: Path) -> None:
    done = convert_small(checkpoint, tmp_path / "new" / "out")
    out = tmp_path / "new" / "out"
    files = contents(out)
    assert set(files) == MODEL_FILES
    assert {name: files[name] for name in FILES} == SMALL
    assert equal(entries(out), random_state(CONFIG))
    assert load_config(out) == done.config == CONFIG
    assert (done.directory, done.vocabulary) == (out, small_vocabulary_dir())
    weights = random_state(CONFIG)
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    assert done.parameters == sum(tensor.numel() for name, tensor in weights.items() if not name.endswith(buffers))
    assert done.bytes == sum(tensor.nbytes for tensor in weights.values())
    record = json.loads(files["conversion.json"])
    assert record["source"] == "small.pt"
    assert record["source_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert record["dtypes"] == ["float32"]
    told = dict.fromkeys(("data", "selected_cols", "bpe_dir", "bpe"))
    assert record["task"] == task_of(CONFIG) | told
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert ofa_core.load(out).ground(synth.synth_image(48, 60, 1), "a man").text


def test_the_directory_can_be_read_by_others(checkpoint: Path, tmp_path: Path) -> None:
    convert_small(checkpoint, tmp_path / "out")
    assert (tmp_path / "out").stat().st_mode & 0o055 == 0o055


def test_saving_for_fairseq_and_converting_again_gives_the_same_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    convert_small(checkpoint, tmp_path / "out")
    save_fairseq(tmp_path / "again.pt", entries(tmp_path / "out"), load_config(tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.pt", "out"]
    convert_small(tmp_path / "again.pt", tmp_path / "twice")
    first, second = contents(tmp_path / "out"), contents(tmp_path / "twice")
    assert {name for name in first if first[name] != second[name]} <= {"conversion.json", "SHA256SUMS"}


def test_saving_for_fairseq_leaves_nothing_behind_where_it_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def save_half(_content: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("torch.save", save_half)
    with pytest.raises(OSError, match="No space left"):
        save_fairseq(tmp_path / "x.pt", random_state(CONFIG), CONFIG)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_are_stored_in_the_dtype_asked_for(checkpoint: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    convert_small(checkpoint, tmp_path / "out", dtype=dtype)
    source = random_state(CONFIG)
    expected = {name: value.to(dtype) if value.is_floating_point() else value for name, value in source.items()}
    assert equal(entries(tmp_path / "out"), expected)
    record = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert record["dtypes"] == [str(dtype).removeprefix("torch.")]


def test_weights_stay_in_half_precision_unless_asked(tmp_path: Path) -> None:
    half = {name: value.half() if value.is_floating_point() else value for name, value in random_state(CONFIG).items()}
    save_fairseq(tmp_path / "half.pt", half, CONFIG)
    convert_small(tmp_path / "half.pt", tmp_path / "out")
    assert equal(entries(tmp_path / "out"), half)


def test_a_weight_too_large_for_the_dtype_is_refused_rather_than_stored_as_infinity(tmp_path: Path) -> None:
    state = random_state(CONFIG)
    state["encoder.image_stem.bn1.running_var"][0] = 1e6
    save_fairseq(tmp_path / "large.pt", state, CONFIG)
    with pytest.raises(CheckpointError, match=r"running_var"):
        convert_small(tmp_path / "large.pt", tmp_path / "out", dtype=torch.float16)
    assert not (tmp_path / "out").exists()


def test_entries_that_share_their_memory_are_stored_like_any_others(tmp_path: Path) -> None:
    content = fairseq_content(CONFIG)
    content["model"]["encoder.pos_ln.weight"] = content["model"]["encoder.image_pos_ln.weight"]
    convert_small(write(tmp_path / "shared.pt", content), tmp_path / "out")
    assert equal(entries(tmp_path / "out"), random_state(CONFIG))


def test_views_into_one_large_tensor_are_stored_like_any_others(tmp_path: Path) -> None:
    content = fairseq_content(CONFIG)
    names = [name for name, value in content["model"].items() if value.is_floating_point() and name not in TIED]
    flat = torch.cat([content["model"][name].flatten() for name in names])
    start = 0
    for name in names:
        shape, count = content["model"][name].shape, content["model"][name].numel()
        content["model"][name] = flat[start : start + count].view(shape)
        start += count
    convert_small(write(tmp_path / "flat.pt", content), tmp_path / "out")
    assert equal(entries(tmp_path / "out"), random_state(CONFIG))


# --- where the arguments stand -------------------------------------------------------------------------------------

TASK = TaskSettings(name="refcoco", image_size=96, max_image_size=64, code_dict_size=0, max_source_tokens=80)
STORED = quick_config(task=TASK, dropout=0.25, attn_scale_factor=3.0)


def old_style(config: OFAConfig) -> dict[str, Any]:
    """Before fairseq had ``cfg``: everything in one Namespace."""
    task = {key: value for key, value in task_of(config).items() if key != "_name"}
    args = argparse.Namespace(**arguments_of(config), **task, task=config.task.name)
    return fairseq_content(config, args=args, cfg=None)


def without(*keys: str) -> Callable[[OFAConfig], dict[str, Any]]:
    return lambda config: {key: value for key, value in fairseq_content(config).items() if key not in keys}


@pytest.mark.parametrize(
    "content",
    [old_style, without("args"), without("extra_state"), lambda config: fairseq_content(config, args={"dropout": 0.5})],
    ids=["args only", "cfg only", "no extra state", "cfg before args"],
)
def test_arguments_are_found_in_old_and_new_files(content: Callable[[OFAConfig], Any], tmp_path: Path) -> None:
    assert convert_small(write(tmp_path / "x.pt", content(STORED)), tmp_path / "out").config == STORED


def test_the_task_of_a_cfg_without_one_is_read_from_the_arguments(tmp_path: Path) -> None:
    args = argparse.Namespace(**arguments_of(STORED), **(task_of(STORED) | {"task": "refcoco"}))
    content = fairseq_content(STORED, cfg={"model": args, "task": None})
    assert convert_small(write(tmp_path / "x.pt", content), tmp_path / "out").config == STORED


@pytest.mark.parametrize("content", [{}, {"args": None, "cfg": None}, {"cfg": {"model": None, "task": None}}])
def test_a_file_without_any_arguments_is_taken_for_a_released_model(tmp_path: Path, content: dict[str, Any]) -> None:
    config = quick_config(task=TaskSettings())
    path = write(tmp_path / "x.pt", {"model": fairseq_content(config)["model"], **content})
    assert convert_small(path, tmp_path / "out").config == config


def test_averaged_weights_beside_the_model_are_not_taken(tmp_path: Path) -> None:
    other = random_state(CONFIG, seed=1)
    averaged = {name: other[str(FROM_FAIRSEQ(name))] for name in fairseq_content(CONFIG)["model"] if FROM_FAIRSEQ(name)}
    content = fairseq_content(CONFIG, extra_state={"ema": averaged, "ema_fp32_params": averaged})
    convert_small(write(tmp_path / "x.pt", content), tmp_path / "out")
    assert equal(entries(tmp_path / "out"), random_state(CONFIG))
    assert json.loads((tmp_path / "out" / "conversion.json").read_text())["weights"] == "model"


# --- files that are no checkpoint of OFA ---------------------------------------------------------------------------


class Hostile:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


NOT_OFA: dict[str, tuple[Callable[[], object], str]] = {
    "no model": (lambda: {"state_dict": {}, "epoch": 3}, r"no 'model' with tensors \(it holds state_dict, epoch\)"),
    "nothing": (dict, r"no 'model' with tensors \(it holds nothing\)"),
    "an empty model": (lambda: {"model": {}}, "no 'model' with tensors"),
    "a model of numbers": (lambda: {"model": {"a": 1}}, "no 'model' with tensors"),
    "a model that is a list": (lambda: {"model": [torch.zeros(1)]}, "no 'model' with tensors"),
    "one value that is no tensor": (
        lambda: {"model": fairseq_content(CONFIG)["model"] | {"encoder.layer_norm.bias": "x"}},
        "no 'model' with tensors",
    ),
    "bare tensors": (
        lambda: {"encoder.embed_tokens.weight": torch.zeros(4, 2)},
        "this is not a checkpoint of OFA: it has no entry encoder.token_rel_pos_table_list.0.weight",
    ),
    "a list": (lambda: [torch.zeros(1)], "a checkpoint is a dict, this file holds a list"),
    "resnet18": (lambda: {"model": torchvision.models.resnet18().state_dict()}, "this is not a checkpoint of OFA"),
    "wrong arguments": (
        lambda: fairseq_content(CONFIG, cfg=None, args=argparse.Namespace(encoder_layers=9)),
        "encoder_layers=9 contradicts the tensors, which say 2",
    ),
    "arguments that are a list": (lambda: fairseq_content(CONFIG, cfg={"model": [1]}), "model arguments are list"),
    "a task that is text": (
        lambda: fairseq_content(CONFIG, cfg={"model": {"dropout": 0.5}, "task": "refcoco"}),
        "task settings are str",
    ),
    "a cfg that is text": (lambda: fairseq_content(CONFIG, cfg="text"), "cfg|str"),
    "a cfg that is a list": (lambda: fairseq_content(CONFIG, cfg=[1]), "cfg|list"),
    "an unknown entry": (
        lambda: fairseq_content(CONFIG, model=fairseq_content(CONFIG)["model"] | {"encoder.vision.w": torch.zeros(1)}),
        "1 entries are not part of OFA: encoder.vision.w",
    ),
    "another text encoder": (
        lambda: fairseq_content(CONFIG, cfg={"task": task_of(CONFIG) | {"bpe": "sentencepiece"}}),
        "trained with bpe='sentencepiece'; gpt2 and bert are supported",
    ),
}


@pytest.mark.parametrize("name", NOT_OFA)
def test_what_is_no_checkpoint_of_ofa_is_told_in_one_line(tmp_path: Path, name: str) -> None:
    make, message = NOT_OFA[name]
    path = write(tmp_path / "x.pt", make())
    with pytest.raises(CheckpointError, match=message) as caught:
        convert_small(path, tmp_path / "out")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_a_hostile_file_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    path = write(tmp_path / "x.pt", {"model": Hostile(tmp_path / "canary")})
    with pytest.raises(UnsafePickleError, match="nothing was executed"):
        convert_small(path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [path]


# --- directories that exist, and interruptions ---------------------------------------------------------------------


def test_a_directory_that_exists_is_kept(checkpoint: Path, tmp_path: Path) -> None:
    convert_small(checkpoint, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"out exists already; choose another directory or pass --overwrite"):
        convert_small(checkpoint, tmp_path / "out", dtype=torch.float16)
    assert contents(tmp_path / "out") == before


def test_a_model_directory_is_replaced_as_a_whole_where_asked(checkpoint: Path, tmp_path: Path) -> None:
    convert_small(checkpoint, tmp_path / "out", dtype=torch.float16)
    (tmp_path / "out" / "notes.txt").write_text("of the old model")
    convert_small(checkpoint, tmp_path / "out", overwrite=True)
    assert set(contents(tmp_path / "out")) == MODEL_FILES
    assert equal(entries(tmp_path / "out"), random_state(CONFIG))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_what_is_no_model_directory_is_never_overwritten(checkpoint: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "precious"
    if kind == "directory":
        out.mkdir()
        (out / "thesis.tex").write_text("years of work")
    else:
        out.write_text("years of work")
    with pytest.raises(CheckpointError, match="is not a model directory and is not overwritten"):
        convert_small(checkpoint, out, overwrite=True)
    assert (out / "thesis.tex" if kind == "directory" else out).read_text() == "years of work"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("replacing", [False, True])
@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt(), SafetensorError("IoError")])
def test_an_interruption_leaves_the_old_state_and_no_temporary_files(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, replacing: bool
) -> None:
    out = tmp_path / "out"
    if replacing:
        convert_small(checkpoint, out, dtype=torch.float16)
    before = contents(out) if replacing else {}

    def save_half(_tensors: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr("ofa_core.checkpoint.model_dir.save_file", save_half)
    with pytest.raises((type(error), CheckpointError)):
        convert_small(checkpoint, out, overwrite=replacing)
    assert list(tmp_path.iterdir()) == ([out] if replacing else [])
    assert (contents(out) if replacing else {}) == before


KILLED = """
import os, signal, sys
from checkpoints_convert import convert
from ofa_core.text import Tokenizer
Tokenizer.save = lambda self, directory: os.kill(os.getpid(), signal.SIGKILL)
convert(sys.argv[1], sys.argv[2], bpe_dir=sys.argv[3])
"""


def test_a_kill_in_the_middle_never_leaves_a_half_directory(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(checkpoint), str(out), str(small_vocabulary_dir())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not out.exists()
    assert all(path.name.startswith(".out.") for path in tmp_path.iterdir())
    convert_small(checkpoint, out)  # and nothing that is left stands in the way of another try
    assert set(contents(out)) == MODEL_FILES


# --- vocabulary ----------------------------------------------------------------------------------------------------


def with_extra_rows(path: Path, rows: int) -> Path:
    return write(path, fairseq_content(quick_config(vocab_size=CONFIG.vocab_size + rows)))


@pytest.mark.parametrize(
    ("given", "names", "unnamed"),
    [
        (("yes", "no", "maybe"), ("yes", "no", "maybe"), 0),
        (("yes",), ("yes", "<extra_1>", "<extra_2>"), 2),
        ((), ("<extra_0>", "<extra_1>", "<extra_2>"), 3),
    ],
)
def test_rows_beyond_the_vocabulary_are_extra_tokens(
    tmp_path: Path, given: tuple[str, ...], names: tuple[str, ...], unnamed: int
) -> None:
    path, out = with_extra_rows(tmp_path / "x.pt", 3), tmp_path / "out"
    done = convert_small(path, out, extra_tokens=given)
    assert done.unnamed_tokens == unnamed
    assert any(f"{unnamed} tokens beyond the vocabulary have no names" in line for line in done.lines()) == bool(
        unnamed
    )
    assert done.config.task.extra_tokens == names
    config = load_config(out)
    assert config == done.config
    tokenizer = load_tokenizer(out, config)
    assert len(tokenizer) == config.vocab_size
    assert tokenizer.encode_symbols(" ".join(names)) == [config.vocab_size - 3 + index for index in range(3)]


@pytest.mark.parametrize(
    ("rows", "given", "message"),
    [
        (3, ("a", "b", "c", "d"), rf"makes {CONFIG.vocab_size + 4} tokens, the checkpoint has {CONFIG.vocab_size + 3}"),
        (0, ("a",), rf"makes {CONFIG.vocab_size + 1} tokens, the checkpoint has {CONFIG.vocab_size}"),
        (-1, (), rf"makes {CONFIG.vocab_size} tokens, the checkpoint has {CONFIG.vocab_size - 1}"),
        (3, ("two words",), "'two words' is empty or holds white space"),
        (3, ("",), "'' is empty"),
        (3, ("same", "same"), "'same' would have two ids"),
        (3, ("<bin_0>",), "'<bin_0>' would have two ids"),
    ],
)
def test_extra_tokens_and_vocabularies_that_do_not_fit_are_refused(
    tmp_path: Path, rows: int, given: tuple[str, ...], message: str
) -> None:
    path = with_extra_rows(tmp_path / "x.pt", rows)
    with pytest.raises(CheckpointError, match=message):
        convert_small(path, tmp_path / "out", extra_tokens=given)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", FILES)
def test_a_given_directory_without_a_file_is_refused_without_looking_elsewhere(
    checkpoint: Path, tmp_path: Path, network: NoNetwork, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("OFA_BPE_DIR", str(small_vocabulary_dir()))
    shutil.copytree(small_vocabulary_dir(), tmp_path / "bpe")
    (tmp_path / "bpe" / name).unlink()
    with pytest.raises(CheckpointError, match=rf"vocabulary directory {tmp_path / 'bpe'} has no {re.escape(name)}$"):
        convert(checkpoint, tmp_path / "out", bpe_dir=tmp_path / "bpe")
    assert network.asked == []


def test_the_directory_of_the_environment_comes_before_the_recorded_one(
    tmp_path: Path, network: NoNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("recorded", "environment"):
        shutil.copytree(small_vocabulary_dir(), tmp_path / name)
    content = fairseq_content(CONFIG)
    content["cfg"]["task"] |= {"bpe": "gpt2", "bpe_dir": str(tmp_path / "recorded")}
    path = write(tmp_path / "x.pt", content)
    assert convert(path, tmp_path / "first").vocabulary == tmp_path / "recorded"
    monkeypatch.setenv("OFA_BPE_DIR", str(tmp_path / "environment"))
    assert convert(path, tmp_path / "second").vocabulary == tmp_path / "environment"
    assert network.asked == []


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("Name or service not known"),
        TimeoutError("timed out"),
        ConnectionResetError("reset by peer"),
        urllib.error.HTTPError("https://x", 403, "Forbidden", http.client.HTTPMessage(), None),
        http.client.IncompleteRead(b"half", 10),
        http.client.RemoteDisconnected("closed without response"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_vocabulary_that_is_nowhere_is_told_with_what_to_do(
    checkpoint: Path, tmp_path: Path, network: NoNetwork, error: Exception
) -> None:
    network.error = error
    with pytest.raises(CheckpointError, match=r"--bpe-dir or \$OFA_BPE_DIR") as caught:
        convert(checkpoint, tmp_path / "out")
    assert all(name in str(caught.value) for name in FILES)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_downloaded_files_are_kept_for_the_next_time(
    checkpoint: Path, tmp_path: Path, network: NoNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.files = dict(SMALL)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in SMALL.items()}
    monkeypatch.setattr(vocabulary_files, "OFFICIAL_SHA256", hashes)
    cache = tmp_path / "cache" / "ofa_core" / "bpe"
    assert convert(checkpoint, tmp_path / "first").vocabulary == cache
    assert contents(cache) == SMALL
    assert sorted(network.asked) == sorted(f"https://dl.fbaipublicfiles.com/fairseq/gpt2_bpe/{name}" for name in FILES)
    network.files = {}
    assert convert(checkpoint, tmp_path / "second").vocabulary == cache
    assert len(network.asked) == len(FILES)


def test_a_download_that_is_not_the_official_file_is_refused_and_not_kept(
    checkpoint: Path, tmp_path: Path, network: NoNetwork
) -> None:
    network.files = dict(SMALL)
    with pytest.raises(CheckpointError, match=r"encoder\.json is not the file it should be: its sha256 differs"):
        convert(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_the_official_hashes_are_those_of_the_official_files(official_bpe: Path) -> None:
    actual = {name: hashlib.sha256((official_bpe / name).read_bytes()).hexdigest() for name in FILES}
    assert actual == vocabulary_files.OFFICIAL_SHA256


def test_dropped_and_tied_entries_are_not_stored(checkpoint: Path, tmp_path: Path) -> None:
    convert_small(checkpoint, tmp_path / "out")
    assert not set(entries(tmp_path / "out")) & {*DROPPED, *TIED}


PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"这段文字描述的是哪个区域图片了什么内容红圆", '"', "？", "?"]


def chinese(directory: Path) -> tuple[OFAConfig, dict[str, Any]]:
    """Vocabulary files of a Chinese model in ``directory``, and the content of a checkpoint that fits them."""
    directory.mkdir()
    (directory / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    (directory / "dict.txt").write_text("".join(f"{piece} 1\n" for piece in PIECES), encoding="utf-8")
    config = quick_config(vocab_size=4 + len(PIECES) + 1 + CONFIG.task.num_bins)
    return config, fairseq_content(config, cfg={"task": task_of(config) | {"bpe": "bert"}})


def test_a_chinese_checkpoint_keeps_its_own_vocabulary_and_prompts(tmp_path: Path) -> None:
    config, content = chinese(tmp_path / "bpe")
    path = write(tmp_path / "zh.pt", content)
    done = convert(path, tmp_path / "zh", bpe_dir=tmp_path / "bpe")
    assert done.config == config
    assert {p.name for p in (tmp_path / "zh").iterdir()} == MODEL_FILES - set(FILES) | {"vocab.txt", "dict.txt"}
    ofa = ofa_core.load(tmp_path / "zh")
    assert ofa.tokenizer.kind == "bert"
    assert ofa.ground(synth.synth_image(40, 60, 1), "红圆", bins_only=True, num_beams=2).box is not None
    assert ofa.caption(synth.synth_image(40, 60, 1), num_beams=2, max_new_tokens=3).score > 0


def test_a_chinese_checkpoint_does_not_take_english_files(tmp_path: Path) -> None:
    path = write(tmp_path / "zh.pt", chinese(tmp_path / "bpe")[1])
    with pytest.raises(CheckpointError, match=r"has no vocab\.txt"):
        convert(path, tmp_path / "zh", bpe_dir=small_vocabulary_dir())
    with pytest.raises(CheckpointError, match=r"needs vocab.txt and dict.txt; pass their directory with --bpe-dir"):
        convert(path, tmp_path / "zh")


def test_vocabulary_files_beside_the_checkpoint_are_taken_unless_others_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("OFA_BPE_DIR", raising=False)
    torch.save(fairseq_content(CONFIG), tmp_path / "x.pt")
    for name in ("encoder.json", "vocab.bpe", "dict.txt"):
        shutil.copy(small_vocabulary_dir() / name, tmp_path)
    convert(tmp_path / "x.pt", tmp_path / "out")
    assert (tmp_path / "out" / "dict.txt").read_bytes() == (tmp_path / "dict.txt").read_bytes()
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"vocabulary directory .*empty has no encoder\.json"):
        convert(tmp_path / "x.pt", tmp_path / "other", bpe_dir=tmp_path / "empty")
