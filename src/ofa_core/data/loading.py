"""Pictures of records, opened and resized ahead of the model by a few threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from .readers import Source, read_records
from .records import BadRow, Format, Record

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

    #: The file or directory of rows; or rows that are in memory and can be read again, such as a ``datasets.Dataset``.
    path: Source
    #: A directory or an archive; None where rows hold their pictures, or paths from the current directory.
    images: Path | None = None
    #: Order of the columns of a RefCOCO file; None: the usual one.
    columns: tuple[str, ...] | None = None
    #: Rows may name pictures outside of ``images``, or of the current directory where there are none.
    allow_outside: bool = False
    #: Options of reading that no file tells by itself.
    options: ReadOptions = USUAL
    #: Further files, which are read behind the first.
    more: tuple[Source, ...] = ()

    def __post_init__(self) -> None:
        """Refuse rows that can be read only once."""
        for source in self.sources:
            if isinstance(source, Iterator):
                raise OFAError("rows are read several times: a list or a datasets.Dataset would be right, no generator")

    @property
    def sources(self) -> tuple[Source, ...]:
        """Everything that rows are read from."""
        return (self.path, *self.more)

    @property
    def name(self) -> str:
        """The files, or that there are none, for people."""
        return ", ".join(str(one) if isinstance(one, str | Path) else "rows in memory" for one in self.sources)

    @property
    def folder(self) -> Path | None:
        """The place of the pictures; None where rows hold them, or paths from the current directory.

        Raises:
            OFAError: several folders of rows and pictures are read at once.
        """
        paths = [source for source in self.sources if isinstance(source, Path)]
        folders = list(dict.fromkeys(picture_folder(path, self.images) for path in paths))
        if len(folders) > 1:
            raise OFAError(f"{paths[0]} and {paths[1]} have pictures in different places: read one at a time")
        return folders[0] if folders else self.images

    def open_images(self, *, upright: bool = False) -> Images:
        """The pictures, to be closed by the caller; ``upright``, they are turned as their EXIF data say."""
        return Images.open(self.folder, self.allow_outside, upright)

    def records(self, format: Format, on_bad: Callable[[BadRow], None] | None = None) -> Iterator[Record]:
        """The records of all files; those of several that name no split are known by their file's name.

        Raises:
            OFAError: as :func:`~.readers.read_records`, and at once where that raises at once.
        """
        parts = [
            read_records(format, source, columns=self.columns, options=self.options, on_bad=on_bad)
            for source in self.sources
        ]
        return _one_after_the_other(parts, self._names()) if self.more else parts[0]

    def _names(self) -> list[str]:
        """A name for each file: as short as tells them apart."""
        names = [Path(one).name.partition(".")[0] if isinstance(one, str | Path) else "rows" for one in self.sources]
        if len({*names}) < len(names):
            return [f"{number}: {name}" for number, name in enumerate(names, 1)]
        return names


def _one_after_the_other(parts: Sequence[Iterator[Record]], names: Sequence[str]) -> Iterator[Record]:
    """The records of several files, with numbers of rows that go on from file to file."""
    before = last = 0
    for part, name in zip(parts, names, strict=True):
        for record in part:
            last = before + (record.row or 0)
            yield replace(record, row=last, split=record.split or name)
        before = last


@dataclass(frozen=True)
class Batch(Generic[Item]):
    """Samples and their pictures; those of one picture share one object, so that the image stem runs once for it."""

    samples: list[Item]
    pictures: list[PreparedImage | None]  # None for text alone
    #: The samples that are left out, each with the reason.
    failed: list[tuple[Item, OFAError]]

    @property
    def failures(self) -> list[OFAError]:
        """The reasons why samples are left out."""
        return [error for _, error in self.failed]


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
            batch.failed.append((sample, outcome))
        else:
            batch.samples.append(outcome)
            batch.pictures.append(picture)
    return batch
