"""Pairing up what a user passes: one picture or many, with one text or many, with boxes and dialogs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ..errors import OFAError

#: Reduces a picture that comes from a generator to what is kept of it.
Keep = Callable[[Any], Any]

#: Axes of one picture as an array or a tensor; one more is a batch of them.
_PICTURE_AXES = 3


def listed(values: object) -> list[Any] | None:
    """The things in a list, tuple, generator, array or pandas Series; None where ``values`` is one thing.

    Raises:
        OFAError: a set, which has no order, or a table of several columns.
    """
    many = _many(values)
    if many is None or (isinstance(values, np.ndarray | Tensor) and values.ndim == 0):
        return None
    if isinstance(values, np.ndarray) and values.dtype.kind == "U":
        return list(values.tolist())  # texts of Python's own type
    return list(many)


def image_list(images: object, keep: Keep = lambda image: image) -> list[Any] | None:
    """The pictures in a list, a tuple, a batch [B, ...] or anything else that gives pictures; None for one picture.

    ``keep`` reduces each picture of a generator or the like to what is needed of it, as it comes.
    """
    if isinstance(images, np.ndarray | Tensor):
        of_names = isinstance(images, np.ndarray) and images.dtype.kind in "OSU"
        return list(images) if images.ndim > (0 if of_names else _PICTURE_AXES) else None
    if isinstance(images, Image.Image | PathLike | bytearray | memoryview) or callable(getattr(images, "read", None)):
        return None
    many = _many(images)
    if many is None:
        return None
    return list(many) if isinstance(images, list | tuple) else [keep(image) for image in many]


def _many(values: object) -> Iterable[Any] | None:
    """``values`` if they are several things in an order, or None if they are one."""
    if hasattr(values, "columns") or hasattr(values, "column_names"):
        raise OFAError(f"a {type(values).__name__} is a table; it should be one of its columns")
    if isinstance(values, set | frozenset):
        raise OFAError(f"a set of {len(values)} has no order; it should be a list")
    single = isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable)
    return None if single else values  # type: ignore[return-value]


def pair_up(image: Any, text: Any, keep: Keep = lambda image: image) -> tuple[list[Any], list[str], bool]:
    """Pictures and texts side by side, and whether both were single. One of either goes with all of the other."""
    images, texts = image_list(image, keep), listed(text)
    for value in [text] if texts is None else texts:
        if not isinstance(value, str):
            raise OFAError(f"a text must be a string, not {type(value).__name__}")
    if images is not None and texts is not None and len(images) != len(texts):
        raise OFAError(f"{len(images)} images and {len(texts)} texts do not pair up")
    count = len(images if images is not None else [text] if texts is None else texts)
    if count == 0:
        raise OFAError("an empty list was given: at least one image and one text are needed")
    single = images is None and texts is None
    return [image] * count if images is None else images, [text] * count if texts is None else texts, single


def as_list(image: Any, keep: Keep = lambda image: image) -> tuple[list[Any], bool]:
    """Pictures, and whether it was a single one."""
    images = image_list(image, keep)
    if images == []:
        raise OFAError("an empty list was given: at least one image is needed")
    return [image] if images is None else images, images is None


def one_per_image(value: Any, count: int, single: bool, name: str) -> list[Any]:
    """``value`` for a single picture, or a list of as many values as there are pictures."""
    if single:
        return [value]
    values = listed(value)
    if values is None or len(values) != count:
        raise OFAError(f"{count} images need a list of {count} {name}, one for each")
    return values


def text_list(texts: Any) -> Any:
    """A list of the texts in any kind of list; what is none of them stays as it is, for its own error."""
    found = listed(texts)
    return texts if found is None else found


def one_per_text(value: Any, count: int, single: bool) -> list[str]:
    """``value`` for a single text, or a list of as many texts as there are texts that they go with."""
    values = listed(value)
    if values is None and single:
        values = [value]
    if values is None or len(values) != count:
        raise OFAError(f"{count} texts need a list of {count} other texts, one for each")
    for other in values:
        if not isinstance(other, str):
            raise OFAError(f"a text must be a string, not {type(other).__name__}")
    return list(values)


def unwrap(results: Sequence[Any], single: bool) -> Any:
    """The only result, or the list of them."""
    return results[0] if single else list(results)
