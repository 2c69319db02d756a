"""The files of a run: alone or in parts, interrupted anywhere, they become one file with every row once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from bench.made import row
from bench.runs import header, plan_of, rows_in

from ofa_core.bench.result_shards import make_plan, merge, merged_rows, open_shard, shard_path, shards_of
from ofa_core.bench.results import ResultsFile, iter_rows
from ofa_core.errors import OFAError

HEADER = header("refcoco_grounding")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "20250101-000000.jsonl"


def write(path: Path, *indices: int, torn: bool = False) -> None:
    """A file with these rows; a killed process leaves half a line."""
    with ResultsFile(path, HEADER) as file:
        file.write([row(index, id=f"s{index}") for index in indices])
    if torn:
        with path.open("a") as text:
            text.write('{"index": 9')


def ids(path: Path) -> list[str]:
    return [row.id for row in rows_in(path)]


def names(path: Path) -> list[str]:
    return sorted(other.name for other in path.parent.iterdir())


def test_a_process_that_is_alone_writes_the_results_file(path: Path) -> None:
    plan = make_plan(path, HEADER, 1, resume=False)
    assert (plan.first_shard, plan.shard(0), plan.resumed) == (None, path, False)
    file, done = open_shard(plan, 0)
    file.close()
    assert 0 not in done
    assert names(path) == [path.name]


def test_it_goes_on_behind_the_last_whole_line(path: Path) -> None:
    write(path, 0, 1, 3, torn=True)
    plan = make_plan(path, HEADER, 1, resume=True)
    file, done = open_shard(plan, 0)
    with file:
        assert [index in done for index in range(6)] == [True] * 4 + [False] * 2  # 2 had no picture
        file.write([row(4, id="s4")])
    assert ids(path) == ["s0", "s1", "s3", "s4"]


def test_several_processes_write_a_part_each(path: Path) -> None:
    plan = make_plan(path, HEADER, 2, resume=False)
    assert [plan.shard(rank).name for rank in range(2)] == [
        "20250101-000000.rank0.jsonl",
        "20250101-000000.rank1.jsonl",
    ]
    for rank in range(2):
        file, done = open_shard(plan, rank)
        file.close()
        assert 0 not in done
    assert shards_of(path) == [plan.shard(0), plan.shard(1)]
    assert not path.exists()


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_run_in_parts_goes_on_with_any_number_of_processes(path: Path, processes: int) -> None:
    write(path, 0, 1)
    write(shard_path(path, 0), 2, 5, torn=True)
    write(shard_path(path, 1), 3)
    plan = make_plan(path, HEADER, processes, resume=True)
    assert plan.first_shard == 2
    for rank in range(processes):  # one may be far ahead of another
        file, done = open_shard(plan, rank)
        with file:
            assert [index for index in range(9) if index in done] == [0, 1, 2, 3, 5]
            file.write([row(6 + rank)])
    assert (len(ids(shard_path(path, 0))), len(shards_of(path))) == (2, 2 + processes)


def test_a_single_run_goes_on_in_parts_when_there_are_more_processes(path: Path) -> None:
    write(path, 0, 1, torn=True)
    plan = make_plan(path, HEADER, 2, resume=True)
    assert plan.shard(1) == shard_path(path, 1)
    assert open_shard(plan, 1)[1] == {0, 1}


@pytest.mark.parametrize("left", ["", '{"format": "ofa_co'], ids=["empty", "half_a_header"])
def test_a_process_that_was_killed_before_its_header_stood_has_left_nothing(path: Path, left: str) -> None:
    path.write_text(left)
    shard_path(path, 0).write_text(left)
    plan = make_plan(path, HEADER, 2, resume=True)
    file, done = open_shard(plan, 0)
    file.close()
    assert done == set()
    path.unlink()
    shard_path(path, 0).unlink()
    path.write_text(left)
    file, done = open_shard(make_plan(path, HEADER, 1, resume=True), 0)


def test_another_run_is_not_gone_on_with(path: Path) -> None:
    write(shard_path(path, 0), 0)
    other = header("refcoco_grounding", batch_size=3)
    with pytest.raises(OFAError, match=r"cannot be resumed: settings\.batch_size is 'nothing' there and 3 now"):
        make_plan(path, other, 2, resume=True)


def test_what_exists_is_not_begun_anew(path: Path) -> None:
    write(path, 0)
    with pytest.raises(OFAError, match="exists already"):
        make_plan(path, HEADER, 1, resume=False)


@pytest.mark.parametrize(
    "parts",
    [[[0, 1, 2, 3, 4]], [[0, 1, 4], [2, 3]], [[1], [0, 3], [2, 4]], [[0, 1, 2], [], [2, 3, 4]]],
    ids=["alone", "two", "three", "twice"],
)
def test_parts_become_one_file_in_order(path: Path, parts: Sequence[Sequence[int]]) -> None:
    for number, indices in enumerate(parts):
        write(shard_path(path, number), *indices)
    rows = list(merged_rows(path)[1])
    assert [(row.index, row.id) for row in rows] == [(index, f"s{index}") for index in range(5)]
    merge(path, 5)
    assert rows_in(path) == rows
    assert names(path) == [path.name]


def test_holes_close(path: Path) -> None:
    write(path, 0, 2, 5)
    merge(path, 3)
    assert [(row.index, row.id) for row in rows_in(path)] == [(0, "s0"), (1, "s2"), (2, "s5")]
    before = path.stat().st_ino
    merge(path, 3)
    assert path.stat().st_ino == before  # what is whole is left alone


def test_the_header_is_that_of_the_beginning(path: Path) -> None:
    for number, started in enumerate(("early", "late")):
        ResultsFile(shard_path(path, number), HEADER.model_copy(update={"started": started})).close()
    assert merged_rows(path)[0].started == "early"
    merge(path, 0)
    assert iter_rows(path)[0].started == "early"


def test_parts_that_outlive_their_merging_do_no_harm(path: Path) -> None:
    """Killed between the two: the file is whole, counted anew, and the parts still have their old numbers."""
    write(path, 0, 1, 2)
    write(shard_path(path, 0), 0, 4)
    write(shard_path(path, 1), 7)
    merge(path, 3)
    assert ids(path) == ["s0", "s1", "s2"]
    assert names(path) == [path.name]


def test_an_unfinished_file_is_taken_with_its_parts(path: Path) -> None:
    write(path, 0, 1)
    write(shard_path(path, 0), 2, 4)
    merge(path, 4)
    assert ids(path) == ["s0", "s1", "s2", "s4"]


def test_parts_of_other_runs_are_not_touched(path: Path) -> None:
    other = path.with_name("20250101-000001.jsonl")
    write(shard_path(other, 0), 0)
    write(other, 1)
    write(shard_path(path, 0), 5)
    merge(path, 1)
    assert ids(path) == ["s5"]
    assert shards_of(other) == [shard_path(other, 0)]


def test_a_run_without_files_is_named(path: Path) -> None:
    with pytest.raises(OFAError, match=r"000000\.jsonl does not exist, and no part of it"):
        merged_rows(path)


def test_a_plan_can_be_told_to_other_processes(path: Path) -> None:
    plan = plan_of(path, first_shard=3, resumed=True)
    assert type(plan).model_validate_json(plan.model_dump_json()) == plan
