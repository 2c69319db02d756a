"""Calls that are timed in turns, so that a change of the machine meets all of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median


def in_turns(calls: tuple[Callable[[], object], ...], repeats: int, at_least: float) -> list[list[tuple[float, float]]]:
    """Seconds and CPU seconds of each run of each call, one run of each at a time, the first of which do not count.

    There are ``repeats`` runs, or more until ``at_least`` so many seconds are over.
    """
    taken: list[list[tuple[float, float]]] = [[] for _ in calls]
    while len(taken[0]) <= repeats or sum(seconds for one in taken for seconds, _ in one[1:]) < at_least:
        for call, times in zip(calls, taken, strict=True):
            start, cpu = time.perf_counter(), time.process_time()
            call()
            times.append((time.perf_counter() - start, time.process_time() - cpu))
    return [times[1:] for times in taken]


def medians(times: list[tuple[float, float]]) -> tuple[float, float]:
    """Median seconds and median CPU seconds."""
    return median(seconds for seconds, _ in times), median(cpu for _, cpu in times)
