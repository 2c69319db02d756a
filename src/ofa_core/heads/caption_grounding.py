"""Captions grounded: a box for each thing that a caption names, its noun phrases found by a few rules."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import OFAError
from .grounding import Grounding, Sureness, ground
from .pipeline import Picture, Pipeline
from .showing import Pictured, Region, Result


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Words that stand before a noun phrase and belong to it.
_DETERMINERS = _words(
    "a an the this that these those some any each every another both all no one two three four five six seven "
    "eight nine ten several many few his her its their my your our"
)
#: Words that end a noun phrase and are no part of any: prepositions, conjunctions, pronouns, and verbs of captions.
_BREAKS = _words(
    "about above across after against along among and around as at atop away back be been before behind below "
    "beneath beside between beyond but by can down during for from has have having he him i if in inside into is "
    "it looks me near next not of off on onto or out outside over past she sits stands that there they them "
    "through to together toward towards under underneath up upon was we were what when where which while who "
    "whose will with within without you are being holds wears rides walks runs lies hangs carries flies plays "
    "eats drives shows says sit stand hold wear ride walk run lie look looking sitting standing holding wearing "
    "riding walking running lying"
)
#: Nouns that name no thing that has a place.
_PLACES = _words("left right top bottom front back side middle center centre edge corner background")
#: Things whose names end in -ing.
_THINGS = _words(
    "awning building ceiling clothing earring evening king lightning morning painting railing ring sibling string "
    "swing thing topping wing something anything everything wedding"
)
#: An article that begins a phrase and, where a caption introduces a thing, tells nothing of it.
_INDEFINITE = re.compile(r"^an?\s+", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


@dataclass(frozen=True)
class GroundedPhrase(Result):
    """A phrase of a caption, and what it describes in the picture."""

    phrase: str
    #: The characters of the caption that it is: ``caption[start:end]``.
    start: int
    end: int
    grounding: Grounding


@dataclass(frozen=True)
class GroundedCaption(Pictured):
    """A caption with its phrases in their order."""

    text: str
    phrases: tuple[GroundedPhrase, ...]

    def marked(self) -> list[Region]:
        """The box of each phrase that has one, with the phrase."""
        found = [(one.phrase, region) for one in self.phrases for region in one.grounding.marked()]
        return [replace(region, label=phrase) for phrase, region in found]

    def said(self) -> list[tuple[str, str]]:
        """Each phrase with its box."""
        return [(one.phrase, one.grounding.said()[0][1]) for one in self.phrases]


def ground_caption(
    pipeline: Pipeline,
    images: Sequence[Picture],
    texts: Sequence[str],
    phrases: Sequence[Sequence[str] | None],
    *,
    sureness: Sureness | None = None,
    batch_size: int = 16,
) -> list[GroundedCaption]:
    """A box for each noun phrase of each caption; see :meth:`ofa_core.OFA.ground_caption`."""
    pipeline.open(images)  # where there is nothing to ask, a picture that is none is an error all the same
    spans = [
        noun_phrases(text) if given is None else _places(text, given)
        for text, given in zip(texts, phrases, strict=True)
    ]
    asked = [
        (picture, text[start:end])
        for picture, text, places in zip(images, texts, spans, strict=True)
        for start, end in places
    ]
    found = iter(
        ground(
            pipeline,
            [picture for picture, _ in asked],
            [definite(words) for _, words in asked],
            sureness=sureness,
            batch_size=batch_size,
        )
        if asked
        else []
    )
    return [
        GroundedCaption(text, tuple(GroundedPhrase(text[start:end], start, end, next(found)) for start, end in places))
        for text, places in zip(texts, spans, strict=True)
    ]


def definite(phrase: str) -> str:
    """Name what a phrase is about as one known thing: ``the dog`` for ``a dog``, as models learn to find it."""
    return _INDEFINITE.sub("the ", phrase)


def noun_phrases(text: str) -> list[tuple[int, int]]:
    """Find the noun phrases of a caption in English.

    A phrase is a run of words without a break (prepositions, conjunctions, pronouns, frequent verbs, punctuation); a
    determiner begins another one, and a word in -ing behind a noun ends it (``a man riding a horse``), as
    does one that only tells a place, such as ``left``.

    Args:
        text: the caption.

    Returns:
        The start and end of each phrase in characters, in their order.

    Raises:
        OFAError: the caption is empty.
    """
    if not text.strip():
        raise OFAError(f"the caption is empty: {text!r}")
    found: list[tuple[int, int]] = []
    words: list[re.Match[str]] = []

    def close() -> None:
        nouns = [word for word in words if word[0].lower() not in _DETERMINERS]
        if nouns and nouns[-1][0].lower() not in _PLACES:
            found.append((words[0].start(), words[-1].end()))
        words.clear()

    before = 0
    for word in _WORD.finditer(text):
        lower = word[0].lower()
        if words and text[before : word.start()].strip():  # punctuation
            close()
        nouns = [one for one in words if one[0].lower() not in _DETERMINERS]
        ends = lower in _PLACES or (lower.endswith("ing") and lower not in _THINGS)
        if lower in _BREAKS or (nouns and ends):
            close()
        else:
            if lower in _DETERMINERS and nouns:
                close()
            words.append(word)
        before = word.end()
    close()
    return found


def _places(text: str, phrases: Sequence[str]) -> list[tuple[int, int]]:
    """The places in a caption of the phrases that were given, each behind the one before it if it can be.

    Raises:
        OFAError: one is no text, or does not stand there.
    """
    if isinstance(phrases, str):
        raise OFAError(f"phrases are a list of texts, not the one text {phrases!r}")
    found, behind = [], 0
    for index, phrase in enumerate(phrases):
        if not isinstance(phrase, str) or not phrase.strip():
            raise OFAError(f"phrase {index} is {phrase!r}; a phrase is a text that is not empty")
        at = text.find(phrase, behind)
        at = text.find(phrase) if at < 0 else at
        if at < 0:
            raise OFAError(f"phrase {index}, {phrase!r}, does not stand in the caption {text!r}")
        behind = at + len(phrase)
        found.append((at, behind))
    return found
