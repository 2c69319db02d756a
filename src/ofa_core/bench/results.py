"""Results files: a header line, then a line a sample, written batch by batch so that a killed run loses one at most."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from ..errors import OFAError, first_problem
from ..utils.line_file import LineFile, whole_lines
from ..vision.boxes import Box
from .inputs import changed_inputs

#: Header fields in which the parts of a run that was interrupted may differ.
MUTABLE_FACTS = {"started", "versions"}
#: ``20250131-235959.jsonl``, or ``20250131-235959.rank3.jsonl`` for what one process of several has written.
_RUN = re.compile(r"(\d{8}-\d{6})(\.rank\d+)?\.jsonl?")
_NAME = "%Y%m%d-%H%M%S"


#: The size of no picture.
NO_PICTURE = (0, 0)


class StrictModel(BaseModel):
    """Base of what is written to files: nothing is left out, added or not a number."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )


class RunFacts(StrictModel):
    """The facts about a run that stand in its results file and in its summary: which model was asked what."""

    format: str
    task: str
    comment: str
    model: str
    model_sha256: str
    oracle: str | None = None
    oracle_sha256: str | None = None
    data: str
    #: Digests of what the run reads besides the weights, see :mod:`~ofa_core.bench.inputs`; empty in files of versions
    #: that did not record them.
    inputs: dict[str, str] = Field(default_factory=dict)
    settings: dict[str, JsonValue]
    #: Time at which the run began, in ISO 8601.
    started: str


#: The names of what both tell; each has a format of its own.
SHARED_FACTS = set(RunFacts.model_fields) - {"format"}


class Header(RunFacts):
    """The first line of a results file."""

    #: ``lists`` is the older form, in which boxes are in thousandths of the picture's sides.
    format: Literal["ofa_core.bench/1", "lists"] = "ofa_core.bench/1"
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)


#: Probabilities of answers.
Probabilities = dict[str, Annotated[float, Field(ge=0)]]


class Target(StrictModel):
    """One of any number of boxes that were due, in pixels (x0, y0, x1, y1) of the original picture."""

    box: Box
    label: str = ""
    #: Pixels of its outline, where the data tell; None: those of the box.
    area: float | None = Field(default=None, ge=0)
    #: A group of things, which no box has to find and many may.
    crowd: bool = False


class Detected(StrictModel):
    """One of any number of boxes that a model named, in the same unit."""

    box: Box
    label: str = ""
    #: The model's confidence, 0 to 1.
    score: float


class Row(StrictModel):
    """A line after the header: one sample, what the model said and how far that is right."""

    #: Position of the sample in the run, from 0 without holes.
    index: int = Field(ge=0)
    #: The record's id, which others may have too; ``<record id>/<question number>`` where it has several samples.
    id: str
    #: The record's row in the data, from 1; None in files of earlier versions.
    row: int | None = Field(default=None, ge=1)
    image: str
    #: Width and height of the picture in pixels; :data:`NO_PICTURE` for text alone.
    size: tuple[int, int]
    category: str = ""
    #: Fields of the data's row that are kept as they were, such as its captions; left out where there are none.
    kept: dict[str, JsonValue] = Field(default_factory=dict)
    #: A box of the data reached over the picture's edge and was clipped to it; left out where none did.
    clipped: bool = False
    #: The phrase that was looked for, as the data have it; left out where none was.
    text: str = ""
    #: The source that the model read, as text; of several turns the last.
    source: str
    #: The right answer, as text.
    target: str
    #: The model's answer.
    output: str
    #: The target (x0, y0, x1, y1) in pixels of the original picture; of an oracle, the region asked about.
    box: Box | None = None
    #: The box that the model found, in the same unit; None where it named none.
    found: Box | None = None
    #: IoU of the two as the task counts it, 0 where a box was due and none came; None where none was due.
    iou: float | None = Field(default=None, ge=0, le=1)
    #: The model's confidence, 0 to 1.
    score: float = 0.0
    #: The probability that the first box is right, and that what is looked for is there; None where nothing told.
    confidence: float | None = Field(default=None, ge=0, le=1)
    present: float | None = Field(default=None, ge=0, le=1)
    probabilities: dict[str, float] = Field(default_factory=dict)
    #: The dialog so far, or as it was played.
    turns: tuple[str, ...] = ()
    #: Self-play: the questions asked.
    questions: int | None = Field(default=None, ge=0)
    #: Self-play: the boxes of the picture's objects, and for each question and each of them the probabilities of the
    #: oracle's answers were it the one; left out where nobody asked.
    objects: tuple[Box, ...] = ()
    object_answers: tuple[tuple[Probabilities, ...], ...] = ()
    #: The part of the data set, where rows or files tell.
    split: str = ""
    #: The boxes that were due where it may be any number, and those that the model named; None where one box is due.
    targets: tuple[Target, ...] | None = None
    detected: tuple[Detected, ...] = ()
    #: All captions of the picture, or all people's answers.
    references: tuple[str, ...] = ()
    #: The worth of each answer that the data give one.
    weights: dict[str, float] = Field(default_factory=dict)
    #: The natural logarithm of the probability of each token of the target, ``</s>`` the last.
    log_probs: tuple[float, ...] = ()


#: Fields that few tasks have; a line leaves out those that are empty.
_RARE = (
    "confidence",
    "present",
    "kept",
    "clipped",
    "text",
    "split",
    "targets",
    "detected",
    "references",
    "weights",
    "log_probs",
    "objects",
    "object_answers",
)


def row_json(row: Row) -> str:
    """A row as files have it, without what few tasks have."""
    fields = Row.model_fields
    rare = {name for name in _RARE if getattr(row, name) == fields[name].get_default(call_default_factory=True)}
    return row.model_dump_json(exclude=rare)


class ResultsFile:
    """A results file that is being written; close it, or use it as a context.

    A new file must not exist yet, or be empty. With ``resume`` a file that exists goes on: a line that was cut off at
    its end is dropped, and its header must say the same as ``header`` in everything but start and versions. The file
    is locked while it is open.

    Raises:
        OFAError: the file exists and ``resume`` is off, its header differs, a line of it is damaged, or another process
            is writing it.
    """

    def __init__(self, path: Path, header: Header, resume: bool = False) -> None:
        self.path = path
        #: Index of the row that follows the last one in the file.
        self.next_index = 0
        if path.exists() and not resume and path.stat().st_size:
            raise OFAError(f"{path} exists already; resume it, or choose another --comment or --out")
        self._file = LineFile(path)
        try:
            length = self._resumed_length(header)
            self._file.keep(length)
            if not length:
                self._file.append(header.model_dump_json() + "\n")
        except BaseException:
            self._file.close()
            raise

    def _resumed_length(self, header: Header) -> int:
        """Bytes of the whole lines in the file; 0 where not even its header is whole."""
        length = 0
        for number, line in whole_lines(self.path):
            length += len(line)
            if number == 1:
                _check_same(_header(self.path, line), header, self.path)
            else:
                self.next_index = _row(self.path, number, line).index + 1
        return length

    def write(self, rows: Sequence[Row]) -> None:
        """Append a batch, and return when it is on the disk.

        Raises:
            OFAError: a row is not behind the last one.
        """
        last = self.next_index - 1
        for row in rows:
            if row.index <= last:
                raise OFAError(f"{self.path}: sample {row.index} cannot be written behind sample {last}")
            last = row.index
        self._file.append("".join(f"{row_json(row)}\n" for row in rows))
        self.next_index = last + 1

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def iter_rows(path: Path) -> tuple[Header, Iterator[Row]]:
    """The header of a results file and its rows, read as they are asked for.

    A last line without its end is one that is just being written; it is left out.

    Raises:
        OFAError: the file has no header, or a line (named by number) is no row; the latter while iterating.
    """
    lines = whole_lines(path)
    first = next(lines, None)
    if first is None:
        raise OFAError(f"{path} is empty; it should begin with the header of a results file")
    return _header(path, first[1]), (_row(path, number, line) for number, line in lines)


def result_path(out: Path, task: str, comment: str, started: datetime | str) -> Path:
    """``<out>/<task>/<comment>/<yyyymmdd-hhmmss>.jsonl``; ``started`` as a time or in ISO 8601."""
    when = datetime.fromisoformat(started) if isinstance(started, str) else started
    return _directory(out, task, comment) / f"{when:{_NAME}}.jsonl"


def claim_path(out: Path, task: str, comment: str, started: str) -> Path:
    """A :func:`result_path` at which an empty file stands now, so that no other run begins there.

    It is behind all that are there: where one was begun in the same second, or before the clock was set back, the name
    is one second more than the last. So names are in the order in which runs were begun.
    """
    now = datetime.fromisoformat(started).replace(tzinfo=None)
    while True:
        runs = _runs(_directory(out, task, comment), "*")
        last = max((time for match in runs if (time := _time_of(match[1])) is not None), default=datetime.min)
        path = result_path(out, task, comment, max(now, last + timedelta(seconds=1)))
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            continue
        return path


def latest_unfinished(out: Path, task: str, comment: str) -> Path | None:
    """The newest results file without a summary (``.json``) beside it, or None.

    Where only the parts of several processes exist (``<time>.rank0.jsonl``), it is the file they belong to.
    """
    directory = _directory(out, task, comment)
    times = sorted({match[1] for match in _runs(directory, "*.jsonl")}, reverse=True)
    return next((directory / f"{time}.jsonl" for time in times if not (directory / f"{time}.json").exists()), None)


def _runs(directory: Path, pattern: str) -> list[re.Match[str]]:
    """The names of the files of runs, with the time at which each was begun."""
    found = (_RUN.fullmatch(path.name) for path in directory.glob(pattern))
    return [match for match in found if match]


def _time_of(name: str) -> datetime | None:
    """The time that a name tells; None where it is none, or so far off that nothing can come behind it."""
    try:
        time = datetime.strptime(name, _NAME)
    except ValueError:
        return None
    return time if time.year < datetime.max.year else None


def _directory(out: Path, task: str, comment: str) -> Path:
    if not re.fullmatch(r"[^/\\\x00-\x1f.][^/\\\x00-\x1f]*", comment):
        raise OFAError(f"the comment {comment!r} names a directory: it should have no / and not begin with a dot")
    return out / task / comment


def _header(path: Path, line: bytes) -> Header:
    try:
        return Header.model_validate_json(line)
    except ValidationError as error:
        problem = first_problem(error, "header")
        raise OFAError(f"{path}:1: {problem}; it should begin with the header of a results file") from None


def _row(path: Path, number: int, line: bytes) -> Row:
    try:
        return Row.model_validate_json(line)
    except ValidationError as error:
        raise OFAError(f"{path}:{number}: {first_problem(error, 'row')}") from None


def _check_same(there: Header, now: Header, path: Path) -> None:
    """Raise where the header of a file that should go on says something else than that of the run which would."""
    old, new = (_flat(header.model_dump(exclude=MUTABLE_FACTS | {"inputs"})) for header in (there, now))
    missing = "nothing"
    differing = [name for name in {**old, **new} if old.get(name, missing) != new.get(name, missing)]
    if differing:
        told = ", ".join(
            f"{name} is {old.get(name, missing)!r} there and {new.get(name, missing)!r} now" for name in differing
        )
        raise OFAError(f"{path} cannot be resumed: {told}")
    check_inputs(there, now, path)


def check_inputs(there: RunFacts, now: RunFacts, path: Path) -> None:
    """Raise where the run of ``path`` read something else than the present one would; warn where that is not known."""
    if now.inputs and not there.inputs:
        warnings.warn(f"{path} does not tell what its run read; nothing shows whether it was the same", stacklevel=2)
    elif changed := changed_inputs(there.inputs, now.inputs):
        raise OFAError(
            f"{path} cannot be resumed: {', '.join(changed)} changed since (the model is {now.model}, the data are "
            f"{now.data}); restore what it was, or begin anew without --resume or with another --comment or --out"
        )


def _flat(fields: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Fields with each setting as a field of its own."""
    settings = fields.pop("settings")
    named = settings.items() if isinstance(settings, dict) else ()
    return {**fields, **{f"settings.{name}": value for name, value in named}}
