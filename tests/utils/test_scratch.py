"""What a killed process leaves is cleaned by the next one, and what a living one is at work on is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ofa_core.errors import OFAError
from ofa_core.utils.atomic_write import atomic_path, atomic_write_text, naming_errors
from ofa_core.utils.scratch import remove_leftovers, scratch_directory, sole_writer

#: Begins to write a file, and says so.
WRITER = """
import sys, time
from pathlib import Path
from ofa_core.utils.atomic_write import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("begun", flush=True)
    time.sleep(60)
"""
#: The same with a worker that was forked and outlives it.
FORKING = WRITER.replace(
    '    print("begun"',
    '    import os\n    if not os.fork():\n        time.sleep(5)\n        os._exit(0)\n    print("begun"',
)


def begun(path: Path, program: str = WRITER) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_what_a_killed_process_left_is_removed_by_the_next_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    living, killed = begun(path), begun(path)
    try:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert len(names(tmp_path)) == 2
        atomic_write_text(path, "whole")
        (left,) = [name for name in names(tmp_path) if name != "x.txt"]
        assert (tmp_path / left / "x.txt").read_text() == "half"
    finally:
        living.kill()
        living.wait()
    remove_leftovers(path)
    assert names(tmp_path) == ["x.txt"]
    assert path.read_text() == "whole"


def test_a_worker_that_outlives_its_process_holds_no_lock(tmp_path: Path) -> None:
    process = begun(tmp_path / "x.txt", FORKING)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while names(tmp_path) and time.monotonic() < deadline:  # the worker lets go of the lock when it first runs
        remove_leftovers(tmp_path / "x.txt")
        time.sleep(0.05)
    assert names(tmp_path) == []


def test_names_of_others_are_left_alone(tmp_path: Path) -> None:
    mine = [".x.txt.settings", ".x.txt.20240101.old", ".x.txt.tmp", ".y.txt.abcdefgh.tmp"]
    for name in mine:
        (tmp_path / name).mkdir()
    (tmp_path / ".x.txt.abcdefgh.tmp").write_text("a file")
    (tmp_path / "x.txt").write_text("here")
    remove_leftovers(tmp_path / "x.txt")
    assert names(tmp_path) == sorted([*mine, ".x.txt.abcdefgh.tmp", "x.txt"])


@pytest.mark.parametrize("left", [".out.abcdefgh.tmp/out.old", ".out.abcdefgh.old"], ids=["now", "earlier version"])
def test_what_was_moved_away_is_put_back_where_nothing_has_its_place(tmp_path: Path, left: str) -> None:
    (tmp_path / left).mkdir(parents=True)
    (tmp_path / left / "config.json").write_text("mine")
    remove_leftovers(tmp_path / "out")
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "config.json").read_text() == "mine"


def test_what_was_moved_away_goes_where_a_new_one_has_its_place(tmp_path: Path) -> None:
    (tmp_path / ".out.abcdefgh.tmp" / "out.old").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    with scratch_directory(tmp_path / "out"):
        pass
    assert names(tmp_path) == ["out"]


def test_two_do_not_write_in_one_place(tmp_path: Path) -> None:
    said = "is being written by another process"
    with sole_writer(tmp_path), pytest.raises(OFAError, match=said), sole_writer(tmp_path):
        pass
    with sole_writer(tmp_path):
        pass


def test_errors_of_the_system_name_what_is_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}/x'"), atomic_path(tmp_path / "x"):
        raise OSError(28, os.strerror(28))
    missing = rf"No such file or directory: '{tmp_path}/none/x'$"
    with pytest.raises(FileNotFoundError, match=missing), atomic_path(tmp_path / "none" / "x"):
        pass
    with pytest.raises(PermissionError, match="Permission denied: 'other'"), naming_errors(tmp_path):
        raise PermissionError(13, os.strerror(13), "other")
    assert names(tmp_path) == []


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from ofa_core.utils.atomic_write import atomic_write_text\n"
        "for number in range(60): atomic_write_text(Path(sys.argv[1]), 'x' * 1000)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "x")]) for _ in range(3)]
    deadline = time.monotonic() + 60
    assert [writer.wait(deadline - time.monotonic()) for writer in writers] == [0, 0, 0]
    assert names(tmp_path) == ["x"]
    assert (tmp_path / "x").read_text() == "x" * 1000
