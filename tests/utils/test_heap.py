"""Memory that is freed stays with the process where that is asked for, and only there."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest
import torch

from ofa_core.utils import heap
from ofa_core.utils.heap import keep_freed_memory

BLOCK = 64 << 20
ROUNDS = 5

#: Counts the pages that the system had to find while a block was wanted and freed again and again: within, and behind.
SCRIPT = f"""
import json, resource, torch
from ofa_core.utils.heap import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for number in range({ROUNDS}):  # each a little smaller, so that an aligned block fits where the one before lay
        torch.empty({BLOCK} - 4096 * number, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with keep_freed_memory():
    kept = faults()
print(json.dumps([kept, faults()]))
"""


@pytest.mark.skipif(heap._glibc() is None, reason="the C library is not glibc")
def test_freed_memory_is_used_again_within_and_given_back_behind() -> None:
    """In a process of its own: what other tests have left in the heap decides where a block lies."""
    pages = BLOCK // resource.getpagesize()
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    kept, behind = json.loads(done.stdout)
    assert kept < 1.5 * pages  # the first round alone
    assert behind > 0.9 * ROUNDS * pages


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert heap._glibc() is None
    with keep_freed_memory():
        assert torch.ones(3).sum() == 3
