"""A list of files is timed in turns with the model alone and with reading alone."""

from __future__ import annotations

import pytest

from benchmarks.many_pictures import main
from benchmarks.turns import in_turns


def test_calls_take_turns_and_the_first_does_not_count() -> None:
    calls: list[str] = []
    times = in_turns((lambda: calls.append("a"), lambda: calls.append("b")), 2, 0)
    assert calls == ["a", "b"] * 3
    assert [len(one) for one in times] == [2, 2]


def test_the_command_tells_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--count", "3", "--side", "64", "--repeats", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:12].strip() for line in lines] == ["model alone", "files", "reading"]
    assert "1.00 × the model alone, 1.00 × by CPU time" in lines[0]
