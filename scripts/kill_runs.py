"""Kills runs of training and a benchmark at random moments, goes on, and compares the ends with undisturbed runs'.

    python scripts/kill_runs.py [--kills 20] [--seed 0] [--in DIR] [--runs training adapter bench]

A kill (SIGKILL) falls anywhere between a run's first file and its end. The run is then started again and must end with
the same weights, state, log and results, byte for byte but for times; nothing temporary may be left beside them or in
the directory of temporary files. Exit code 1 and a line for every difference.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ofa_core.demo.files import write_dataset
from ofa_core.training.state import STATE_FILE, read_state
from ofa_core.training.stored import LAST

#: A run that learns from pictures that stand in its rows, saves every other step and evaluates every fourth.
RECIPE = """
out = "{out}"
{begin}
steps = 12
batch_size = 2
workers = 1
save_every = 2
evaluate_every = 4
log_every = 1
{tables}
[[data]]
task = "refcoco_grounding"
path = "{data}/names.tsv"
[[evaluation]]
task = "guesswhat_oracle"
path = "{data}/guesswhat.test.jsonl.gz"
images = "{data}/images"
limit = 8
"""
#: A model that begins with random weights.
NEW_MODEL = """
[new_model.config]
embed_dim = 64
ffn_dim = 128
encoder_layers = 1
decoder_layers = 1
num_heads = 4
stem_depths = [1, 1, 1]
dropout = 0.1
task = {image_size = 64, max_image_size = 64, code_dict_size = 0}
"""
#: An adapter of the model that such a run ends with, which learns from features that are kept on the disk.
ADAPTER = """
model = "{model}"
lora = {{}}
cache_features = {{}}
"""
#: Names of the kinds of run; each may read what the one before it made.
RUNS = ("training", "adapter", "bench")
#: Moments that are drawn at most until one comes before the run's end.
ATTEMPTS = 5
PROGRAM = (sys.executable, "-m", "ofa_core")
#: Times, which differ between runs that are equal, as results and summaries hold them.
_TIMES = re.compile(rb'"(started|seconds|samples_per_second)": ?("[^"]*"|[0-9.e+-]+|null)')


@dataclass(frozen=True)
class Kind:
    """A kind of run: its command with results in a directory, and what it makes there that must be equal."""

    name: str
    command: Callable[[Path], list[str]]
    #: Files by what they are; a file may have the time in its name.
    results: Callable[[Path], dict[str, bytes]]


def main(argv: Sequence[str] | None = None) -> int:
    """Kill, go on and compare; returns the exit code."""
    parser = argparse.ArgumentParser(description="Kills runs at random moments and compares how they end.")
    parser.add_argument("--kills", type=int, default=20, help="kills of each kind of run (20)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (0)")
    parser.add_argument(
        "--runs", nargs="+", choices=RUNS, default=RUNS, help="kinds that are killed; others run once, for these (all)"
    )
    parser.add_argument("--in", type=Path, dest="directory", help="where to work; by default a temporary directory")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=args.directory) as folder:
        work = Path(folder)
        write_dataset(work / "data", 12)
        differences = 0
        for kind in (_training(work), _adapter(work), _bench(work)):
            kills = args.kills if kind.name in args.runs else 0
            differences += _survive(kind, work / kind.name, kills, random.Random(args.seed))
    return min(differences, 1)


def _training(work: Path) -> Kind:
    return _run_of("training", work, tables=NEW_MODEL)


def _adapter(work: Path) -> Kind:
    return _run_of("adapter", work, begin=ADAPTER.format(model=work / "training" / "whole" / LAST))


def _run_of(name: str, work: Path, begin: str = "", tables: str = "") -> Kind:
    """A run of training whose recipe begins with ``begin``, and has ``tables`` before those of its data."""

    def command(out: Path) -> list[str]:
        out.parent.mkdir(parents=True, exist_ok=True)
        recipe = out.with_suffix(".toml")
        recipe.write_text(RECIPE.format(out=out, data=work / "data", begin=begin, tables=tables))
        return [*PROGRAM, "train", str(recipe)]

    def results(out: Path) -> dict[str, bytes]:
        rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        log = [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
        weights = [*out.glob("*/*model.safetensors"), *out.glob("features/*/*")]
        found = {str(path.relative_to(out)): path.read_bytes() for path in sorted(weights)}
        found |= {"log.jsonl": repr(log).encode()}
        groups, facts = read_state(out / STATE_FILE)  # whose file has its facts in any order
        found |= {"facts of the state": repr(sorted(facts.items())).encode()}
        for group, tensors in groups.items():
            found |= {f"{group} {name} of the state": tensor.numpy().tobytes() for name, tensor in tensors.items()}
        for path in sorted((out / "evaluation").glob("*/*/*.jsonl")):
            name = f"{path.parent.relative_to(out)}"
            found[name] = found.get(name, b"") + _timeless(path.read_bytes(), out)
        return found

    return Kind(name, command, results)


def _bench(work: Path) -> Kind:
    def command(out: Path) -> list[str]:
        model, data = work / "training" / "whole" / LAST, work / "data"
        given = ["--model", model, "--data", data / "guesswhat.test.jsonl.gz", "--images", data / "images"]
        options = ["--batch-size", "1", "--comment", "c", "--quiet", "--resume", "--out", out]
        return [*PROGRAM, "bench", "guesswhat_oracle", *map(str, [*given, *options])]

    def results(out: Path) -> dict[str, bytes]:
        paths = [path for path in sorted(out.rglob("*")) if path.suffix in (".json", ".jsonl")]
        return {f"{number} of {path.suffix}": _timeless(path.read_bytes(), out) for number, path in enumerate(paths)}

    return Kind("bench", command, results)


def _timeless(content: bytes, out: Path) -> bytes:
    return _TIMES.sub(rb'"\1":0', content).replace(str(out).encode(), b"OUT")


def _survive(kind: Kind, work: Path, kills: int, rng: random.Random) -> int:
    """Kill runs of a kind, one kill each, and compare; returns the number of differences."""
    temporary = work / "temporary"
    temporary.mkdir(parents=True)
    whole = work / "whole"
    seconds = _run(kind.command(whole), whole, temporary) or 0.0
    expected = kind.results(whole)
    print(f"{kind.name}: {seconds:.1f} s from its first file to its end", flush=True)
    differences = survived = 0
    for number in range(kills):
        for attempt in range(ATTEMPTS):
            out, moment = work / f"{number}-{attempt}", rng.uniform(0, seconds)
            ended = _run(kind.command(out), out, temporary, kill_after=moment)
            if ended is None:
                break
            seconds = min(seconds, ended)  # the machine has become faster, and the kill came too late
        survived += ended is not None
        _run(kind.command(out), out, temporary)
        found = kind.results(out)
        differing = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
        left = [path for path in (*out.rglob(".*"), *temporary.iterdir()) if not path.name.startswith("torch")]
        problems = [f"{name} differs" for name in differing] + [f"{path} is left" for path in left]
        differences += len(problems)
        print(f"{kind.name}: killed after {moment:.2f} s: {'; '.join(problems) or 'equal'}", flush=True)
    late = f", {survived} of them after its end" if survived else ""
    print(f"{kind.name}: {kills} kills{late}, {differences} differences", flush=True)
    return differences


def _run(command: list[str], out: Path, temporary: Path, kill_after: float | None = None) -> float | None:
    """Run to the end; or kill it so many seconds behind its first file. Its seconds, None where it was killed."""
    environment = os.environ | {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    while not (out.exists() and any(out.rglob("*.*"))) and process.poll() is None:
        time.sleep(0.002)
    start = time.monotonic()
    try:
        _, err = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return None
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {err.strip()[-2000:]}")
    return time.monotonic() - start


if __name__ == "__main__":
    sys.exit(main())
