"""No text of others acts on a terminal."""

from __future__ import annotations

import json

import pytest

from ofa_core.utils.printable import printable, printable_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x9b2J", r"\x9b2J"),
        ("a\rb\nc\td\x07\x7f", r"a\rb\nc\td\x07\x7f"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("\u2066x\u2069\u2028", r"\u2066x\u2069\u2028"),
        ("half \ud800", r"half \ud800"),
        ("Straße, 犬, می‌خواهم, 👩‍🚀", "Straße, 犬, می‌خواهم, 👩‍🚀"),
    ],
)
def test_characters_that_act_are_shown_as_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown
    line = printable_json(json.dumps({"id": text}, ensure_ascii=False))
    assert json.loads(line) == {"id": text}
    assert printable(line) == line
