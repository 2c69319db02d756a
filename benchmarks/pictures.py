"""Times of drawing: image codes of a picture, one after another, and its pixels, beside what they are compared with.

    python -m benchmarks.pictures [--side 256] [--codes 1024] [--repeats 3] [--threads 1]

Random weights of the original's dimensions: its network of image codes, and the base size. Pixels stand beside their
arithmetic at the rates that this machine reaches at best (:mod:`benchmarks.machine`); codes beside as many plain
decoding steps, in which a token is drawn from a text's. All are measured in turns, in seconds of the processor.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from statistics import median

import torch

from benchmarks.machine import count, measure_limits, times
from benchmarks.turns import in_turns
from benchmarks.workloads import make_model
from ofa_core import AllowedRange, GenerationOptions, OFAModel, generate, optimized
from ofa_core.checkpoint.image_codes import make_vqgan
from ofa_core.model.position_bias import CODE_SIZE
from ofa_core.vision.vqgan import VQGAN, VQGANConfig

#: Tokens of the text that is drawn.
SOURCE_TOKENS = 20
#: The ids of codes, in the original's English vocabulary.
CODES = (50_265, 58_457)
CPU = torch.device("cpu")


def measure_pixels(side: int, repeats: int) -> None:
    """Print the time from codes to pixels, and that of its arithmetic."""
    vqgan = make_vqgan(VQGAN(VQGANConfig(encoder=False)).state_dict())
    codes = torch.randint(vqgan.config.num_codes, (1, side // vqgan.config.code_size, side // vqgan.config.code_size))
    with torch.inference_mode():
        work = count(lambda: vqgan.decode(codes))
        ratios, taken = [], []
        for _ in range(repeats):
            before = measure_limits((CPU, torch.float32), clock=time.process_time)
            taken += times(lambda: vqgan.decode(codes), CPU, 1, clock=time.process_time)
            limits = before.mean(measure_limits((CPU, torch.float32), clock=time.process_time))
            ratios.append(taken[-1] / limits.seconds(work))
    operations = (work.products + work.convolutions) / 1e9
    print(
        f"pixels, {side} x {side}: {median(taken):.2f} s for {operations:.0f} Gflop: {median(ratios):.2f} x arithmetic"
    )


def measure_codes(number: int, repeats: int) -> None:
    """Print the time of ``number`` codes, and that of as many plain steps."""
    changes = {"code_image_size": CODE_SIZE * int(number**0.5), "max_target_positions": number + 1}  # of plain tokens
    model = optimized(make_model("base", **changes))
    tokens = torch.randint(4, 500, (1, SOURCE_TOKENS))
    runs = in_turns(tuple(partial(_draw, model, tokens, number, drawn) for drawn in (True, False)), repeats, 0)
    codes, plain = ([cpu for _, cpu in run] for run in runs)
    ratio = median(a / b for a, b in zip(codes, plain, strict=True))
    print(f"{number} codes, base: {median(codes):.1f} s; as many plain steps: {median(plain):.1f} s: {ratio:.2f} x")


def _draw(model: OFAModel, tokens: torch.Tensor, number: int, codes: bool) -> None:
    """Draw ``number`` tokens: codes of a picture, or of a text."""
    options = GenerationOptions(
        do_sample=True, image_codes=codes, top_k=256, min_new_tokens=number, max_new_tokens=number
    )
    generate(model, tokens, None, options, constraints=[AllowedRange(*CODES)] if codes else [])


def main(argv: Sequence[str] | None = None) -> int:
    """Print both; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=256, help="of the picture in pixels (256)")
    parser.add_argument("--codes", type=int, default=1024, help="of a picture (1024)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    measure_pixels(args.side, args.repeats)
    measure_codes(args.codes, args.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
