from __future__ import annotations

from typing import Any

import pytest

from ofa_core.text import pre_caption, pre_question


@pytest.mark.reference
def test_golden(golden: Any) -> None:
    cases = golden("normalize")
    for function in (pre_caption, pre_question):
        for case in cases[function.__name__]:
            assert function(case["text"], case["max_words"]) == case["out"], case


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        (" .dot after space", None, ".dot after space"),
        ("a\t\n b\n\n", None, "a b"),
        ("a\tb c d", 2, "a\tb c"),
        ("one two", 0, ""),
        ("half-eaten/whole", 2, "half eaten"),
    ],
)
def test_corners(text: str, words: int | None, expected: str) -> None:
    assert pre_caption(text, words) == pre_question(text, words) == expected


def test_person_tag() -> None:
    assert pre_caption("the <Person>-s hat") == "the person s hat"
    assert pre_question("the <Person>-s hat") == "the <person> s hat"
