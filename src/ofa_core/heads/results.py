"""Results of heads: free text, or one of a set of answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

from ..generation import Hypothesis
from ..text import Tokenizer
from ..vision.boxes import Box


def confidence(token_scores: Sequence[float]) -> float:
    """exp of the mean log-probability of a target's tokens, 0 to 1; 0 where there are none."""
    return math.exp(sum(token_scores) / len(token_scores)) if token_scores else 0.0


@dataclass(frozen=True)
class Detection:
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
class Detections(Sequence[Detection]):
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


@dataclass(frozen=True)
class Text:
    """Free text from the model."""

    text: str
    #: exp of the mean log-probability of its tokens, 0 to 1.
    score: float = 0.0
    #: Probability of each token, the final ``</s>`` included.
    token_scores: tuple[float, ...] = ()
    #: The texts of the other beams, best first.
    alternatives: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """An answer, and where it is one of a closed set, how probable each of them is."""

    answer: str
    #: The answer's probability in a closed set; exp of the mean log-probability of its tokens if it is free text.
    score: float
    #: Probability of every allowed answer, in their order; empty for free text.
    probabilities: Mapping[str, float] = field(default_factory=dict)
    #: The texts of the other beams, where answers were searched for.
    alternatives: tuple[str, ...] = ()

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
