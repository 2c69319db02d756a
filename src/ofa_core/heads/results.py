"""Results of heads: free text, or one of a set of answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

from ..generation import Hypothesis
from ..text import Tokenizer
from ..vision.boxes import Box
from .showing import Pictured, Probabilities, Region, Result


def confidence(token_scores: Sequence[float]) -> float:
    """exp of the mean log-probability of a target's tokens, 0 to 1; 0 where there are none."""
    return math.exp(sum(token_scores) / len(token_scores)) if token_scores else 0.0


@dataclass(frozen=True)
class Detection(Result):
    """One region of several that a model named, and its label."""

    #: (x0, y0, x1, y1) in pixels of the original picture, of positive area.
    box: Box
    #: The name of what is there; "" where the model named none.
    label: str
    #: exp of the mean log-probability of its tokens (its bins, and its label where it has one), 0 to 1.
    score: float
    #: The bins of x0, y0, x1 and y1.
    bins: tuple[int, ...]
    #: Probability of each of its tokens, in their order.
    token_scores: tuple[float, ...]


@dataclass(frozen=True)
class Detections(Pictured, Sequence[Detection]):
    """All regions that were found in a picture; false where there are none."""

    regions: tuple[Detection, ...]
    #: The whole of what the model said.
    text: str

    @overload
    def __getitem__(self, index: int) -> Detection: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Detection, ...]: ...
    def __getitem__(self, index: int | slice) -> Detection | tuple[Detection, ...]:
        """One region by its place, or some of them."""
        return self.regions[index]

    def __len__(self) -> int:
        return len(self.regions)

    def named(self, label: str) -> tuple[Detection, ...]:
        """The regions of a label."""
        return tuple(region for region in self.regions if region.label == label)

    def marked(self) -> list[Region]:
        """All regions."""
        return regions_of(self.regions)

    def said(self) -> list[tuple[str, str]]:
        """Each region's label, score and box."""
        return region_lines(self.regions)


def regions_of(detections: Sequence[Detection]) -> list[Region]:
    """Regions as they are drawn."""
    return [Region(one.box, one.label, one.score) for one in detections]


def region_lines(detections: Sequence[Detection]) -> list[tuple[str, str]]:
    """A line for each region: its label, then its score and its box in whole pixels."""
    return [(one.label or "region", f"{one.score:.2f} at {box_text(one.box)}") for one in detections]


def box_text(box: Box) -> str:
    """A box in whole pixels: ``(10, 20, 60, 90)``."""
    return f"({', '.join(f'{value:.0f}' for value in box)})"


@dataclass(frozen=True)
class Text(Pictured):
    """Free text from the model."""

    text: str
    #: exp of the mean log-probability of its tokens, 0 to 1.
    score: float = 0.0
    #: Probability of each token, the final ``</s>`` included.
    token_scores: tuple[float, ...] = ()
    #: The texts of the other beams, best first.
    alternatives: tuple[str, ...] = ()

    def said(self) -> list[tuple[str, str]]:
        """The text."""
        return [("text", self.text)]


@dataclass(frozen=True)
class Answer(Pictured):
    """An answer, and where it is one of a closed set, how probable each of them is."""

    answer: str
    #: The answer's probability in a closed set; exp of the mean log-probability of its tokens if it is free text.
    score: float
    #: Probability of every allowed answer, in their order; empty for free text.
    probabilities: Mapping[str, float] = field(default_factory=Probabilities)
    #: The texts of the other beams, where answers were searched for.
    alternatives: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Keep the probabilities so that they do not change."""
        if not isinstance(self.probabilities, Probabilities):
            object.__setattr__(self, "probabilities", Probabilities(self.probabilities))

    def said(self) -> list[tuple[str, str]]:
        """The answer, and how probable the first ones are where there were several to choose from."""
        return [("answer", self.answer), *((answer, f"{value:.1%}") for answer, value in self.top())]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The most probable answers, best first."""
        return sorted(self.probabilities.items(), key=lambda item: -item[1])[:count]


def to_text(tokenizer: Tokenizer, hypotheses: Sequence[Hypothesis], skipped: int = 0) -> Text:
    """The best hypothesis as text, without its first ``skipped`` tokens (a decoder prompt)."""
    if not hypotheses:
        return Text("")
    texts = [tokenizer.decode(hypothesis.tokens[skipped:]).strip() for hypothesis in hypotheses]
    scores = hypotheses[0].token_scores[skipped:]
    return Text(texts[0], confidence(scores), tuple(map(math.exp, scores)), tuple(texts[1:]))


def to_answer(answers: Sequence[str], probabilities: Sequence[float]) -> Answer:
    """The most probable of a closed set."""
    by_answer = dict(zip(answers, probabilities, strict=True))
    best = max(by_answer, key=lambda answer: by_answer[answer])
    return Answer(best, by_answer[best], by_answer)
