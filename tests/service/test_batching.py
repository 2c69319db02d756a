"""The queue: what waits together is computed together, in order, and nothing is lost or answered twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable, Sequence
from typing import Any

import pytest

from ofa_core.service.batching import Batcher


class Doubling:
    """A model that doubles numbers, and can be made to wait."""

    def __init__(self) -> None:
        self.batches: list[tuple[Hashable, list[Any]]] = []
        self.free = threading.Event()
        self.free.set()

    def __call__(self, key: Hashable, samples: Sequence[Any]) -> list[Any]:
        self.free.wait(10)
        self.batches.append((key, list(samples)))
        return [ValueError(f"not {one}") if one < 0 else 2 * one for one in samples]


def run(model: Doubling, use: Any, *, size: int = 4, wait: float = 0.005) -> Any:
    async def whole() -> Any:
        batcher = Batcher(model, size, wait)
        batcher.start()
        try:
            return await use(batcher)
        finally:
            await batcher.close()

    return asyncio.run(asyncio.wait_for(whole(), 30))


def test_what_waits_is_computed_in_batches_and_answers_keep_their_places() -> None:
    model = Doubling()

    async def use(batcher: Batcher) -> list[int]:
        return list(await asyncio.gather(*(batcher.submit("a", number) for number in range(10))))

    assert run(model, use) == [2 * number for number in range(10)]
    assert [len(batch) for _, batch in model.batches] == [4, 4, 2]


def test_one_that_is_alone_is_computed_after_the_wait() -> None:
    model = Doubling()

    async def use(batcher: Batcher) -> tuple[int, float]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        return await batcher.submit("a", 3), loop.time() - began

    found, seconds = run(model, use, wait=0.05)
    assert found == 6
    assert seconds >= 0.05


def test_a_full_batch_waits_for_nobody() -> None:
    model = Doubling()

    async def use(batcher: Batcher) -> list[int]:
        return list(await asyncio.gather(*(batcher.submit("a", number) for number in range(4))))

    assert run(model, use, wait=600) == [0, 2, 4, 6]  # within 30 seconds


def test_keys_are_never_mixed_and_the_oldest_is_next() -> None:
    model = Doubling()
    order = [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5)]

    async def use(batcher: Batcher) -> list[int]:
        return list(await asyncio.gather(*(batcher.submit(*each) for each in order)))

    assert run(model, use) == [2, 4, 6, 8, 10]
    assert model.batches == [("a", [1, 3]), ("b", [2, 5]), ("c", [4])]


def test_an_error_is_its_own_sample_s() -> None:
    model = Doubling()

    async def use(batcher: Batcher) -> list[Any]:
        return list(await asyncio.gather(*(batcher.submit("a", n) for n in (1, -2, 3)), return_exceptions=True))

    first, second, third = run(model, use)
    assert (first, third) == (2, 6)
    assert str(second) == "not -2"


def test_a_model_that_breaks_spares_the_next_batch() -> None:
    calls: list[int] = []

    def breaking(_: Hashable, samples: Sequence[Any]) -> Sequence[Any]:
        calls.append(len(samples))
        if len(calls) == 1:
            raise MemoryError("no more")
        return samples

    async def use(batcher: Batcher) -> tuple[Any, Any]:
        with pytest.raises(MemoryError, match="no more"):
            await batcher.submit("a", 1)
        return await batcher.submit("a", 2)

    assert run(breaking, use) == 2  # type: ignore[arg-type]


def test_who_stops_waiting_is_not_computed() -> None:
    model = Doubling()

    async def use(batcher: Batcher) -> int:
        model.free.clear()
        first = asyncio.ensure_future(batcher.submit("a", 1))
        await asyncio.sleep(0.05)  # it is being computed
        second, third = (asyncio.ensure_future(batcher.submit("a", number)) for number in (2, 3))
        await asyncio.sleep(0.01)
        assert len(batcher) == 2
        second.cancel()
        model.free.set()
        await first
        return await third

    assert run(model, use) == 6
    assert [batch for _, batch in model.batches] == [[1], [3]]


def test_closing_finishes_what_was_begun_and_takes_nothing_more() -> None:
    model = Doubling()

    async def whole() -> list[Any]:
        batcher = Batcher(model, 2, 600)
        batcher.start()
        waiting = [asyncio.ensure_future(batcher.submit("a", number)) for number in range(5)]
        await asyncio.sleep(0)
        await batcher.close()
        with pytest.raises(RuntimeError, match="closed"):
            await batcher.submit("a", 9)
        return await gathered(waiting)

    assert asyncio.run(asyncio.wait_for(whole(), 30)) == [0, 2, 4, 6, 8]


async def gathered(waiting: Sequence[Any]) -> list[Any]:
    assert all(one.done() for one in waiting)
    return [await one for one in waiting]
