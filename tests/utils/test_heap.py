"""Memory that is freed stays with the process where that is asked for, and only there."""

from __future__ import annotations

import resource
import sys

import pytest
import torch

from ofa_core.utils import heap
from ofa_core.utils.heap import keep_freed_memory

BLOCK = 64 << 20
ROUNDS = 5


def faults() -> int:
    """Pages that the system had to find while a block was wanted and freed again and again."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(ROUNDS):
        torch.empty(BLOCK, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(heap._glibc() is None, reason="the C library is not glibc")
def test_freed_memory_is_used_again_within_and_given_back_behind() -> None:
    pages = BLOCK // resource.getpagesize()
    with keep_freed_memory():
        kept = faults()
    assert kept < 1.5 * pages  # the first round alone
    assert faults() > 0.9 * ROUNDS * pages


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert heap._glibc() is None
    with keep_freed_memory():
        assert torch.ones(3).sum() == 3
