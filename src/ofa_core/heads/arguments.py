"""Pairing up what a user passes: one picture or many, with one text or many, with boxes and dialogs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import OFAError


def is_sequence(value: object) -> bool:
    """Tell whether ``value`` is a list of things rather than one."""
    return isinstance(value, list | tuple)


def pair_up(image: Any, text: Any) -> tuple[list[Any], list[str], bool]:
    """Pictures and texts side by side, and whether both were single. One of either goes with all of the other."""
    images = list(image) if is_sequence(image) else None
    texts = list(text) if is_sequence(text) else None
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


def as_list(image: Any) -> tuple[list[Any], bool]:
    """Pictures, and whether it was a single one."""
    images = list(image) if is_sequence(image) else [image]
    if not images:
        raise OFAError("an empty list was given: at least one image is needed")
    return images, not is_sequence(image)


def one_per_image(value: Any, count: int, single: bool, name: str) -> list[Any]:
    """``value`` for a single picture, or a list of as many values as there are pictures."""
    if single:
        return [value]
    if not is_sequence(value) or len(value) != count:
        raise OFAError(f"{count} images need a list of {count} {name}, one for each")
    return list(value)


def one_per_text(value: Any, count: int, single: bool) -> list[str]:
    """``value`` for a single text, or a list of as many texts as there are texts that they go with."""
    values = [value] if single and not is_sequence(value) else value
    if not is_sequence(values) or len(values) != count:
        raise OFAError(f"{count} texts need a list of {count} other texts, one for each")
    for other in values:
        if not isinstance(other, str):
            raise OFAError(f"a text must be a string, not {type(other).__name__}")
    return list(values)


def unwrap(results: Sequence[Any], single: bool) -> Any:
    """The only result, or the list of them."""
    return results[0] if single else list(results)
