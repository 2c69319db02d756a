"""Tables that are written into pages, each between the marks that a page has for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

END = "<!-- end -->\n"


def begin(kind: str, name: str) -> str:
    """The mark before a table."""
    return f"<!-- {kind}: {name} -->\n"


def filled(kind: str, tables: Mapping[str, Callable[[], str]], text: str) -> str:
    """A page with those of ``tables`` that it has marks for, as they are now."""
    for name, table in tables.items():
        mark = begin(kind, name)
        if mark in text:
            before, _, rest = text.partition(mark)
            text = before + mark + table() + END + rest.partition(END)[2]
    return text


def rewrite(page: Path, change: Callable[[str], str]) -> None:
    """Change the text of a page."""
    page.write_text(change(page.read_text(encoding="utf-8")), encoding="utf-8")
