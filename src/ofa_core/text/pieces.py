"""Texts in pieces: those that a person typed, which are plain, and those in which bins are symbols."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .tokenizer import Tokenizer

_BIN = re.compile(r"<bin_(\d+)>")


@dataclass(frozen=True)
class Piece:
    """A part of a source or a target."""

    text: str
    #: True where ``<bin_3>`` is a bin: the piece was written by the program or said by a model, not typed.
    symbols: bool = False


def joined(pieces: Sequence[Piece]) -> str:
    """The whole text."""
    return "".join(piece.text for piece in pieces)


def region_text(bins: Sequence[int]) -> str:
    """Bins as they stand in a text: ``<bin_1> <bin_2> <bin_3> <bin_4>``."""
    return " ".join(f"<bin_{number}>" for number in bins)


def encode_pieces(tokenizer: Tokenizer, pieces: Sequence[Piece], *, keep_spaces: bool = False) -> list[int]:
    """The ids of a text in pieces, without ``<s>`` and ``</s>``.

    White space directly around a bin disappears unless ``keep_spaces``, across the border of two pieces too, as the
    dialog models were trained. A number that the vocabulary has no bin for is plain text.
    """
    runs: list[str] = [""]  # of plain text, with a bin between each two
    bins: list[int] = []
    for piece in pieces:
        start = 0
        for match in _BIN.finditer(piece.text) if piece.symbols else ():
            if match[0] in tokenizer.vocabulary:
                runs[-1] += piece.text[start : match.start()]
                runs.append("")
                bins.append(tokenizer.vocabulary.id_of(match[0]))
                start = match.end()
        runs[-1] += piece.text[start:]
    ids: list[int] = []
    for number, run in enumerate(runs):
        text = run
        if not keep_spaces:
            text = text.lstrip() if number > 0 else text
            text = text.rstrip() if number < len(bins) else text
        ids += [*tokenizer.encode(text), *bins[number : number + 1]]
    return ids
