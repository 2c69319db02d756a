"""Things made of a model's weights that must not outlive them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from torch import Tensor

Made = TypeVar("Made")


class Following(Generic[Made]):
    """What was made of some tensors, made again when one of them has changed since."""

    def __init__(self) -> None:
        self._state: list[tuple[int, int]] = []
        self._made: Made | None = None

    def __reduce__(self) -> tuple[type[Following[Made]], tuple[()]]:
        """Copied and pickled empty: what was made may have no storage to copy, and is made again where it is needed."""
        return type(self), ()

    def get(self, tensors: Iterable[Tensor], make: Callable[[], Made]) -> Made:
        """``make()``, or what it returned last time if ``tensors`` are as they were then.

        Tensors that were made in ``torch.inference_mode`` do not tell of changes, so for them it is made every time.
        """
        tensors = tuple(tensors)
        if any(tensor.is_inference() for tensor in tensors):
            return make()
        state = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
        if self._made is None or state != self._state:
            self._made, self._state = make(), state
        return self._made
