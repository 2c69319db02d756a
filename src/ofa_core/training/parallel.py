"""Training steps that several processes share."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import OFAError
from ..model.layers import DecoderLayer, EncoderLayer
from ..utils.distributed import Process
from .state import shard_like

#: Since this version of torch, FSDP2 is public and gloo has what it needs.
SHARDS_SINCE = (2, 8)


class Parallel:
    """Copies of the model on every process (DDP), or with ``shard`` parts of it (FSDP2); alone, neither."""

    def __init__(self, process: Process, shard: bool = False) -> None:
        self.process = process
        self.shard = shard
        if shard and process.world_size == 1:
            raise OFAError("shard needs several processes: torchrun --nproc-per-node N -m ofa_core train ...")

    def wrap(self, module: nn.Module) -> nn.Module:
        """``module``, whose gradients will be the averages over the processes."""
        if self.process.world_size == 1:
            return module
        device = next(module.parameters()).device
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if self.shard:
            _shard(module)
            return module
        devices = [device] if device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=devices, find_unused_parameters=True, broadcast_buffers=False)

    def gradient_sync(self, module: nn.Module, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Gradients are exchanged in the last pass of a step only."""
        if isinstance(module, DistributedDataParallel) and not last:
            return module.no_sync()
        return contextlib.nullcontext()

    def sum_over_processes(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.process.world_size > 1:
            dist.all_reduce(values)
        return values

    def load(self, model: nn.Module, state: dict[str, Tensor]) -> None:
        """Load whole tensors into a model that may be sharded."""
        with torch.no_grad():
            for name, tensor in model.state_dict(keep_vars=True).items():
                tensor.copy_(shard_like(state[name], tensor))

    def random_states(self, device: torch.device) -> dict[str, Tensor]:
        """The states of the random numbers of all processes by rank."""
        state = torch.get_rng_state()
        if device.type == "cuda":
            state = torch.cat([state, torch.cuda.get_rng_state(device)])
        states = [state]
        if self.process.world_size > 1:
            states = [torch.empty_like(state) for _ in range(self.process.world_size)]
            dist.all_gather(states, state)
        return {str(rank): part for rank, part in enumerate(states)}

    def restore_random(self, states: dict[str, Tensor], device: torch.device) -> None:
        """Put back what :meth:`random_states` gave.

        Raises:
            OFAError: another number of processes made the run.
        """
        if len(states) != self.process.world_size:
            raise OFAError(
                f"the run was made by {len(states)} processes and cannot go on with {self.process.world_size}"
            )
        state, size = states[str(self.process.rank)], torch.get_rng_state().numel()
        torch.set_rng_state(state[:size])
        if device.type == "cuda" and len(state) > size:
            torch.cuda.set_rng_state(state[size:], device)


def can_shard() -> bool:
    """Tell whether this torch shards a model's parts on every backend, CPUs' too."""
    return tuple(map(int, torch.__version__.split(".")[:2])) >= SHARDS_SINCE


def _shard(module: nn.Module) -> None:
    """FSDP2: every layer on its own, and the rest together."""
    if not can_shard():
        needed = ".".join(map(str, SHARDS_SINCE))
        raise OFAError(f"shard needs torch {needed} or newer, this is {torch.__version__}")
    from torch.distributed.fsdp import fully_shard

    for layer in module.modules():
        if isinstance(layer, EncoderLayer | DecoderLayer):
            fully_shard(layer)
    fully_shard(module)
