"""Tokens of captions in the manner of the Penn Treebank, equal to what the COCO caption evaluation makes in Java.

The reference is the PTBTokenizer of Stanford CoreNLP 3.4.1, in lower case and without the marks that the evaluation
drops. At each place the longest of many kinds of token wins (:mod:`.ptb_grammar`).

All captions go through that tokenizer as lines of one text, and so their ends depend on what follows: a single letter
loses its full stop if the next caption begins a sentence ("plan B." before "The dog"), and an abbreviation of numbers
keeps it before a digit ("fig." before "3"). A line break inside a caption is white space here; in the published
evaluation some (carriage return, form feed, U+2028) end the caption and hand its rest to the next.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .ptb_grammar import SPLIT_WORDS, kinds

#: Tokens that the evaluation drops. It names brackets too, but in capitals, in which nothing is by then.
DROPPED = frozenset(["'", "''", "`", "``", ".", "...", "?", "!", ",", ":", ";", "-", "--"])

#: Tokens that are printed otherwise: dashes, quotes, currencies, fractions, brackets, entities.
_WRITTEN = {
    **dict.fromkeys("\u2013\u2014\u2015\u0096\u0097", "--"),
    **dict.fromkeys(("---", "----", "&md;", "&mdash;", "&ndash;"), "--"),
    **dict.fromkeys(("\u201c", "\u00ab", "\u0093"), "``"),
    **dict.fromkeys(('"', "\u201d", "\u00bb", "\u0094", "&quot;"), "''"),
    **dict.fromkeys(("\u2018", "\u201b", "\u2039", "\u0091"), "`"),
    **dict.fromkeys(("\u2019", "\u203a", "\u0092", "&apos;"), "'"),
    **dict.fromkeys("\u0080\u00a4\u20a0\u20ac", "$"),
    **{"\u00a2": "cents", "\u00a3": "#"},
    **{"\u00bc": "1/4", "\u00bd": "1/2", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3"},
    **{"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"},
    **{"&amp;": "&", "&lt;": "<", "&gt;": ">", "\u2026": "...", "&nbsp;": "", "\u00ad": "-"},
}
#: Parts of longer tokens that are printed otherwise.
_INSIDE = {"\u00ad": "", "(": "-lrb-", ")": "-rrb-", " ": "\u00a0", "&amp;": "&"}

#: Shortened verbs and "not", whose apostrophes become the plain ones; so do those of quotes in pairs.
_SHORTENED = re.compile("(?:&apos;|[\u2019\u0092])(?:[msd]|re|ve|ll)|n(?:&apos;|[\u2019\u0092\u2018\u201b\u0091])t")
_PAIR = re.compile("[`\u00ab\u00bb\u0082\u0084\u0091-\u0094\u2018-\u201f\u2039\u203a]{2}")
_ELLIPSIS = re.compile("[. \u00a0]+")
_MARK = re.compile("&apos;|.")

#: Characters of the captions that follow which are looked at: more than any word that begins a sentence.
_AHEAD = 200

#: A word that can be nothing else, and the space behind it.
_PLAIN = re.compile("([A-Za-z]+)[ \n]")


def ptb_lines(captions: Sequence[str]) -> list[str]:
    """Split captions that belong together into tokens, each in view of those that follow; see :func:`ptb_tokens`."""
    lines = []
    following = ""
    for text in reversed(captions):
        lines.append(ptb_tokens(text, following))
        following = f"\n{text}{following}"[:_AHEAD]
    return lines[::-1]


def ptb_tokens(text: str, following: str = "\n") -> str:
    """Split a caption into tokens.

    Args:
        text: any text.
        following: the text behind it, which begins with the end of its line.

    Returns:
        Its tokens in lower case, joined by single spaces. A token of several words, such as a telephone number, has
        no-break spaces inside.
    """
    return " ".join(token for token in _tokens(text, following) if token not in DROPPED)


def _tokens(text: str, following: str) -> Iterator[str]:
    """Every token of the first text as it is printed."""
    end = len(text)
    text += following
    place = 0
    while place < end:
        plain = _PLAIN.match(text, place)
        if plain and plain[1].lower() not in SPLIT_WORDS:
            yield plain[1].lower()
            place = plain.end()
            continue
        token = _longest(text, place)
        written = _written(token.lower())
        if written:
            yield written
        place += max(len(token), 1)  # a character that no token begins with only ends the one before


def _longest(text: str, place: int) -> str:
    """The token at a place, "" where there is none."""
    end, token = place, ""
    for kind in kinds():
        match = kind.match(text, place)
        if match and match.end() > end:
            end, token = match.end(), match[1]
    return token


def _written(token: str) -> str:
    """A token as it is printed."""
    if token in _WRITTEN:
        return _WRITTEN[token]
    if _SHORTENED.fullmatch(token) or _PAIR.fullmatch(token):
        return "".join(_WRITTEN.get(mark, mark) for mark in _MARK.findall(token))
    if _ELLIPSIS.fullmatch(token):
        return "..."
    for text, written in _INSIDE.items():
        token = token.replace(text, written)
    return token
