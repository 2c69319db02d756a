"""Modules and names that stood elsewhere in an earlier version: importing one says where it is now."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # when it runs, they take a tenth of the time in which help is printed
    from importlib.machinery import ModuleSpec


class MovedNames:
    """Finds nothing: it says what became of what is not found.

    Args:
        package: the package's name.
        moves: old names, dotted within the package, and the new ones, in full.
    """

    def __init__(self, package: str, moves: Mapping[str, str]) -> None:
        self.package = package
        self.moves = dict(moves)
        sys.meta_path.append(self)  # last: what is there is found before

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Raise ImportError for a name that moved; None for any other, which is simply not there."""
        new = self._new_name(fullname)
        if new is not None:
            raise ImportError(f"{fullname} has moved: it is {new} now", name=fullname)
        return None

    def attribute(self, name: str) -> object:
        """Raise AttributeError for an attribute that the package does not have; it serves as its ``__getattr__``."""
        new = self._new_name(f"{self.package}.{name}")
        moved = f": it has moved and is {new} now" if new else ""
        raise AttributeError(f"module {self.package!r} has no attribute {name!r}{moved}", name=name)

    def _new_name(self, fullname: str) -> str | None:
        prefix = f"{self.package}."
        return self.moves.get(fullname.removeprefix(prefix)) if fullname.startswith(prefix) else None
