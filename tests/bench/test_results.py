from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from bench import made
from bench.made import header, row
from pydantic import ValidationError

from ofa_core import OFAError
from ofa_core.bench.results import (
    Header,
    ResultsFile,
    Row,
    claim_path,
    iter_rows,
    latest_unfinished,
    result_path,
)

# Lines


def test_a_row_comes_back_to_the_last_bit() -> None:
    whole = row(
        3,
        category="a \u2028 b",
        box=(0.1, 1 / 3, 2e-7 + 5, 77.7),
        iou=2 / 3,
        score=1e-17,
        probabilities={"yes": 0.1 + 0.2},
        turns=("é\n", "<bin_3>"),
        questions=2,
    )
    line = whole.model_dump_json()
    assert Row.model_validate_json(line) == whole
    assert "\n" not in line


@pytest.mark.parametrize(
    "changes",
    [
        {"index": -1},
        {"iou": 1.5},
        {"iou": float("nan")},
        {"score": float("inf")},
        {"box": (1.0, 2.0, 3.0)},
        {"extra": 1},
        {"questions": -1},
    ],
)
def test_a_row_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        row(0, **changes)


# Writing and reading


def test_what_was_written_is_read(tmp_path: Path) -> None:
    rows = made.rows(20)
    path = tmp_path / "a" / "b.jsonl"
    with ResultsFile(path, header()) as file:
        assert file.next_index == 0
        file.write(rows[:16])
        assert file.next_index == 16
        assert len(path.read_bytes().splitlines()) == 17  # on the disk while the file is still open
        file.write([])
        file.write(rows[16:])
        assert file.next_index == 20
    found, read = iter_rows(path)
    assert found == header()
    assert list(read) == rows


def test_every_batch_is_brought_to_the_disk_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.jsonl"
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(path.read_bytes().count(b"\n")))
    with ResultsFile(path, header()) as file:
        file.write(made.rows(16))
        file.write([row(16)])
    assert synced == [1, 17, 18]


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    path = made.written(tmp_path / "x.jsonl", made.rows(2), header())
    before = path.read_bytes()
    with pytest.raises(OFAError, match="exists already"):
        ResultsFile(path, header())
    assert path.read_bytes() == before


def test_rows_must_follow_one_another(tmp_path: Path) -> None:
    with ResultsFile(tmp_path / "x.jsonl", header()) as file:
        file.write([row(0), row(1)])
        before = file.path.read_bytes()
        for rows in ([row(1)], [row(0)], [row(2), row(2)]):
            with pytest.raises(OFAError, match="cannot be written behind"):
                file.write(rows)
        assert file.path.read_bytes() == before
        file.write([row(5)])  # one of several processes has not all of them
        assert file.next_index == 6


def test_rows_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    path = made.written(tmp_path / "x.jsonl", made.rows(3), header())
    path.write_bytes(path.read_bytes() + b"rubbish\n")
    _, rows = iter_rows(path)
    assert [next(rows).index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OFAError, match=r"x\.jsonl:5: "):
        next(rows)


@pytest.mark.parametrize("content", [b"", b'{"format": "ofa_core.bench/1"', b"[1]\n", b'{"format": "other/1"}\n'])
def test_a_file_without_a_header_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(OFAError, match=r"x\.jsonl.*header of a results file"):
        iter_rows(tmp_path / "x.jsonl")


def test_a_last_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    path = made.written(tmp_path / "x.jsonl", made.rows(3), header())
    path.write_bytes(path.read_bytes()[:-1])
    assert [r.index for r in iter_rows(path)[1]] == [0, 1]


# Going on


def test_wherever_a_run_was_cut_off_it_goes_on_to_the_same_file(tmp_path: Path) -> None:
    rows = made.rows(6)
    whole = made.written(tmp_path / "whole.jsonl", rows, header()).read_bytes()
    path = tmp_path / "x.jsonl"
    first_line = whole.index(b"\n") + 1
    begun = whole[:first_line]
    for length in [0, 1, first_line - 1, first_line, *range(first_line + 1, len(whole), 97), len(whole)]:
        path.write_bytes(whole[:length])
        ResultsFile(path, header(), resume=True).close()  # killed again before it wrote anything
        assert path.read_bytes() == (whole[: whole.rindex(b"\n", 0, length) + 1] if length >= first_line else begun)
        with ResultsFile(path, header(started="2026-01-01T00:00:00", versions={"torch": "9"}), resume=True) as file:
            complete = max(whole[:length].count(b"\n") - 1, 0)
            assert file.next_index == complete
            file.write(rows[complete:])
        resumed = path.read_bytes()
        assert resumed[resumed.index(b"\n") :] == whole[whole.index(b"\n") :]
        assert resumed == whole  # the header is that of the beginning


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model_sha256": "cd" * 32}, "model_sha256 is 'abab"),
        ({"comment": "other"}, "comment is 'base' there and 'other' now"),
        ({"oracle": "models/b"}, "oracle is None there and 'models/b' now"),
        (
            {"settings": {"batch_size": 8, "limit": None, "protocol": "open"}},
            "settings.batch_size is 16 there and 8 now",
        ),
        ({"settings": {"batch_size": 16, "limit": None}}, "settings.protocol is 'open' there and 'nothing' now"),
    ],
)
def test_another_run_does_not_go_on_and_the_difference_is_named(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    path = made.written(tmp_path / "x.jsonl", made.rows(2), header())
    before = path.read_bytes()
    with pytest.raises(OFAError) as error:
        ResultsFile(path, header(**changes), resume=True)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before


def test_a_damaged_line_before_the_end_stops_a_run_from_going_on(tmp_path: Path) -> None:
    path = made.written(tmp_path / "x.jsonl", made.rows(3), header())
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2][: len(lines[2]) // 2] + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(OFAError, match=r"x\.jsonl:3: "):
        ResultsFile(path, header(), resume=True)


def test_a_process_that_is_killed_leaves_every_batch_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    program = (
        "import os, signal, sys; from pathlib import Path; from bench.made import header, rows;"
        "from ofa_core.bench.results import ResultsFile;"
        f"file = ResultsFile(Path({str(path)!r}), header()); made = rows(32);"
        "file.write(made[:16]); file.write(made[16:]); os.kill(os.getpid(), signal.SIGKILL)"
    )
    paths = os.pathsep.join(str(path) for path in (made.Path(made.__file__).parents[1],))
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": paths}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(iter_rows(path)[1]) == made.rows(32)


# Names


def test_a_run_is_named_by_task_comment_and_time(tmp_path: Path) -> None:
    expected = tmp_path / "refcoco_grounding" / "base" / "20250301-123005.jsonl"
    assert result_path(tmp_path, "refcoco_grounding", "base", datetime(2025, 3, 1, 12, 30, 5, 999)) == expected
    assert result_path(tmp_path, "refcoco_grounding", "base", "2025-03-01T12:30:05+02:00") == expected


@pytest.mark.parametrize("comment", ["", ".", "..", "a/b", "../a", ".hidden", "a\nb", "a\\b"])
def test_a_comment_cannot_lead_elsewhere(tmp_path: Path, comment: str) -> None:
    with pytest.raises(OFAError, match="comment"):
        result_path(tmp_path, "refcoco_grounding", comment, datetime(2025, 3, 1))


def test_the_latest_unfinished_run_has_no_summary_beside_it(tmp_path: Path) -> None:
    directory = tmp_path / "refcoco_grounding" / "base"
    assert latest_unfinished(tmp_path, "refcoco_grounding", "base") is None
    directory.mkdir(parents=True)
    names = ("20250101-000000.jsonl", "20250102-000000.jsonl", "20250103-000000.jsonl", "20250103-000000.json")
    for name in (*names, "notes.jsonl", ".5.20250109-000000.jsonl"):
        (directory / name).touch()
    assert latest_unfinished(tmp_path, "refcoco_grounding", "base") == directory / "20250102-000000.jsonl"
    (directory / "20250104-000000.rank1.jsonl").touch()  # one of several processes had begun
    assert latest_unfinished(tmp_path, "refcoco_grounding", "base") == directory / "20250104-000000.jsonl"
    for name in ("20250101-000000", "20250102-000000", "20250104-000000"):
        (directory / f"{name}.json").touch()
    assert latest_unfinished(tmp_path, "refcoco_grounding", "base") is None


def test_a_header_is_one_line_of_json() -> None:
    line = header().model_dump_json()
    assert json.loads(line)["format"] == "ofa_core.bench/1"
    assert Header.model_validate_json(line) == header()


@pytest.mark.parametrize(
    ("taken", "claimed"),
    [
        ([], "20250301-123005"),
        (["20250301-123005.jsonl"], "20250301-123006"),
        (["20250301-123005.json"], "20250301-123006"),
        (["20260101-000000.rank3.jsonl", "20250301-123005.jsonl"], "20260101-000001"),  # the clock was set back
        (["99999999-999999.jsonl", "99991231-235959.jsonl", "notes.jsonl"], "20250301-123005"),
    ],
)
def test_names_of_results_are_in_the_order_in_which_runs_begin(tmp_path: Path, taken: list[str], claimed: str) -> None:
    directory = tmp_path / "refcoco_grounding" / "base"
    directory.mkdir(parents=True)
    for name in taken:
        (directory / name).touch()
    started = "2025-03-01T12:30:05+00:00"
    paths = [claim_path(tmp_path, "refcoco_grounding", "base", started) for _ in range(2)]
    assert paths[0] == directory / f"{claimed}.jsonl"
    assert paths[1].name > paths[0].name
    assert all(path.read_bytes() == b"" for path in paths)
    assert latest_unfinished(tmp_path, "refcoco_grounding", "base") == max(
        [*paths, *(directory / name for name in taken if name.startswith("9"))]
    )


def test_a_full_disk_leaves_whole_lines_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made.written(tmp_path / "x.jsonl", made.rows(2), header())
    before, write = path.read_bytes(), os.pwrite
    with ResultsFile(path, header(), resume=True) as file:

        def write_some(number: int, content: bytes, place: int) -> int:
            if place > len(before):
                raise OSError(28, os.strerror(28))
            return write(number, content[:50], place)

        monkeypatch.setattr(os, "pwrite", write_some)
        with pytest.raises(OSError, match=rf"No space left on device: '{path}'"):
            file.write([row(2)])
        assert path.read_bytes() == before
        monkeypatch.undo()
        file.write([row(2)])  # there is room again
    assert [r.index for r in iter_rows(path)[1]] == [0, 1, 2]


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with ResultsFile(path, header()), pytest.raises(OFAError, match="is being written by another process"):
        ResultsFile(path, header(), resume=True)
    ResultsFile(path, header(), resume=True).close()
