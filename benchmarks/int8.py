"""Effects of rounding the weights to 8 bits: boxes of the demo model, and the time to encode at a size.

    python -m benchmarks.int8 [--count 2000] [--size base]

grounds phrases of test pictures in both types, and encodes pictures in turns.
"""

from __future__ import annotations

import argparse
import copy
import sys
from random import Random
from statistics import mean, median

import torch

import ofa_core
from ofa_core.config import PRESETS
from ofa_core.demo.language import phrase
from ofa_core.demo.world import draw, make_scene
from ofa_core.inference.fast_model import optimized
from ofa_core.vision.boxes import Box, box_iou

from .machine import times
from .workloads import IMAGE_SIZE, IMAGE_SIZES, make_inputs, make_model

#: Seed of the first scene of the test split.
FIRST_SEED = 0
BATCH_SIZE = 50


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="test pictures")
    parser.add_argument("--size", choices=PRESETS, default="base")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's own choice if not given")
    args = parser.parse_args(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    overlaps = compare(args.count)
    print(f"boxes of int8 and float32 on {len(overlaps)} test pictures: IoU {mean(overlaps):.4f} on average")
    exact, rounded = encode_seconds(args.size)
    ratio = exact / rounded
    print(f"encoding at {args.size}: {exact:.3f} s in float32, {rounded:.3f} s in int8, {ratio:.2f} times as fast")
    return 0


def compare(count: int) -> list[float]:
    """IoU of the boxes that the demo model finds in float32 and in int8."""
    exact, rounded = ofa_core.load("demo"), ofa_core.load("demo", dtype=torch.int8)
    overlaps: list[float] = []
    for start in range(FIRST_SEED, FIRST_SEED + count, BATCH_SIZE):
        scenes = [make_scene(seed, "test") for seed in range(start, min(start + BATCH_SIZE, FIRST_SEED + count))]
        asked = [(scene, phrase(scene, Random(f"int8 {scene.seed}"))) for scene in scenes]
        pictures = [draw(scene) for scene, found in asked if found is not None]
        texts = [found[2] for _, found in asked if found is not None]
        pairs = zip(*(ofa.ground(pictures, texts) for ofa in (exact, rounded)), strict=True)
        overlaps += [_overlap(one.box, other.box) for one, other in pairs]
    return overlaps


def _overlap(first: Box | None, second: Box | None) -> float:
    """IoU; no box and no box are the same, a box and none are not."""
    if first is None or second is None:
        return float(first is second)
    return float(box_iou(torch.tensor(first), torch.tensor(second)))


def encode_seconds(size: str, repeats: int = 5) -> tuple[float, float]:
    """Median seconds to encode one picture in float32 and in int8, taken in turns."""
    plain = make_model(size)
    models = [optimized(copy.deepcopy(plain)), optimized(plain, int8=True)]
    inputs = make_inputs(models[0], 1, IMAGE_SIZES.get(size, IMAGE_SIZE))
    taken: tuple[list[float], list[float]] = ([], [])
    with torch.inference_mode():
        for _ in range(repeats):
            for model, seconds in zip(models, taken, strict=True):
                seconds += times(lambda model=model: model.encode(inputs.tokens, inputs.images), model.device, 1)  # type: ignore[misc]
    return median(taken[0]), median(taken[1])


if __name__ == "__main__":
    sys.exit(main())
