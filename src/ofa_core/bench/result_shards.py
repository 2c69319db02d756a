"""The files of one run: the results file, and beside it the parts that its processes write until they are merged.

While a run goes on, the index of a row is the sample's place in the data, so that holes tell what is missing. The
finished file has its rows in that order, counted without the samples whose pictures could not be used. A run that is
alone writes the results file itself; several processes write a part each, and so does a run that goes on where there
are parts. A part is never written to by a later run.
"""

from __future__ import annotations

import heapq
import itertools
import re
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from ..errors import OFAError
from ..utils.atomic_write import atomic_path
from .results import Header, ResultsFile, Row, iter_rows

_PART = re.compile(r"\.rank(\d+)\.jsonl")
#: Rows that are written at once when parts are merged.
_ROWS_AT_ONCE = 1024


class Plan(BaseModel):
    """The files that a run is written to; chosen by one process and used by all."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    #: The results file of the whole run.
    path: Path
    header: Header
    #: The number of the first process's part; None where a process that is alone writes the results file.
    first_shard: int | None
    #: True if a run goes on that was begun before.
    resumed: bool

    def shard(self, rank: int) -> Path:
        """The file that process ``rank`` writes."""
        return self.path if self.first_shard is None else shard_path(self.path, self.first_shard + rank)


def shard_path(path: Path, number: int) -> Path:
    """The part with a number of the results file ``path``: ``<time>.rank<number>.jsonl``."""
    return path.with_name(f"{path.stem}.rank{number}.jsonl")


def shards_of(path: Path) -> list[Path]:
    """The parts of the results file ``path`` that exist, by their numbers."""
    found = {other: _PART.fullmatch(other.name.removeprefix(path.stem)) for other in path.parent.glob("*.jsonl")}
    numbers = sorted(int(match[1]) for match in found.values() if match)
    return [shard_path(path, number) for number in numbers]


def make_plan(path: Path, header: Header, processes: int, resume: bool) -> Plan:
    """Choose the files of a run of ``processes`` with this ``header``; lines left half written by a kill are dropped.

    Raises:
        OFAError: the file exists and ``resume`` is off, or its header says something else.
    """
    parts = shards_of(path)
    for file in _files(path):
        ResultsFile(file, header, resume=resume).close()
    if processes == 1 and not parts:
        return Plan(path=path, header=header, first_shard=None, resumed=resume)
    first_shard = max(map(_number, parts), default=-1) + 1
    return Plan(path=path, header=header, first_shard=first_shard, resumed=resume)


def open_shard(plan: Plan, rank: int) -> tuple[ResultsFile, Container[int]]:
    """The file that process ``rank`` writes, and the places of the samples that need not be asked again."""
    if plan.first_shard is None:
        file = ResultsFile(plan.path, plan.header, resume=plan.resumed)
        return file, range(file.next_index)  # in order, so what is missing before had no picture
    earlier = [file for file in _files(plan.path) if file not in _own(plan)]
    done = {row.index for file in earlier for row in iter_rows(file)[1]}
    return ResultsFile(plan.shard(rank), plan.header), done


def _own(plan: Plan) -> Iterable[Path]:
    """The parts of this run, which other processes may have begun already."""
    return [part for part in shards_of(plan.path) if _number(part) >= (plan.first_shard or 0)]


def _number(part: Path) -> int:
    match = _PART.search(part.name)
    return int(match[1]) if match else -1


def _files(path: Path) -> list[Path]:
    """Everything that holds rows of the run; an empty results file is but a place that is taken."""
    return [path] * (path.exists() and path.stat().st_size > 0) + shards_of(path)


def merged_rows(path: Path) -> tuple[Header, Iterator[Row]]:
    """The header and all rows of a run in order, counted from 0, from the results file and its parts.

    Raises:
        OFAError: there is no file of the run, or a line of one is damaged.
    """
    read = [iter_rows(file) for file in _files(path)]
    if not read:
        raise OFAError(f"{path} does not exist, and no part of it")
    rows = heapq.merge(*(rows for _, rows in read), key=lambda row: row.index)
    once = (next(same) for _, same in itertools.groupby(rows, key=lambda row: row.index))
    return read[0][0], (row.model_copy(update={"index": index}) for index, row in enumerate(once))


def merge(path: Path, samples: int) -> None:
    """Make ``path`` the whole results file of a finished run of so many ``samples``, and remove its parts.

    It may be interrupted anywhere and called again.
    """
    if not (path in _files(path) and _is_whole(path, samples)):
        header, rows = merged_rows(path)
        with atomic_path(path) as temporary, ResultsFile(temporary, header) as file:
            while chunk := list(itertools.islice(rows, _ROWS_AT_ONCE)):
                file.write(chunk)
    for part in shards_of(path):
        part.unlink()


def _is_whole(path: Path, samples: int) -> bool:
    """Tell whether the rows in ``path`` are numbered from 0 to the last."""
    indices = [row.index for row in iter_rows(path)[1]]
    return indices == list(range(samples))
