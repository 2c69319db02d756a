"""Memory of mapped files is given back, and nothing that was written is ever lost."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ofa_core.checkpoint.model_dir import read_safetensors
from ofa_core.utils import mapped_memory
from ofa_core.utils.mapped_memory import MappedTensors, give_back, is_unwritten

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is given back on Linux alone")
SIZE = 4_000_000  # values, 16 MB


@pytest.fixture
def mapped(tmp_path: Path) -> Tensor:
    """A tensor that is mapped from a file."""
    path = tmp_path / "x.safetensors"
    save_file({"x": torch.arange(SIZE, dtype=torch.float32)}, path)
    return read_safetensors(path)["x"]


def resident(tensor: Tensor) -> int:
    """Bytes of a tensor's pages that are in this process's memory, as the system tells."""
    start, found = tensor.data_ptr(), 0
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()[0]
        if "-" in head and not head.endswith(":"):
            low, high = (int(part, 16) for part in head.split("-"))
            inside = low <= start < high
        elif inside and head == "Rss:":
            found += int(line.split()[1]) * 1024
    return found


@linux
def test_a_mapped_tensor_leaves_memory_and_is_read_anew(mapped: Tensor) -> None:
    assert float(mapped.double().sum()) == SIZE * (SIZE - 1) / 2
    if resident(mapped) < 4 * SIZE * 0.9:
        pytest.skip("this system does not map files or does not tell")
    give_back(mapped)
    assert resident(mapped) < 4 * SIZE * 0.1
    assert torch.equal(mapped, torch.arange(SIZE, dtype=torch.float32))


def test_what_was_written_to_a_mapped_tensor_stays(mapped: Tensor) -> None:
    mapped[12345] = -1.0
    give_back(mapped)
    assert mapped[12345] == -1.0
    mapped += 1
    give_back(mapped[: SIZE // 2])
    assert torch.equal(mapped[20000:], torch.arange(20001, SIZE + 1, dtype=torch.float32))


def test_memory_of_the_processs_own_stays() -> None:
    own = torch.arange(SIZE, dtype=torch.float32)
    for part in (own, own[5:], own[::2], torch.empty(0), torch.ones(3)):
        give_back(part)
    assert torch.equal(own, torch.arange(SIZE, dtype=torch.float32))


def test_where_the_system_cannot_tell_nothing_happens(mapped: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(mapped_memory, "_madvise", lambda: lambda *what: asked.append(what))
    with monkeypatch.context() as patched:
        patched.setattr(mapped_memory.Path, "open", lambda *_, **__: (_ for _ in ()).throw(OSError("no")))
        give_back(mapped)
        assert not is_unwritten(mapped)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "platform", "darwin")
        give_back(mapped)
        assert not is_unwritten(mapped)
    assert not asked
    elsewhere = torch.empty(SIZE, device="meta")
    give_back(elsewhere)
    assert not is_unwritten(elsewhere)


@linux
def test_every_single_write_to_a_mapped_tensor_is_seen(mapped: Tensor) -> None:
    if not is_unwritten(mapped):
        pytest.skip("this system does not tell")
    first, second = mapped[: SIZE // 2], mapped[SIZE // 2 + 100_000 :]
    both = MappedTensors([second, first])
    assert both.unwritten()
    mapped[SIZE // 2 + 50_000] = 1.0  # between them
    assert both.unwritten()
    assert not is_unwritten(mapped)
    give_back(first)
    assert both.unwritten()
    second.data[77_777] = 0.0
    assert not both.unwritten()
    assert is_unwritten(first)
    assert not is_unwritten(second)


def test_memory_of_the_processs_own_counts_as_written() -> None:
    own = torch.zeros(SIZE)
    own += 1
    assert not is_unwritten(own)
    assert not MappedTensors([own]).unwritten()
    assert MappedTensors([]).unwritten()


def test_the_file_itself_is_never_written_to(mapped: Tensor, tmp_path: Path) -> None:
    mapped.mul_(2)
    give_back(mapped)
    assert torch.equal(load_file(tmp_path / "x.safetensors")["x"], torch.arange(SIZE, dtype=torch.float32))
