"""Effects of rounding the weights to 8 bits: answers of the demo model, and the time that parts take at a size.

    python -m benchmarks.int8 [--count 2000] [--size base] [--threads 1]

grounds phrases of test pictures and answers questions about them in both types, and times both in turns.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from statistics import mean

import torch

import ofa_core
from ofa_core import GenerationOptions, OFAModel, generate
from ofa_core.config import PRESETS
from ofa_core.demo.language import phrase, picture_question
from ofa_core.demo.world import draw, make_scene
from ofa_core.inference.fast_model import optimized
from ofa_core.vision.boxes import Box, box_iou

from .turns import in_turns
from .workloads import GROUNDING, IMAGE_SIZE, IMAGE_SIZES, make_inputs, make_model

#: Seed of the first scene of the test split.
FIRST_SEED = 0
BATCH_SIZE = 50


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="test pictures; 0 leaves the answers out")
    parser.add_argument("--size", choices=PRESETS, default="base")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's own choice if not given")
    args = parser.parse_args(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.count:
        print(compare(args.count).told())
    exact, rounded = cpu_seconds(args.size)
    print(f"at {args.size}, CPU seconds of float32 and of int8, and how many times as fast int8 is:")
    for part, seconds in exact.items():
        print(f"{part:32} {seconds:7.3f} {rounded[part]:7.3f} {seconds / rounded[part]:6.2f}")
    return 0


@dataclass
class Comparison:
    """Answers in int8 beside those in float32."""

    overlaps: list[float]  # IoU of boxes
    same: list[bool]  # texts are equal

    def told(self) -> str:
        """Two lines that tell it."""
        found = sum(overlap > 0.5 for overlap in self.overlaps) / len(self.overlaps)
        return (
            f"boxes on {len(self.overlaps)} test pictures: IoU {mean(self.overlaps):.4f} on average, "
            f"above 0.5 in {found:.2%}\nanswers to {len(self.same)} questions: {mean(self.same):.2%} the same"
        )


def compare(count: int) -> Comparison:
    """Ask the demo model in float32 and in int8 for boxes and answers."""
    exact, rounded = ofa_core.load("demo"), ofa_core.load("demo", dtype=torch.int8)
    result = Comparison([], [])
    for start in range(FIRST_SEED, FIRST_SEED + count, BATCH_SIZE):
        scenes = [make_scene(seed, "test") for seed in range(start, min(start + BATCH_SIZE, FIRST_SEED + count))]
        asked = [(scene, phrase(scene, Random(f"int8 {scene.seed}"))) for scene in scenes]
        pictures = [draw(scene) for scene in scenes]
        texts = [(picture, found[2]) for picture, (_, found) in zip(pictures, asked, strict=True) if found is not None]
        pairs = zip(*(ofa.ground(*map(list, zip(*texts, strict=True))) for ofa in (exact, rounded)), strict=True)
        result.overlaps += [_overlap(one.box, other.box) for one, other in pairs]
        questions = [picture_question(scene, Random(f"int8 {scene.seed}"))[0] for scene in scenes]
        answers = zip(*(ofa.answer(pictures, questions) for ofa in (exact, rounded)), strict=True)
        result.same += [one.answer == other.answer for one, other in answers]
    return result


def _overlap(first: Box | None, second: Box | None) -> float:
    """IoU; no box and no box are the same, a box and none are not."""
    if first is None or second is None:
        return float(first is second)
    return float(box_iou(torch.tensor(first), torch.tensor(second)))


def cpu_seconds(size: str, repeats: int = 5) -> tuple[dict[str, float], dict[str, float]]:
    """The least CPU seconds of each part for one picture in float32 and in int8, taken in turns."""
    plain = make_model(size)
    models = [optimized(copy.deepcopy(plain)), optimized(plain, int8=True)]
    inputs = make_inputs(models[0], 1, IMAGE_SIZES.get(size, IMAGE_SIZE))
    options = [_of_length(GROUNDING, length) for length in (4, 16)]
    parts: dict[str, Callable[[OFAModel], object]] = {
        "the stem": lambda model: model.image_features(inputs.images),
        "encoding behind it": lambda model: model.encode(inputs.tokens, inputs.features),
        "grounding behind it": lambda model: generate(model, inputs.tokens, inputs.features, options[0]),
        "16 tokens behind it": lambda model: generate(model, inputs.tokens, inputs.features, options[1]),
        "grounding": lambda model: generate(model, inputs.tokens, inputs.images, options[0]),
    }
    taken: tuple[dict[str, float], dict[str, float]] = ({}, {})
    with torch.inference_mode():
        for part, work in parts.items():
            times = in_turns(tuple(partial(work, model) for model in models), repeats, 0)
            for seconds, runs in zip(taken, times, strict=True):
                seconds[part] = min(cpu for _, cpu in runs)
    for seconds in taken:
        seconds["a further step"] = (seconds["16 tokens behind it"] - seconds["grounding behind it"]) / 12
    return taken


def _of_length(options: GenerationOptions, length: int) -> GenerationOptions:
    """``options`` with targets of ``length`` tokens."""
    return options.updated(min_new_tokens=length, max_new_tokens=length)


if __name__ == "__main__":
    sys.exit(main())
