"""Samples of one call in batches: which ones together, back in their order, and their pictures read ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")

#: Threads that read pictures while the model computes; each holds one opened picture at a time.
READERS = 2


def batch_places(
    pictures: Sequence[object | None], sources: Sequence[Sequence[int]], batch_size: int
) -> list[list[int]]:
    """The places of samples batch by batch, so that little is padding and each picture is done with at once.

    Samples of one picture follow each other, and otherwise those whose sources are of one length. What fits in one
    batch stays in its order.
    """
    places = list(range(len(sources)))
    if len(places) > batch_size:
        longest: dict[int, int] = {}
        first: dict[int, int] = {}
        groups = [place if picture is None else -id(picture) for place, picture in enumerate(pictures)]
        for place, group in enumerate(groups):
            longest[group] = max(longest.get(group, 0), len(sources[place]))
            first.setdefault(group, place)
        places.sort(key=lambda place: (longest[groups[place]], first[groups[place]], len(sources[place])))
    return [places[start : start + batch_size] for start in range(0, len(places), batch_size)]


def in_order(batches: Iterable[tuple[Sequence[int], Sequence[Result]]]) -> list[Result]:
    """The results of all samples by their places, from batches of places with their results."""
    found: dict[int, Result] = {}
    for places, results in batches:
        found.update(zip(places, results, strict=True))
    return [found[place] for place in range(len(found))]


def read_ahead(
    groups: Sequence[Mapping[Key, T]], read: Callable[[T], Result]
) -> Generator[dict[Key, Result], None, None]:
    """Read the items of each group; yields the results of ``read`` by their keys.

    While a group is worked on, threads read the next one. What is wrong with an item is raised at its group's turn.
    """
    if sum(1 for group in groups if group) < 2:  # there is nothing to read meanwhile
        for group in groups:
            yield {key: read(item) for key, item in group.items()}
        return
    pool = ThreadPoolExecutor(READERS, thread_name_prefix="pictures")
    waiting: deque[dict[Key, Future[Result]]] = deque()
    try:
        for group in groups:
            waiting.append({key: pool.submit(read, item) for key, item in group.items()})
            if len(waiting) > 1:
                yield _results(waiting.popleft())
        while waiting:
            yield _results(waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _results(group: Mapping[Key, Future[Result]]) -> dict[Key, Result]:
    return {key: future.result() for key, future in group.items()}
