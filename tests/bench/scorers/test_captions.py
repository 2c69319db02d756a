from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest
from reference import metric_golden

from ofa_core import OFAError
from ofa_core.bench.scorers.captions import CaptionScorer, common_subsequence, rouge_l

NAMES = {f"BLEU-{order}": f"Bleu_{order}" for order in range(1, 5)} | {"CIDEr": "CIDEr", "ROUGE-L": "ROUGE_L"}


@pytest.mark.reference
@pytest.mark.parametrize(("rows", "totals"), [("images", "expected"), ("raw", "expected_raw")])
def test_each_picture_has_the_published_scores(rows: str, totals: str) -> None:
    golden = metric_golden("captions.json")
    scorer = CaptionScorer() if rows == "raw" else CaptionScorer(tokenize=list)
    for row in golden[rows]:
        scorer.add(row["candidate"], row["references"])
    for row, scores in zip(golden[rows], scorer.by_picture(), strict=True):
        assert scores.bleu == pytest.approx(row["bleu"], rel=1e-9, abs=1e-15)
        assert scores.cider == pytest.approx(row["cider"], rel=1e-9, abs=1e-12)
        assert scores.rouge_l == pytest.approx(row["rouge_l"], rel=1e-9)
    expected = {name: golden[totals][published] for name, published in NAMES.items()}
    assert scorer.result() == pytest.approx(expected, rel=1e-9)


@cache
def longest(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    """The length of the longest common subsequence, by its definition."""
    if not first or not second:
        return 0
    if first[-1] == second[-1]:
        return longest(first[:-1], second[:-1]) + 1
    return max(longest(first[:-1], second), longest(first, second[:-1]))


@pytest.mark.parametrize("seed", range(20))
def test_common_subsequences_follow_their_definition(seed: int) -> None:
    drawn = random.Random(seed)
    first, second = (tuple(drawn.choices("abc", k=drawn.randrange(9))) for _ in range(2))
    assert common_subsequence(first, second) == longest(first, second)


def test_rouge_takes_precision_and_recall_from_different_references() -> None:
    assert rouge_l("a b", ["a", "a b c d"]) == 1.0
    assert rouge_l("", [""]) == 1.0
    assert rouge_l("a", ["b"]) == 0.0


CAPTIONS = [
    ("a dog runs on the grass", ["a dog runs on grass", "the brown dog is running"]),
    ("two people sit", ["two people sit on a bench", "a man and a woman"]),
    ("", ["a red bus", "a bus in the street"]),
]


def test_scores_do_not_depend_on_the_order_of_pictures_or_references() -> None:
    one, other = CaptionScorer(), CaptionScorer()
    for candidate, references in CAPTIONS:
        one.add(candidate, references)
    for candidate, references in CAPTIONS[::-1]:
        other.add(candidate, references[::-1])
    assert one.result() == pytest.approx(other.result(), rel=1e-12)


def test_scores_lie_within_their_bounds() -> None:
    scorer = CaptionScorer()
    for candidate, references in CAPTIONS:
        scorer.add(candidate, references)
    result = scorer.result()
    assert list(result) == ["CIDEr", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L"]
    assert 0 <= result.pop("CIDEr") <= 10
    assert all(0 <= value <= 1 for value in result.values())
    empty = scorer.by_picture()[2]
    assert (empty.cider, empty.rouge_l) == (0.0, 0.0)
    assert max(empty.bleu) == 0.0


def test_a_caption_that_is_its_only_reference_has_the_best_scores() -> None:
    scorer = CaptionScorer()
    scorer.add("a dog runs on grass", ["a dog runs on grass"])
    assert scorer.result()["CIDEr"] == 0.0  # of one picture, nothing is rare
    scorer.add("two people sit down", ["two people sit down"])
    assert scorer.result()["CIDEr"] == pytest.approx(10.0)
    assert scorer.result()["BLEU-4"] == pytest.approx(1.0)
    assert scorer.result()["ROUGE-L"] == pytest.approx(1.0)


@pytest.mark.parametrize("references", ["a dog", [], [None]], ids=["text", "none", "nothing"])
def test_references_are_those_of_several_people(references: Any) -> None:
    scorer = CaptionScorer()
    with pytest.raises(OFAError, match="references are the captions of several people"):
        scorer.add("a dog", references)
    with pytest.raises(OFAError, match="a caption is a text, not None"):
        scorer.add(None, ["a dog"])  # type: ignore[arg-type]
    assert scorer.result() == {}
    assert scorer.by_picture() == []
