"""Several processes, as ``torchrun`` starts them, that share out one run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

#: Processes wait for the slowest, however long it takes; one that fails is seen by torchrun, which ends them all.
TIMEOUT = timedelta(days=30)


@dataclass(frozen=True)
class Process:
    """One of ``world_size`` processes."""

    rank: int = 0
    world_size: int = 1
    #: Its rank among those of its machine, and so its GPU.
    local_rank: int = 0

    @property
    def is_rank0(self) -> bool:
        """True in the process that writes what all have done."""
        return self.rank == 0

    def owns(self, batch: int) -> bool:
        """Tell whether batch number ``batch`` is its own: batches go round."""
        return batch % self.world_size == self.rank

    def device(self, name: str) -> str:
        """``name``, or of ``cuda`` the GPU of this process."""
        return f"cuda:{self.local_rank}" if name == "cuda" and self.world_size > 1 else name

    def barrier(self) -> None:
        """Return when all processes are here."""
        if self.world_size > 1:
            dist.barrier()

    def broadcast_from_rank0(self, make: Callable[[], str]) -> str:
        """Return in every process what ``make`` returns in the first one; the others do not call it."""
        if self.world_size == 1:
            return make()
        content = torch.frombuffer(bytearray(make().encode()), dtype=torch.uint8) if self.is_rank0 else torch.empty(0)
        length = torch.tensor([len(content)])
        dist.broadcast(length, src=0)
        message = content if self.is_rank0 else torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(message, src=0)
        return bytes(message.tolist()).decode()


@contextmanager
def process_group() -> Iterator[Process]:
    """This process among those that ``torchrun`` started; by itself where it did not.

    They talk through gloo about what is in memory, and through NCCL about what is on GPUs.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Process()
        return
    gpus = torch.cuda.is_available() and dist.is_nccl_available()
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=TIMEOUT)
    try:
        process = Process(dist.get_rank(), count, int(os.environ.get("LOCAL_RANK", "0")))
        yield process
        process.barrier()  # one that leaves early takes its connections from those that still work
    finally:
        dist.destroy_process_group()
