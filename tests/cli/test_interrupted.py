"""A signal ends a run at a safe point, the program says how to go on, and going on ends as if nothing had been."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bench.runs import only, rows_in, save_lively, write_data
from reference import fairseq_content, quick_config
from safetensors.torch import load_file
from training.made import differing

from ofa_core.bench.results import iter_rows
from ofa_core.cli.main import main
from ofa_core.demo.files import write_dataset
from ofa_core.text import small_vocabulary_dir
from ofa_core.training.state import read_state

RECIPE = """
out = "run"
steps = {steps}
batch_size = 1
workers = {workers}
save_every = 1000
log_every = 1
{more}
[new_model.config]
embed_dim = 32
ffn_dim = 32
encoder_layers = 1
decoder_layers = 1
num_heads = 2
stem_depths = [1, 1, 1]
task = {{image_size = 64, max_image_size = 64, code_dict_size = 0}}
[[data]]
task = "shapes"
options = {{weights = {{caption = 1}}}}
{evaluation}
"""
#: Steps of a run that a signal surely meets on its way.
STEPS = 40
SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


def begun(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """The program, with the signals as a terminal leaves them."""

    def as_in_a_terminal() -> None:
        for number, _ in SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    return subprocess.Popen(
        [sys.executable, "-m", "ofa_core", *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=as_in_a_terminal,
    )


def wait_for(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ended(process: subprocess.Popen[str], number: int) -> tuple[int, str]:
    """Exit code and last line of stderr of a process that is sent a signal."""
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    return process.returncode, err.strip().splitlines()[-1]


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def recipe(path: Path, steps: int, workers: int = 0, more: str = "", evaluation: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(RECIPE.format(steps=steps, workers=workers, more=more, evaluation=evaluation))
    return path


@pytest.mark.parametrize(("number", "code"), SIGNALS, ids=["SIGINT", "SIGTERM", "SIGHUP"])
def test_training_stops_behind_its_step_and_goes_on_to_the_same_end(tmp_path: Path, number: int, code: int) -> None:
    settings = recipe(tmp_path / "x.toml", STEPS, workers=int(number == signal.SIGTERM))
    process = begun("train", settings)
    wait_for(process, lambda: lines_in(tmp_path / "run" / "log.jsonl") >= 3)
    found, line = ended(process, number)
    assert found == code
    assert line == f"ofa-core: interrupted by {signal.Signals(number).name}; go on with: ofa-core train {settings}"
    _, facts = read_state(tmp_path / "run" / "state.safetensors")
    assert 3 <= facts["step"] < STEPS
    assert facts["step"] == lines_in(tmp_path / "run" / "log.jsonl"), "nothing that was done is lost"
    if number != signal.SIGINT:
        return
    again = begun("train", settings)
    assert again.wait(120) == 0, again.communicate()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert main(["train", str(recipe(tmp_path / "whole" / "x.toml", STEPS))]) == 0
    torch.set_num_threads(threads)
    models = [load_file(path / "run" / "last" / "model.safetensors") for path in (tmp_path, tmp_path / "whole")]
    assert differing(*models) == []


def test_a_bench_stops_behind_its_batch_and_goes_on(tmp_path: Path) -> None:
    paths = write_data(tmp_path, 60)
    model = save_lively(tmp_path / "model")
    command = ["bench", "guesswhat_oracle", "--model", model, "--data", paths["guesswhat"], "--batch-size", "2"]
    command += ["--images", tmp_path / "images", "--quiet", "--out", tmp_path / "it is here"]
    process = begun(*command)
    wait_for(process, lambda: any(lines_in(path) > 5 for path in (tmp_path / "it is here").glob("*/*/*.jsonl")))
    code, line = ended(process, signal.SIGTERM)
    told = f"'{tmp_path / 'it is here'}' --resume"
    assert (code, line.endswith(told)) == (143, True), line
    assert line.startswith("ofa-core: interrupted by SIGTERM; go on with: ofa-core bench guesswhat_oracle --model ")
    path = only(tmp_path / "it is here")
    header, rows = iter_rows(path)
    before = len(list(rows))
    assert 4 <= before < 180
    assert path.read_bytes().endswith(b"}\n")
    assert sorted(header.inputs) == [
        "data",
        "images",
        "model's configuration",
        "model's dict.txt",
        "model's encoder.json",
        "model's vocab.bpe",
    ]
    process = begun(*command, "--resume", "--limit", 180)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, "settings.limit is None there and 180 now" in err) == (2, True)
    process = begun(*command, "--resume")
    assert process.wait(120) == 0, process.communicate()
    assert len(rows_in(path)) == 180


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    slow = "import time; from ofa_core.training import trainer; trainer.Trainer._learn = lambda *_: time.sleep(600)"
    program = (
        f"{slow}\nimport os, sys, threading\nfrom ofa_core.cli.main import main\n"
        "def strike():\n    for _ in range(2):\n        time.sleep(1.5)\n        os.kill(os.getpid(), 2)\n"
        "import signal; signal.signal(2, signal.default_int_handler)\n"
        "learn = trainer.Trainer._train\n"
        "def train(self):\n    threading.Thread(target=strike, daemon=True).start()\n    learn(self)\n"
        "trainer.Trainer._train = train\nsys.exit(main(sys.argv[1:]))"
    )
    start = time.monotonic()
    command = [sys.executable, "-c", program, "train", str(recipe(tmp_path / "x.toml", 5))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 130, done.stderr
    assert "stopping at the next safe point" in done.stderr
    assert time.monotonic() - start < 200


CONVERTER = """
import signal, sys, time
from checkpoints_convert.cli import main
from ofa_core.text import Tokenizer
signal.signal(signal.SIGTERM, signal.SIG_DFL)
Tokenizer.save = lambda self, directory: (print("writing", flush=True), time.sleep(60))
sys.exit(main(sys.argv[1:]))
"""


def test_a_conversion_that_is_ended_leaves_nothing(tmp_path: Path) -> None:
    torch.save(fairseq_content(quick_config()), tmp_path / "x.pt")
    arguments = [str(tmp_path / "x.pt"), str(tmp_path / "out"), "--bpe-dir", str(small_vocabulary_dir())]
    command = [sys.executable, "-c", CONVERTER, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    assert [path.name.startswith(".out.") for path in tmp_path.iterdir() if path.name != "x.pt"] == [True]
    code, line = ended(process, signal.SIGTERM)
    told = f"nothing half written is left; go on with: convert-ckpt {' '.join(arguments)}"
    assert (code, line) == (143, f"convert-ckpt: interrupted by SIGTERM; {told}")
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


def test_an_evaluation_that_a_signal_cut_short_is_done_when_the_run_goes_on(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", 40)
    benchmark = (
        f'[[evaluation]]\ntask = "guesswhat_oracle"\npath = "{tmp_path}/data/guesswhat.test.jsonl.gz"\n'
        f'images = "{tmp_path}/data/images"\nbatch_size = 1\n'
    )
    settings = recipe(tmp_path / "x.toml", 4, more="evaluate_every = 2", evaluation=benchmark)
    process = begun("train", settings)
    results = tmp_path / "run" / "evaluation" / "guesswhat_oracle"
    wait_for(process, lambda: any(lines_in(path) > 3 for path in results.glob("step-2/*.jsonl")))
    assert ended(process, signal.SIGINT)[0] == 130
    _, facts = read_state(tmp_path / "run" / "state.safetensors")
    assert (facts["step"], facts["evaluated"]) == (2, False)
    process = begun("train", settings)
    assert process.wait(120) == 0, process.communicate()
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [len(list((results / f"step-{step}").glob("*.jsonl"))) for step in (2, 4)] == [1, 1]
    assert [(row["step"], "loss" in row) for row in rows] == [
        (1, True),
        (2, True),
        (2, False),
        (3, True),
        (4, True),
        (4, False),
    ]


def test_a_full_disk_is_named_and_leaves_whole_lines(tmp_path: Path) -> None:
    paths = write_data(tmp_path, 60)
    model = save_lively(tmp_path / "model")
    command = ["bench", "guesswhat_oracle", "--model", model, "--data", paths["guesswhat"], "--batch-size", "2"]
    command += ["--images", tmp_path / "images", "--quiet", "--out", tmp_path / "out"]

    def with_little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))

    done = subprocess.run(
        [sys.executable, "-m", "ofa_core", *map(str, command)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=with_little_room,
    )
    path = only(tmp_path / "out")
    assert (done.returncode, done.stderr) == (2, f"ofa-core: [Errno 27] File too large: '{path}'\n")
    assert path.read_bytes().endswith(b"}\n")
    assert 2 < len(rows_in(path)) < 60
    again = begun(*command, "--resume")
    assert again.wait(120) == 0, again.communicate()
    assert len(rows_in(path)) == 180


def test_a_full_disk_behind_standard_output_is_named(tmp_path: Path) -> None:
    model = save_lively(tmp_path / "model")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ofa_core", "inspect", str(model)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    told = "ofa-core: [Errno 28] No space left on device: 'standard output'\n"
    assert (done.returncode, done.stderr) == (2, told)
