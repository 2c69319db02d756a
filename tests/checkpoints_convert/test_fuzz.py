"""A short run of the fuzzer; ``make fuzz`` is the long one."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from reference import script

from checkpoints_convert import unpickle


@pytest.fixture(scope="module")
def fuzzer() -> ModuleType:
    return script("fuzz_checkpoints")


def test_damaged_and_hostile_files_end_in_a_result_or_in_our_errors(fuzzer: ModuleType, tmp_path: Path) -> None:
    data = fuzzer.small_checkpoint()
    found = [line for number in range(100) for line in fuzzer.findings(data, number, tmp_path)]
    assert found == []


def test_the_fuzzer_notices(fuzzer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that executed pickles, or let another exception through, would be found out."""

    def trusting(path: Path) -> object:
        import torch

        content = torch.load(path, weights_only=False)
        return unpickle.Checkpoint(Path(path), "zip", content)

    monkeypatch.setattr("checkpoints_convert.wrappers.read_checkpoint", trusting)
    data = fuzzer.small_checkpoint()
    found = "\n".join(line for number in range(20) for line in fuzzer.findings(data, number, tmp_path))
    assert "something was executed" in found
    assert "truncated 0: " in found
