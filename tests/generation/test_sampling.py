from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from reference import SCORE_TOLERANCE, tiny_model
from torch import Tensor

from ofa_core import AllowedRange, AnswerTrie, GenerationOptions, Hypothesis, OFAModel, generate
from ofa_core.generation.sampling import keep_top

BOS, PAD, EOS, UNK = range(4)
SOURCES = torch.tensor([[BOS, 5, 7, 4, EOS], [BOS, 6, EOS, PAD, PAD]])


def draw(
    model: OFAModel, tokens: Tensor = SOURCES, seed: int = 0, *, more: Any = None, **options: Any
) -> list[list[Hypothesis]]:
    return generate(
        model,
        tokens,
        options=GenerationOptions(do_sample=True, **options),
        generator=torch.Generator().manual_seed(seed),
        **(more or {}),
    )


def targets(found: list[list[Hypothesis]]) -> list[list[list[int]]]:
    return [[hypothesis.tokens for hypothesis in one] for one in found]


def test_one_seed_draws_the_same_again_and_another_differs() -> None:
    options = {"num_return_sequences": 5, "max_new_tokens": 8}
    first, again, other = (draw(tiny_model(12), seed=seed, **options) for seed in (1, 1, 2))
    assert first == again
    assert targets(first) != targets(other)


def test_without_a_generator_the_global_seed_decides() -> None:
    def run(seed: int) -> list[list[Hypothesis]]:
        torch.manual_seed(seed)
        options = GenerationOptions(do_sample=True, num_return_sequences=5, max_new_tokens=8)
        return generate(model, SOURCES, options=options)

    model = tiny_model(12)
    assert run(1) == run(1)
    assert targets(run(1)) != targets(run(2))


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-3}], ids=str)
def test_nothing_but_the_best_token_is_greedy_search(options: dict[str, Any]) -> None:
    model = tiny_model(12)
    found = draw(model, num_return_sequences=3, max_new_tokens=7, **options)
    best = generate(model, SOURCES, options=GenerationOptions(num_beams=1, max_new_tokens=7))
    assert targets(found) == [[one[0].tokens] * 3 for one in best]


DRAWS = 4000


def assert_frequencies(counts: Tensor, probabilities: Tensor) -> None:
    """Each count lies within five standard deviations of what is expected."""
    expected = DRAWS * probabilities
    deviation = (expected * (1 - probabilities)).sqrt()
    assert ((counts - expected).abs() <= 5 * deviation + 1e-6).all(), (counts, expected)


def first_logits(model: OFAModel) -> Tensor:
    return model(SOURCES, torch.tensor([[BOS], [BOS]]))[:, -1]


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 2.0}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.9}, {"top_k": 5, "top_p": 0.9}],
    ids=str,
)
def test_tokens_are_drawn_as_often_as_they_are_probable(options: dict[str, float]) -> None:
    model = tiny_model(9)
    found = draw(model, num_return_sequences=DRAWS, max_new_tokens=1, **options)
    log_probs = (first_logits(model) / options.get("temperature", 1.0)).log_softmax(-1)
    log_probs[:, [PAD, EOS]] = -torch.inf
    for one, scores in zip(found, log_probs, strict=True):
        assert len(one) == DRAWS
        counts = torch.bincount(torch.tensor([h.tokens[0] for h in one]), minlength=9)
        kept = slow_truncation(scores.tolist(), int(options.get("top_k", 0)), options.get("top_p", 1.0))
        weights = torch.tensor([math.exp(s) if i in kept else 0.0 for i, s in enumerate(scores.tolist())])
        assert len(kept) > 1
        assert_frequencies(counts, weights / weights.sum())


def test_samples_draw_independently() -> None:
    """Two sources that are alike get different draws, and two draws of one source differ."""
    found = draw(tiny_model(12), SOURCES[:1].repeat(2, 1), num_return_sequences=4, max_new_tokens=8, min_new_tokens=8)
    drawn = [tuple(tokens) for one in targets(found) for tokens in one]
    assert len(set(drawn)) == 8


@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"top_p": 0.5}, {"temperature": 1.7}], ids=str)
def test_token_scores_are_log_probabilities_before_truncation(options: dict[str, Any]) -> None:
    model = tiny_model(12)
    found = draw(model, num_return_sequences=4, max_new_tokens=6, **options)
    for row, one in enumerate(found):
        for hypothesis in one:
            target = torch.tensor([hypothesis.tokens])
            prefix = torch.cat([torch.tensor([[BOS]]), target[:, :-1]], dim=1)
            logits = model(SOURCES[row : row + 1], prefix) / options.get("temperature", 1.0)
            expected = logits.log_softmax(-1).gather(-1, target[..., None]).flatten().tolist()
            assert hypothesis.token_scores == pytest.approx(expected, abs=SCORE_TOLERANCE)
            assert hypothesis.score == pytest.approx(sum(expected) / len(expected), abs=SCORE_TOLERANCE)


@pytest.mark.parametrize(
    ("options", "exponent"), [({}, 1.0), ({"length_penalty": 2.0}, 2.0), ({"normalize_scores": False}, 0.0)], ids=str
)
def test_draws_are_ranked_by_their_score(options: dict[str, Any], exponent: float) -> None:
    for one in draw(tiny_model(12), num_return_sequences=8, max_new_tokens=6, **options):
        scores = [hypothesis.score for hypothesis in one]
        assert scores == sorted(scores, reverse=True)
        for hypothesis in one:
            expected = sum(hypothesis.token_scores) / len(hypothesis.tokens) ** exponent
            assert hypothesis.score == pytest.approx(expected, abs=SCORE_TOLERANCE)


@pytest.mark.parametrize(("count", "expected"), [(None, 1), (1, 1), (7, 7)])
def test_as_many_draws_as_asked_for_whatever_the_beam(count: int | None, expected: int) -> None:
    found = draw(tiny_model(12), num_beams=2, num_return_sequences=count, max_new_tokens=3)
    assert [len(one) for one in found] == [expected, expected]


@pytest.mark.parametrize(("least", "most"), [(0, 0), (0, 3), (1, 1), (3, 6), (5, 5)])
def test_draws_are_as_long_as_allowed(least: int, most: int) -> None:
    options = {"min_new_tokens": least, "max_new_tokens": most, "temperature": 3.0}
    found = draw(tiny_model(9), num_return_sequences=300, **options)
    lengths = {len(tokens) - 1 for one in targets(found) for tokens in one}
    assert {least, most} <= lengths <= set(range(least, most + 1))
    for tokens in (tokens for one in targets(found) for tokens in one):
        assert tokens.index(EOS) == len(tokens) - 1
        assert PAD not in tokens


def test_rules_hold_for_draws() -> None:
    model, options = tiny_model(12), {"num_return_sequences": 100, "max_new_tokens": 5}
    for one in targets(draw(model, more={"constraints": [AllowedRange(6, 8)]}, **options)):
        assert {token for tokens in one for token in tokens} <= {BOS, EOS, UNK, 6, 7}
    answers = [[5, 6], [7], [7, 8, 9]]
    for one in targets(draw(model, more={"constraints": [AnswerTrie(answers)]}, **options)):
        assert {tuple(tokens) for tokens in one} == {(*answer, EOS) for answer in answers}
    prefix = torch.tensor([[8, 9], [4, PAD]])
    first, second = targets(draw(model, more={"prefix": prefix}, **options))
    assert all(tokens[:2] == [8, 9] for tokens in first)
    assert all(tokens[0] == 4 for tokens in second)
    assert len({tokens[1] for tokens in second}) > 1
    for one in targets(draw(model, no_repeat_ngram_size=1, **options)):
        assert all(len(set(tokens)) == len(tokens) and BOS not in tokens for tokens in one)


# The sets that top_k and top_p leave


def slow_truncation(scores: list[float], top_k: int, top_p: float) -> set[int]:
    """Token by token: the best ``top_k``, and of these as few as reach ``top_p`` of their own probability."""
    order = sorted((i for i, s in enumerate(scores) if s > -math.inf), key=lambda i: -scores[i])
    order = order[:top_k] if top_k else order
    total = sum(math.exp(scores[i]) for i in order)
    kept: set[int] = set()
    reached = 0.0
    for token in order:
        if reached >= top_p:
            break
        kept.add(token)
        reached += math.exp(scores[token]) / total
    return kept


@pytest.mark.parametrize("top_k", [0, 1, 4, 20, 50])
@pytest.mark.parametrize("top_p", [1.0, 0.95, 0.5, 0.01])
def test_truncation_equals_a_slow_one(top_k: int, top_p: float) -> None:
    torch.manual_seed(top_k)
    log_probs = (2 * torch.randn(3, 4, 20)).log_softmax(-1)
    log_probs[0, 0, 5:] = -torch.inf
    after = keep_top(log_probs.clone(), top_k, top_p)
    kept = after > -torch.inf
    assert torch.equal(after[kept], log_probs[kept])
    for row, mask in zip(log_probs.flatten(0, 1).tolist(), kept.flatten(0, 1), strict=True):
        assert set(mask.nonzero().flatten().tolist()) == slow_truncation(row, top_k, top_p)


@pytest.mark.parametrize(("top_p", "kept"), [(0.4, {2}), (0.6, {2, 0}), (0.75, {2, 0, 3}), (0.99, {0, 1, 2, 3})])
def test_top_p_keeps_the_fewest_that_reach_it(top_p: float, kept: set[int]) -> None:
    log_probs = torch.tensor([0.2, 0.1, 0.5, 0.2]).log()
    log_probs[3] -= 1e-4  # not quite a tie
    assert set((keep_top(log_probs, 0, top_p) > -torch.inf).nonzero().flatten().tolist()) == kept
