"""Rows from files to files: each asked once, however many processes share them and however often they are killed."""

from __future__ import annotations

import heapq
import itertools
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from ..bench.inputs import changed_inputs
from ..bench.result_shards import shard_path, shards_of
from ..data.loading import DataFiles, batched, load_images
from ..data.records import BadRow
from ..errors import OFAError, first_problem
from ..utils.atomic_write import atomic_path, atomic_write_text
from ..utils.distributed import Process
from ..utils.line_file import LineFile, whole_lines
from ..utils.progress import progress
from ..utils.stopping import check_stop, stop_at_safe_points
from .predictor import Predictor
from .requests import ASKED, Question


class RunFacts(BaseModel):
    """Facts of a run: a run that goes on must say the same. They stand beside the answers."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    head: str
    format: str
    model: str
    model_sha256: str
    #: Digests of everything that is read, see :mod:`~ofa_core.bench.inputs`.
    inputs: dict[str, str]
    #: Arguments that are the same for all rows, and how the model was loaded.
    settings: dict[str, JsonValue]
    #: Numbers of answers and of bad rows of a run that was finished; None of one that was not.
    answered: int | None = None
    bad: int | None = None


@dataclass(frozen=True)
class Bulk:
    """A run with everything it takes."""

    predictor: Predictor
    question: Question
    data: DataFiles
    out: Path
    facts: RunFacts
    batch_size: int = 16
    limit: int | None = None
    workers: int = 4
    resume: bool = False
    quiet: bool = False

    @property
    def bad(self) -> Path:
        """The file of the rows that could not be used."""
        return self.out.with_name(f"{self.out.stem}.bad.jsonl")

    @property
    def facts_file(self) -> Path:
        """The file that says what was asked."""
        return self.out.with_name(f"{self.out.stem}.run.json")


@dataclass(frozen=True)
class Outcome:
    """A finished run."""

    answered: int
    bad: int
    #: True if it had been finished before, so that nothing was done now.
    before: bool = False


class _Plan(BaseModel):
    """The choices of the first process, for all of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: The number of the first process's part; None where a process that is alone writes the files themselves.
    first_part: int | None = None
    finished: bool = False


def predict(run: Bulk, process: Process) -> Outcome | None:
    """Ask everything, or this process's share of it; only the first process has an outcome.

    Answers stand in ``run.out`` in the order of the rows, each with its ``index``; what could not be used stands in
    ``run.bad``. While several processes work, and where they were interrupted, each has a part of its own beside them.

    Raises:
        OFAError: the file exists and ``resume`` is off, or is of another run; or nothing could be answered.
    """
    plan = _Plan.model_validate_json(process.broadcast_from_rank0(lambda: _prepared(run, process).model_dump_json()))
    if plan.finished:
        return _outcome(_read_facts(run.facts_file), before=True) if process.is_rank0 else None
    done = _done(run, plan)
    out, bad = (_own_file(path, plan, process.rank) for path in (run.out, run.bad))
    with ExitStack() as stack:
        files = _Files(stack.enter_context(_opened(out)), stack.enter_context(_opened(bad)))
        _ask(run, process, files, done)
    process.barrier()
    return _finish(run) if process.is_rank0 else None


def _prepared(run: Bulk, process: Process) -> _Plan:
    """Look at what is there, and write down what is asked."""
    there = [path for path in (run.out, run.bad) if path.exists() and path.stat().st_size] + shards_of(run.out)
    if not run.resume:
        if there:
            raise OFAError(f"{there[0]} exists already: pass --resume to go on with it, or another --out")
    elif run.facts_file.exists():
        facts = _read_facts(run.facts_file)
        _check_same(facts, run)
        if facts.answered is not None and run.out.exists():
            return _Plan(finished=True)
    elif there:
        raise OFAError(f"{there[0]} cannot be resumed: {run.facts_file}, which says what was asked, is not there")
    for path in (run.out, run.bad):  # refused here, where one line is enough
        _opened(path).close()
    atomic_write_text(run.facts_file, run.facts.model_dump_json(indent=1) + "\n")
    parts = [_number(part) for path in (run.out, run.bad) for part in shards_of(path)]
    if process.world_size == 1 and not parts:
        return _Plan()
    return _Plan(first_part=max(parts, default=-1) + 1)


def _own_file(path: Path, plan: _Plan, rank: int) -> Path:
    return path if plan.first_part is None else shard_path(path, plan.first_part + rank)


def _opened(path: Path) -> LineFile:
    """A file that goes on behind its whole lines."""
    file = LineFile(path)
    file.keep(sum(len(line) for _, line in whole_lines(path)))
    return file


def _done(run: Bulk, plan: _Plan) -> set[int]:
    """The indices of the rows that need not be asked again: all that earlier runs wrote."""
    files = [file for path in (run.out, run.bad) for file in _files(path, plan.first_part)]
    return {index for file in files for index, _ in _indexed_lines(file)}


def _files(path: Path, before: int | None = None) -> list[Path]:
    """A file and its parts, those numbered below ``before``."""
    parts = [part for part in shards_of(path) if before is None or _number(part) < before]
    return [*([path] if path.exists() else []), *parts]


def _number(part: Path) -> int:
    return int(part.suffixes[-2].removeprefix(".rank"))


def _indexed_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with the index that each tells.

    Raises:
        OFAError: a line tells none.
    """
    for number, line in whole_lines(path):
        try:
            index = json.loads(line)["index"]
        except (ValueError, KeyError, TypeError):
            index = None
        if not isinstance(index, int):
            raise OFAError(f"{path}:{number}: the line tells no index: it was not written by ofa-core predict")
        yield index, line


# Asking


@dataclass
class _Files:
    """The files of one process, and what it has written to them."""

    out: LineFile
    bad: LineFile
    answered: int = 0
    failed: int = 0
    waiting: list[str] = field(default_factory=list)

    def fail(self, index: int, error: OFAError, place: str = "") -> None:
        """Note a row that could not be used; it is written with the next batch."""
        place = error.place if isinstance(error, BadRow) else place
        reason = error.reason if isinstance(error, BadRow) else str(error)
        self.waiting.append(_as_line({"index": index, "place": place, "error": reason.removeprefix(f"{place}: ")}))
        self.failed += 1

    def write(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write answers, and the failures that are waiting before them: what is in neither is asked again."""
        if self.waiting:
            self.bad.append("".join(self.waiting))
            self.waiting.clear()
        text = [_as_line(line) for line in lines]
        self.answered += len(text)
        if text:
            self.out.append("".join(text))


def _as_line(line: Mapping[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"


def _ask(run: Bulk, process: Process, files: _Files, done: set[int]) -> None:
    """Put this process's batches to the model, and write what it says."""

    def on_bad(index: int, bad: BadRow) -> None:
        if process.is_rank0 and index not in done:
            files.fail(index, bad)

    requests = run.question.requests(run.data, on_bad, run.limit)
    own = (batch for number, batch in enumerate(batched(requests, run.batch_size)) if process.owns(number))
    missing = (batch for batch in own if not all(request.index in done for request in batch))
    shown = not run.quiet and process.is_rank0
    upright = run.question.format == ASKED
    with (
        stop_at_safe_points(),
        run.data.open_images(upright=upright) as images,
        progress(None, 0, run.facts.head, unit=" rows", shown=shown) as bar,
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message=r".* was cut to ")
        for batch in load_images(missing, images, run.predictor.pipeline, run.workers):
            for request, failure in batch.failed:
                if request.index not in done:
                    files.fail(request.index, failure, request.record.place)
            found = run.predictor.answer(batch.samples, batch.pictures) if batch.samples else []
            lines = []
            for request, line in zip(batch.samples, found, strict=True):
                if request.index in done:
                    continue
                if isinstance(line, OFAError):
                    files.fail(request.index, line, request.record.place)
                else:
                    lines.append({"index": request.index, **line})
            files.write(lines)
            bar.update(len(batch.samples) + len(batch.failed))
            bar.set_postfix_str(f"{files.failed:,} bad" if files.failed else "", refresh=False)
            check_stop()
        files.write([])


# The end


def _finish(run: Bulk) -> Outcome:
    """Bring the parts together, and note that the run is finished."""
    counts = [_merged(path) for path in (run.out, run.bad)]
    facts = run.facts.model_copy(update={"answered": counts[0], "bad": counts[1]})
    if not counts[0]:
        first = next(whole_lines(run.bad), (0, b'{"error": "there are no rows"}'))[1]
        raise OFAError(f"nothing of {run.data.name} could be answered; the first row: {json.loads(first)['error']}")
    if not counts[1]:
        run.bad.unlink(missing_ok=True)
    atomic_write_text(run.facts_file, facts.model_dump_json(indent=1) + "\n")
    return _outcome(facts)


def _merged(path: Path) -> int:
    """Make ``path`` all lines of it and its parts, in order and each once; returns how many.

    It may be interrupted anywhere and called again.
    """
    files = _files(path)
    if not files or (files == [path] and _in_order(path)):
        return sum(1 for file in files for _ in whole_lines(file))
    count, last = 0, -1
    parts = [_indexed_lines(file) if _in_order(file) else sorted(_indexed_lines(file)) for file in files]
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for index, line in heapq.merge(*parts, key=lambda pair: pair[0]):
            if index != last:
                file.write(line)
                count, last = count + 1, index
    for part in shards_of(path):
        part.unlink()
    return count


def _in_order(path: Path) -> bool:
    indices = (index for index, _ in _indexed_lines(path))
    return all(before < after for before, after in itertools.pairwise(indices))


def _outcome(facts: RunFacts, *, before: bool = False) -> Outcome:
    return Outcome(facts.answered or 0, facts.bad or 0, before)


def _read_facts(path: Path) -> RunFacts:
    try:
        return RunFacts.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        problem = first_problem(error, "the file") if isinstance(error, ValidationError) else "it is not UTF-8"
        raise OFAError(f"{path} does not say what a run of ofa-core predict asked: {problem}") from None


def _check_same(there: RunFacts, run: Bulk) -> None:
    """Raise where the run that would go on asks something else than the one that was begun."""
    now = run.facts
    differing = [
        f"{name} is {getattr(there, name)!r} there and {getattr(now, name)!r} now"
        for name in ("head", "format", "model_sha256", "settings")
        if getattr(there, name) != getattr(now, name)
    ]
    differing += [f"{name} changed since" for name in changed_inputs(there.inputs, now.inputs)]
    if differing:
        raise OFAError(f"{run.out} cannot be resumed: {'; '.join(differing)}")
