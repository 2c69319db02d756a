"""The errors a user reads: one line that says what is wrong with which input, and what would be right."""

from __future__ import annotations

from pydantic import ValidationError

#: Characters of a message; what is longer loses its middle, such as a value of half a million characters.
MAX_MESSAGE = 1000


def shortened(text: str, limit: int = 120) -> str:
    """``text``, or its beginning and its end with the number of characters left out between them."""
    if len(text) <= limit:
        return text
    head, tail = limit * 2 // 3, limit // 3
    return f"{text[:head]}... ({len(text) - head - tail:,} characters more) ...{text[-tail:]}"


class OFAError(ValueError):
    """Base of every error this project raises about its input."""

    def __str__(self) -> str:
        return shortened(super().__str__(), MAX_MESSAGE)


class CheckpointError(OFAError):
    """A checkpoint file or a model directory that cannot be used."""


class UnsafePickleError(CheckpointError):
    """A pickle that asks for something outside the allow-list; nothing of it was executed."""


def first_problem(error: ValidationError, whole: str = "", *, show_input: bool = False) -> str:
    """The first thing pydantic found wrong: ``field: reason``, or ``whole: reason`` where no field is to blame."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if show_input and where:
        where = f"{where} is {first['input']!r}"
    reason = "there is no such setting" if first["type"] == "extra_forbidden" else first["msg"]
    what = where or whole
    return f"{what}: " * bool(what) + reason.removeprefix("Value error, ")
