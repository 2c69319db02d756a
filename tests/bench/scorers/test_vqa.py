from __future__ import annotations

from typing import Any

import pytest
from reference import metric_golden

from ofa_core import OFAError
from ofa_core.bench.scorers.vqa import (
    VqaScorer,
    answer_accuracy,
    normalize_answer,
    normalize_words,
    soft_label,
    strip_answer,
    strip_punctuation,
)


@pytest.mark.reference
def test_answers_are_normalised_as_published() -> None:
    for row in metric_golden("vqa.json")["normalise"]:
        stripped = strip_punctuation(strip_answer(row["text"]))
        assert stripped == row["after_punctuation"], row["text"]
        assert normalize_words(stripped) == row["after_both"], row["text"]


@pytest.mark.reference
def test_each_answer_has_the_published_accuracy() -> None:
    golden = metric_golden("vqa.json")
    scorer = VqaScorer()
    for row in golden["questions"]:
        types = (row["answer_type"], row["question_type"])
        accuracy = scorer.add(row["answer"], row["answers"], *types, distinct=row["ids_distinct"])
        assert round(100 * accuracy, 2) == row["accuracy"], row
    expected = golden["expected"]
    names = {"accuracy": expected["overall"]}
    names |= {f"answer: {name}": value for name, value in expected["perAnswerType"].items()}
    names |= {f"question: {name}": value for name, value in expected["perQuestionType"].items()}
    assert {name: round(100 * value, 2) for name, value in scorer.result().items()} == names


PEOPLE = ["yes"] * 10


@pytest.mark.parametrize(("equal", "share"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_three_equal_answers_among_the_others_are_enough(equal: int, share: float) -> None:
    people = ["red"] * equal + [f"blue {number}" for number in range(10 - equal)]
    assert answer_accuracy("red", people) == pytest.approx(share)
    assert answer_accuracy("red", people[::-1]) == pytest.approx(share)


def test_nothing_is_normalised_where_all_agree() -> None:
    assert answer_accuracy("Yes", PEOPLE) == 0
    assert answer_accuracy(" yes\n", PEOPLE) == 1
    assert answer_accuracy("Yes", [*PEOPLE[1:], "no"]) == 1


def test_equal_answers_without_numbers_of_their_own_drop_each_other() -> None:
    people = ["red"] * 4 + [f"blue {number}" for number in range(6)]
    assert answer_accuracy("red", people, distinct=False) == pytest.approx(0.6)
    assert answer_accuracy("yes", PEOPLE, distinct=False) == 0


def test_the_steps_of_the_normalisation() -> None:
    assert strip_answer("\ta\nb ") == "a b"
    assert strip_punctuation("1,000 a-b") == "1000 ab"
    assert normalize_answer("The Two-Dogs, dont.") == "2 dogs don't"
    assert normalize_answer("none of the above") == "0 of above"
    assert strip_punctuation("." * 40) == "." * 8


def test_the_score_that_training_logs_takes_the_text_as_it_is() -> None:
    labels = {"yes": 1.0, "no": 0.3}
    assert [soft_label(answer, labels) for answer in ("yes", "Yes", "no", "")] == [1.0, 0.0, 0.3, 0.0]


def test_types_have_scores_of_their_own() -> None:
    scorer = VqaScorer()
    assert scorer.result() == {}
    scorer.add("yes", PEOPLE, "yes/no")
    scorer.add("no", PEOPLE, "other", "is the")
    assert scorer.result() == {"accuracy": 0.5, "answer: other": 0.0, "answer: yes/no": 1.0, "question: is the": 0.0}


@pytest.mark.parametrize("answers", ["yes", [], [1, 2]], ids=["text", "none", "numbers"])
def test_answers_are_those_of_several_people(answers: Any) -> None:
    scorer = VqaScorer()
    with pytest.raises(OFAError, match="answers are the texts of several people"):
        scorer.add("yes", answers)
    with pytest.raises(OFAError, match="an answer is a text, not 3"):
        scorer.add(3, PEOPLE)  # type: ignore[arg-type]
    assert scorer.result() == {}
