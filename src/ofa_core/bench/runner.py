"""A benchmark from data to scores: every sample asked once, each batch on the disk before the next, then a summary."""

from __future__ import annotations

import platform
import sys
import time
import warnings
from collections.abc import Container
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

from ..data.images import Images
from ..data.loading import Batch, DataFiles, batched, load_images
from ..data.records import BadRow
from ..errors import OFAError
from ..utils.distributed import Process
from ..utils.printable import printable
from ..utils.progress import progress
from ..utils.stopping import check_stop, stop_at_safe_points
from ..version import __version__
from .gallery import THUMBNAIL, choose_samples
from .information import FEWEST_OBJECTS
from .inputs import data_inputs
from .leaderboard import update_leaderboard
from .legacy_results import read_results
from .report import write_report
from .result_shards import Plan, make_plan, merge, merged_rows, open_shard, shards_of
from .results import (
    MUTABLE_FACTS,
    SHARED_FACTS,
    Header,
    ResultsFile,
    Row,
    check_inputs,
    claim_path,
    iter_rows,
    latest_unfinished,
)
from .samples import AnswerList, Models, Sample, Settings
from .single_json import is_single, write_single
from .summary import Summary, format_score, read_summary, summarize, task_scores, write_summary
from .tasks import Task, read_samples

#: Samples in each part of a report's gallery.
GALLERY = 12


@dataclass(frozen=True)
class Run:
    """One task with everything it takes."""

    task: Task
    data: DataFiles
    models: Models
    settings: Settings
    #: Header of the results file; the time is filled in when the run begins.
    header: Header
    out: Path
    #: Go on with the latest run of this task and comment that was not finished.
    resume: bool = False
    #: Report rows that cannot be used and leave them out, instead of ending the run.
    skip_bad: bool = False
    #: Threads that open pictures.
    workers: int = 4
    #: Write a page beside the results.
    report: bool = False
    #: Leave one JSON file with samples and scores, in the place of a results file and its summary.
    single_json: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class Outcome:
    """A finished run."""

    path: Path
    summary: Summary
    #: The page beside the results, where one was asked for.
    page: Path | None = None
    #: True if it had been finished before, so that nothing was done now.
    before: bool = False


class RunState(BaseModel):
    """The state of a run as the first process found it, for all of them."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    #: The results file of a run that was finished before.
    finished: Path | None = None
    plan: Plan | None = None
    samples: int = 0
    bad_rows: int = 0
    #: The answers that occur in the data, where the task's are those.
    answers: tuple[str, ...] | None = None


def make_header(task: Task, models: Models, settings: Settings, **named: Any) -> Header:
    """The header of a run: its settings, and ``named`` the model, its data and the comment."""
    model = models.agent.model
    told = settings.told() | {"dtype": models.agent.dtype, "device": model.device.type}
    if not task.protocols:
        del told["protocol"]
    if not (task.protocols and settings.information_gain):
        del told["information_gain"]  # as in the headers of runs from before there was such a setting
    versions = {"ofa_core": __version__, "torch": torch.__version__, "python": platform.python_version()}
    return Header(task=task.name, settings=told, versions=versions, started="", **named)


def run_task(run: Run, process: Process) -> Outcome | None:
    """Run one task, or this process's share of it; only the first process has an outcome.

    First all rows of the data are read and checked, without their pictures, so that a wrong row ends no long run. A
    sample's index is its place in the data. Batches are the same however many processes there are and wherever a run
    was interrupted, and so are their answers.

    Raises:
        OFAError: a row or a picture cannot be used and ``skip_bad`` is off, no sample can be used, or the run to resume
            was another one.
    """
    begun = RunState.model_validate_json(process.broadcast_from_rank0(lambda: _prepare(run, process).model_dump_json()))
    if begun.plan is None:
        return _finished_before(run, begun.finished) if process.is_rank0 and begun.finished else None
    if begun.answers is not None:
        run = replace(run, settings=replace(run.settings, answers=AnswerList("", begun.answers)))
    start = time.perf_counter()
    file, done = open_shard(begun.plan, process.rank)
    with file, run.data.open_images() as images:
        _evaluate(run, process, begun.samples, file, done, images)
    process.barrier()
    if not process.is_rank0:
        return None
    seconds = None if begun.plan.resumed else time.perf_counter() - start
    return _finish(run, process, begun, begun.plan, seconds)


def _prepare(run: Run, process: Process) -> RunState:
    """Find or choose the results file, and read all rows of the data."""
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    inputs = run.header.inputs | data_inputs(run.data, run.task.format)
    header = run.header.model_copy(update={"started": started, "inputs": inputs})
    there = latest_unfinished(run.out, header.task, header.comment) if run.resume else None
    finished = _finished(run.out, header) if run.resume else None
    if finished is not None and (there is None or there.name < finished.name):  # names are in their order
        return RunState(finished=finished)
    bad_rows: list[str] = []

    def on_bad(bad: BadRow) -> None:
        if not run.skip_bad:
            raise _with_advice(bad)
        bad_rows.append(bad.place)
        _print_line(f"skipped: {bad}")

    samples = listed = 0
    for sample in read_samples(run.task, run.data, run.settings.limit, on_bad):
        samples += 1
        listed += len(sample.record.object_boxes) >= FEWEST_OBJECTS
    answers = _answers_in_data(run)
    if samples == 0:
        raise OFAError(f"{run.data.name} holds no sample of {run.task.name}")
    if run.settings.information_gain and not listed:
        raise OFAError(
            f"{run.data.name} lists no objects of its pictures, which --information-gain asks about; games of "
            "GuessWhat?! as they were released do"
        )
    path = there or claim_path(run.out, header.task, header.comment, started)
    plan = make_plan(path, header, process.world_size, resume=there is not None)
    return RunState(plan=plan, samples=samples, bad_rows=len(bad_rows), answers=answers)


def _answers_in_data(run: Run) -> tuple[str, ...] | None:
    """The answers that occur in the data, limit or not, where the task's are those and no list of them was given.

    Raises:
        OFAError: one of them is not in the list that was given.
    """
    if not run.task.answers_in_data:
        return None
    targets = sorted({sample.target for sample in read_samples(run.task, run.data, on_bad=_ignore)})
    if run.settings.answers is None:
        return tuple(targets)
    known = {*run.settings.answers.texts}
    if missing := [target for target in targets if target not in known]:
        told = f"{missing[0]!r} of {run.data.name}" + (f" and {len(missing) - 1} others" if len(missing) > 1 else "")
        raise OFAError(f"{told}: not among the {len(known):,} answers of {run.settings.answers.path}")
    return None


def _finished(out: Path, header: Header) -> Path | None:
    """The latest results file of the very run of ``header``, if it was finished before.

    Raises:
        OFAError: it was, with other data, pictures or vocabulary.
    """
    told = SHARED_FACTS - MUTABLE_FACTS - {"inputs"}
    wanted = header.model_dump(include=told)
    for path in sorted((out / header.task / header.comment).glob("*.json"), reverse=True):
        summary = read_summary(path)
        if summary is not None and summary.model_dump(include=told) == wanted:
            check_inputs(summary, header, path.with_suffix(".jsonl"))
            return path.with_suffix(".jsonl")
    return None


def _finished_before(run: Run, path: Path) -> Outcome | None:
    """A run that was finished before; what its end may have left undone is done."""
    summary = read_summary(path.with_suffix(".json"))
    if summary is None:
        return None
    path = _in_last_form(run, path, summary)
    update_leaderboard(run.out)
    return Outcome(path, summary, _write_report(run, path, summary) if run.report else None, before=True)


def _evaluate(
    run: Run, process: Process, samples: int, file: ResultsFile, done: Container[int], images: Images
) -> None:
    """Put this process's samples to the models, batch by batch, and write what they say."""
    size = run.settings.batch_size
    numbered = enumerate(batched(read_samples(run.task, run.data, run.settings.limit, _ignore), size))
    own = (batch for number, batch in numbered if process.owns(number))
    missing = (batch for batch in own if not all(sample.index in done for sample in batch))
    with stop_at_safe_points(), _Progress(run, process, samples, done) as progress, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".* was cut to ")  # each row holds the source as it was read
        for batch in load_images(missing, images, run.task.pipeline(run.models.agent), run.workers):
            _report_failures(run, batch)
            rows = run.task.answer(run.models, batch.pictures, batch.samples, run.settings) if batch.samples else []
            new = [row for row in rows if row.index not in done]
            file.write(new)
            progress.add(new, len(batch.failures))
            check_stop()


def _report_failures(run: Run, batch: Batch[Sample]) -> None:
    for failure in batch.failures:
        if not run.skip_bad:
            raise _with_advice(failure)
        _print_line(f"skipped: {failure}")


def _with_advice(failure: OFAError) -> OFAError:
    return OFAError(f"{failure} (--skip-bad leaves out what cannot be used)")


def _print_line(message: str) -> None:
    tqdm.write(printable(message), file=sys.stderr)


def _ignore(bad: BadRow) -> None:
    """A bad row was told of when the data were read for the first time."""


class _Progress:
    """A line with samples a second, the headline score so far and the time left, of the first process's share."""

    def __init__(self, run: Run, process: Process, samples: int, done: Container[int]) -> None:
        size, own, already = run.settings.batch_size, 0, 0
        for index in range(samples):
            if process.owns(index // size):
                own += 1
                already += index in done
        self._scores = task_scores(run.task.name)
        self._sum, self._count = 0.0, 0
        shown = not run.quiet and process.is_rank0
        self._bar = progress(own, already, run.task.name, unit=" samples", shown=shown)

    def add(self, rows: list[Row], skipped: int) -> None:
        """Take in the rows of a batch."""
        if rows and not self._bar.disable and self._scores.runs:
            samples = self._scores.samples()
            for row in rows:
                samples.add(row)
            columns = samples.table().columns
            name = self._scores.sample_score(columns)
            self._sum += float(columns[name].sum())
            self._count += len(rows)
            self._bar.set_postfix_str(f"{name} {format_score(name, self._sum / self._count)}", refresh=False)
        self._bar.update(len(rows) + skipped)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def _finish(run: Run, process: Process, begun: RunState, plan: Plan, seconds: float | None) -> Outcome:
    """Score what all processes wrote, and leave one results file with its summary beside it."""
    for part in map(plan.shard, range(process.world_size)):
        if not part.exists():
            raise OFAError(f"{part} is not here; --out must be a directory that all machines share")
    header, rows = merged_rows(plan.path)
    try:
        summary = summarize(header, rows, seconds=seconds)
    except OFAError as error:
        raise OFAError(f"{plan.path}: {error}") from None
    unusable = begun.bad_rows + begun.samples - summary.samples
    summary = summary.model_copy(update={"bad_rows": unusable})
    write_summary(plan.path, summary)
    path = _in_last_form(run, plan.path, summary)  # behind the summary: from here on the run counts as finished
    update_leaderboard(run.out)
    return Outcome(path, summary, _write_report(run, path, summary) if run.report else None)


def _in_last_form(run: Run, path: Path, summary: Summary) -> Path:
    """Merge the parts of the finished results file ``path``, and its summary with it where that was asked for.

    Returns the file that holds the samples. It may be interrupted anywhere and called again.
    """
    single = path.with_suffix(".json")
    if not path.exists() and not shards_of(path) and is_single(single):
        return single
    merge(path, summary.samples)
    if not run.single_json:
        return path
    header, rows = iter_rows(path)
    write_single(single, header, summary, rows)
    path.unlink()
    return single


def _write_report(run: Run, path: Path, summary: Summary) -> Path:
    """The page beside a results file; pictures that rows hold themselves are looked up in the data once more."""
    header, rows = read_results(path)
    wanted = {(row.id, row.row) for some in choose_samples(header, rows, GALLERY).values() for row in some}
    pictures: dict[tuple[str, int | None], Image.Image] = {}
    with run.data.open_images() as images:
        for sample in read_samples(run.task, run.data, run.settings.limit, _ignore):
            name = (sample.id, sample.record.row)
            if name in wanted and sample.record.has_picture:
                pictures[name] = images.load(sample.record)
                pictures[name].thumbnail((2 * THUMBNAIL, 2 * THUMBNAIL))
    page = path.with_suffix(".html")
    write_report(
        page, header, summary, read_results(path)[1], lambda row: pictures.get((row.id, row.row)), count=GALLERY
    )
    return page
