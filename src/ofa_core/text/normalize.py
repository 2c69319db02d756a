"""The forms in which OFA was trained to read and to say texts.

Each rule takes a text and the number of words that are kept of it, the first ones; None keeps all.
"""

from __future__ import annotations

import re
import string
import unicodedata

from ..errors import OFAError

_LEADING = ",.!?*#:;~"
_TO_SPACES = str.maketrans({"-": " ", "/": " "})
_SPACES = re.compile(r"\s{2,}")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
#: The ideographs, of which some have a simplified form.
_IDEOGRAPH = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0002ffff]")
#: Between the captions of one picture in a file's cell.
SEVERAL = "&&"


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


def as_it_is(text: str, max_words: int | None = None) -> str:
    """Leave a text as it is, but for its length."""
    return text if max_words is None else " ".join(text.split()[:max_words])


def joined_words(text: str, max_words: int | None = None) -> str:
    """Leave the words of a text as they are, with one space between them."""
    return " ".join(text.split()[:max_words])


def glue_text(text: str, max_words: int | None = None) -> str:
    """Normalise a text of GLUE: lower case, one space between its words, everything else as it is."""
    return joined_words(text.lower(), max_words)


def without_punctuation(text: str, max_words: int | None = None) -> str:
    """Normalise a caption that a model shall say, or that benchmarks score: without ASCII punctuation, case kept."""
    text = text.translate(_NO_PUNCTUATION).strip()
    return text if max_words is None else joined_words(text, max_words)


def references_without_punctuation(text: str) -> str:
    """Normalise the captions of one picture, separated by ``&&``, each whole and by itself."""
    return SEVERAL.join(map(without_punctuation, joined_words(text).split(SEVERAL)))


def summary_text(text: str, max_words: int | None = None) -> str:
    """Normalise an article or its summary: a caption's form, in which ``<unk>`` is a word."""
    return pre_caption(text, max_words).replace("<unk>", "unk")


def ocr_text(text: str, max_words: int | None = None) -> str:
    """Normalise the writing on a picture: simplified Chinese, compatible forms (NFKC), lower case, one space."""
    return joined_words(readable_text(text).lower(), max_words)


def ocr_characters(text: str, max_characters: int | None = None) -> str:
    """Normalise the writing on a picture as :func:`ocr_text` does, counted in characters and with its spaces."""
    return readable_text(text)[:max_characters].lower()


def readable_text(text: str) -> str:
    """Return the writing on a picture in simplified Chinese and compatible forms (NFKC).

    Raises:
        OFAError: it holds Chinese, and the package that simplifies it is not installed.
    """
    return unicodedata.normalize("NFKC", _simplified(text))


def _simplified(text: str) -> str:
    """Traditional Chinese in its simplified form, by the tables that the original used."""
    if not _IDEOGRAPH.search(text):
        return text
    try:
        from zhconv import convert
    except ImportError:
        raise OFAError("Chinese text on pictures needs zhconv to simplify it: pip install zhconv") from None
    simplified: str = convert(text, "zh-hans")
    return simplified
