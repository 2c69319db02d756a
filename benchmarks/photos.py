"""Memory and time of grounding a long list of photos: ``python -m benchmarks.photos --count 500 --model demo``."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import ofa_core

from .machine import PeakMemory

#: Photos that differ; the others are further names of their files.
DISTINCT = 8


def write_photos(directory: Path, count: int, width: int, height: int) -> list[Path]:
    """Write ``count`` JPEG files of smooth random pictures that a phone held sideways would store."""
    exif = Image.Exif()
    exif[0x0112] = 6
    paths = [directory / f"{index}.jpg" for index in range(count)]
    for index, path in enumerate(paths):
        if index < DISTINCT:
            rough = np.random.RandomState(index).randint(0, 256, (48, 64, 3)).astype(np.uint8)
            Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC).save(path, exif=exif)
        else:
            path.hardlink_to(paths[index % DISTINCT])
    return paths


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo", help="a model directory, or demo")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--size", type=int, nargs=2, default=(4000, 3000), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--batch-size", type=int, default=16)
    args = parser.parse_args()
    ofa = ofa_core.load(args.model)
    with tempfile.TemporaryDirectory() as directory:
        paths = write_photos(Path(directory), args.count, *args.size)
        start = time.perf_counter()
        with PeakMemory(torch.device("cpu")) as peak:
            found = ofa.ground(paths, "the red circle", batch_size=args.batch_size, progress=True)
        seconds = time.perf_counter() - start
    held = "unknown" if peak.bytes is None else f"{peak.bytes / 2**30:.2f} GiB"
    millions = args.size[0] * args.size[1] / 1e6
    print(f"{len(found)} photos of {millions:.0f} megapixels: peak {held}, {seconds:.0f} s, {args.model}")


if __name__ == "__main__":
    main()
