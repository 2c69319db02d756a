"""The time and memory of a training step: forward, backward and optimizer, each by itself.

    python -m benchmarks.training --sizes base --autocast none bfloat16 --variants plain fast lora --json steps.json

A step learns from random pictures and texts, on random weights, with the modules and the optimizer that a run of
``ofa-core train`` uses; ``plain`` computes as the model's own code says, with an optimizer that makes its steps tensor
by tensor, and the others as runs do; ``cached`` reads from the disk what a frozen stem made of the pictures. Variants
take turns, so that a machine that is now faster and now slower is so for all of them; the median of each is told, with
its ratio to the first variant.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from ofa_core import ImageFeatures, OFAConfig, OFAModel
from ofa_core.cli.options import positive
from ofa_core.config import PRESETS
from ofa_core.text.vocabulary import BOS
from ofa_core.training.checkpointing import checkpoint_activations
from ofa_core.training.fast_step import fast_step
from ofa_core.training.feature_cache import FeatureCache
from ofa_core.training.lora import add_lora
from ofa_core.training.optim import make_optimizer, scale_and_clip
from ofa_core.training.setting_tables import LoraSettings, OptimizerSettings
from ofa_core.utils.atomic_write import atomic_write_text
from ofa_core.utils.heap import keep_freed_memory

from .machine import PeakMemory, synchronize

#: Tokens of sources and of targets.
SOURCE_TOKENS, TARGET_TOKENS = 20, 8
#: The norm to which gradients are clipped.
CLIP_NORM = 1.0
PARTS = ("forward", "backward", "optimizer")
#: Seconds that pass, and those that the process computes, which other processes of the machine change less.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def _freeze_stem(model: OFAModel) -> None:
    """Keep the stem's weights and statistics as they are."""
    model.encoder.image_stem.requires_grad_(False)
    for module in model.encoder.image_stem.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def _lora(model: OFAModel) -> None:
    add_lora(model, LoraSettings())
    _freeze_stem(model)


def _lora_checkpointed(model: OFAModel) -> None:
    _lora(model)
    checkpoint_activations(model)


#: Changes to a model before it is trained.
VARIANTS: Mapping[str, Callable[[OFAModel], None]] = {
    "plain": lambda model: None,
    "fast": lambda model: None,
    "checkpointed": checkpoint_activations,
    "frozen-stem": _freeze_stem,
    "cached": _freeze_stem,
    "lora": _lora,
    "lora-checkpointed": _lora_checkpointed,
}


@dataclass(frozen=True)
class StepRow:
    """The medians of one variant's steps, in seconds, and the most memory that was held, in bytes."""

    size: str
    batch: int
    side: int
    device: str
    autocast: str
    variant: str
    forward: float
    backward: float
    optimizer: float
    peak: int | None
    moving: int  # parameters that are trained

    @property
    def seconds(self) -> float:
        """The whole step."""
        return self.forward + self.backward + self.optimizer


class Stepper:
    """A model that is trained step by step on one batch."""

    #: A name of :data:`CLOCKS`.
    clock = "wall"

    def __init__(self, size: str, batch: int, side: int, variant: str, autocast: str, device: torch.device) -> None:
        self.variant = variant
        torch.manual_seed(1)
        self.model = OFAModel(OFAConfig.preset(size)).to(device).train()
        self.model.encoder.image_stem.to(memory_format=torch.channels_last)  # as the trainer has it
        VARIANTS[variant](self.model)
        self.optimizer = make_optimizer(self.model, OptimizerSettings(lr=1e-5))
        if variant == "plain":
            for group in self.optimizer.param_groups:
                group["fused"] = False
        vocabulary = self.model.config.vocab_size
        self.tokens = torch.randint(BOS + 4, vocabulary, (batch, SOURCE_TOKENS), device=device)
        self.target = torch.randint(BOS + 4, vocabulary, (batch, TARGET_TOKENS), device=device)
        self.pixels = torch.randn(batch, 3, side, side, device=device)
        self.autocast, self.device = autocast, device
        self.folder = tempfile.TemporaryDirectory() if variant == "cached" else None
        self.cache = None if self.folder is None else FeatureCache(Path(self.folder.name))
        if self.cache is not None:
            self.cache.begin(self.model, f"{device.type} {autocast}")

    def images(self) -> Tensor | ImageFeatures:
        """The pixels, or what the stem made of them when it first saw them."""
        if self.cache is None:
            return self.pixels
        known = self.cache.known(self.pixels.cpu()).changed(lambda tensor: tensor.to(self.device))
        return self.cache.complete(self.pixels[[*known.lacking.values()]], known, self.model)

    def loss(self) -> Tensor:
        """The mean loss of the targets' tokens."""
        kind = None if self.autocast == "none" else getattr(torch, self.autocast)
        with contextlib.nullcontext() if kind is None else torch.autocast(self.device.type, kind):
            logits = self.model(self.tokens, self.target, self.images())
            return F.cross_entropy(logits.float().flatten(0, 1), self.target.flatten())

    def turn(self) -> tuple[float, float, float]:
        """Seconds of the parts of a step, behind one that finds no memory of its own and does not count."""
        with contextlib.ExitStack() as stack:
            if self.variant != "plain" and self.device.type == "cpu":  # as runs do
                stack.enter_context(keep_freed_memory())
                stack.enter_context(fast_step(self.model))
            self.step()
            return self.step()

    def step(self) -> tuple[float, float, float]:
        """Seconds of the parts of a step."""
        moments = [self._now()]
        loss = self.loss()
        moments.append(self._now())
        loss.backward()
        moments.append(self._now())
        if self.variant == "plain":
            clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        else:
            scale_and_clip(self.model.parameters(), 1.0, CLIP_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        moments.append(self._now())
        forward, backward, optimizer = (end - start for start, end in pairwise(moments))
        return forward, backward, optimizer

    def _now(self) -> float:
        synchronize(self.device)
        return CLOCKS[self.clock]()


def measure(
    size: str, batch: int, side: int, variants: Sequence[str], autocast: str, device: torch.device, steps: int
) -> list[StepRow]:
    """Train all ``variants`` in turns: each takes a turn that does not count, and then ``steps``."""
    steppers = {variant: Stepper(size, batch, side, variant, autocast, device) for variant in variants}
    taken: dict[str, list[tuple[float, float, float]]] = {variant: [] for variant in variants}
    peaks: dict[str, int | None] = {}
    for _ in range(steps + 1):
        for variant, stepper in steppers.items():
            memory = PeakMemory(device)
            with memory:
                taken[variant].append(stepper.turn())
            peaks[variant] = memory.bytes
    rows = []
    for variant, stepper in steppers.items():
        forward, backward, optimizer = (median(column) for column in zip(*taken[variant][1:], strict=True))
        moving = sum(p.numel() for p in stepper.model.parameters() if p.requires_grad)
        parts = (forward, backward, optimizer)
        rows.append(StepRow(size, batch, side, str(device), autocast, variant, *parts, peaks[variant], moving))
    return rows


def lines(rows: Sequence[StepRow]) -> list[str]:
    """A table of some rows of one model and type, with the ratio of the first row's time to each."""
    told = []
    for row in rows:
        parts = ", ".join(f"{part} {getattr(row, part):.3f}" for part in PARTS)
        memory = "" if row.peak is None else f", peak {row.peak / 2**30:.2f} GiB"
        ratio = rows[0].seconds / row.seconds
        told.append(
            f"{row.size} {row.side} px, batch {row.batch}, {row.device}, autocast {row.autocast}, {row.variant}: "
            f"{row.seconds:.3f} s ({parts}){memory}, {ratio:.2f} x, {row.moving:,} parameters move"
        )
    return told


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what was asked for, and print a line for each."""
    args = _parser().parse_args(argv)
    Stepper.clock = args.clock
    found: list[dict[str, Any]] = []
    for size in args.sizes:
        for autocast in args.autocast:
            # one by one where memory counts: a process holds what all variants have
            groups = [[variant] for variant in args.variants] if args.apart else [args.variants]
            for group in groups:
                device = torch.device(args.device)
                rows = measure(size, args.batch, args.side, group, autocast, device, args.steps)
                print("\n".join(lines(rows)), flush=True)
                found += [asdict(row) for row in rows]
    if args.json is not None:
        atomic_write_text(args.json, json.dumps(found, indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.training", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=PRESETS, default=["base"], help="sizes of models (base)")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["plain"], help="ways to train (plain)")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: the time that the process computes (wall)"
    )
    parser.add_argument("--autocast", nargs="+", choices=("none", "bfloat16", "float16"), default=["none"])
    parser.add_argument("--apart", action="store_true", help="one variant after the other, so that memory is its own")
    parser.add_argument("--batch", type=positive, default=2, help="pictures a step (2)")
    parser.add_argument("--side", type=positive, default=256, help="pixels a side (256)")
    parser.add_argument("--steps", type=positive, default=5, help="steps that count (5)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the rows to this file, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
