"""The two normalisations of captions and questions that OFA was trained with."""

from __future__ import annotations

import re

_LEADING = ",.!?*#:;~"
_TO_SPACES = str.maketrans({"-": " ", "/": " "})
_SPACES = re.compile(r"\s{2,}")


def pre_caption(text: str, max_words: int | None = None) -> str:
    """Normalise a caption or a referring expression.

    Args:
        text: any text.
        max_words: keep so many words, the first ones; None keeps all.

    Returns:
        The text in lower case, without punctuation at its left end, ``-`` and ``/`` as spaces.
    """
    return _finish(_begin(text).replace("<person>", "person"), max_words)


def pre_question(text: str, max_words: int | None = None) -> str:
    """Normalise a question.

    Args:
        text: any text.
        max_words: keep so many words, the first ones; None keeps all.

    Returns:
        The text as :func:`pre_caption` has it, but `<person>` stays.
    """
    return _finish(_begin(text), max_words)


def _begin(text: str) -> str:
    # Only the left end is freed of punctuation; white space before it protects it, as in the original.
    return text.lower().lstrip(_LEADING).translate(_TO_SPACES)


def _finish(text: str, max_words: int | None) -> str:
    # A single tab or newline stays, and is no word boundary below: only runs become a space.
    text = _SPACES.sub(" ", text).rstrip("\n").strip(" ")
    return text if max_words is None else " ".join(text.split(" ")[:max_words])
