"""One call for many samples: with a bar that tells how far it has come, and with or without those that fail."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from ..errors import OFAError
from ..utils.progress import progress as progress_bar
from .pipeline import Pipeline

#: An error for a sample that cannot be answered, or None in its place and a warning.
OnError = Literal["raise", "skip"]

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
    if on_error not in get_args(OnError):
        raise OFAError(f"on_error is 'raise' or 'skip', not {on_error!r}")
    if batch_size < 1:
        raise OFAError(f"batch_size must be at least 1, not {batch_size}")
    if on_error == "raise":
        return list(head(replace(pipeline, progress=progress), **columns, batch_size=batch_size))
    count = max(len(column) for column in columns.values() if column is not None)
    results: list[Any] = []
    failures: list[str] = []
    with progress_bar(count, 0, "answered", unit="sample", shown=progress) as bar:
        for start in range(0, count, batch_size):
            part = range(start, min(start + batch_size, count))
            results += _without_failures(pipeline, head, columns, part, failures)
            bar.update(len(part))
    if len(failures) == count > 1 and len(set(failures)) == 1:
        raise OFAError(f"none of {count} samples could be answered: {failures[0]}")
    return results


def _without_failures(
    pipeline: Pipeline, head: Callable[..., Sequence[Any]], columns: Columns, part: range, failures: list[str]
) -> list[Any]:
    """Results of a batch; if it fails, of each sample by itself, with None and a warning where that fails."""
    try:
        return list(head(pipeline, **_rows(columns, part), batch_size=len(part)))
    except OFAError as error:
        if len(part) == 1:
            failures.append(str(error))
            warnings.warn(f"sample {part[0]} was skipped: {error}", stacklevel=4)
            return [None]
    return [_without_failures(pipeline, head, columns, range(index, index + 1), failures)[0] for index in part]


def _rows(columns: Columns, part: range) -> dict[str, Sequence[Any] | None]:
    return {name: None if column is None else column[part.start : part.stop] for name, column in columns.items()}
