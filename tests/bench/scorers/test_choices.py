from __future__ import annotations

import pytest

from ofa_core import OFAError
from ofa_core.bench.scorers.choices import ChoiceScorer

LABELS = ["cat", "dog", "bus", "car", "cup", "pen"]


def test_a_label_counts_from_its_rank_on() -> None:
    scorer = ChoiceScorer()
    assert [scorer.add(label, LABELS) for label in LABELS] == [True] + [False] * 5
    assert scorer.result() == {"top-1": 1 / 6, "top-5": 5 / 6}


def test_no_label_and_another_label_are_wrong() -> None:
    scorer = ChoiceScorer((1,))
    assert scorer.result() == {}
    assert not scorer.add("yes", [])
    assert not scorer.add("yes", ["maybe", "no"])
    assert not scorer.add("yes", ["Yes"])
    assert scorer.add("yes", ["yes"])
    assert scorer.result() == {"top-1": 0.25}


def test_ill_formed_rankings_are_refused() -> None:
    scorer = ChoiceScorer()
    with pytest.raises(OFAError, match="not the text 'yes'"):
        scorer.add("yes", "yes")
    with pytest.raises(OFAError, match="in the ranking twice"):
        scorer.add("yes", ["no", "no"])
    with pytest.raises(OFAError, match="ranks are positive"):
        ChoiceScorer((0,))
    with pytest.raises(OFAError, match="ranks are positive"):
        ChoiceScorer(())
    assert scorer.result() == {}
