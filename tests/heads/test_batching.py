"""Samples go in batches of one length and one picture, come back in their order, and pictures are read meanwhile."""

from __future__ import annotations

import threading
import time

import pytest

from ofa_core.errors import OFAError
from ofa_core.heads.batching import batch_places, in_order, read_ahead


def sources(*lengths: int) -> list[list[int]]:
    return [[0] * length for length in lengths]


def test_what_fits_in_one_batch_stays_in_its_order() -> None:
    assert batch_places([None] * 3, sources(5, 1, 3), 3) == [[0, 1, 2]]
    assert batch_places([], [], 4) == []


def test_texts_of_one_length_go_together() -> None:
    assert batch_places([None] * 5, sources(9, 2, 9, 2, 5), 2) == [[1, 3], [4, 0], [2]]


def test_samples_of_a_picture_follow_each_other() -> None:
    a, b = object(), object()
    assert batch_places([a, b, a, b, a], sources(3, 4, 3, 4, 9), 2) == [[1, 3], [0, 2], [4]]
    assert batch_places([a, None, a], sources(3, 3, 3), 1) == [[0], [2], [1]]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
def test_results_come_back_in_their_order(batch_size: int) -> None:
    given = sources(4, 1, 6, 2, 2, 9)
    batches = batch_places([None] * 6, given, batch_size)
    assert sorted(place for places in batches for place in places) == list(range(6))
    assert in_order((places, [given[place] for place in places]) for places in batches) == given


def test_the_next_group_is_read_while_one_is_worked_on() -> None:
    started = threading.Event()

    def read(item: str) -> str:
        if item == "b":
            started.set()
        return item.upper()

    groups = read_ahead([{1: "a"}, {2: "b"}, {}], read)
    assert next(groups) == {1: "A"}
    assert started.wait(10), "nobody asked for it yet"
    assert [*groups] == [{2: "B"}, {}]


def test_an_error_is_raised_at_its_turn_and_ends_the_threads() -> None:
    def read(item: int) -> int:
        if item == 2:
            raise OFAError("picture 2 is damaged")
        return item

    before = threading.active_count()
    groups = read_ahead([{0: 0}, {2: 2}, {3: 3}], read)
    assert next(groups) == {0: 0}
    with pytest.raises(OFAError, match="picture 2 is damaged"):
        next(groups)
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_one_group_is_read_without_threads() -> None:
    names = [*read_ahead([{}, {1: 1}], lambda _: threading.current_thread().name)]
    assert names == [{}, {1: threading.current_thread().name}]
