"""A run writes every sample once and in order, whatever interrupts it and however many processes share it."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bench import files
from bench.runs import QUICK, only, rows_in, run_of, save_lively, write_data

from ofa_core import OFA
from ofa_core.bench import runner
from ofa_core.bench.result_shards import shard_path
from ofa_core.bench.results import Row, iter_rows
from ofa_core.bench.runner import Outcome, Run, run_task
from ofa_core.bench.summary import read_summary, summarize
from ofa_core.bench.tasks import TASKS
from ofa_core.cli.main import main
from ofa_core.data.images import Images
from ofa_core.data.loading import DataFiles
from ofa_core.data.records import Format
from ofa_core.errors import OFAError
from ofa_core.utils.distributed import Process

ALONE = Process()
#: 15 samples in batches of 4, of 5 games on 3 pictures.
TASK = "guesswhat_oracle"
pytestmark = pytest.mark.filterwarnings("error::UserWarning")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """The same threads here and in other processes, so that numbers are equal to the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(ofa: OFA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of an undisturbed run."""
    root = tmp_path_factory.mktemp("whole")
    outcome = run_task(run_of(ofa, TASK, write_data(root, 5), root / "out"), ALONE)
    assert outcome is not None
    return outcome.path


def finished(run: Run, process: Process = ALONE) -> Outcome:
    outcome = run_task(run, process)
    assert outcome is not None
    return outcome


def interrupted(whole: Path, out: Path, rows: int, torn: str = "") -> Path:
    """A run as a kill leaves it: the header, some rows and perhaps half a line."""
    lines = whole.read_text().splitlines(keepends=True)
    path = out / TASK / "c" / whole.name
    path.parent.mkdir(parents=True)
    path.write_text("".join(lines[: rows + 1]) + torn)
    return path


# Undisturbed

#: The others have tests of their own: test_text_tasks, test_published_tasks.
ON_MADE_DATA = [
    name
    for name, task in TASKS.items()
    if task.format in ("guesswhat", "invig", "refcoco") and not name.endswith("_question")
]


@pytest.mark.parametrize("task", ON_MADE_DATA)
def test_every_sample_has_its_row_in_the_order_of_the_data(
    ofa: OFA, paths: dict[Format, Path], tmp_path: Path, task: str
) -> None:
    outcome = finished(run_of(ofa, task, paths, tmp_path / "out"))
    header, rows = iter_rows(outcome.path)
    rows = list(rows)
    questions = {"guesswhat_oracle": 3, "invig_oracle": 2}.get(task, 0)
    prefix = {"guesswhat": "", "invig": "i", "refcoco": "r"}[TASKS[task].format]
    expected = [
        f"{prefix}{record}{suffix}"
        for record in range(5)
        for suffix in ([f"/{number + 1}" for number in range(questions)] or [""])
    ]
    assert [row.id for row in rows] == expected
    assert [row.index for row in rows] == list(range(len(expected)))
    assert header.task == task
    summary = read_summary(outcome.path.with_suffix(".json"))
    assert summary == outcome.summary
    assert summary == summarize(header, rows, seconds=summary.seconds)
    assert summary.seconds is not None
    assert (summary.samples, summary.bad_rows) == (len(expected), 0)
    assert task in (tmp_path / "out" / "leaderboard.md").read_text()
    assert {path.suffix for path in outcome.path.parent.iterdir()} == {".json", ".jsonl"}


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_threads_change_nothing(ofa: OFA, whole: Path, paths: dict[Format, Path], tmp_path: Path, workers: int) -> None:
    assert rows_in(finished(run_of(ofa, TASK, paths, tmp_path / "out", workers=workers)).path) == rows_in(whole)


def test_a_limit_ends_the_run(ofa: OFA, whole: Path, paths: dict[Format, Path], tmp_path: Path) -> None:
    outcome = finished(run_of(ofa, TASK, paths, tmp_path / "out", settings=replace(QUICK, limit=8)))
    assert rows_in(outcome.path) == rows_in(whole)[:8]


def test_a_batch_is_on_the_disk_before_the_next_is_asked(
    ofa: OFA, whole: Path, paths: dict[Format, Path], tmp_path: Path
) -> None:
    seen: list[int] = []

    def answer(*arguments: Any) -> list[Row]:
        seen.append(len(rows_in(only(tmp_path / "out"))))
        return TASKS[TASK].answer(*arguments)

    run = run_of(ofa, TASK, paths, tmp_path / "out")
    finished(replace(run, task=replace(run.task, answer=answer)))
    assert seen == [0, 4, 8, 12]


# Interrupted


@pytest.mark.parametrize("rows", [0, 1, 4, 7, 8, 14, 15])
@pytest.mark.parametrize("torn", ["", '{"index": 3, "id'])
def test_a_resumed_run_ends_as_an_undisturbed_one(
    ofa: OFA, whole: Path, paths: dict[Format, Path], tmp_path: Path, rows: int, torn: str
) -> None:
    path = interrupted(whole, tmp_path / "out", rows, torn)
    outcome = finished(run_of(ofa, TASK, paths, tmp_path / "out", resume=True))
    assert outcome.path == path
    assert path.read_bytes() == whole.read_bytes()
    assert (outcome.before, outcome.summary.samples, outcome.summary.samples_per_second) == (False, 15, None)


def test_finished_batches_are_neither_opened_nor_asked_again(
    ofa: OFA, whole: Path, paths: dict[Format, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(whole, tmp_path / "out", 9)  # of the third batch of 4, one row is there
    asked: list[list[int]] = []

    def answer(models: Any, pictures: Any, samples: Any, settings: Any) -> list[Row]:
        asked.append([sample.index for sample in samples])
        return TASKS[TASK].answer(models, pictures, samples, settings)

    opened: list[str] = []
    load = Images.load
    monkeypatch.setattr(Images, "load", lambda self, record: (opened.append(record.image), load(self, record))[1])
    run = run_of(ofa, TASK, paths, tmp_path / "out", resume=True)
    outcome = finished(replace(run, task=replace(run.task, answer=answer)))
    assert set(opened) == {"1.png", "2.png"}  # 0.png is that of games 0 and 1, samples 0 to 5
    assert asked == [[8, 9, 10, 11], [12, 13, 14]]
    assert rows_in(outcome.path) == rows_in(whole)


def test_without_resume_a_new_run_begins(ofa: OFA, whole: Path, paths: dict[Format, Path], tmp_path: Path) -> None:
    path = interrupted(whole, tmp_path / "out", 9)
    path = path.rename(path.with_name("20200101-000000.jsonl"))
    before = path.read_bytes()
    outcome = finished(run_of(ofa, TASK, paths, tmp_path / "out"))
    assert outcome.path != path
    assert path.read_bytes() == before
    assert rows_in(outcome.path) == rows_in(whole)


def test_another_run_is_not_resumed(ofa: OFA, whole: Path, paths: dict[Format, Path], tmp_path: Path) -> None:
    path = interrupted(whole, tmp_path / "out", 9)
    before = path.read_bytes()
    run = run_of(ofa, TASK, paths, tmp_path / "out", resume=True)
    with pytest.raises(OFAError, match="cannot be resumed: model_sha256 is '0' there and '1' now"):
        run_task(replace(run, header=run.header.model_copy(update={"model_sha256": "1"})), ALONE)
    assert path.read_bytes() == before


def test_a_finished_run_is_not_done_again(
    ofa: OFA, paths: dict[Format, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(ofa, TASK, paths, tmp_path / "out", resume=True)
    first = finished(run)
    assert not first.before
    monkeypatch.setattr(runner, "read_samples", lambda *_: pytest.fail("the data were read"))
    again = finished(run)
    assert again == Outcome(first.path, first.summary, before=True)


@pytest.mark.parametrize("change", [{"model_sha256": "1"}, {"settings": {"batch_size": 4, "limit": 7}}, {"data": "e"}])
def test_a_run_with_another_header_is_not_the_finished_one(
    ofa: OFA, paths: dict[Format, Path], tmp_path: Path, change: dict[str, Any]
) -> None:
    run = run_of(ofa, TASK, paths, tmp_path / "out", resume=True)
    path = finished(run).path
    moved = path.with_name("20200101-000000.jsonl")
    path.rename(moved)
    path.with_suffix(".json").rename(moved.with_suffix(".json"))
    other = finished(replace(run, header=run.header.model_copy(update=change)))
    assert (other.before, other.path == moved) == (False, False)


@pytest.mark.parametrize(("name", "goes_on"), [("20990101-000000.jsonl", True), ("20200101-000000.jsonl", False)])
def test_an_interrupted_run_goes_on_unless_it_was_finished_later(
    ofa: OFA, whole: Path, paths: dict[Format, Path], tmp_path: Path, name: str, goes_on: bool
) -> None:
    run = run_of(ofa, TASK, paths, tmp_path / "out", resume=True)
    done = finished(replace(run, resume=False)).path
    killed = interrupted(whole, tmp_path / "other", 9)
    killed = killed.rename(done.with_name(name))
    outcome = finished(run)
    assert (outcome.path, outcome.before) == ((killed, False) if goes_on else (done, True))


def test_a_clock_that_was_set_back_hides_no_unfinished_run(
    ofa: OFA, paths: dict[Format, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(ofa, TASK, paths, tmp_path / "out")
    first = finished(run).path
    ahead = first.with_name("20990101-000000.jsonl")  # begun while the clock was wrong
    first.rename(ahead)
    first.with_suffix(".json").rename(ahead.with_suffix(".json"))
    with monkeypatch.context() as patch:
        patch.setattr(runner, "merge", _interrupt)
        patch.setattr(runner, "write_summary", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            run_task(run, ALONE)
    outcome = finished(replace(run, resume=True))
    assert not outcome.before
    assert outcome.path.name == "20990101-000001.jsonl"
    assert finished(replace(run, resume=True)) == Outcome(outcome.path, outcome.summary, before=True)


@pytest.mark.parametrize("undone", ["merge", "update_leaderboard"])
def test_what_the_end_of_a_run_left_undone_is_done_when_it_is_resumed(
    ofa: OFA, paths: dict[Format, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undone: str
) -> None:
    (tmp_path / "images" / "1.png").unlink()
    run = run_of(ofa, TASK, paths, tmp_path / "out", resume=True, skip_bad=True)
    with monkeypatch.context() as patch:
        patch.setattr(runner, undone, _interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_task(run, ALONE)
    outcome = finished(run)
    assert outcome.before
    assert [row.index for row in rows_in(outcome.path)] == list(range(9))
    assert (tmp_path / "out" / "leaderboard.md").is_file()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_killed_process_loses_at_most_the_batch_in_flight(tmp_path: Path) -> None:
    paths = write_data(tmp_path, 60)
    model = save_lively(tmp_path / "model")
    command = ["bench", TASK, "--model", str(model), "--data", str(paths["guesswhat"]), "--quiet", "--batch-size", "2"]
    command += ["--images", str(tmp_path / "images"), "--comment", "c"]
    program = [sys.executable, "-m", "ofa_core", *command, "--out", str(tmp_path / "killed")]
    process = subprocess.Popen(program, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    while not (found := list((tmp_path / "killed").glob("*/*/*.jsonl"))) or found[0].read_bytes().count(b"\n") < 11:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (path,) = found
    there = path.read_bytes()
    assert not path.with_suffix(".json").exists()
    assert 10 <= len(rows_in(path)) < 180
    assert main([*command, "--out", str(tmp_path / "killed"), "--resume"]) == 0
    assert path.read_bytes().startswith(there[: there.rindex(b"\n") + 1])
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0
    assert rows_in(path) == rows_in(only(tmp_path / "whole"))


# What cannot be used


def bad_data(directory: Path) -> dict[Format, Path]:
    """Games 0, 1 and 3 are good; 2 is bad, the picture of 4 is missing."""
    paths = write_data(directory, 5)
    lines = [json.loads(line) for line in gzip.decompress(paths["guesswhat"].read_bytes()).splitlines()]
    lines[2]["qas"][0]["answer"] = "perhaps"
    files.written(paths["guesswhat"], files.json_lines(lines))
    (directory / "images" / "2.png").unlink()
    return paths


def test_a_bad_row_ends_the_run_before_the_model_is_asked(ofa: OFA, tmp_path: Path) -> None:
    paths = bad_data(tmp_path)
    with pytest.raises(OFAError, match=r"games\.jsonl\.gz:3: .*perhaps.* \(--skip-bad leaves out what cannot be used"):
        run_task(run_of(ofa, TASK, paths, tmp_path / "out"), ALONE)
    assert not (tmp_path / "out").exists()


def test_a_missing_picture_ends_the_run_when_it_is_due(ofa: OFA, tmp_path: Path) -> None:
    paths = write_data(tmp_path, 5)
    (tmp_path / "images" / "2.png").unlink()
    with pytest.raises(OFAError, match=r"games\.jsonl\.gz:5: image 2\.png does not exist.*--skip-bad"):
        run_task(run_of(ofa, TASK, paths, tmp_path / "out"), ALONE)
    assert len(rows_in(only(tmp_path / "out"))) == 12


def test_what_cannot_be_used_is_reported_counted_and_left_out(
    ofa: OFA, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = finished(run_of(ofa, TASK, bad_data(tmp_path), tmp_path / "out", skip_bad=True))
    assert [row.id for row in rows_in(outcome.path)] == [
        f"{game}/{number}" for game in (0, 1, 3) for number in (1, 2, 3)
    ]
    assert [row.index for row in rows_in(outcome.path)] == list(range(9))
    assert (outcome.summary.samples, outcome.summary.bad_rows) == (9, 1 + 3)
    told = capsys.readouterr().err.splitlines()
    assert [re.sub(r"^skipped: .*gz:(\d+): .*", r"\1", line) for line in told] == ["3", "5", "5", "5"]


@pytest.mark.parametrize("rows", [2, 4, 8])
def test_a_run_with_holes_is_resumed_to_the_same_end(ofa: OFA, tmp_path: Path, rows: int) -> None:
    paths = write_data(tmp_path, 5)
    (tmp_path / "images" / "0.png").write_bytes(b"")  # samples 0 to 5
    run = run_of(ofa, TASK, paths, tmp_path / "whole", skip_bad=True)
    answered: list[Row] = []

    def answer(*arguments: Any) -> list[Row]:
        answered.extend(found := TASKS[TASK].answer(*arguments))
        return found

    whole = finished(replace(run, task=replace(run.task, answer=answer)))
    assert [row.index for row in answered] == list(range(6, 15))
    path = tmp_path / "out" / TASK / "c" / whole.path.name
    path.parent.mkdir(parents=True)
    with whole.path.open() as lines:
        path.write_text(next(lines) + "".join(row.model_dump_json() + "\n" for row in answered[:rows]))
    resumed = finished(replace(run, out=tmp_path / "out", resume=True))
    assert resumed.path.read_bytes() == whole.path.read_bytes()
    assert resumed.summary.bad_rows == whole.summary.bad_rows == 6


def test_a_run_without_any_sample_says_so(ofa: OFA, tmp_path: Path) -> None:
    paths = write_data(tmp_path, 2)
    shutil.rmtree(tmp_path / "images")
    (tmp_path / "images").mkdir()
    with pytest.raises(OFAError, match="there is no sample"):
        run_task(run_of(ofa, TASK, paths, tmp_path / "out", skip_bad=True), ALONE)
    paths["guesswhat"].write_bytes(b"")
    with pytest.raises(OFAError, match=r"games\.jsonl\.gz holds no sample of guesswhat_oracle"):
        run_task(run_of(ofa, TASK, paths, tmp_path / "out2"), ALONE)


# What is shown


def test_progress_shows_the_rate_the_time_left_and_the_score_so_far(
    ofa: OFA, paths: dict[Format, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = finished(run_of(ofa, TASK, paths, tmp_path / "out", quiet=False))
    last = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]
    score = f"{100 * outcome.summary.headline.value:.1f}"
    assert re.fullmatch(rf"guesswhat_oracle: 100%.*15/15 .*<.*samples/s.*, first_letter {score}\]", last)


def test_progress_of_a_resumed_run_counts_what_was_there(
    ofa: OFA, whole: Path, paths: dict[Format, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(whole, tmp_path / "out", 9)
    finished(run_of(ofa, TASK, paths, tmp_path / "out", resume=True, quiet=False))
    lines = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()
    assert " 9/15 " in lines[0]
    assert " 15/15 " in lines[-1]


@pytest.mark.parametrize("task", [TASK, "refcoco_grounding"])
def test_a_report_stands_beside_the_results_with_its_pictures(ofa: OFA, tmp_path: Path, task: str) -> None:
    paths = write_data(tmp_path, 5)
    rows = [files.phrase(number) for number in range(5)]  # with inline pictures
    files.written(paths["refcoco"], files.tab_lines(rows))
    run = run_of(ofa, task, paths, tmp_path / "out", report=True)
    outcome = finished(replace(run, data=DataFiles(run.data.path)) if task == "refcoco_grounding" else run)
    page = outcome.path.with_suffix(".html").read_text()
    shown = 3 * min(outcome.summary.samples, runner.GALLERY)
    assert page.count("data:image/jpeg;base64,") == shown
    assert "picture not at hand" not in page


# Several processes


@dataclass(frozen=True)
class Thread(Process):
    """One of several threads that share a run as processes would."""

    meeting: Any = None
    board: dict[int, str] = field(default_factory=dict)

    def barrier(self) -> None:
        self.meeting.wait()

    def broadcast_from_rank0(self, make: Callable[[], str]) -> str:
        if self.is_rank0:
            self.board[0] = make()
        self.meeting.wait()
        message = self.board[0]
        self.meeting.wait()
        return message


def shared(run: Run, count: int) -> Outcome:
    """The run by ``count`` threads; an error of one is the error of all."""
    barrier, board = threading.Barrier(count, timeout=20), {}
    outcomes: list[Outcome | None] = []
    errors: list[BaseException] = []

    def work(rank: int) -> None:
        try:
            outcomes.append(run_task(run, Thread(rank, count, meeting=barrier, board=board)))
        except threading.BrokenBarrierError:
            pass
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    (outcome,) = [outcome for outcome in outcomes if outcome is not None]
    return outcome


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[int]]]:
    """What each thread asks; warnings and the model are not made for several threads, processes have their own."""
    lock, asked = threading.Lock(), []
    answer = TASKS[TASK].answer

    def locked(models: Any, pictures: Any, samples: Any, settings: Any) -> list[Row]:
        with lock:
            asked.append((threading.current_thread().name, [sample.index for sample in samples]))
            return answer(models, pictures, samples, settings)

    monkeypatch.setitem(TASKS, TASK, replace(TASKS[TASK], answer=locked))
    return asked


@pytest.mark.parametrize("count", [2, 3, 5])
def test_several_processes_write_what_one_would(
    ofa: OFA, whole: Path, paths: dict[Format, Path], tmp_path: Path, count: int, one_at_a_time: Any
) -> None:
    outcome = shared(run_of(ofa, TASK, paths, tmp_path / "out"), count)
    assert rows_in(outcome.path) == rows_in(whole)
    assert sorted(index for _, indices in one_at_a_time for index in indices) == list(range(15))
    assert len({thread for thread, _ in one_at_a_time}) == min(count, 4)  # of four batches
    assert {path.suffix for path in outcome.path.parent.iterdir()} == {".json", ".jsonl"}


@pytest.mark.parametrize(("before", "after"), [(2, 2), (3, 2), (2, 1), (1, 3)])
def test_a_shared_run_is_resumed_by_any_number_of_processes(
    ofa: OFA, whole: Path, paths: dict[Format, Path], tmp_path: Path, before: int, after: int, one_at_a_time: Any
) -> None:
    path = interrupted(whole, tmp_path / "out", 0)
    rows = rows_in(whole)
    header = whole.read_text().splitlines()[0]
    for rank in range(before):  # each was killed in its second batch, the first rank in its first
        kept = [row for row in rows if row.index // 4 % before == rank][: 2 + 4 * (rank > 0)]
        part = path if before == 1 else shard_path(path, rank)
        part.write_text("\n".join([header, *(row.model_dump_json() for row in kept), '{"ind']))
    if before > 1:
        path.unlink()
    outcome = shared(run_of(ofa, TASK, paths, tmp_path / "out", resume=True), after)
    assert outcome.path == path
    assert path.read_bytes() == whole.read_bytes()
    assert {path.suffix for path in outcome.path.parent.iterdir()} == {".json", ".jsonl"}
    asked = sorted(index for _, indices in one_at_a_time for index in indices)
    assert 0 < len(asked) <= 15


def test_a_bad_row_is_reported_once_and_a_picture_by_whose_it_is(
    ofa: OFA, tmp_path: Path, capsys: pytest.CaptureFixture[str], one_at_a_time: Any
) -> None:
    outcome = shared(run_of(ofa, TASK, bad_data(tmp_path), tmp_path / "out", skip_bad=True), 2)
    assert (outcome.summary.samples, outcome.summary.bad_rows) == (9, 4)
    told = capsys.readouterr().err.splitlines()
    assert sorted(re.sub(r"^skipped: .*gz:(\d+): .*", r"\1", line) for line in told) == ["3", "5", "5", "5"]


def test_a_part_that_is_elsewhere_is_missed(
    ofa: OFA, paths: dict[Format, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_at_a_time: Any
) -> None:
    barrier = Thread.barrier

    def lost(self: Thread) -> None:
        if not self.is_rank0:
            only(tmp_path / "out", "*/*/*.rank1.jsonl").unlink()
        barrier(self)

    monkeypatch.setattr(Thread, "barrier", lost)
    with pytest.raises(OFAError, match=r"rank1\.jsonl is not here; --out must be a directory that all machines share"):
        shared(run_of(ofa, TASK, paths, tmp_path / "out"), 2)


def test_pictures_of_other_processes_are_not_opened(
    ofa: OFA, paths: dict[Format, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_at_a_time: Any
) -> None:
    opened: list[str] = []
    load = Images.load

    def noted(self: Images, record: Any) -> Any:
        opened.append(record.image)
        return load(self, record)

    monkeypatch.setattr(Images, "load", noted)
    shared(run_of(ofa, TASK, paths, tmp_path / "out"), 2)
    assert len(opened) == 1 + 2 + 1 + 1  # batches 0-3, 4-7, 8-11, 12-14; pictures change at 6 and 12
