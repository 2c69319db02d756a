"""Figures of the demo model that draws: whether the other demo model finds what was asked for, and nothing else.

    python -m benchmarks.demo_pictures [--model demo-pictures] [--count 500] [--split train test]

Captions are of scenes that no training begins with. Those of the training split have pairs of a colour and a kind that
were learned from; in those of the test split at least one shape is of a pair that neither model has ever seen. The
pictures that were drawn for the captions, and these pictures behind their codes, are judged too: what the judge does
not find there, it could not find in any picture.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image

import ofa_core
from ofa_core import OFA, Imagined
from ofa_core.demo.language import caption, from_left_to_right
from ofa_core.demo.pictures import picture_scene, small_picture
from ofa_core.demo.world import Scene
from ofa_core.heads.image_generation import picture_seeds

#: The first scene's seed.
FIRST = 40_000_000
#: The seed that pictures are drawn with.
SEED = 1
#: The factor by which a picture is enlarged for the judge, which knows larger ones.
ENLARGED = 2


@dataclass(frozen=True)
class Judged:
    """Shares of pictures in which all shapes are, in which there are no others, and in which the order is right too."""

    all_there: float
    exact: float
    in_order: float


def judge(judging: OFA, pictures: Iterable[Image.Image], scenes: Sequence[Scene]) -> Judged:
    """Judge a picture of each scene by what the model lists in it."""
    large = [one.resize((one.width * ENLARGED, one.height * ENLARGED), Image.Resampling.BICUBIC) for one in pictures]
    shares = [0, 0, 0]
    for scene, listed in zip(scenes, judging.detect(large, batch_size=32), strict=True):
        due = [thing.name for thing in from_left_to_right(scene)]
        found = [one.label for one in sorted(listed, key=lambda one: one.box[0] + one.box[2])]
        missing = list(due)
        for name in found:
            if name in missing:
                missing.remove(name)
        shares[0] += not missing
        shares[1] += sorted(found) == sorted(due)
        shares[2] += found == due
    return Judged(*(share / len(scenes) for share in shares))


def first(found: Sequence[Imagined], index: int) -> Image.Image:
    """The picture of the text at ``index`` that was drawn first, wherever it is ranked."""
    seed = picture_seeds(SEED, index, 1)[0]
    return next(one.image for one in found if one.seed == seed)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo-pictures")
    parser.add_argument("--count", type=int, default=500, help="captions (500)")
    parser.add_argument("--drawn", type=int, default=4, help="pictures that are drawn of each, of which one is shown")
    parser.add_argument("--split", nargs="+", choices=("train", "test"), default=["train", "test"])
    args = parser.parse_args(argv)
    painter, judging = ofa_core.load(args.model), ofa_core.load("demo")
    print(f"{'':44} all there    exact  in order")
    for split in args.split:
        scenes = [picture_scene(seed, split) for seed in range(FIRST, FIRST + args.count)]
        words = [caption(scene) for scene in scenes]
        originals = [small_picture(scene) for scene in scenes]
        drawn = painter.imagine(words, count=args.drawn, seed=SEED, progress=sys.stderr.isatty())
        rows = {
            "drawn by the demo's own pen": originals,
            "the same from their codes": [painter.decode_codes(painter.encode_image(one)) for one in originals],
            "drawn by the model, one of each text": [first(found, index) for index, found in enumerate(drawn)],
            f"the one that it ranks first of {args.drawn}": [found[0].image for found in drawn],
        }
        for name, pictures in rows.items():
            judged = judge(judging, pictures, scenes)
            shares = "".join(f"{share:10.1%}" for share in (judged.all_there, judged.exact, judged.in_order))
            print(f"{split}: {name:36} {shares}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
