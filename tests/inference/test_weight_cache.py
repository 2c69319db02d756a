"""What is derived from weights is derived once, and anew when they changed."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from ofa_core.inference.weight_cache import SMALL, DerivedTensors, WeightCache


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    """Nothing derived is used where gradients are recorded."""
    with torch.no_grad():
        yield


class Watched:
    """A derived number that counts how often it was derived."""

    def __init__(self, *weights: Tensor) -> None:
        self.cache, self.weights, self.count = WeightCache(), weights, 0
        self.derived: DerivedTensors[int] = DerivedTensors(self.cache)

    def ask(self) -> int:
        """The count, as within a call of a model."""
        with self.cache.checked_call():
            return self.derived.get(self.weights, self._derive)

    def _derive(self) -> int:
        self.count += 1
        return self.count


SHAPES = [(1,), (3,), (70,), (5, 6), (200, 100), (64, 3, 3, 3), (300, 64, 1, 1), (0,)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64])
def test_it_is_derived_once_as_long_as_nothing_changes(shape: tuple[int, ...], kind: torch.dtype) -> None:
    watched = Watched(torch.ones(shape).to(kind), torch.zeros(2))
    assert [watched.ask() for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("shape", SHAPES[:-1], ids=str)
def test_a_change_of_all_values_is_seen_through_data(shape: tuple[int, ...]) -> None:
    weight = nn.Parameter(torch.randn(shape))
    if len(shape) == 4:
        weight = nn.Parameter(weight.detach().contiguous(memory_format=torch.channels_last))
    watched = Watched(torch.zeros(5), weight)
    watched.ask()
    weight.data += 1
    assert [watched.ask(), watched.ask()] == [2, 2]


@pytest.mark.parametrize("size", [5, SMALL, SMALL + 1, 1_000_003])
def test_the_sample_is_spread_over_all_of_a_weight(size: int) -> None:
    weight = torch.zeros(size)
    watched = Watched(weight)
    watched.ask()
    for number, part in enumerate(weight.data.chunk(5), start=2):
        part += 1
        assert watched.ask() == number


def test_values_that_stand_between_other_values_are_seen() -> None:
    """A weight that is a part of another tensor, in any order."""
    whole = torch.zeros(50, 40)
    row = torch.zeros(1, 40)
    parts = [(part, part) for part in (whole[:, 3:7], whole.t(), whole[10:20], whole[::2])]
    for part, written in (*parts, (row.expand(50, 40), row)):
        watched = Watched(part)
        watched.ask()
        written.data += 1
        assert [watched.ask(), watched.ask()] == [2, 2]


CHANGES: dict[str, Callable[[nn.Parameter], None]] = {
    "in place": lambda w: w.requires_grad_(False).add_(0),
    "one value": lambda w: w.requires_grad_(False)[7, 3].fill_(2.0),
    "other data": lambda w: setattr(w, "data", w.data.clone()),
    "other type": lambda w: setattr(w, "data", w.data.double()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_torch_knows_of_is_seen_whatever_the_values(change: str) -> None:
    weight = nn.Parameter(torch.zeros(300, 200))
    watched = Watched(weight)
    watched.ask()
    CHANGES[change](weight)
    assert [watched.ask(), watched.ask()] == [2, 2]


def test_another_object_is_another_weight_at_once() -> None:
    watched = Watched(torch.zeros(3))
    with watched.cache.checked_call():
        first = watched.derived.get(watched.weights, watched._derive)
        other = watched.derived.get((torch.zeros(3),), watched._derive)
    assert (first, other) == (1, 2)


def test_only_what_was_derived_from_it_is_derived_anew() -> None:
    weights = [torch.zeros(4), torch.zeros(5)]
    cache, counts = WeightCache(), [0, 0]
    derived = [DerivedTensors(cache) for _ in weights]

    def ask() -> None:
        with cache.checked_call():
            for number, (one, weight) in enumerate(zip(derived, weights, strict=True)):
                one.get((weight,), lambda number=number: counts.__setitem__(number, counts[number] + 1) or True)

    ask()
    weights[1] += 1
    ask()
    assert counts == [1, 2]
    cache.clear()
    ask()
    assert counts == [2, 3]


def test_weights_are_compared_once_a_call_and_not_within(monkeypatch: pytest.MonkeyPatch) -> None:
    watched, checks = Watched(torch.zeros(3)), []
    check = WeightCache.check
    monkeypatch.setattr(WeightCache, "check", lambda self: (checks.append(1), check(self))[1])
    with watched.cache.checked_call():
        assert watched.cache.memo is not None
        for _ in range(3):
            watched.ask()
    assert watched.cache.memo is None
    assert len(checks) == 1
    watched.ask()
    assert len(checks) == 2


def test_a_call_that_fails_ends_too() -> None:
    cache = WeightCache()
    with pytest.raises(ValueError, match="it"), cache.checked_call():
        raise ValueError("it")
    assert cache.memo is None


def test_with_gradients_nothing_derived_is_used() -> None:
    cache = WeightCache()
    with torch.enable_grad(), cache.checked_call():
        assert cache.memo is None


def test_a_call_is_one_threads_own() -> None:
    cache, seen = WeightCache(), []
    with cache.checked_call():
        thread = threading.Thread(target=lambda: seen.append(cache.memo is not None))
        thread.start()
        thread.join()
    assert seen == [False]


def test_many_threads_and_changes_end_in_what_is_right() -> None:
    weight = torch.zeros(1000)
    cache = WeightCache()
    derived: DerivedTensors[float] = DerivedTensors(cache)
    wrong: list[float] = []

    def ask() -> None:
        for _ in range(200):
            with cache.checked_call():
                found = derived.get((weight,), lambda: float(weight[0]))
                if not 0 <= found <= 50:
                    wrong.append(found)

    threads = [threading.Thread(target=torch.no_grad()(ask)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        weight += 1
    for thread in threads:
        thread.join()
    assert not wrong
    with cache.checked_call():
        assert derived.get((weight,), lambda: float(weight[0])) == 50


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_begin_empty_and_keep_together(copied: Callable[[object], list[DerivedTensors[int]]]) -> None:
    cache = WeightCache()
    pair = [DerivedTensors(cache), DerivedTensors(cache)]
    pair[0].get((torch.zeros(1),), lambda: 1)
    first, second = copied(pair)
    assert first.cache is second.cache is not cache
    assert first.snapshots == ()
    assert len(first.cache._derived) == 2


def test_what_nobody_holds_is_forgotten() -> None:
    cache = WeightCache()
    derived = DerivedTensors(cache)
    derived.get((torch.zeros(4),), lambda: 1)
    del derived
    gc.collect()
    cache.check()
    assert len(cache._derived) == 0
