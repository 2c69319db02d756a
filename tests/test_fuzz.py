"""Short runs of the fuzzers of model directories, dataset files and archives; ``make fuzz`` is the long one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz_archives
import fuzz_data
import fuzz_models
import fuzzing
import pytest
from fuzzing import Fuzzer

from ofa_core import OFAError

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured through /proc")
COUNT = 40


@pytest.mark.filterwarnings("ignore")  # Pillow's, of what it reads all the same
@pytest.mark.parametrize("module", [fuzz_archives, fuzz_data, fuzz_models], ids=lambda module: module.__name__)
def test_damaged_and_hostile_inputs_end_in_a_result_or_in_our_errors(module: Any, tmp_path: Path) -> None:
    whole = module.prepare(tmp_path / "whole")
    (tmp_path / "mutated").mkdir()
    found = [line for number in range(COUNT) for line in module.findings(whole, number, tmp_path / "mutated")]
    assert found == []


@pytest.mark.parametrize("module", [fuzz_archives, fuzz_data, fuzz_models], ids=lambda module: module.__name__)
def test_what_is_whole_is_read(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise every mutation would end in an error, and nothing would be tried."""
    monkeypatch.chdir(tmp_path)  # names that lead out of the present directory lead to nothing
    whole = module.prepare(tmp_path / "whole")
    if module is fuzz_models:
        module.use(whole)
    elif module is fuzz_data:
        for case in whole:
            if case.format != "guesswhat" and "jsonl" not in case.path.name:  # whose pictures are elsewhere
                module.use(case.format, case.path)
    else:
        for name, data in whole.items():
            (tmp_path / name).write_bytes(data)
            with pytest.raises(OFAError, match="does not exist, nor is it in"):  # the names that are not in it
                module.use(tmp_path / name)


def take_memory() -> None:
    bytearray(fuzzing.MEMORY_LIMIT + (100 << 20))


def say_two_lines() -> None:
    raise OFAError("one\ntwo")


NOTICED: list[tuple[Callable[[], object], str]] = [
    (lambda: 1 / 0, "ZeroDivisionError: 'division by zero'"),
    (take_memory, "1.2 GB more memory"),
    (say_two_lines, "an error of several lines"),
]


@pytest.mark.parametrize(("use", "message"), NOTICED, ids=["exception", "memory", "lines"])
def test_the_fuzzers_notice(use: Callable[[], object], message: str) -> None:
    (line,) = fuzzing.observe(use)
    assert message in line
    assert fuzzing.observe(lambda: None) == []


def test_time_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzing, "SECONDS_LIMIT", 0.01)
    assert fuzzing.observe(lambda: time.sleep(0.02)) == ["0 s"]


def prepare_nothing(directory: Path) -> None:
    directory.mkdir(parents=True)


def die_at_one(_whole: None, number: int, _directory: Path) -> list[str]:
    if number == 1:
        os.abort()
    return [f"tried {number}"]


def test_a_process_that_dies_is_a_finding_and_is_replaced(tmp_path: Path) -> None:
    found = list(fuzzing.run(Fuzzer(prepare_nothing, die_at_one), 0, 3, tmp_path))
    assert found == [(0, ["tried 0"]), (1, ["1: the process ended with -6"]), (2, ["tried 2"])]
