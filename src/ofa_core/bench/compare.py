"""Two results files of one task, sample by sample: what changed, and whether the difference is more than chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from ..errors import OFAError
from . import metrics
from .legacy_results import read_results
from .metrics import Booleans, Difference, Floats, Table
from .results import Row
from .summary import task_scores


class Comparison(BaseModel):
    """The difference of B from A over the samples that both have, matched by id, and by row where an id repeats."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    task: str
    first: str
    second: str
    #: Samples in both, and those that only one has.
    samples: int
    only_first: int
    only_second: int
    #: The task's score; by it samples are gained and lost, or by another where it is one of all samples together.
    headline: str
    #: B - A of every score.
    differences: dict[str, Difference]
    #: Ids that are right in B alone and in A alone, in A's order; with the row in the data where an id repeats.
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    #: Samples for which the two models said different things.
    outputs_changed: int


class _Results:
    """The part of one file that is kept: a few numbers a sample."""

    def __init__(self, path: Path, task: str | None) -> None:
        self.header, rows = read_results(path, task)
        self.scores = task_scores(self.header.task)
        self._samples = self.scores.samples()
        #: For each id the places of its samples, each with its row in the data where the file tells it.
        self.places: dict[str, list[tuple[int, int | None]]] = {}
        self._outputs: list[int] = []
        for row in rows:
            self.places.setdefault(row.id, []).append((len(self._outputs), row.row))
            self._outputs.append(int.from_bytes(blake2b(row.output.encode(), digest_size=7).digest(), "big"))
            self._samples.add(row)

    def __len__(self) -> int:
        return len(self._outputs)

    def at(self, places: Sequence[int]) -> tuple[Table, Floats]:
        """The numbers of the samples at ``places`` and the digests of their outputs [N]."""
        index = np.array(places, dtype=np.int64)
        return self._samples.table(index), np.array(self._outputs)[index]


@dataclass(frozen=True)
class _Pair:
    """One sample in both files."""

    name: str
    first: int
    second: int


def _pairs(left: _Results, right: _Results) -> list[_Pair]:
    """The samples that both files have, in the order of the first.

    An id that occurs once in each file is the same sample. Of one that repeats, samples are told apart by their rows in
    the data; where a file does not tell these, by their order.
    """
    pairs = []
    for name, places in left.places.items():
        others = right.places.get(name, [])
        if len(places) == len(others) == 1:
            pairs.append(_Pair(name, places[0][0], others[0][0]))
            continue
        by_row = all(row is not None for _, row in (*places, *others))
        other = {_name(name, at, row, by_row): place for at, (place, row) in enumerate(others, 1)}
        for at, (place, row) in enumerate(places, 1):
            key = _name(name, at, row, by_row)
            if key in other:
                pairs.append(_Pair(key, place, other[key]))
    return sorted(pairs, key=lambda pair: pair.first)


def _name(id: str, at: int, row: int | None, by_row: bool) -> str:
    """The name of a sample whose id others have too: with its row in the data, or its place among the others."""
    return f"{id} (row {row})" if by_row else f"{id} (number {at})"


def compare(first: Path, second: Path, task: str | None = None) -> Comparison:
    """Compare two results files, each in any form.

    Raises:
        OFAError: one cannot be read, their tasks differ, or they share no sample.
    """
    left, right = _Results(first, task), _Results(second, task)
    if left.header.task != right.header.task:
        raise OFAError(f"{first} is of {left.header.task} and {second} of {right.header.task}: no two of one task")
    pairs = _pairs(left, right)
    if not pairs:
        raise OFAError(f"{first} and {second} share no sample: no id occurs in both")
    names = [pair.name for pair in pairs]
    before, said_before = left.at([pair.first for pair in pairs])
    after, said_after = right.at([pair.second for pair in pairs])
    counted = left.scores.sample_score({*before.columns} & {*after.columns})
    differences = metrics.paired_differences(before, after)
    change = after.columns[counted] - before.columns[counted]
    return Comparison(
        task=left.header.task,
        first=str(first),
        second=str(second),
        samples=len(pairs),
        only_first=len(left) - len(pairs),
        only_second=len(right) - len(pairs),
        headline=left.scores.headline_among(differences),
        differences=differences,
        gained=_chosen(names, change > 0),
        lost=_chosen(names, change < 0),
        outputs_changed=int((said_before != said_after).sum()),
    )


def _chosen(ids: Sequence[str], chosen: Booleans) -> tuple[str, ...]:
    return tuple(name for name, wanted in zip(ids, chosen.tolist(), strict=True) if wanted)


def rows_of(path: Path, names: Collection[str], task: str | None = None) -> dict[str, Row]:
    """The rows of a few samples by the names of a :class:`Comparison`, from a second pass over the file."""
    wanted = set(names)
    found: dict[str, Row] = {}
    seen: Counter[str] = Counter()
    for row in read_results(path, task)[1]:
        seen[row.id] += 1
        own = (row.id, *(_name(row.id, seen[row.id], row.row, by_row) for by_row in (True, False)))
        found |= {name: row for name in own if name in wanted}
    return found
