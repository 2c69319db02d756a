"""Memory and time of converting and loading a checkpoint with optimizer state, against copying and reading its bytes.

    python -m benchmarks.convert [--size large] [--directory DIR]

writes a float32 checkpoint of that size whose optimizer state is twice its weights (large: 1.7 GB and 3.4 GB), then
runs each step in a process of its own and prints its peak resident memory and its time, each as a ratio.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from checkpoints_convert import to_fairseq
from checkpoints_convert.infer_config import arguments_of, task_of
from ofa_core import OFAConfig, TaskSettings, Tokenizer
from ofa_core.checkpoint.model_dir import empty_model
from ofa_core.config import PRESETS
from ofa_core.text import small_vocabulary_dir

#: Code that each measured process runs, with the paths of the checkpoint and of the model directory.
STEPS = {
    "nothing but the imports": "import checkpoints_convert, ofa_core",
    "convert": "from checkpoints_convert import convert; convert({source!r}, {target!r}, bpe_dir={bpe!r})",
    "load": "import ofa_core; ofa_core.load({target!r})",
}


def main() -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=PRESETS, default="large")
    parser.add_argument("--directory", type=Path, help="where to put the files, which are removed afterwards")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.directory) as name:
        source, target = Path(name) / "checkpoint.pt", Path(name) / "model"
        weights = write_checkpoint(source, args.size)
        print(f"{args.size}: {weights / 1e9:.2f} GB of weights in a file of {source.stat().st_size / 1e9:.2f} GB")
        copy = _seconds(lambda: shutil.copyfile(source, Path(name) / "copy.pt"))
        (Path(name) / "copy.pt").unlink()
        print(f"copying the file: {copy:.1f} s")
        base_memory, base_time = measure(STEPS["nothing but the imports"])
        for step, against in (("convert", copy), ("load", None)):
            code = STEPS[step].format(source=str(source), target=str(target), bpe=str(small_vocabulary_dir()))
            memory, seconds = measure(code)
            read = against or _seconds(lambda: _read(target / "model.safetensors"))
            share = (memory - base_memory) / weights
            ratio = (seconds - base_time) / read
            took = f"{seconds - base_time:.1f} s, {ratio:.2f} × the bytes alone"
            print(f"{step}: {share:.2f} × the weights in memory, {took}")
    return 0


def write_checkpoint(path: Path, size: str) -> int:
    """A fairseq training checkpoint of random weights; returns the bytes of its weights."""
    vocabulary = Tokenizer.from_dir(small_vocabulary_dir())
    config = OFAConfig.preset(size, vocab_size=len(vocabulary), task=TaskSettings(name="refcoco"))
    state = {name: torch.zeros(t.shape, dtype=t.dtype) for name, t in empty_model(config).state_dict().items()}
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor.uniform_(-0.1, 0.1)
    moments = {i: {"exp_avg": t, "exp_avg_sq": t.clone()} for i, t in enumerate(state.values())}
    content = {
        "args": None,
        "cfg": {"model": argparse.Namespace(**arguments_of(config)), "task": task_of(config)},
        "model": to_fairseq({name: tensor.clone() for name, tensor in state.items()}, config),
        "last_optimizer_state": {"state": moments},
    }
    torch.save(content, path)
    return sum(tensor.nbytes for tensor in state.values())


def measure(code: str) -> tuple[int, float]:
    """Peak resident bytes and seconds of a Python process that runs ``code``."""
    report = "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    return int(done.stdout.splitlines()[-1]) * 1024, seconds


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _read(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        block = bytearray(1 << 20)
        while file.readinto(block):
            pass


if __name__ == "__main__":
    sys.exit(main())
