"""Run the Python examples of the documentation, and write what they print now: ``python scripts/page_examples.py``.

Blocks that begin with ``>>>`` are doctests, in which ``...`` stands for anything printed; other Python blocks are run.
In all of them ``ofa`` is the demo model and ``picture`` its example picture, and names that an example makes are
there for those below it. A block under a comment ``<!-- not run: why -->`` is left out.
"""

from __future__ import annotations

import doctest
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import ofa_core
from ofa_core.demo.example import example_picture

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
_BLOCK = re.compile(r"(?P<why><!-- not run: [^\n]+ -->\n)?```(?P<language>\w*)\n(?P<code>.*?)```\n", flags=re.DOTALL)
_OPTIONS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL


class Block(NamedTuple):
    """A block of code in a page."""

    language: str
    code: str
    #: The place of its first character in the page's text.
    start: int


def pages() -> list[Path]:
    """All pages of the documentation."""
    return sorted(DOCS.rglob("*.md"))


def blocks(text: str, *languages: str) -> Iterator[Block]:
    """The blocks of a page in some languages, but for those that are not run."""
    for match in _BLOCK.finditer(text):
        if match["language"] in languages and not match["why"]:
            yield Block(match["language"], match["code"], match.start("code"))


def names() -> dict[str, Any]:
    """The names that examples find."""
    return {"ofa_core": ofa_core, "ofa": ofa_core.load("demo"), "picture": example_picture()}


def run_page(text: str, page: str, given: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Run the examples of a page, in the working directory.

    Args:
        text: the page.
        page: its name, for messages.
        given: the names that its examples find.

    Returns:
        The page with what its doctests print now, and a message for each example that failed or printed something else.
    """
    found, problems, changed = dict(given), [], text
    shift = 0  # of what was changed further up
    for block in blocks(text, "python"):
        place = f"{page}, line {text[: block.start].count(chr(10)) + 1}"
        code, wrong = _run_block(block.code, place, found)
        problems += wrong
        start = block.start + shift
        changed = changed[:start] + code + changed[start + len(block.code) :]
        shift += len(code) - len(block.code)
    return changed, problems


def _run_block(code: str, place: str, found: dict[str, Any]) -> tuple[str, list[str]]:
    """Run a block; gives it with what it prints now, and what went wrong."""
    if not code.startswith(">>>"):
        try:
            exec(compile(code, place, "exec"), found)
        except Exception as error:
            return code, [f"{place}: {type(error).__name__}: {error}"]
        return code, []
    test = doctest.DocTestParser().get_doctest(code, found, place, place, 0)
    runner = _Runner(optionflags=_OPTIONS)
    runner.run(test, out=lambda _: None, clear_globs=False)
    found.update(test.globs)
    lines = code.splitlines(keepends=True)
    for example, printed in reversed(runner.printed):
        first = example.lineno + example.source.count("\n")
        lines[first : first + example.want.count("\n")] = printed.splitlines(keepends=True)
    return "".join(lines), runner.problems


class _Runner(doctest.DocTestRunner):
    """Notes what examples print, where it is not what stands there."""

    def __init__(self, optionflags: int) -> None:
        super().__init__(verbose=False, optionflags=optionflags)
        self.printed: list[tuple[doctest.Example, str]] = []
        self.problems: list[str] = []

    def report_failure(self, out: Any, test: doctest.DocTest, example: doctest.Example, got: str) -> None:
        shown = got.strip().splitlines()
        if shown[:1] == ["Traceback (most recent call last):"]:
            self._raised(test, example, shown[-1])
            return
        self.printed.append((example, got))
        self.problems.append(f"{test.name}: {example.source.strip()} gives {got.strip()}, not {example.want.strip()}")

    def report_unexpected_exception(
        self, out: Any, test: doctest.DocTest, example: doctest.Example, exc_info: Any
    ) -> None:
        self._raised(test, example, f"{exc_info[0].__name__}: {exc_info[1]}")

    def _raised(self, test: doctest.DocTest, example: doctest.Example, error: str) -> None:
        self.problems.append(f"{test.name}: {example.source.strip()} raises {error}")


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """An empty working directory, where examples may leave files."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        try:
            yield Path(directory)
        finally:
            os.chdir(before)


def main() -> int:
    """Write every page anew; returns 1 where an example fails."""
    failed = False
    given = names()
    for page in pages():
        text = page.read_text(encoding="utf-8")
        with scratch_directory():
            changed, problems = run_page(text, str(page.relative_to(ROOT)), given)
        failed |= any(" raises " in problem for problem in problems)
        print(*problems, sep="\n", end="\n" if problems else "")
        if changed != text:
            page.write_text(changed, encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
