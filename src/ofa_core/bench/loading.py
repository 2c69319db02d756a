"""Samples of a data file in batches, with their pictures opened and resized ahead of the model by a few threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from ..errors import OFAError
from ..heads.pipeline import Pipeline, Prepared
from .images import Images
from .readers import read_records
from .records import BadRow, Record
from .samples import Sample
from .tasks import Task

#: Batches whose pictures are opened while the model computes.
AHEAD = 3


@dataclass(frozen=True)
class Data:
    """Where a task's rows and pictures are."""

    path: Path
    #: A directory or an archive; None where rows hold their pictures or full paths.
    images: Path | None = None
    #: Order of the columns of a RefCOCO file; None: the usual one.
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Batch:
    """Samples and their pictures; those of one picture share one object, so that the image stem runs once for it."""

    samples: list[Sample]
    pictures: list[Prepared]
    #: What is wrong with the samples that are left out.
    failures: list[OFAError]


def read_samples(
    task: Task, data: Data, limit: int | None = None, on_bad: Callable[[BadRow], None] | None = None
) -> Iterator[Sample]:
    """The first ``limit`` samples of the rows that can be used, numbered from 0.

    Raises:
        OFAError: at once: there is no such file, or it is of another kind.
        BadRow: while reading, without ``on_bad``: a row cannot be used.
    """
    records = read_records(task.format, data.path, columns=data.columns, on_bad=on_bad)
    return islice(_numbered(task, records, on_bad), limit)


def _numbered(task: Task, records: Iterable[Record], on_bad: Callable[[BadRow], None] | None) -> Iterator[Sample]:
    index = 0
    for record in records:
        try:
            samples = task.samples(record)
        except BadRow as bad:
            if on_bad is None:
                raise
            on_bad(bad)
            continue
        for sample in samples:
            yield replace(sample, index=index)
            index += 1


def in_batches(samples: Iterable[Sample], batch_size: int) -> Iterator[list[Sample]]:
    """Samples ``batch_size`` at a time, the last ones together."""
    iterator = iter(samples)
    while batch := list(islice(iterator, batch_size)):
        yield batch


def loaded(batches: Iterable[Sequence[Sample]], images: Images, pipeline: Pipeline, workers: int) -> Iterator[Batch]:
    """Each batch with its pictures, as ``pipeline`` takes them, in the order of ``batches``.

    ``workers`` threads open and resize pictures; with 0 it is done in turn. The batches are the same for any number.
    """
    if workers == 0:
        for samples in batches:
            yield _batch(samples, [_group(images, pipeline, group) for group in _groups(samples)])
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="pictures")
    waiting: deque[tuple[Sequence[Sample], list[Future[_Group]]]] = deque()
    try:
        for samples in batches:
            waiting.append((samples, [pool.submit(_group, images, pipeline, group) for group in _groups(samples)]))
            if len(waiting) > AHEAD:
                yield _ready(*waiting.popleft())
        while waiting:
            yield _ready(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Group:
    """Samples of one picture by their index: each on its picture, or what is wrong with it."""

    picture: Prepared | None
    outcomes: dict[int, Sample | OFAError]


def _groups(samples: Sequence[Sample]) -> list[list[Sample]]:
    """The samples of each picture."""
    groups: dict[tuple[str, bytes | None], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.record.image, sample.record.inline), []).append(sample)
    return list(groups.values())


def _group(images: Images, pipeline: Pipeline, samples: Sequence[Sample]) -> _Group:
    """Open the picture once; a row that is wrong about it spoils no other."""
    picture: Prepared | None = None
    outcomes: dict[int, Sample | OFAError] = {}
    for sample in samples:
        try:
            if picture is None:
                picture = pipeline.prepare(images.load(sample.record))
            # the encoded picture is done with
            outcomes[sample.index] = replace(sample, record=replace(sample.record.fitted(picture.size), inline=None))
        except OFAError as error:
            outcomes[sample.index] = error
    return _Group(picture, outcomes)


def _ready(samples: Sequence[Sample], groups: Sequence[Future[_Group]]) -> Batch:
    return _batch(samples, [group.result() for group in groups])


def _batch(samples: Sequence[Sample], groups: Sequence[_Group]) -> Batch:
    of = {index: (outcome, group.picture) for group in groups for index, outcome in group.outcomes.items()}
    batch = Batch([], [], [])
    for sample in samples:
        outcome, picture = of[sample.index]
        if isinstance(outcome, OFAError):
            batch.failures.append(outcome)
        elif picture is not None:
            batch.samples.append(outcome)
            batch.pictures.append(picture)
    return batch
