"""Requests that arrive one by one and are computed together, in a thread of their own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

#: A function from a key and the samples that have it to a result, or an exception, for each of them.
Run = Callable[[Hashable, Sequence[Any]], Sequence[Any]]


@dataclass(eq=False)
class _Job:
    key: Hashable
    sample: Any
    answer: asyncio.Future[Any] = field(repr=False)
    arrived: float


class Batcher:
    """A queue in front of a model: samples of one key that wait at the same time are computed as one batch.

    The oldest sample decides which key is next, so that none is passed over for ever. It waits until the batch is full,
    or for ``wait`` seconds since it came, which have passed where the model was busy meanwhile.

    Args:
        run: what computes a batch, called in one thread alone.
        size: samples of a batch, at most.
        wait: seconds for which a sample waits for others, at most.
    """

    def __init__(self, run: Run, size: int, wait: float) -> None:
        self._run, self._size, self._wait = run, size, wait
        self._waiting: deque[_Job] = deque()
        self._arrival = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def __len__(self) -> int:
        """Samples that wait, without those that are being computed."""
        return len(self._waiting)

    def start(self) -> None:
        """Begin to compute what is submitted; called in the event loop."""
        self._task = asyncio.create_task(self._serve())

    async def close(self) -> None:
        """Finish everything that was submitted, and take nothing more."""
        self._closed = True
        self._arrival.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    async def submit(self, key: Hashable, sample: Any) -> Any:
        """Wait for the result of a sample; who stops waiting takes it out of the queue.

        Raises:
            RuntimeError: the queue was closed.
            Exception: what ``run`` gave in place of a result.
        """
        if self._closed:
            raise RuntimeError("the queue takes nothing more: it was closed")
        loop = asyncio.get_running_loop()
        job = _Job(key, sample, loop.create_future(), loop.time())
        self._waiting.append(job)
        self._arrival.set()
        return await job.answer

    async def _serve(self) -> None:
        while await self._begun():
            await self._filled()
            if batch := self._taken():
                await self._computed(batch)

    async def _begun(self) -> bool:
        """Wait for a sample; False where the queue is closed and empty."""
        while not self._waiting:
            if self._closed:
                return False
            self._arrival.clear()
            await self._arrival.wait()
        return True

    async def _filled(self) -> None:
        """Wait for a full batch of the oldest sample's key, as long as that sample may wait."""
        first = self._waiting[0]
        end = first.arrived + self._wait
        while not self._closed and not first.answer.done():
            left = end - asyncio.get_running_loop().time()
            if left <= 0 or sum(job.key == first.key for job in self._waiting) >= self._size:
                return
            self._arrival.clear()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._arrival.wait(), left)

    def _taken(self) -> list[_Job]:
        """The next batch, taken out of the queue, in which nobody's answer is waited for in vain."""
        kept = [job for job in self._waiting if not job.answer.done()]
        batch = [job for job in kept if job.key == kept[0].key][: self._size]
        self._waiting = deque(job for job in kept if job not in batch)
        return batch

    async def _computed(self, batch: Sequence[_Job]) -> None:
        samples = [job.sample for job in batch]
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._thread, self._run, batch[0].key, samples)
        except Exception as error:
            results = [error] * len(batch)
        for job, result in zip(batch, results, strict=True):
            if job.answer.done():
                continue
            if isinstance(result, Exception):
                job.answer.set_exception(result)
            else:
                job.answer.set_result(result)
