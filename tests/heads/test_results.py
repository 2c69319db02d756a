from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from ofa_core import Answer, Hypothesis, Text, Tokenizer
from ofa_core.heads.results import confidence, to_answer, to_text
from ofa_core.text import small_vocabulary_dir

BOS, PAD, EOS, UNK = range(4)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=0)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([], 0.0),
        ([0.0], 1.0),
        ([math.log(0.25)], 0.25),
        ([math.log(0.5), math.log(0.125)], 0.25),  # the geometric mean
        ([math.log(0.5)] * 7, 0.5),  # length makes no difference
        ([-math.inf, -0.1], 0.0),
        ([-5000.0], 0.0),
    ],
)
def test_confidence_is_the_mean_probability_of_a_token(scores: Sequence[float], expected: float) -> None:
    assert confidence(scores) == pytest.approx(expected)


def test_the_best_hypothesis_is_the_text(tokenizer: Tokenizer) -> None:
    texts = [" a red car", " a car ", ""]
    scores = [math.log(0.5), math.log(0.25)]
    beams = [Hypothesis([*tokenizer.encode(text), EOS], 0.0, scores) for text in texts]
    found = to_text(tokenizer, beams)
    assert (found.text, found.alternatives) == ("a red car", ("a car", ""))
    assert found.token_scores == pytest.approx((0.5, 0.25))
    assert found.score == pytest.approx(math.sqrt(0.125))


def test_a_decoder_prompt_is_skipped_in_every_beam(tokenizer: Tokenizer) -> None:
    prompt = tokenizer.encode(" what is it?")
    beams = [
        Hypothesis([*prompt, *tokenizer.encode(text), EOS], 0.0, [-7.0] * len(prompt) + [-0.5, -0.3])
        for text in (" red", " the")
    ]
    found = to_text(tokenizer, beams, len(prompt))
    assert (found.text, found.alternatives) == ("red", ("the",))
    assert found.score == pytest.approx(math.exp(-0.4))
    assert found.token_scores == pytest.approx((math.exp(-0.5), math.exp(-0.3)))


def test_nothing_found_is_an_empty_text_without_confidence(tokenizer: Tokenizer) -> None:
    assert to_text(tokenizer, []) == Text("", 0.0, (), ())
    assert to_text(tokenizer, [], 3) == Text("", 0.0, (), ())


def test_bins_show_in_a_text(tokenizer: Tokenizer) -> None:
    bin_3 = len(tokenizer) - 997
    assert (
        to_text(tokenizer, [Hypothesis([*tokenizer.encode(" at"), bin_3, EOS], 0.0, [-1.0] * 3)]).text == "at <bin_3>"
    )


def test_a_choice_is_the_most_probable_answer() -> None:
    found = to_answer(("yes", "no", "maybe"), [0.2, 0.5, 0.3])
    assert (found.answer, found.score) == ("no", 0.5)
    assert list(found.probabilities.items()) == [("yes", 0.2), ("no", 0.5), ("maybe", 0.3)]
    assert found.top() == [("no", 0.5), ("maybe", 0.3), ("yes", 0.2)]
    assert found.top(1) == [("no", 0.5)]


def test_of_equally_probable_answers_the_first_is_chosen() -> None:
    found = to_answer(["b", "a", "c"], [0.4, 0.4, 0.2])
    assert found.answer == "b"
    assert found.top(3) == [("b", 0.4), ("a", 0.4), ("c", 0.2)]


def test_a_choice_needs_one_probability_for_each_answer() -> None:
    with pytest.raises(ValueError, match=r"zip"):
        to_answer(["a", "b"], [1.0])


def test_top_gives_five_unless_asked() -> None:
    answer = Answer("0", 0.9, {str(number): 1 / (number + 1) for number in range(9)})
    assert [name for name, _ in answer.top()] == ["0", "1", "2", "3", "4"]
    assert [name for name, _ in answer.top(2)] == ["0", "1"]
    assert len(answer.top(100)) == 9
    assert Answer("free", 0.5).top() == []
