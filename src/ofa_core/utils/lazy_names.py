"""Public names of a package that are imported when they are first used, so that importing the package costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module


class LazyNames:
    """The names of a package and the modules that they stand in.

    Args:
        package: the package's name.
        modules: dotted modules within the package, and the names that each gives.
        parts: modules and packages directly in it, which are attributes too; what a package holds is imported by the
            first of them.
        otherwise: is called with a name that is none of these, and raises.
    """

    def __init__(
        self,
        package: str,
        modules: Mapping[str, Sequence[str]],
        parts: Sequence[str],
        otherwise: Callable[[str], object],
    ) -> None:
        self.package = package
        self.places = {name: module for module, names in modules.items() for name in names}
        self.parts = tuple(parts)
        self._otherwise = otherwise

    def attribute(self, name: str) -> object:
        """The attribute of a name, which stays; it serves as the package's ``__getattr__``."""
        if name in self.places:
            value = getattr(import_module(f"{self.package}.{self.places[name]}"), name)
        elif name in self.parts:
            value = import_module(f"{self.package}.{name}")
            if hasattr(value, "__path__"):
                import_module(f"{self.package}.{self.parts[0]}")
        else:
            return self._otherwise(name)
        setattr(import_module(self.package), name, value)
        return value

    def names(self) -> list[str]:
        """All names, imported or not; it serves as the package's ``__dir__``."""
        return sorted({*vars(import_module(self.package)), *self.places, *self.parts})
