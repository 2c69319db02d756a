"""The errors a user reads: one line that says what is wrong with which input, and what would be right."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

#: Characters of a message; what is longer loses its middle, such as a value of half a million characters.
MAX_MESSAGE = 1000


def shortened(text: str, length: int = 400) -> str:
    """A text as a message shows it: in one line, and where it is long, its beginning and its end."""
    if len(text) <= length:
        return " ".join(text.splitlines())
    head, tail = length * 2 // 3, length // 3
    parts = f"{text[:head]}... ({len(text) - head - tail:,} characters more) ...{text[-tail:]}"
    return " ".join(parts.splitlines())


class OFAError(ValueError):
    """Base of every error this project raises about its input."""

    def __str__(self) -> str:
        message = super().__str__()
        return message if len(message) <= MAX_MESSAGE else shortened(message, MAX_MESSAGE)


class CheckpointError(OFAError):
    """A checkpoint file or a model directory that cannot be used."""


class UnsafePickleError(CheckpointError):
    """A pickle that asks for something outside the allow-list; nothing of it was executed."""


def first_problem(error: ValidationError, whole: str = "", *, show_input: bool = False) -> str:
    """The first thing pydantic found wrong: ``field: reason``, or ``whole: reason`` where no field is to blame."""
    first = error.errors()[0]
    where = shortened(".".join(map(str, first["loc"])), 80)
    if show_input and where:
        where = f"{where} is {shown(first['input'])}"
    reason = "there is no such setting" if first["type"] == "extra_forbidden" else first["msg"]
    what = where or whole
    return f"{what}: " * bool(what) + reason.removeprefix("Value error, ")


def shown(value: object, length: int = 80) -> str:
    """A value as a message shows it: its ``repr``, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to spell integers of thousands of digits
        return "a number of thousands of digits"
    return shortened(text, length)
