"""Pictures of records, opened and resized ahead of the model by a few threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from ..errors import OFAError
from ..heads.pipeline import Pipeline, PreparedImage
from .documents import picture_folder
from .images import Images
from .read_options import USUAL, ReadOptions
from .records import Record

#: Batches whose pictures are opened while the model computes.
BATCHES_AHEAD = 3


class Numbered(Protocol):
    """A dataclass about a record's picture, with a number of its own."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def index(self) -> int:
        """The number."""

    @property
    def record(self) -> Record:
        """The record."""


Item = TypeVar("Item", bound=Numbered)
T = TypeVar("T")


@dataclass(frozen=True)
class DataFiles:
    """The place of a task's rows and pictures."""

    path: Path
    #: A directory or an archive; None where rows hold their pictures, or paths from the current directory.
    images: Path | None = None
    #: Order of the columns of a RefCOCO file; None: the usual one.
    columns: tuple[str, ...] | None = None
    #: Rows may name pictures outside of ``images``, or of the current directory where there are none.
    allow_outside: bool = False
    #: Options of reading that no file tells by itself.
    options: ReadOptions = USUAL

    def open_images(self) -> Images:
        """The pictures, to be closed by the caller."""
        return Images.open(picture_folder(self.path, self.images), self.allow_outside)


@dataclass(frozen=True)
class Batch(Generic[Item]):
    """Samples and their pictures; those of one picture share one object, so that the image stem runs once for it."""

    samples: list[Item]
    pictures: list[PreparedImage | None]  # None for text alone
    #: Errors of the samples that are left out.
    failures: list[OFAError]


def batched(samples: Iterable[T], batch_size: int) -> Iterator[list[T]]:
    """Samples ``batch_size`` at a time, the last ones together."""
    iterator = iter(samples)
    while batch := list(islice(iterator, batch_size)):
        yield batch


def load_images(
    batches: Iterable[Sequence[Item]], images: Images, pipeline: Pipeline, workers: int
) -> Iterator[Batch[Item]]:
    """Each batch with its pictures, as ``pipeline`` takes them, in the order of ``batches``.

    ``workers`` threads open and resize pictures; with 0 it is done in turn. The batches are the same for any number.
    """
    if workers == 0:
        for samples in batches:
            yield _batch(samples, [_group(images, pipeline, group) for group in _groups(samples)])
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="pictures")
    waiting: deque[tuple[Sequence[Item], list[Future[_Group[Item]]]]] = deque()
    try:
        for samples in batches:
            waiting.append((samples, [pool.submit(_group, images, pipeline, group) for group in _groups(samples)]))
            if len(waiting) > BATCHES_AHEAD:
                yield _ready(*waiting.popleft())
        while waiting:
            yield _ready(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Group(Generic[Item]):
    """Samples of one picture by their index: each on its picture, or what is wrong with it."""

    picture: PreparedImage | None
    outcomes: dict[int, Item | OFAError]


def _groups(samples: Sequence[Item]) -> list[list[Item]]:
    """The samples of each picture."""
    groups: dict[tuple[str, bytes | None], list[Item]] = {}
    for sample in samples:
        groups.setdefault((sample.record.image, sample.record.inline), []).append(sample)
    return list(groups.values())


def _group(images: Images, pipeline: Pipeline, samples: Sequence[Item]) -> _Group[Item]:
    """Open the picture once; a row that is wrong about it spoils no other. Rows of text alone have none."""
    picture: PreparedImage | None = None
    outcomes: dict[int, Item | OFAError] = {}
    if not samples[0].record.has_picture:
        return _Group(None, {sample.index: sample for sample in samples})
    for sample in samples:
        try:
            if picture is None:
                picture = pipeline.prepare(images.load(sample.record), partial(images.load, sample.record))
            # the encoded picture is done with
            outcomes[sample.index] = replace(sample, record=replace(sample.record.fit_to(picture.size), inline=None))
        except OFAError as error:
            outcomes[sample.index] = error
    return _Group(picture, outcomes)


def _ready(samples: Sequence[Item], groups: Sequence[Future[_Group[Item]]]) -> Batch[Item]:
    return _batch(samples, [group.result() for group in groups])


def _batch(samples: Sequence[Item], groups: Sequence[_Group[Item]]) -> Batch[Item]:
    of = {index: (outcome, group.picture) for group in groups for index, outcome in group.outcomes.items()}
    batch: Batch[Item] = Batch([], [], [])
    for sample in samples:
        outcome, picture = of[sample.index]
        if isinstance(outcome, OFAError):
            batch.failures.append(outcome)
        else:
            batch.samples.append(outcome)
            batch.pictures.append(picture)
    return batch
