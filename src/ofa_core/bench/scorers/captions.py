"""BLEU, CIDEr-D and ROUGE-L of captions, as the COCO caption evaluation computes them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ...errors import OFAError, shown
from ..metrics import Floats
from .ptb_tokens import ptb_lines

#: The longest n-grams that are compared.
MAX_ORDER = 4

#: Counts of the n-grams of one order.
Counts: TypeAlias = Counter[tuple[str, ...]]

# BLEU's fractions are kept from being 0/0 by these, which show in scores of single captions.
_TINY, _SMALL = 1e-15, 1e-9
#: The weight of recall beside precision in ROUGE-L.
_ROUGE_BETA = 1.2
#: Twice the variance of the penalty on a difference in length, and the factor that CIDEr is printed with.
_CIDER_SPREAD, _CIDER_SCALE = 72.0, 10.0


def ngrams(words: Sequence[str]) -> list[Counts]:
    """Count the n-grams of orders 1 to 4."""
    return [Counter(zip(*(words[start:] for start in range(order)), strict=False)) for order in range(1, MAX_ORDER + 1)]


@dataclass(frozen=True)
class Bleu:
    """The counts that BLEU is made of; those of a corpus are the sums of its captions'."""

    #: N-grams of the candidate that a reference has too, by order, and all that the candidate has.
    correct: tuple[int, ...] = (0,) * MAX_ORDER
    guessed: tuple[int, ...] = (0,) * MAX_ORDER
    length: int = 0
    #: The length of the reference that is nearest in length, the shorter of two.
    reference_length: int = 0

    def __add__(self, other: Bleu) -> Bleu:
        return Bleu(
            tuple(map(sum, zip(self.correct, other.correct, strict=True))),
            tuple(map(sum, zip(self.guessed, other.guessed, strict=True))),
            self.length + other.length,
            self.reference_length + other.reference_length,
        )

    def as_row(self) -> tuple[int, ...]:
        """The counts in the order of :data:`BLEU_COUNTS`."""
        return (*self.correct, *self.guessed, self.length, self.reference_length)

    def scores(self) -> list[float]:
        """BLEU-1 to BLEU-4."""
        scores: list[float] = bleu_scores(np.array(self.as_row(), dtype=np.float64)).tolist()
        return scores


#: Names of the counts that BLEU is made of, and its orders.
BLEU_ORDERS = tuple(range(1, MAX_ORDER + 1))
BLEU_COUNTS = (
    *(f"{order}-grams that are right" for order in BLEU_ORDERS),
    *(f"{order}-grams" for order in BLEU_ORDERS),
    "words",
    "words of the nearest reference",
)


def bleu_scores(counts: Floats) -> Floats:
    """BLEU-1 to BLEU-4, [..., 4], of summed counts [..., 10] in the order of :data:`BLEU_COUNTS`."""
    correct, guessed = counts[..., :MAX_ORDER], counts[..., MAX_ORDER : 2 * MAX_ORDER]
    ratio = (counts[..., -2] + _TINY) / (counts[..., -1] + _SMALL)
    brevity = np.exp(np.minimum(1 - 1 / ratio, 0.0))
    product = np.cumprod((correct + _TINY) / (guessed + _SMALL), axis=-1)
    scores: Floats = product ** (1 / np.array(BLEU_ORDERS)) * brevity[..., None]
    return scores


def bleu(candidate: Sequence[Counts], references: Sequence[Sequence[Counts]]) -> Bleu:
    """Compare a candidate's n-grams with those of its references: counts are clipped at the largest of a reference."""
    correct = []
    for order, counts in enumerate(candidate):
        most = ((count, max(reference[order][ngram] for reference in references)) for ngram, count in counts.items())
        correct.append(sum(min(pair) for pair in most))
    length = candidate[0].total()
    lengths = [reference[0].total() for reference in references]
    return Bleu(
        tuple(correct),
        tuple(counts.total() for counts in candidate),
        length,
        min(lengths, key=lambda other: (abs(other - length), other)),
    )


def rouge_l(candidate: str, references: Sequence[str]) -> float:
    """ROUGE-L of a tokenised text: the best precision and the best recall of any references, not of the same one.

    Words end at single spaces alone, so that no text at all is one word, and a word may hold a no-break space.
    """
    words = candidate.split(" ")
    others = [reference.split(" ") for reference in references]
    common = [common_subsequence(words, other) for other in others]
    precision = max(length / len(words) for length in common)
    recall = max(length / len(other) for length, other in zip(common, others, strict=True))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + _ROUGE_BETA**2) * precision * recall / (recall + _ROUGE_BETA**2 * precision)


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest common subsequence, by bits of whole numbers (Hyyrö, 2004)."""
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    every = (1 << len(first)) - 1
    ends = every  # a bit is 0 where the length grows
    for word in second:
        met = ends & places.get(word, 0)
        ends = (ends + met | ends - met) & every
    return len(first) - ends.bit_count()


def cider_d(candidates: Sequence[Sequence[Counts]], references: Sequence[Sequence[Sequence[Counts]]]) -> list[float]:
    """CIDEr-D of each picture, on its own scale of 10.

    Args:
        candidates: n-grams of each picture's candidate.
        references: n-grams of each picture's references.

    Returns:
        A score for each picture. How rare an n-gram is, is counted over these pictures.
    """
    occurs: Counter[tuple[str, ...]] = Counter()
    for group in references:
        occurs.update({ngram for reference in group for counts in reference for ngram in counts})
    pictures = math.log(len(references)) if references else 0.0
    rarity = {ngram: pictures - math.log(count) for ngram, count in occurs.items()}
    return [cider(one, group, rarity, pictures) for one, group in zip(candidates, references, strict=True)]


#: The weight of each n-gram of one order, and the length of all of them as a vector.
_Vector: TypeAlias = tuple[dict[tuple[str, ...], float], float]


def cider(
    candidate: Sequence[Counts],
    references: Sequence[Sequence[Counts]],
    rarity: dict[tuple[str, ...], float],
    unseen: float,
) -> float:
    """CIDEr-D of one candidate.

    Args:
        candidate: its n-grams.
        references: those of its picture's references.
        rarity: the weight of each n-gram: ln of the number of pictures over those whose references hold it.
        unseen: the weight of all others.

    Returns:
        The score, on its own scale of 10.
    """
    vectors = [_weighted(counts, rarity, unseen) for counts in candidate]
    total = 0.0
    for reference in references:
        difference = candidate[1].total() - reference[1].total()  # in bigrams
        penalty = math.exp(-(difference**2) / _CIDER_SPREAD)
        others = (_weighted(counts, rarity, unseen) for counts in reference)
        total += penalty * sum(_similarity(one, other) for one, other in zip(vectors, others, strict=True))
    return _CIDER_SCALE * total / MAX_ORDER / len(references)


def _weighted(counts: Counts, rarity: dict[tuple[str, ...], float], unseen: float) -> _Vector:
    weights = {ngram: count * rarity.get(ngram, unseen) for ngram, count in counts.items()}
    return weights, math.sqrt(sum(weight * weight for weight in weights.values()))


def _similarity(candidate: _Vector, reference: _Vector) -> float:
    (weights, length), (others, other_length) = candidate, reference
    if length == 0 or other_length == 0:
        return 0.0
    both = ((weight, others[ngram]) for ngram, weight in weights.items() if ngram in others)
    return sum(min(weight, other) * other for weight, other in both) / (length * other_length)


@dataclass(frozen=True)
class CaptionScores:
    """The scores of one picture, and the counts that the corpus's BLEU is made of."""

    counts: Bleu
    bleu: list[float]
    cider: float
    rouge_l: float


class CaptionScorer:
    """CIDEr-D, BLEU-1 to BLEU-4 and ROUGE-L of captions.

    Args:
        tokenize: makes tokens, joined by spaces, of each of some captions; by default those of the COCO evaluation, for
            which captions have to come in the order of the published files: see :mod:`.ptb_tokens`.
    """

    def __init__(self, tokenize: Callable[[Sequence[str]], Sequence[str]] = ptb_lines) -> None:
        self._tokenize = tokenize
        self._candidates: list[str] = []
        self._references: list[tuple[str, ...]] = []
        self._counted: _Counted | None = None

    def add(self, candidate: str, references: Sequence[str]) -> None:
        """Take in the caption of a picture and what people wrote about it.

        Raises:
            OFAError: there is no reference, one text instead of several, or something else than texts.
        """
        if isinstance(references, str) or not references or not all(isinstance(text, str) for text in references):
            raise OFAError(f"references are the captions of several people, not {shown(references)}")
        if not isinstance(candidate, str):
            raise OFAError(f"a caption is a text, not {shown(candidate)}")
        self._candidates.append(candidate)
        self._references.append(tuple(references))
        self._counted = None

    def by_picture(self) -> list[CaptionScores]:
        """The scores of each picture so far, in their order."""
        counted = self._count()
        columns = (counted.bleus, counted.ciders, counted.rouges)
        return [
            CaptionScores(counts, counts.scores(), cider, rouge) for counts, cider, rouge in zip(*columns, strict=True)
        ]

    def result(self) -> dict[str, float]:
        """``CIDEr``, ``BLEU-1`` to ``BLEU-4`` (of the corpus, not a mean) and ``ROUGE-L``, of the pictures so far."""
        if not self._candidates:
            return {}
        counted = self._count()
        bleus = sum(counted.bleus, start=Bleu()).scores()
        scores = {f"BLEU-{order}": score for order, score in enumerate(bleus, 1)}
        return {"CIDEr": _mean(counted.ciders), **scores, "ROUGE-L": _mean(counted.rouges)}

    def _count(self) -> _Counted:
        """Count everything, once for the pictures so far: how rare an n-gram is depends on all of them."""
        if self._counted is None:
            candidates = self._tokenize(self._candidates)
            lines = iter(self._tokenize([text for group in self._references for text in group]))
            references = [[next(lines) for _ in group] for group in self._references]
            guesses = [ngrams(text.split()) for text in candidates]
            truths = [[ngrams(text.split()) for text in group] for group in references]
            self._counted = _Counted(
                list(map(bleu, guesses, truths)), cider_d(guesses, truths), list(map(rouge_l, candidates, references))
            )
        return self._counted


@dataclass(frozen=True)
class _Counted:
    """The counts and scores of every picture."""

    bleus: list[Bleu]
    ciders: list[float]
    rouges: list[float]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
