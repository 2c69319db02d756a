"""Two results files of one task, sample by sample: what changed, and whether the difference is more than chance."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from ..errors import OFAError
from . import metrics
from .legacy_results import read_results
from .metrics import Booleans, Difference, Floats
from .results import Row
from .summary import Samples


class Comparison(BaseModel):
    """The difference of B from A over the samples that both have, matched by id."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    task: str
    first: str
    second: str
    #: Samples in both, and those that only one has.
    samples: int
    only_first: int
    only_second: int
    #: The score by which samples are gained and lost.
    headline: str
    #: B - A of every score.
    differences: dict[str, Difference]
    #: Ids that are right in B alone and in A alone, in A's order.
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    #: Samples for which the two models said different things.
    outputs_changed: int


class _Results:
    """The part of one file that is kept: a few numbers a sample."""

    def __init__(self, path: Path, task: str | None) -> None:
        self.header, rows = read_results(path, task)
        samples = Samples(self.header.task)
        self.scores = samples.scores
        #: Place of each id's sample.
        self.places: dict[str, int] = {}
        self._outputs: list[int] = []
        for row in rows:
            if row.id in self.places:
                raise OFAError(f"{path}: the id {row.id!r} occurs twice, so samples cannot be matched by it")
            self.places[row.id] = len(self.places)
            self._outputs.append(int.from_bytes(blake2b(row.output.encode(), digest_size=7).digest(), "big"))
            samples.add(row)
        self.columns = samples.columns()

    def at(self, ids: Sequence[str]) -> tuple[dict[str, Floats], Floats]:
        """The columns [N] and the digests of the outputs [N] of ``ids``."""
        places = np.array([self.places[name] for name in ids], dtype=np.int64)
        return {name: column[places] for name, column in self.columns.items()}, np.array(self._outputs)[places]


def compare(first: Path, second: Path, task: str | None = None) -> Comparison:
    """Compare two results files in either form.

    Raises:
        OFAError: one cannot be read, their tasks differ, they share no sample, or an id occurs twice in one.
    """
    left, right = _Results(first, task), _Results(second, task)
    if left.header.task != right.header.task:
        raise OFAError(f"{first} is of {left.header.task} and {second} of {right.header.task}: no two of one task")
    ids = [name for name in left.places if name in right.places]
    if not ids:
        raise OFAError(f"{first} and {second} share no sample: no id occurs in both")
    (before, said_before), (after, said_after) = left.at(ids), right.at(ids)
    headline = left.scores.headline
    change = after[headline] - before[headline]
    return Comparison(
        task=left.header.task,
        first=str(first),
        second=str(second),
        samples=len(ids),
        only_first=len(left.places) - len(ids),
        only_second=len(right.places) - len(ids),
        headline=headline,
        differences={name: metrics.paired_difference(before[name], after[name]) for name in before},
        gained=_chosen(ids, change > 0),
        lost=_chosen(ids, change < 0),
        outputs_changed=int((said_before != said_after).sum()),
    )


def _chosen(ids: Sequence[str], chosen: Booleans) -> tuple[str, ...]:
    return tuple(name for name, wanted in zip(ids, chosen.tolist(), strict=True) if wanted)


def rows_of(path: Path, ids: Collection[str], task: str | None = None) -> dict[str, Row]:
    """The rows of a few ids, from a second pass over the file."""
    wanted = set(ids)
    return {row.id: row for row in read_results(path, task)[1] if row.id in wanted}
