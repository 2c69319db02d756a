"""Templates: texts with columns of a row in braces, of which sources and targets of a task of one's own are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from string import Formatter
from typing import Any

from ..errors import OFAError, shortened
from .read_options import ReadOptions
from .records import BadRow, Pieces

#: The field of a template that stands for the four bins of the row's ``box``.
BOX = "box"


@dataclass(frozen=True)
class Template:
    """A text with fields: ``what is {thing}?``; ``{{`` and ``}}`` are braces."""

    #: ``source`` or ``target``.
    name: str
    #: Pieces of text, each with the column behind it; None behind the last.
    parts: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, name: str, text: str) -> Template:
        """Read a template.

        Raises:
            OFAError: a brace stands alone, or a field is no plain name of a column.
        """
        try:
            found = list(Formatter().parse(text))
        except ValueError:
            raise OFAError(f"{name} {text!r} has a brace that stands alone; {{{{ and }}}} would be braces") from None
        for _, column, form, conversion in found:
            if column is not None and (not column.strip() or form or conversion):
                raise OFAError(f"{name} {text!r} should hold names of columns in its braces, and nothing else")
        return cls(name, tuple((literal, column) for literal, column, _, _ in found))

    @property
    def has_box(self) -> bool:
        """True if the row's box is in it."""
        return any(column == BOX for _, column in self.parts)

    def fill(self, row: Mapping[str, Any], place: str) -> Pieces:
        """The text with the row's columns as they are written.

        Raises:
            BadRow: the row has no such column, a column is neither text nor a number, or nothing is left.
        """
        pieces: list[str | None] = [""]
        for literal, column in self.parts:
            more = literal + ("" if column in (None, BOX) else self._value(row, str(column), place))
            pieces[-1] = f"{pieces[-1]}{more}"
            if column == BOX:
                pieces += [None, ""]
        kept = tuple(piece for piece in pieces if piece is None or piece.strip())
        if not kept:
            raise BadRow(place, f"{self.name}: it is empty")
        return kept

    def _value(self, row: Mapping[str, Any], column: str, place: str) -> str:
        value = row.get(column)
        if value is None:
            has = shortened(", ".join(map(str, row)))
            raise BadRow(place, f"{column}: the {self.name} names this column, and the row has {has}")
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise BadRow(place, f"{column}: the {self.name} needs a text or a number, not {type(value).__name__}")
        try:
            str(value).encode()
        except UnicodeEncodeError:
            raise BadRow(place, f"{column}: it holds half of a surrogate pair, which no file can") from None
        return str(value)


_parsed = lru_cache(maxsize=32)(Template.parse)


def templates_of(options: ReadOptions) -> tuple[Template, Template]:
    """The templates of a source and its target.

    Raises:
        OFAError: one is missing or wrong.
    """
    if options.source is None or options.target is None:
        missing = "source" if options.source is None else "target"
        raise OFAError(
            "rows of a task of one's own (custom) need a source and a target, which hold columns in braces, such as "
            f"'what is {{thing}}?': {missing} is missing"
        )
    return _parsed("source", options.source), _parsed("target", options.target)
