"""Help on the settings of a run, and recipes to begin with: both read from the files that say them."""

from __future__ import annotations

import ast
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ..errors import OFAError
from . import settings as module
from .recipe import ORIGINAL

#: Directory of the recipes in this package.
RECIPES = Path(__file__).parent / "recipes"
#: Tables of a TOML file with the settings that each holds, in the order in which help tells them.
TABLES: dict[str, type[BaseModel]] = {
    "": module.TrainingSettings,
    "[[data]]": module.DataSettings,
    "[loss]": module.LossSettings,
    "[optimizer]": module.OptimizerSettings,
    "[[evaluation]]": module.EvaluationSettings,
    "[[held_out]]": module.DataSettings,
    "[new_model]": module.NewModelSettings,
}


@dataclass(frozen=True)
class Setting:
    """A setting as its class declares it."""

    name: str
    kind: str  # its type as it is written
    default: str  # as TOML has it; empty where there is none
    original: str  # the default of the recipe ``ofa`` where it is another one
    meaning: str


def settings_of(table: str) -> list[Setting]:
    """The settings of a table of :data:`TABLES`, those of its class's bases first."""
    model = TABLES[table]
    prefix = f"{table.strip('[]')}." if table else ""
    found = {}
    for cls in reversed(model.__mro__):
        for name, kind, meaning in _declared().get(cls.__name__, ()):
            info = model.model_fields[name]
            default = None if info.is_required() else info.get_default(call_default_factory=True)
            original = ORIGINAL.get(prefix + name)
            found[name] = Setting(name, kind, _as_toml(default), _as_toml(original), meaning)
    return list(found.values())


def help_text() -> str:
    """All settings with their types, defaults and meanings."""
    lines = ["settings of CONFIG.toml (default; that of recipe ofa, where it differs):"]
    for table in TABLES:
        lines += ["", f"  {table}" if table else "  at the top"]
        if table == "[[held_out]]":
            lines.append("    as [[data]]")
            continue
        for setting in settings_of(table):
            default = f" = {setting.default}" if setting.default else ""
            other = f" (ofa: {setting.original})" if setting.original else ""
            lines.append(f"    {setting.name}{default}{other}")
            kind = f"{setting.kind}. " if "Literal" in setting.kind else ""
            lines += textwrap.wrap(kind + setting.meaning, 110, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines) + "\n"


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def recipe_text(name: str) -> str:
    """The TOML of a recipe.

    Raises:
        OFAError: there is none of this name.
    """
    if name not in recipe_names():
        raise OFAError(f"there is no example {name!r}; there are {', '.join(recipe_names())}")
    return (RECIPES / f"{name}.toml").read_text(encoding="utf-8")


def _as_toml(value: Any) -> str:
    """A default as it would be written; empty where there is none, or it is a table of its own."""
    if value is None or isinstance(value, BaseModel):
        return ""
    return json.dumps(value, default=str)


@cache
def _declared() -> dict[str, list[tuple[str, str, str]]]:
    """Name, type and meaning of each field of each class; the meaning is the comment ``#:`` above it."""
    text = Path(module.__file__).read_text(encoding="utf-8")
    lines = text.splitlines()
    return {
        node.name: [
            (statement.target.id, ast.unparse(statement.annotation), " ".join(_comment(lines, statement.lineno)))
            for statement in node.body
            if isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and not statement.target.id.startswith("_")
        ]
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef)
    }


def _comment(lines: list[str], number: int) -> Iterator[str]:
    """The comment above line ``number``, counted from 1."""
    first = number - 1
    while lines[first - 1].strip().startswith("#:"):
        first -= 1
    return (_plain(line.strip().removeprefix("#:").strip()) for line in lines[first : number - 1])


def _plain(text: str) -> str:
    """A line of a comment without the marks of reStructuredText."""
    return re.sub(r":\w+:(?=`)", "", text).replace("`", "")
