"""Rates that this machine reaches at best, arithmetic and bytes of a computation, and the memory that it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

#: The device and the type of weights that a measurement is made with.
Place = tuple[torch.device, torch.dtype]
#: Bytes that are read to measure the rate of memory.
READ_BYTES = 512 << 20


@dataclass(frozen=True)
class Work:
    """Floating-point operations of a computation, a multiplication and an addition being two, and their operands."""

    products: int  # in matrix products and attention
    convolutions: int
    #: Operands and results of both, each read or written once for every operation, as if nothing stayed in a cache.
    bytes: int = 0


@dataclass(frozen=True)
class Limits:
    """Rates of the machine where nothing else is in the way, in floating-point operations and bytes a second."""

    product: float  # 1044 × 768 by 768 × 3072, as in a feed-forward of the base size
    convolution: float  # 3 × 3, 256 channels, 32 × 32 positions, as in the third stage of every stem
    memory: float = float("inf")  # reading 512 MiB, more than caches hold

    def seconds(self, work: Work) -> float:
        """The time that the arithmetic of ``work`` takes at these rates."""
        return work.products / self.product + work.convolutions / self.convolution

    def memory_seconds(self, work: Work) -> float:
        """The time that the bytes of ``work`` take at the rate of memory."""
        return work.bytes / self.memory

    def mean(self, other: Limits) -> Limits:
        """Between these and others."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Limits(*(mean(pair) for pair in pairs))


def synchronize(device: torch.device) -> None:
    """Wait for a GPU to have finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def times(
    work: Callable[[], object],
    device: torch.device,
    repeats: int,
    at_least: float = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Seconds of each of ``repeats`` runs or more, ``at_least`` so long in all, after one that does not count."""
    taken: list[float] = []
    while len(taken) <= repeats or sum(taken[1:]) < at_least:
        synchronize(device)
        start = clock()
        work()
        synchronize(device)
        taken.append(clock() - start)
    return taken[1:]


@torch.inference_mode()
def measure_limits(place: Place, repeats: int = 15, clock: Callable[[], float] = time.perf_counter) -> Limits:
    """Run the three plain operations that everything else is compared with."""
    device, dtype = place
    rows, inner, columns = 1044, 768, 3072
    left, right = (torch.randn(shape, device=device).to(dtype) for shape in ((rows, inner), (columns, inner)))
    product = median(times(lambda: F.linear(left, right), device, repeats, clock=clock))
    channels, side = 256, 32
    image = torch.randn(1, channels, side, side, device=device).to(dtype)
    weight = torch.randn(channels, channels, 3, 3, device=device).to(dtype)
    convolution = median(times(lambda: F.conv2d(image, weight, padding=1), device, repeats, clock=clock))
    block = torch.ones(READ_BYTES // 4, device=device)
    reading = median(times(block.sum, device, min(repeats, 5), clock=clock))
    return Limits(
        2 * rows * inner * columns / product, 2 * channels**2 * 9 * side**2 / convolution, block.nbytes / reading
    )


def count(work: Callable[[], object]) -> Work:
    """The arithmetic of ``work`` and the bytes of its operands; it is run once."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={attention: _attention_work})
    operands = _OperandBytes(counter.flop_registry)
    with operands, counter:  # the inner one takes apart what is made of several operations
        work()
    by_operation = counter.get_flop_counts()["Global"]
    convolutions = sum(flops for operation, flops in by_operation.items() if "conv" in str(operation))
    return Work(counter.get_total_flops() - convolutions, convolutions, operands.bytes)


class _OperandBytes(TorchDispatchMode):
    """Adds up the bytes of all operands and results of the operations that ``counted`` names."""

    def __init__(self, counted: Container[object]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self._counted = counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count it."""
        result = func(*args, **(kwargs or {}))
        if func._overloadpacket in self._counted:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            # an expanded tensor has fewer bytes than it shows
            self.bytes += sum(min(tensor.nbytes, tensor.untyped_storage().nbytes()) for tensor in tensors)
        return result


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
