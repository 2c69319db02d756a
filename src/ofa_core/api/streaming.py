"""Methods whose samples come from an iterator: answers come as it is read, a batch at a time."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from itertools import islice
from typing import Any, TypeVar

from ..errors import OFAError
from ..heads.answering import checked_batching, skip_failures, tell_if_none
from ..heads.arguments import image_list, listed
from ..utils.progress import progress as progress_bar

Method = TypeVar("Method", bound=Callable[..., Any])

#: Arguments that come one for each sample, where there is more than one.
PER_SAMPLE = ("image", "text", "text2", "question", "answer", "caption", "phrases", "box", "dialog", "objects")
#: Those of them that may come from an iterator by themselves: the others are then read along with it.
LEADING = ("image", "text", "question")
#: Samples that are read at once for a method that has no batches of its own.
BATCH = 16


def streaming(method: Method) -> Method:
    """Let a method of :class:`~ofa_core.OFA` take iterators, such as generators, and then return one, too.

    It reads ``batch_size`` samples, answers them, and reads on when these answers were taken.
    """
    signature = inspect.signature(method)

    @wraps(method)
    def answer(self: Any, *given: Any, **named: Any) -> Any:
        try:
            arguments = signature.bind(self, *given, **named).arguments
        except TypeError:
            return method(self, *given, **named)  # which says what is wrong
        options = arguments.pop("options", {})
        del arguments["self"]
        if not any(_is_stream(arguments.get(name)) for name in LEADING):
            return method(self, *given, **named)
        default = signature.parameters.get("batch_size")
        batch_size = arguments.get("batch_size", BATCH if default is None else default.default)
        checked_batching(batch_size, arguments.get("on_error", "raise"))
        columns = {name: _values(name, arguments.pop(name)) for name in PER_SAMPLE if name in arguments}
        shown = arguments.pop("progress", False)
        on_error = arguments.pop("on_error", "raise")

        def ask(rows: Mapping[str, Any]) -> Sequence[Any]:
            found: Sequence[Any] = method(self, **rows, **arguments, **options)
            return found

        return _answers(ask, columns, batch_size, shown, on_error == "skip")

    return answer  # type: ignore[return-value]  # it is called as the method is


def _is_stream(value: Any) -> bool:
    """Tell whether samples come one by one; an open file is a picture."""
    return isinstance(value, Iterator) and not callable(getattr(value, "read", None))


def _values(name: str, value: Any) -> Any:
    """An iterator over the values of samples, or the one value that goes with all of them."""
    if _is_stream(value):
        return value
    many = image_list(value) if name == "image" else listed(value)
    return value if many is None else iter(many)


def _answers(
    ask: Callable[[Mapping[str, Any]], Sequence[Any]],
    columns: Mapping[str, Any],
    batch_size: int,
    shown: bool,
    skipping: bool,
) -> Iterator[Any]:
    """The answers to all samples of ``columns``, in order."""
    streams = {name: value for name, value in columns.items() if _is_stream(value)}
    same = {name: value for name, value in columns.items() if name not in streams}
    failures: list[str] = []
    count = 0
    with progress_bar(None, 0, "answered", unit="sample", shown=shown) as bar:
        while rows := _read(streams, batch_size, count):
            size = len(next(iter(rows.values())))

            def ask_part(part: range, rows: Mapping[str, list[Any]] = rows, first: int = count) -> Sequence[Any]:
                # no list, so that pictures are not held by the answers about them
                taken = {name: deque(column[i - first] for i in part) for name, column in rows.items()}
                return ask({**same, **taken})

            part = range(count, count + size)
            found = skip_failures(ask_part, part, failures) if skipping else ask_part(part)
            count += size
            bar.update(size)
            yield from found
    if count == 0:
        raise OFAError("an empty iterator was given: at least one sample is needed")
    tell_if_none(failures, count)


def _read(streams: Mapping[str, Iterator[Any]], batch_size: int, before: int) -> dict[str, list[Any]]:
    """The next samples, at most ``batch_size``; none at the end.

    Raises:
        OFAError: some arguments have ended, and others not.
    """
    rows = {name: list(islice(stream, batch_size)) for name, stream in streams.items()}
    counts = {name: len(column) for name, column in rows.items()}
    shorter, longer = min(counts, key=lambda name: counts[name]), max(counts, key=lambda name: counts[name])
    fewer, more = counts[shorter], counts[longer]
    if fewer != more:
        raise OFAError(f"{shorter} ended after {before + fewer} samples, and {longer} goes on: they do not pair up")
    return rows if more else {}
