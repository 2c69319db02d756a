"""Help on the settings of a run, and recipes to begin with: both read from the files that say them.

The classes of the settings are read as text: to import them takes more time than all other help together.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import OFAError
from .recipe import ORIGINAL

#: The files with the classes of the settings.
FILES = tuple(Path(__file__).with_name(f"{name}.py") for name in ("setting_tables", "settings"))

#: Directory of the recipes in this package.
RECIPES = Path(__file__).parent / "recipes"
#: Tables of a TOML file with the class of the settings that each holds, in the order in which help tells them.
TABLES: dict[str, str] = {
    "": "TrainingSettings",
    "[[data]]": "DataSettings",
    "[loss]": "LossSettings",
    "[optimizer]": "OptimizerSettings",
    "[[evaluation]]": "EvaluationSettings",
    "[[held_out]]": "DataSettings",
    "[new_model]": "NewModelSettings",
    "[cache_features]": "CacheSettings",
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
    prefix = f"{table.strip('[]')}." if table else ""
    return [
        replace(setting, original=_as_toml(ORIGINAL.get(prefix + setting.name)))
        for setting in _declared_of(TABLES[table]).values()
    ]


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
    """A default as it would be written; empty where there is none."""
    return "" if value is None else json.dumps(value)


@cache
def _classes() -> dict[str, tuple[list[str], ast.ClassDef]]:
    """The classes of the settings by name, each with the lines of its file."""
    texts = [path.read_text(encoding="utf-8") for path in FILES]
    nodes = [(text.splitlines(), node) for text in texts for node in ast.parse(text).body]
    return {node.name: (lines, node) for lines, node in nodes if isinstance(node, ast.ClassDef)}


def _declared_of(name: str) -> dict[str, Setting]:
    """The settings of a class, those of its bases first; the meaning of each is the comment ``#:`` above it."""
    if name not in _classes():
        return {}
    lines, declared = _classes()[name]
    bases = (base.id for base in declared.bases if isinstance(base, ast.Name))
    found = {key: setting for base in bases for key, setting in _declared_of(base).items()}
    for statement in declared.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        setting, kind = statement.target.id, ast.unparse(statement.annotation)
        if not kind.startswith("ClassVar"):
            meaning = " ".join(_comment(lines, statement.lineno))
            found[setting] = Setting(setting, kind, _as_toml(_default(statement.value)), "", meaning)
    return found


def _default(value: ast.expr | None) -> Any:
    """The default that a field is declared with; None where there is none, or it is a table of its own."""
    if isinstance(value, ast.Call):
        given = {keyword.arg: keyword.value for keyword in value.keywords}
        if "default_factory" in given:
            return {}
        value = given.get("default")
    return None if value is None else ast.literal_eval(value)


def _comment(lines: list[str], number: int) -> Iterator[str]:
    """The comment above line ``number``, counted from 1."""
    first = number - 1
    while lines[first - 1].strip().startswith("#:"):
        first -= 1
    return (_plain(line.strip().removeprefix("#:").strip()) for line in lines[first : number - 1])


def _plain(text: str) -> str:
    """A line of a comment without the marks of reStructuredText."""
    return re.sub(r":\w+:(?=`)", "", text).replace("`", "")
