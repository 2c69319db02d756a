"""One call for many samples: with a bar that tells how far it has come, and with or without those that fail."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from ..errors import OFAError
from ..utils.progress import progress as progress_bar
from .pipeline import Pipeline
from .showing import Pictured

#: An error for a sample that cannot be answered, or None in its place and a warning.
OnError = Literal["raise", "skip"]

#: Names of the columns that hold what was asked, the first that is there.
ASKED = ("questions", "hypotheses", "captions", "texts")
#: The arguments of a head that come one for each sample, by name; None for one that was not given.
Columns = Mapping[str, Sequence[Any] | None]


def answer_all(
    pipeline: Pipeline,
    head: Callable[..., Sequence[Any]],
    columns: Columns,
    *,
    batch_size: int,
    progress: bool,
    on_error: OnError,
) -> list[Any]:
    """The results of ``head`` for all samples of ``columns``.

    Args:
        pipeline: the model.
        head: a head with all arguments but the pipeline, the columns and ``batch_size``.
        columns: what is asked.
        batch_size: samples computed at once.
        progress: whether to show a bar.
        on_error: ``raise`` looks at all that is asked before any work; ``skip`` warns of a sample that cannot be
            answered and has None in its place.

    Returns:
        A result, or None, for each sample.

    Raises:
        OFAError: a sample cannot be answered, and none is to be skipped; or none of several could be, for one reason.
    """
    checked_batching(batch_size, on_error)
    if on_error == "raise":
        found = head(replace(pipeline, progress=progress), **columns, batch_size=batch_size)
        return with_pictures(pipeline, found, columns)
    count = max(len(column) for column in columns.values() if column is not None)
    results: list[Any] = []
    failures: list[str] = []

    def ask(part: range) -> Sequence[Any]:
        return head(pipeline, **_rows(columns, part), batch_size=len(part))

    with progress_bar(count, 0, "answered", unit="sample", shown=progress) as bar:
        for start in range(0, count, batch_size):
            part = range(start, min(start + batch_size, count))
            results += skip_failures(ask, part, failures)
            bar.update(len(part))
    tell_if_none(failures, count)
    return with_pictures(pipeline, results, columns)


def with_pictures(pipeline: Pipeline, results: Sequence[Any], columns: Columns) -> list[Any]:
    """The results, each with the picture that it is about and the text that was asked, so that it can show itself."""
    images = columns.get("images") or [None] * len(results)
    asked = next((columns[name] for name in ASKED if columns.get(name) is not None), None) or [""] * len(results)
    return [
        result.about(pipeline.source_of(image), text if isinstance(text, str) else "")
        if isinstance(result, Pictured)
        else result
        for result, image, text in zip(results, images, asked, strict=True)
    ]


def checked_batching(batch_size: int, on_error: str) -> None:
    """Refuse what is no size of batches or no way to deal with errors.

    Raises:
        OFAError: it is none.
    """
    if on_error not in get_args(OnError):
        raise OFAError(f"on_error is 'raise' or 'skip', not {on_error!r}")
    if batch_size < 1:
        raise OFAError(f"batch_size must be at least 1, not {batch_size}")


def skip_failures(ask: Callable[[range], Sequence[Any]], part: range, failures: list[str]) -> list[Any]:
    """Results of a batch; if it fails, of each sample by itself, with None and a warning where that fails.

    Args:
        ask: what answers the samples of some numbers, or raises an :class:`OFAError`.
        part: the numbers of the batch.
        failures: a list to which the reasons of what fails are added.

    Returns:
        A result, or None, for each sample.
    """
    try:
        return list(ask(part))
    except OFAError as error:
        if len(part) == 1:
            failures.append(str(error))
            warnings.warn(f"sample {part[0]} was skipped: {error}", stacklevel=4)
            return [None]
    return [skip_failures(ask, range(index, index + 1), failures)[0] for index in part]


def tell_if_none(failures: Sequence[str], count: int) -> None:
    """Raise where all of several samples failed for one reason, which is then no sample's.

    Raises:
        OFAError: they did.
    """
    if len(failures) == count > 1 and len(set(failures)) == 1:
        raise OFAError(f"none of {count} samples could be answered: {failures[0]}")


def _rows(columns: Columns, part: range) -> dict[str, Sequence[Any] | None]:
    return {name: None if column is None else column[part.start : part.stop] for name, column in columns.items()}
