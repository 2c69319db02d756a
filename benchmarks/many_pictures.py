"""Pictures a second of a list of files, beside what the model alone does with pictures that are read already.

    python -m benchmarks.many_pictures [--count 128] [--side 480] [--threads 1]

draws scenes, stores them as JPEG files, and grounds a phrase in each: the list of files in one call, the same pictures
read beforehand, and reading alone, in turns. On one core reading costs what it costs, on several it is done while the
model computes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from random import Random

import torch

import ofa_core
from ofa_core import OFA
from ofa_core.demo.language import phrase
from ofa_core.demo.world import draw, make_scene
from ofa_core.heads.grounding import SPEC

from .turns import in_turns, medians


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", help="the model")
    parser.add_argument("--count", type=int, default=128, help="pictures")
    parser.add_argument("--side", type=int, default=480, help="their side in pixels")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each, behind one that does not count")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's own choice if not given")
    args = parser.parse_args(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    ofa = ofa_core.load(args.model)
    with tempfile.TemporaryDirectory() as directory:
        files, texts = write_pictures(Path(directory), args.count, args.side)
        seconds = measure(ofa, files, texts, args.repeats)
    alone, alone_cpu = seconds["model alone"]
    for name, (wall, cpu) in seconds.items():
        print(
            f"{name:12} {1000 * cpu / args.count:8.2f} ms of CPU a picture {args.count / wall:8.1f} pictures a second"
            f"  {alone / wall:.2f} × the model alone, {alone_cpu / cpu:.2f} × by CPU time"
        )
    return 0


def write_pictures(directory: Path, count: int, side: int) -> tuple[list[Path], list[str]]:
    """Files of ``count`` scenes, and a phrase for each."""
    files, texts = [], []
    for seed in range(count):
        scene = make_scene(seed, "test")
        found = phrase(scene, Random(f"many {seed}"))
        files.append(directory / f"{seed}.jpg")
        draw(scene).resize((side, side)).save(files[-1], quality=90)
        texts.append("the red circle" if found is None else found[2])
    return files, texts


def measure(ofa: OFA, files: list[Path], texts: list[str], repeats: int) -> dict[str, tuple[float, float]]:
    """Median seconds and CPU seconds of the model alone, of the list of files, and of reading."""
    pipeline = ofa.pipeline.for_task(SPEC)
    read = [pipeline.prepare(file) for file in files]
    calls = {
        "model alone": lambda: ofa.ground(read, texts),
        "files": lambda: ofa.ground(files, texts),
        "reading": lambda: [pipeline.prepare(file) for file in files],
    }
    times = in_turns(tuple(calls.values()), repeats, 0)
    return {name: medians(one) for name, one in zip(calls, times, strict=True)}


if __name__ == "__main__":
    sys.exit(main())
