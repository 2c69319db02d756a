"""CPU time of grounding with exported ONNX files on onnxruntime beside that of the library.

    python -m benchmarks.export --sizes tiny base --threads 1 [--repeats 5]

Each question (one picture, 12 tokens, five beams of four bins) is answered by both in turns, by models of the same
random weights. CPU time is that of all threads, so that other programs on the machine count less than in elapsed time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from ofa_core import generate
from ofa_core.config import PRESETS
from ofa_core.export.folder import searched
from ofa_core.export.graph_files import write_graphs
from ofa_core.export.rounding import round_weights
from ofa_core.export.runner import Searcher
from ofa_core.inference.fast_model import optimized

from .workloads import GROUNDING, IMAGE_SIZE, IMAGE_SIZES, make_inputs, make_model


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=PRESETS, default=["tiny", "base"])
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of both (1)")
    parser.add_argument("--repeats", type=int, default=5, help="answers of each that count (5)")
    parser.add_argument("--int8", action="store_true", help="round the weights of the exported files to 8 bits")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    for size in args.sizes:
        ours, exported = compare(size, args.threads, args.repeats, args.int8)
        name = f"{size}{', int8' if args.int8 else ''}"
        print(f"{name}: library {ours:.3f} s, onnxruntime {exported:.3f} s of CPU time; ratio {ours / exported:.2f}")
    return 0


def compare(size: str, threads: int, repeats: int, int8: bool = False) -> tuple[float, float]:
    """Median seconds of CPU time that a question takes the library and onnxruntime."""
    side = IMAGE_SIZES.get(size, IMAGE_SIZE)
    model = make_model(size)
    inputs = make_inputs(model, 1, side)
    tokens, images = inputs.tokens, inputs.images
    with tempfile.TemporaryDirectory() as place:
        exact, folder = Path(place) / "exact", Path(place) / "rounded"
        exact.mkdir()
        folder.mkdir()
        write_graphs(model, side, exact)
        if int8:
            round_weights(exact, folder)
        settings = searched(GROUNDING, model.config.max_target_positions)
        searcher = Searcher(folder if int8 else exact, settings, threads)
        optimized(model)
        source, pixels = tokens[0].tolist(), images.numpy()
        return in_turns(
            lambda: generate(model, tokens, images, GROUNDING), lambda: searcher.search(source, pixels), repeats
        )


def in_turns(one: Callable[[], object], other: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median CPU seconds of two computations that take turns, after a turn that does not count."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats + 1):
        for work, seconds in zip((one, other), taken, strict=True):
            start = time.process_time()
            work()
            seconds.append(time.process_time() - start)
    first, second = (median(seconds[1:]) for seconds in taken)
    return first, second


if __name__ == "__main__":
    sys.exit(main())
