from __future__ import annotations

import math

import pytest

from ofa_core import OFAError
from ofa_core.bench.scorers.perplexity import PerplexityScorer


def test_even_odds_among_four_have_perplexity_four() -> None:
    scorer = PerplexityScorer()
    assert scorer.add([math.log(1 / 4)] * 3) == pytest.approx(4)
    assert scorer.result() == pytest.approx({"perplexity": 4, "bits_per_token": 2})


def test_every_token_weighs_alike() -> None:
    scorer = PerplexityScorer()
    scorer.add([math.log(1 / 2)])
    scorer.add([math.log(1 / 8)] * 2)
    assert scorer.result()["bits_per_token"] == pytest.approx((1 + 3 + 3) / 3)


def test_certainty_has_perplexity_one_and_the_impossible_an_infinite_one() -> None:
    scorer = PerplexityScorer()
    assert scorer.result() == {}
    assert scorer.add([0.0, 0.0]) == 1.0
    assert scorer.add([-math.inf]) == math.inf
    assert scorer.add([-800.0]) == math.inf
    assert scorer.result()["perplexity"] == math.inf


@pytest.mark.parametrize(
    ("values", "message"),
    [([], "without tokens"), ([0.5], "at most 0, not 0.5"), ([math.nan], "at most 0, not nan")],
    ids=["empty", "positive", "nan"],
)
def test_what_is_no_log_probability_is_refused(values: list[float], message: str) -> None:
    scorer = PerplexityScorer()
    with pytest.raises(OFAError, match=message):
        scorer.add(values)
    assert scorer.result() == {}
