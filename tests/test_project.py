"""What the project says of itself: its metadata agree with each other and with what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from reference import ROOT, script
from test_layering import project

import ofa_core

#: Pages and code in which somebody may read how to install something.
TEXTS = [
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "src").rglob("*.py"),
    *(ROOT / "checkpoints_convert").rglob("*.py"),
    *(ROOT / ".github").rglob("*.yml"),
    *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md")),
]


def test_the_version_is_one() -> None:
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text("utf-8"), flags=re.MULTILINE)
    latest = re.search(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), flags=re.MULTILINE)
    assert cited
    assert latest
    assert cited[1] == latest[1] == ofa_core.__version__


def test_what_is_to_be_cited_is_there() -> None:
    text = (ROOT / "CITATION.cff").read_text("utf-8")
    for address in ("arxiv.org/abs/2202.03052", "arxiv.org/abs/2401.16699", "arxiv.org/abs/1611.08481"):
        assert address in text


def test_the_classifiers_are_true() -> None:
    table = project()
    classifiers = table["classifiers"]
    lowest = "Programming Language :: Python :: " + table["requires-python"].removeprefix(">=")
    assert lowest in classifiers
    assert ("Typing :: Typed" in classifiers) == (ROOT / "src" / "ofa_core" / "py.typed").exists()
    assert not any(classifier.startswith("License ::") for classifier in classifiers), "license says it"


def test_extras_that_pages_name_are_declared() -> None:
    declared = project()["optional-dependencies"]
    named = {extra for path in TEXTS for extra in re.findall(r"pip install '\.\[(\w+)\]'", path.read_text("utf-8"))}
    assert named
    assert named <= declared.keys()
    page = (ROOT / "docs" / "start" / "install.md").read_text("utf-8")
    assert [extra for extra in declared if f"| `{extra}` |" not in page] == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_installed_by_a_name_that_no_index_has(path: Path) -> None:
    assert not re.search(r"pip install ['\"]?ofa[_-]core(?! @)", path.read_text("utf-8"))


def test_the_source_distribution_has_what_its_tests_and_pages_need() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    included = text.partition("[tool.hatch.build.targets.sdist]")[2].partition("\n[")[0]
    needed = ("tests", "docs", "examples", "scripts", "mkdocs.yml", "CITATION.cff", "SECURITY.md", "CHANGELOG.md")
    assert [name for name in needed if f'"{name}"' not in included] == []


def test_badges_say_what_is_true() -> None:
    badges = script("badges")
    facts = badges.facts()
    assert facts["version"] == ofa_core.__version__
    assert facts["license"] in (ROOT / "CITATION.cff").read_text("utf-8")
    for name, value in facts.items():
        stored = (ROOT / "docs" / "pictures" / f"badge-{name}.svg").read_text("utf-8")
        assert stored == badges.badge(name, value), "run `make gallery`"
