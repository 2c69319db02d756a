"""The confidence of the demo model on drawn scenes: boxes by each way of decoding, calibration, and things not there.

    python -m benchmarks.confidence [--count 300] [--fitted 300]

grounds, in each test picture, a phrase of a shape that is there and the name of one that is not. The calibration is
fitted to other pictures, of the training split.
"""

from __future__ import annotations

import argparse
import sys
from random import Random
from typing import get_args

import ofa_core
from ofa_core.bench.calibration import Outcomes, fit, outcomes, quality
from ofa_core.bench.reliability import reliability_bins
from ofa_core.config import Calibration
from ofa_core.demo.language import phrase
from ofa_core.demo.world import COLOURS, KINDS, Scene, Split, draw, make_scene
from ofa_core.heads.confidence import Decode, along, confidence_of
from ofa_core.heads.grounding import SPEC
from ofa_core.heads.pipeline import Pipeline

BATCH_SIZE = 32


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", help="the model")
    parser.add_argument("--count", type=int, default=300, help="test pictures")
    parser.add_argument("--fitted", type=int, default=300, help="pictures that the calibration is fitted to")
    args = parser.parse_args(arguments)
    pipeline = ofa_core.load(args.model).pipeline.for_task(SPEC)
    calibration = fit(asked(pipeline, "train", args.fitted, "mbr"))
    print("decode     Acc@0.5  Acc@0.9  ECE raw  ECE calibrated  AUROC present/absent")
    for decode in get_args(Decode):
        found = asked(pipeline, "test", args.count, decode)
        raw, calibrated = quality(found, None), quality(found, calibration)
        print(
            f"{decode:10} {100 * raw.accuracy:7.1f}  {100 * raw.accuracy_at_90:7.1f}  {raw.error:7.3f}"
            f"  {calibrated.error:14.3f}  {raw.presence_auroc or 0:.3f}"
        )
    print(_presence(found, calibration))
    print("confidence  right  phrases")
    right = [iou >= 0.5 for iou in found.overlaps]
    for one in reliability_bins([confidence_of(value, calibration) for value in found.expected], right):
        print(f"{one.confidence:10.3f}  {one.accuracy:5.3f}  {one.samples}")
    print(calibration.model_dump_json())
    return 0


def asked(pipeline: Pipeline, split: Split, count: int, decode: Decode) -> Outcomes:
    """Outcomes of two phrases in each of ``count`` scenes: one that is there, and one that is not."""
    pictures, phrases, right = [], [], []
    for seed in range(count):
        scene = make_scene(seed, split)
        random = Random(f"confidence {scene.seed}")
        if (found := phrase(scene, random)) is None:
            continue
        picture = draw(scene)
        pictures += [picture, picture]
        phrases += [found[2], f"the {absent(scene, random)}"]
        right += [[found[0].box], []]
    return outcomes(pipeline, pictures, phrases, right, decode, BATCH_SIZE)


def absent(scene: Scene, random: Random) -> str:
    """The name of a shape that is not in the scene."""
    there = {thing.name for thing in scene.things}
    return random.choice([f"{c} {k}" for c in COLOURS for k in KINDS if f"{c} {k}" not in there])


def _presence(found: Outcomes, calibration: Calibration) -> str:
    """The share of phrases that lose their boxes at the threshold that was fitted."""
    lost = [along(calibration.present, value) < calibration.least_present for value in found.evidence]
    absent_lost = [one for one, there in zip(lost, found.there, strict=True) if not there]
    present_lost = [one for one, there in zip(lost, found.there, strict=True) if there]
    return (
        f"no box for {100 * sum(absent_lost) / len(absent_lost):.1f} % of what is not there and "
        f"{100 * sum(present_lost) / len(present_lost):.1f} % of what is, below {calibration.least_present:.3f}"
    )


if __name__ == "__main__":
    sys.exit(main())
