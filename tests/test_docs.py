"""The documentation: its examples run, commands and recipes are valid, and every public name is in the reference."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reference import ROOT, script
from test_docstrings import PUBLIC_MODULES

import checkpoints_convert.cli
from ofa_core import OFA
from ofa_core.bench.tasks import TASKS
from ofa_core.cli import main as program
from ofa_core.training.settings import TrainingSettings
from ofa_core.training.sources import LESSONS

EXAMPLES = script("page_examples")
DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(DOCS)): path.read_text(encoding="utf-8") for path in EXAMPLES.pages()}
REFERENCE = "".join(text for name, text in PAGES.items() if name.startswith("reference/"))
#: Blocks of commands; those of other programs in them are left alone.
SHELL = ("", "text", "bash")
#: Words of this project alone, which an outsider reads otherwise or not at all, each with the usual one.
NOT_SAID = {
    r"behind (?:it|its|the|a|that|them)\b(?! (?:camera|person|thing))": "after",
    r"stands? behind": "comes after",
    r"told apart": "distinguished",
    r"whole[- ]files?": "written whole or not at all",
    r"settle[sd]?": "decide",
    r"beginnings? of weights": "initial weights",
    r"made over": "changed",
    r"worth[- ]it": "should use",
    r"emphasis": "loss_weights",
    r"alike[- ]attend\w*": "keys_from_queries",
    r"the house|our house": "the project",
    r"in order to": "to",
    r"simply|obviously|of course": "nothing",
    r"TODO|FIXME|XXX": "nothing: do it",
}
#: Pages whose words are looked at: the documentation, and the files of the root that the site has.
WORDED = {**PAGES, **{name: (ROOT / name).read_text(encoding="utf-8") for name in ("SECURITY.md", "CONTRIBUTING.md")}}


def exercised(*languages: str) -> Iterator[tuple[str, str]]:
    """The blocks of all pages in some languages, each with its page."""
    for name, text in PAGES.items():
        for block in EXAMPLES.blocks(text, *languages):
            yield name, block.code


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    return EXAMPLES.names()


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if any(EXAMPLES.blocks(text, "python"))])
def test_the_examples_of_a_page_give_what_stands_there(
    page: str, names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    text, problems = EXAMPLES.run_page(PAGES[page], page, names)
    assert problems == [], "python scripts/page_examples.py writes what examples print now"
    assert text == PAGES[page]


def test_the_runner_notices_wrong_examples() -> None:
    page = "```python\n>>> 1 + 1\n3\n>>> 1 / 0\n```\n\n```python\nopen_nothing()\n```\n"
    text, problems = EXAMPLES.run_page(page, "page", {})
    assert text == page.replace("\n3\n", "\n2\n")
    assert [re.sub(r".*(gives|raises|Name).*", r"\1", problem) for problem in problems] == ["gives", "raises", "Name"]


def commands() -> list[tuple[str, str]]:
    """Lines with our own programs, without comments and variables before them."""
    found = []
    for page, code in exercised(*SHELL):
        for line in code.replace("\\\n", " ").splitlines():
            match = re.match(r"(?:[A-Z_]+=\S+ )?((?:ofa-core|convert-ckpt) .*)", line)
            # ``...`` stands for more of the same kind, ``--version`` for no command
            if match and "..." not in match[1] and not match[1].endswith("--version"):
                found.append((page, match[1]))
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_are_understood(page: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, *arguments = shlex.split(re.sub(r"\[[^\]]*\]", "", line), comments=True)
    module = program if name == "ofa-core" else checkpoints_convert.cli
    understood: list[Any] = []
    monkeypatch.setattr(module, "run", lambda *given: understood.append(given) or 0)
    assert module.main(arguments) == 0
    assert understood


def test_rows_of_json_are_json() -> None:
    rows = [line for _, code in exercised("json") for line in code.splitlines()]
    assert len(rows) > 5
    assert all(isinstance(json.loads(row), dict) for row in rows)


def test_the_recipe_of_fine_tuning_is_a_valid_run(tmp_path: Path) -> None:
    (block,) = EXAMPLES.blocks(PAGES["how_to/fine_tune.md"], "toml")
    (tmp_path / "refcoco.toml").write_text(block.code)
    settings = TrainingSettings.from_toml(tmp_path / "refcoco.toml")
    assert [data.task in LESSONS for data in settings.data] == [True] * len(settings.data)
    assert [benchmark.task in TASKS for benchmark in settings.evaluation] == [True] * len(settings.evaluation)


@pytest.mark.parametrize(("page", "table"), [("how_to/fine_tune.md", LESSONS), ("how_to/benchmark.md", TASKS)])
def test_pages_name_everything_that_can_be_learned_and_measured(page: str, table: dict[str, Any]) -> None:
    assert [name for name in table if f"`{name}`" not in PAGES[page]] == []


def public_names() -> list[str]:
    """Every public name by the shortest place from which it is imported, and every public method of OFA."""
    found = {
        name: f"{module}.{name}"
        for module in reversed(PUBLIC_MODULES)
        for name in importlib.import_module(module).__all__
        if not name.startswith("__")
    }
    methods = [f"ofa_core.OFA.{name}" for name, _ in inspect.getmembers(OFA, inspect.isfunction) if name[0] != "_"]
    return sorted({*found.values(), *methods})


@pytest.mark.parametrize("name", public_names())
def test_the_reference_has_every_public_name_with_an_example(name: str) -> None:
    entry = re.search(rf"^::: {re.escape(name)}\n(.*?)(?=^::: |^# |\Z)", REFERENCE, flags=re.DOTALL | re.MULTILINE)
    assert entry, f"there is no '::: {name}'"
    assert "```python\n" in entry[1], "it has no example"


def test_the_reference_names_nothing_else() -> None:
    assert set(re.findall(r"^::: (\S+)", REFERENCE, flags=re.MULTILINE)) == set(public_names())


def test_the_navigation_has_every_page() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r"^ +- (\S+\.md)$", navigation, flags=re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert [name for name in PAGES if name not in listed] == []


def test_pictures_are_those_that_the_gallery_makes() -> None:
    made = {f"{name}.png" for name in script("gallery").MAKERS}
    shown = {Path(link).name for text in PAGES.values() for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)}
    assert made <= {path.name for path in (DOCS / "pictures").iterdir()}
    assert made <= shown
    assert [name for name in shown if not (DOCS / "pictures" / name).exists()] == []


def said(text: str) -> dict[str, str]:
    """Words of the list that a page has outside of code, each with the usual one."""
    prose = re.sub(r"```.*?```|`[^`\n]*`|\]\([^)]*\)", "", text, flags=re.DOTALL)
    return {word: usual for word, usual in NOT_SAID.items() if re.search(rf"\b(?:{word})", prose, re.IGNORECASE)}


@pytest.mark.parametrize("page", WORDED)
def test_words_of_this_project_alone_do_not_come_back(page: str) -> None:
    assert said(WORDED[page]) == {}


def test_words_are_found_in_prose_alone() -> None:
    assert list(said("A run ends behind its step. `behind its step` in code is left alone.").values()) == ["after"]
    assert said("`in order to`, [a link](the house)") == {}


def test_the_tree_names_every_module() -> None:
    """The page on the layout has each file of the package, in the line of its folder."""
    tree = PAGES["architecture.md"].partition("## The levels")[0]
    folders = {found[1]: found[2] for found in re.finditer(r"(?ms)^  (\w+)/(.*?)(?=^  \w|^\w)", tree)}
    package = ROOT / "src" / "ofa_core"
    for folder in sorted(path.parent for path in package.glob("*/__init__.py")):
        told = set(re.findall(r"\w+", folders[folder.name]))
        assert {path.stem for path in folder.glob("*.py")} - told <= {"__init__"}, folder.name
