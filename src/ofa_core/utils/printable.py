"""Text of others as a terminal may be given it: without escape codes and other characters that act on what shows it."""

from __future__ import annotations

import json
import re

#: Control characters of ASCII and Latin-1 (escape codes begin with ESC or CSI), marks that set the direction of text,
#: line and paragraph separators, halves of surrogate pairs, and marks of annotations.
_ACTING = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufff9-\ufffb]")


def printable(text: str) -> str:
    r"""``text`` on one line, each character that a terminal would act on written as an escape: ``\x1b``, ``\u202e``."""
    return _ACTING.sub(lambda match: _escape(ord(match[0])), text)


def printable_json(text: str) -> str:
    r"""JSON with such characters as ``\u`` escapes, which mean the same to whoever reads it."""
    # Outside of texts, JSON has none of them; within, its own escapes stand for those below 32.
    return _ACTING.sub(lambda match: json.dumps(match[0])[1:-1], text)


def _escape(number: int) -> str:
    if number < 0x100:
        return {0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r"}.get(number, f"\\x{number:02x}")
    return f"\\u{number:04x}"
