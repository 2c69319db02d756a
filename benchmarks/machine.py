"""Rates that this machine reaches at best, the arithmetic that a computation needs, and the memory it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

#: The device and the type of weights that a measurement is made with.
Place = tuple[torch.device, torch.dtype]


@dataclass(frozen=True)
class Work:
    """Arithmetic of a computation: floating-point operations, a multiplication and an addition being two."""

    products: int  # in matrix products and attention
    convolutions: int


@dataclass(frozen=True)
class Limits:
    """Rates of the machine where nothing else is in the way, in floating-point operations a second."""

    product: float  # 1044 × 768 by 768 × 3072, as in a feed-forward of the base size
    convolution: float  # 3 × 3, 256 channels, 32 × 32 positions, as in the third stage of every stem

    def seconds(self, work: Work) -> float:
        """The time that ``work`` takes at these rates."""
        return work.products / self.product + work.convolutions / self.convolution

    def mean(self, other: Limits) -> Limits:
        """Between these and others."""
        return Limits((self.product + other.product) / 2, (self.convolution + other.convolution) / 2)


def synchronize(device: torch.device) -> None:
    """Wait for a GPU to have finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def times(work: Callable[[], object], device: torch.device, repeats: int, at_least: float = 0) -> list[float]:
    """Seconds of each of ``repeats`` runs or more, ``at_least`` so long in all, after one that does not count."""
    taken: list[float] = []
    while len(taken) <= repeats or sum(taken[1:]) < at_least:
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        taken.append(time.perf_counter() - start)
    return taken[1:]


@torch.inference_mode()
def measure_limits(place: Place, repeats: int = 15) -> Limits:
    """Run the two plain operations that everything else is compared with."""
    device, dtype = place
    rows, inner, columns = 1044, 768, 3072
    left, right = (torch.randn(shape, device=device).to(dtype) for shape in ((rows, inner), (columns, inner)))
    product = median(times(lambda: F.linear(left, right), device, repeats))
    channels, side = 256, 32
    image = torch.randn(1, channels, side, side, device=device).to(dtype)
    weight = torch.randn(channels, channels, 3, 3, device=device).to(dtype)
    convolution = median(times(lambda: F.conv2d(image, weight, padding=1), device, repeats))
    return Limits(2 * rows * inner * columns / product, 2 * channels**2 * 9 * side**2 / convolution)


def count(work: Callable[[], object]) -> Work:
    """The arithmetic of ``work``, which is run once."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={attention: _attention_work})
    with counter:
        work()
    by_operation = counter.get_flop_counts()["Global"]
    convolutions = sum(flops for operation, flops in by_operation.items() if "conv" in str(operation))
    return Work(counter.get_total_flops() - convolutions, convolutions)


def _attention_work(query: Tensor | Any, key: Tensor | Any, *_: object, **__: object) -> int:
    """Operations of attention from shapes [B, H, T, E] and [B, H, S, E]: two products."""
    batch, heads, length, width = query.shape if isinstance(query, Tensor) else query
    keys = (key.shape if isinstance(key, Tensor) else key)[2]
    return int(4 * batch * heads * length * keys * width)


class PeakMemory:
    """The most memory that was held inside a ``with``, in bytes: of the process on a CPU, of tensors on a GPU.

    ``bytes`` stays None where the system does not tell.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes: int | None = None

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device)
        else:
            with suppress(OSError):
                status = Path("/proc/self/status").read_text().splitlines()
                self.bytes = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
