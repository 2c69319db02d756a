"""Tensors derived from a model's weights, such as other layouts of them, and the check that they are not stale.

A derived tensor is used within a *checked call* only: a method of the model compares all weights that something was
derived from with what they were, once, and what is stale is derived anew. Outside of such a call, where nobody would
notice a change, modules compute with their weights as they are.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter, is_
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..utils.mapped_memory import MappedTensors, is_unwritten
from .untouched import may_replace

T = TypeVar("T")

#: Values of a large weight that are compared: so many in a row at so many places.
PLACES, VALUES = 8, 8
#: A weight of up to so many values is compared at up to :data:`SMALL_PLACES` single ones.
SMALL, SMALL_PLACES = 1 << 14, 32


class WeightCache:
    """All that was derived from the weights of one model.

    A copy, and what is read back from a pickle, begins empty: derived tensors may have no storage to copy.
    """

    def __init__(self) -> None:
        self._derived: weakref.WeakSet[DerivedTensors[object]] = weakref.WeakSet()
        self._watch: _Watch | None = None
        self._lock = threading.RLock()
        self._calls = threading.local()

    def __reduce__(self) -> tuple[type[WeightCache], tuple[()]]:
        return type(self), ()

    @property
    def memo(self) -> dict[object, object] | None:
        """A place for what holds until this thread's :meth:`checked_call` ends.

        None outside of one, and where nothing derived may be used in it, since gradients are recorded, for instance.
        """
        return getattr(self._calls, "memo", None)

    @contextmanager
    def checked_call(self) -> Iterator[None]:
        """Check on entry, unless a call around this one has done so."""
        outer = self.memo
        if outer is not None or not may_replace():
            yield
            return
        self.check()
        self._calls.memo = {}
        try:
            yield
        finally:
            self._calls.memo = None

    def check(self) -> None:
        """Forget what was derived from weights that are no longer what they were.

        Compared are the place in memory, torch's count of changes and a sample of the values. A write through ``.data``
        to a few values that are not in the sample may go unseen; :meth:`clear` is for that.
        """
        with self._lock:
            if self._watch is None:
                self._watch = _Watch([snapshot for derived in self._derived for snapshot in derived.snapshots])
            if self._watch.unchanged():
                return
            for derived in self._derived:
                if not all(snapshot.unchanged() for snapshot in derived.snapshots):
                    derived.clear()

    def clear(self) -> None:
        """Forget everything; it is derived anew where it is needed."""
        with self._lock:
            for derived in self._derived:
                derived.clear()

    def _register(self, derived: DerivedTensors[T]) -> None:
        with self._lock:
            self._derived.add(derived)  # type: ignore[arg-type]

    def _changed(self) -> None:
        self._watch = None


class DerivedTensors(Generic[T]):
    """One thing that is derived from some of a model's weights."""

    def __init__(self, cache: WeightCache) -> None:
        self.cache = cache
        self.snapshots: tuple[Snapshot, ...] = ()
        self._sources: tuple[Tensor, ...] = ()
        self._value: T | None = None
        cache._register(self)

    def __reduce__(self) -> tuple[type[DerivedTensors[T]], tuple[WeightCache]]:
        return type(self), (self.cache,)

    def get(self, sources: tuple[Tensor, ...], derive: Callable[[], T]) -> T:
        """Return what was derived from ``sources``, or ``derive()`` where these are others or were changed.

        Args:
            sources: the weights themselves, the same objects every time.
            derive: makes the value.
        """
        value = self._value
        if value is None or not _same(sources, self._sources):
            snapshots = tuple(map(Snapshot, sources))  # before, so that a change meanwhile is seen
            value = derive()
            with self.cache._lock:
                self._value, self._sources, self.snapshots = value, sources, snapshots
                self.cache._changed()
        return value

    def clear(self) -> None:
        """Forget it."""
        self._value, self._sources, self.snapshots = None, (), ()
        self.cache._changed()


def _same(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return len(first) == len(second) and all(map(is_, first, second))


class Snapshot:
    """A weight as it was: its place in memory, torch's count of changes, and its values as far as they can be known.

    Of a large weight that is mapped from a file, the system tells whether anything was written to it; reading it would
    only bring it back to memory. Of all others a sample of the values is kept.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.place: int = tensor.data_ptr()
        self.version: int = _version(tensor)
        self.is_mapped: bool = tensor.numel() > SMALL and is_unwritten(tensor)
        #: The sampled values as they are, read where the weight is stored, and as they were.
        self.now: Tensor | None = None if self.is_mapped else _sample(tensor.detach())
        self.then: Tensor | None = None if self.now is None else self.now.clone()

    def unchanged(self) -> bool:
        """Tell whether nothing has changed that can be seen."""
        if self.tensor.data_ptr() != self.place or _version(self.tensor) != self.version:
            return False
        if self.now is None or self.then is None:
            return is_unwritten(self.tensor)
        return torch.equal(self.now, self.then)


class _Watch:
    """All snapshots, compared at once."""

    def __init__(self, snapshots: Sequence[Snapshot]) -> None:
        self._tensors = [snapshot.tensor for snapshot in snapshots]
        self._places = [snapshot.place for snapshot in snapshots]
        self._counted = [tensor for tensor in self._tensors if not tensor.is_inference()]
        self._versions = [snapshot.version for snapshot in snapshots if not snapshot.tensor.is_inference()]
        self._mapped = MappedTensors(snapshot.tensor for snapshot in snapshots if snapshot.is_mapped)
        groups: dict[object, list[tuple[Tensor, Tensor]]] = {}
        for now, then in ((snapshot.now, snapshot.then) for snapshot in snapshots):
            if now is not None and then is not None:
                groups.setdefault((now.device, now.dtype, now.shape[1]), []).append((now, then))
        self._samples = [_Samples(group) for group in groups.values()]

    def unchanged(self) -> bool:
        """Tell whether nothing has changed that can be seen."""
        return (
            list(map(Tensor.data_ptr, self._tensors)) == self._places
            and list(map(attrgetter("_version"), self._counted)) == self._versions
            and all(samples.unchanged() for samples in self._samples)
            and self._mapped.unwritten()
        )


class _Samples:
    """Samples of one form, put together by NumPy in a fifth of torch's time where it can see them."""

    def __init__(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
        self._now = [now for now, _ in pairs]
        self._then = torch.cat([then for _, then in pairs])
        self._arrays = [now.numpy() for now in self._now] if self._then.is_cpu else []

    def unchanged(self) -> bool:
        """Tell whether they are what they were."""
        if self._then.is_cpu:
            return np.array_equal(np.concatenate(self._arrays), self._then.numpy())
        return torch.equal(torch.cat(self._now), self._then)


def _version(tensor: Tensor) -> int:
    """Torch's count of changes in place; it keeps none for tensors that were made in ``torch.inference_mode``."""
    return 0 if tensor.is_inference() else tensor._version


def _sample(tensor: Tensor) -> Tensor:
    """A view [places, values] of a few values, spread over ``tensor``, as whole numbers, so that NaN equals itself."""
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    stored = tensor.untyped_storage().nbytes() // tensor.element_size() - tensor.storage_offset()
    size = min(tensor.numel(), stored)  # an expanded tensor has fewer values than it shows
    places, values = (PLACES, VALUES) if size > SMALL else (min(size, SMALL_PLACES), 1)
    stride = max(size - values, 0) // max(places - 1, 1)
    return tensor.view(integer).as_strided((places, values), (stride, 1))
