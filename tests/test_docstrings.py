"""Docstrings say what a thing is or does: they begin with a noun or a verb, and name arguments, results and errors."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import typing_extensions
from reference import ROOT, script

import checkpoints_convert
import ofa_core
from ofa_core import GenerationOptions, TaskSettings
from ofa_core.config import TaskChanges
from ofa_core.generation.options import SearchOptions

FILES = sorted(
    path for root in ("src", "checkpoints_convert", "benchmarks", "scripts") for path in (ROOT / root).rglob("*.py")
)
#: Words that begin a question or a clause, not a description.
NO_BEGINNING = re.compile(r"(What|How|Whether|Where|Who|Whose|Which|When|Why|If|That)\b")
#: Modules whose names people import beside the package's.
PUBLIC_MODULES = ("ofa_core", "ofa_core.generation", "ofa_core.text", "checkpoints_convert")
SECTIONS = ("Args:", "Returns:", "Raises:", "Examples:")
EXAMPLES = script("page_examples")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_begin_with_a_noun_or_a_verb(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented)]
    texts += re.findall(r"#: (.*)", path.read_text(encoding="utf-8"))
    assert [text.splitlines()[0] for text in texts if text and NO_BEGINNING.match(text)] == []


def own_members(kind: type) -> dict[str, Any]:
    """The members of a class that the project defines, in the class itself or in one that it is made of."""
    package = kind.__module__.partition(".")[0]
    bases = [base for base in reversed(kind.__mro__) if base.__module__.partition(".")[0] == package]
    return {name: member for base in bases for name, member in vars(base).items()}


def public() -> Iterator[tuple[str, Any]]:
    """Every public function, class and method, by its name."""
    for module_name in PUBLIC_MODULES:
        module = importlib.import_module(module_name)
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isfunction(value):
                yield f"{module_name}.{name}", value
            elif inspect.isclass(value):
                yield f"{module_name}.{name}", value
                for method_name, method in own_members(value).items():
                    method = getattr(method, "__func__", method)
                    if inspect.isfunction(method) and not method_name.startswith("_") and method.__doc__:
                        yield f"{module_name}.{name}.{method_name}", method


PUBLIC = dict(public())


def arguments(value: Any) -> list[str]:
    parameters = inspect.signature(value).parameters
    return [name for name in parameters if name not in ("self", "cls")]


@pytest.mark.parametrize("name", [name for name, value in PUBLIC.items() if inspect.isfunction(value)])
def test_public_functions_of_several_arguments_document_them(name: str) -> None:
    value = PUBLIC[name]
    names, text = arguments(value), inspect.getdoc(value) or ""
    if len(names) < 2:
        return
    assert "Args:" in text, "there is no section Args"
    listed = re.findall(r"^    \*{0,2}(\w+): ", text.partition("Args:")[2], re.MULTILINE)
    assert [argument for argument in names if argument not in listed] == [], "an argument is not described"
    returns = value.__annotations__.get("return")
    assert ("Returns:" in text) == (returns not in (None, "None")), "what it returns"
    raises = re.search(r"\braise (OFAError|CheckpointError)", inspect.getsource(value))
    assert not raises or "Raises:" in text, "it raises what it does not say"


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented_and_typed(name: str) -> None:
    value = PUBLIC[name]
    assert inspect.getdoc(value)
    if inspect.isfunction(value):
        typed = set(value.__annotations__)
        assert [argument for argument in arguments(value) if argument not in typed] == []
        assert "return" in typed


METHODS = sorted(name for name, _ in inspect.getmembers(ofa_core.OFA, inspect.isfunction) if name[0] != "_")


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    found: dict[str, Any] = EXAMPLES.names()
    return found


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_an_example_that_runs(
    name: str, names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = inspect.getdoc(getattr(ofa_core.OFA, name)) or ""
    test = doctest.DocTestParser().get_doctest(text.partition("Examples:")[2], dict(names), name, None, 0)
    assert test.examples, "it has no example"
    flags = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    said: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the demo model learned few of the tasks
        failed, _ = doctest.DocTestRunner(optionflags=flags).run(test, out=said.append)
    assert failed == 0, "".join(said)


def test_sections_stand_in_one_order() -> None:
    for name, value in PUBLIC.items():
        text = inspect.getdoc(value) or ""
        places = [text.index(section) for section in SECTIONS if section in text]
        assert places == sorted(places), name


@pytest.mark.parametrize(("changes", "model"), [(SearchOptions, GenerationOptions), (TaskChanges, TaskSettings)])
def test_options_by_name_are_the_fields_with_their_types(changes: Any, model: Any) -> None:
    hints = get_type_hints(changes)
    assert list(hints) == list(model.model_fields)
    for name, field in model.model_fields.items():
        assert hints[name] == field.annotation, name


def test_methods_take_the_options_that_their_types_name() -> None:
    """Editors see the overloads, Python runs the method behind them."""
    scope = {**vars(importlib.import_module("ofa_core.heads.options")), "Unpack": typing_extensions.Unpack}
    for name, method in inspect.getmembers(ofa_core.OFA, inspect.isfunction):
        for overload in typing_extensions.get_overloads(method):
            kind = overload.__annotations__.get("options")
            if kind is None:
                continue
            (options,) = eval(kind, scope).__args__
            parameters = inspect.signature(method).parameters
            named = {key for key, value in parameters.items() if value.kind is inspect.Parameter.KEYWORD_ONLY}
            searched = set(SearchOptions.__annotations__) if "options" in parameters else set()
            assert set(options.__annotations__) | set(get_type_hints(options)) == named | searched, name


def test_nothing_public_is_missing() -> None:
    assert set(checkpoints_convert.__all__) <= set(dir(checkpoints_convert))
    assert set(ofa_core.__all__) <= set(dir(ofa_core))
