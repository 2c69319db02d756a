"""The loss: its formula against plain arithmetic, and what does and does not count in it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from training.made import TOKENIZER, example, nano, picture

from ofa_core import ImageTransform, OFAError
from ofa_core.data.examples import Example
from ofa_core.generation.trie import Trie
from ofa_core.text.vocabulary import EOS
from ofa_core.training.collate import Batch, collate
from ofa_core.training.losses import (
    LossModule,
    TokenLosses,
    encouraging_bonus,
    label_smoothed_nll,
    smallest,
    soft_bin_loss,
    symmetric_divergence,
    total_loss,
)
from ofa_core.training.setting_tables import LossSettings

TRANSFORM = ImageTransform(64)
VOCABULARY = TOKENIZER.vocabulary


def random_log_probs(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(1)).log_softmax(1)


def test_label_smoothing_is_the_formula() -> None:
    log_probs, target, epsilon = random_log_probs(3, 7), torch.tensor([2, 0, 6]), 0.1
    share = epsilon / 6
    for row, loss in enumerate(label_smoothed_nll(log_probs, target, epsilon)):
        wanted = -(1 - epsilon - share) * log_probs[row, target[row]] - share * sum(log_probs[row])
        assert float(loss) == pytest.approx(float(wanted), abs=1e-6)


def test_without_smoothing_it_is_cross_entropy() -> None:
    log_probs, target = random_log_probs(5, 7), torch.tensor([2, 0, 6, 1, 1])
    expected = torch.nn.functional.nll_loss(log_probs, target, reduction="none")
    assert torch.equal(label_smoothed_nll(log_probs, target, 0.0), expected)


def reward(probability: float, log_end: float) -> float:
    if probability <= log_end:
        return math.log(max(1 - probability, 1e-5))
    return math.log(1 - log_end) + (probability - log_end) / (log_end - 1)


@pytest.mark.parametrize(("epsilon", "log_end"), [(0.0, 0.75), (0.1, 0.75), (0.1, 0.3), (0.1, 1.0)])
def test_the_encouraging_loss_is_the_formula_and_differentiable(epsilon: float, log_end: float) -> None:
    logits = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    logits[0, 2], logits[1, 1], logits[3, 4] = 5.0, 2.5, 60.0  # sure, rather sure, and as sure as can be
    target = torch.tensor([2, 0, 3, 4])
    log_probs = logits.log_softmax(1)
    found = encouraging_bonus(log_probs, target, epsilon, log_end)
    for row, bonus in enumerate(found.tolist()):
        rewards = [reward(float(value.exp()), log_end) for value in log_probs[row]]
        wanted = (1 - epsilon) * rewards[int(target[row])] + epsilon / 5 * sum(rewards)
        assert bonus == pytest.approx(wanted, rel=1e-12)
    inside = logits[:3].clone().requires_grad_(True)

    def bonus_of(given: Tensor) -> Tensor:
        return encouraging_bonus(given.log_softmax(1), target[:3], epsilon, log_end)

    assert torch.autograd.gradcheck(bonus_of, (inside,))
    whole = logits.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(encouraging_bonus(whole.log_softmax(1), target, epsilon, log_end).sum(), whole)
    assert bool(gradient.isfinite().all())


def test_the_encouraging_loss_is_added_behind_what_is_dropped() -> None:
    passes = [random_log_probs(6, 7), random_log_probs(6, 7).flip(0)]
    target = torch.tensor([2, 0, 6, 1, 1, 3])
    for rule in ("original", "mean"):
        plain = LossSettings(drop_worst=0.5, drop_worst_rule=rule)
        encouraged = plain.model_copy(update={"encouraging": 0.75})
        for given in (passes[:1], passes):
            before, counts = total_loss([TokenLosses.of(given, target, plain)], plain, 5, 6)
            after, same = total_loss([TokenLosses.of(given, target, encouraged)], encouraged, 5, 6)
            parts = TokenLosses.of(given, target, plain)
            kept = smallest(parts.losses[0] if rule == "original" else parts.per_token(plain), 0.5)
            wanted = sum(encouraging_bonus(one, target, 0.1, 0.75)[kept].sum() for one in given)
            assert float(after - before) == pytest.approx(float(wanted), abs=1e-5)
            assert torch.equal(counts, same)


def test_the_encouraging_loss_takes_weights_as_powers_and_bears_what_is_not_allowed() -> None:
    logits = torch.randn(3, 7, generator=torch.Generator().manual_seed(4)).requires_grad_(True)
    allowed = torch.tensor([True, True, True, False, False, True, True])
    log_probs = logits.masked_fill(~allowed, -torch.inf).log_softmax(1)
    target, weights = torch.tensor([0, 1, 2]), torch.tensor([1.0, 0.5, 0.0])
    found = TokenLosses.of([log_probs], target, LossSettings(encouraging=0.75), allowed, weights).bonus
    assert found is not None
    powers = (log_probs.detach().exp() ** weights[:, None]).masked_fill(~allowed, 0)
    rewards = torch.tensor([[reward(float(value), 0.75) for value in row] for row in powers])
    wanted = 0.9 * rewards.gather(1, target[:, None])[:, 0] + 0.1 / 7 * rewards.sum(1)
    assert torch.allclose(found, wanted, atol=1e-5)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert bool(gradient.isfinite().all())


def test_smoothing_goes_to_allowed_tokens_alone() -> None:
    logits, target = torch.randn(2, 7, generator=torch.Generator().manual_seed(2)), torch.tensor([1, 3])
    allowed = torch.tensor(
        [[True, True, False, True, False, False, True], [False, True, False, True, False, False, False]]
    )
    log_probs = logits.masked_fill(~allowed, -torch.inf).log_softmax(1)
    found = label_smoothed_nll(log_probs, target, 0.2, allowed)
    for row, loss in enumerate(found):
        kept = log_probs[row][allowed[row]]
        share = 0.2 / (len(kept) - 1)
        wanted = -(0.8 - share) * log_probs[row, target[row]] - share * kept.sum()
        assert float(loss) == pytest.approx(float(wanted), abs=1e-4)


def test_soft_bins_cost_nothing_when_matched_and_more_the_farther_off() -> None:
    bins = torch.tensor([500])
    numbers = torch.arange(1000)

    def probabilities(centre: float, sigma: float) -> Tensor:
        row = torch.full((1, len(VOCABULARY)), -torch.inf)
        weights = -0.5 * ((numbers - centre) / sigma) ** 2
        row[0, VOCABULARY.bin_start : VOCABULARY.bin_end] = weights
        return row.log_softmax(1).clamp(min=-200)

    losses = [float(soft_bin_loss(probabilities(centre, 15), bins, VOCABULARY, 15)) for centre in (500, 510, 530)]
    assert losses[0] == pytest.approx(0, abs=1e-4)
    # the divergence of two Gaussians of one deviation is their squared distance over twice the variance
    assert losses[1:] == pytest.approx([10**2 / (2 * 15**2), 30**2 / (2 * 15**2)], rel=1e-3)


def test_soft_bins_end_where_the_bins_end() -> None:
    uniform = torch.full((2, len(VOCABULARY)), -math.log(len(VOCABULARY)))
    losses = soft_bin_loss(uniform, torch.tensor([0, 999]), VOCABULARY, 15)
    assert torch.isfinite(losses).all()
    assert losses[0] == pytest.approx(float(losses[1]), rel=1e-4)


def test_rdrop_is_symmetric_zero_for_equals_and_blind_to_what_nobody_allows() -> None:
    first, second = random_log_probs(2, 5), random_log_probs(2, 5).flip(1)
    assert torch.allclose(symmetric_divergence(first, second), symmetric_divergence(second, first))
    assert symmetric_divergence(first, first).abs().max() == 0
    by_hand = ((first.exp() - second.exp()) * (first - second)).sum(1) / 2
    assert torch.allclose(symmetric_divergence(first, second), by_hand, atol=1e-6)
    blocked = (
        torch.cat([first, torch.full((2, 1), -torch.inf)], 1),
        torch.cat([second, torch.full((2, 1), -torch.inf)], 1),
    )
    assert torch.allclose(symmetric_divergence(*blocked), by_hand, atol=1e-6)


def test_the_worst_are_left_out() -> None:
    losses = torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0])
    assert sorted(smallest(losses, 0.4).tolist()) == [1, 3, 4]


def loss_of(settings: LossSettings, *pairs: tuple[str, str], group_size: int | None = None, **more: object) -> float:
    module = LossModule(nano().eval(), VOCABULARY, settings, **more)  # type: ignore[arg-type]
    batch = collate([example(*pair, picture("red")) for pair in pairs], TOKENIZER, TRANSFORM, group_size)
    with torch.no_grad():
        return float(module(batch)[0])


PAIRS = ((" what is it?", " red"), (" and what is that over there, on the left?", " a small blue circle"))


@pytest.mark.parametrize("group_size", [None, 1])
def test_a_batch_costs_what_its_examples_cost_padding_or_not(group_size: int | None) -> None:
    alone = sum(loss_of(LossSettings(), pair) for pair in PAIRS)
    assert loss_of(LossSettings(), *PAIRS, group_size=group_size) == pytest.approx(alone, rel=1e-5)


def test_examples_share_a_picture_or_have_none() -> None:
    module = LossModule(nano().eval(), VOCABULARY, LossSettings())
    red, blue = picture("red"), picture("blue")
    examples = [example(*PAIRS[0], red), example(*PAIRS[1], red), example(*PAIRS[0], blue), example(*PAIRS[0])]
    batch = collate(examples, TOKENIZER, TRANSFORM)
    (pixels,) = batch.pixels
    assert len(pixels) == 2, "each picture goes through the stem once"
    with torch.no_grad():
        together = float(module(batch)[0])
        alone = [float(module(collate([one], TOKENIZER, TRANSFORM))[0]) for one in examples]
    assert together == pytest.approx(sum(alone), rel=1e-5)
    assert len({round(value, 4) for value in alone}) == 4, "pictures matter"


def test_counts_are_those_of_the_targets() -> None:
    module = LossModule(nano().eval(), VOCABULARY, LossSettings(drop_worst=0.5))
    batch = collate([example(*pair) for pair in PAIRS], TOKENIZER, TRANSFORM)
    _, counts = module(batch)
    tokens = sum(len(example(*pair).target) for pair in PAIRS)
    assert counts[:2].tolist() == [int(tokens * 0.5), tokens]


def test_dropping_the_worst_begins_when_it_shall() -> None:
    module = LossModule(nano().eval(), VOCABULARY, LossSettings(drop_worst=0.5, drop_worst_after=10))
    batch = collate([example(*pair) for pair in PAIRS], TOKENIZER, TRANSFORM)
    assert module(batch, 9)[1][0] > module(batch, 10)[1][0]
    assert module(batch, 9)[0] > module(batch, 10)[0]


def test_a_range_of_ids_makes_targets_in_it_likelier() -> None:
    target = TOKENIZER.encode(PAIRS[0][1])[0]
    narrow = LossSettings(label_smoothing=0, constraint_range=(target, target + 1))
    assert loss_of(narrow, PAIRS[0]) < loss_of(LossSettings(label_smoothing=0), PAIRS[0])
    with pytest.raises(OFAError, match="constraint_range 2, 9 is not a range of ids between 4 and"):
        LossModule(nano(), VOCABULARY, LossSettings(constraint_range=(2, 9)))


def test_with_a_tree_of_answers_only_their_continuations_count() -> None:
    answers = Trie([TOKENIZER.encode(f" {word}") for word in ("red", "blue")])
    # two first tokens compete, then </s> alone may follow: the loss is that of a choice between two
    chance = loss_of(LossSettings(label_smoothing=0), PAIRS[0], answers=answers)
    assert 0 < chance < 1.5
    only = Trie([TOKENIZER.encode(" red")])
    assert loss_of(LossSettings(label_smoothing=0), PAIRS[0], answers=only) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("changes", [{"constraint_range": (4, 300)}, {"answers": True}], ids=["range", "answers"])
def test_rdrop_beside_a_constraint_has_a_gradient_everywhere(changes: dict[str, Any]) -> None:
    answers = Trie([TOKENIZER.encode(answer) for _, answer in PAIRS]) if changes.pop("answers", False) else None
    torch.manual_seed(0)
    module = LossModule(nano(dropout=0.3).train(), VOCABULARY, LossSettings(rdrop=5, **changes), answers)
    loss = module(collate([example(" what is it?", PAIRS[0][1])], TOKENIZER, TRANSFORM))[0]
    loss.backward()
    assert torch.isfinite(loss)
    gradients = [p.grad for p in module.model.parameters() if p.grad is not None]
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    assert any(bool(gradient.abs().max() > 0) for gradient in gradients)


def test_rdrop_needs_dropout_to_cost_anything() -> None:
    batch = collate([example(*PAIRS[0])], TOKENIZER, TRANSFORM)
    still = LossModule(nano().train(), VOCABULARY, LossSettings(rdrop=5))
    plain = LossModule(nano().train(), VOCABULARY, LossSettings())
    assert mean_of(still, batch) == pytest.approx(mean_of(plain, batch), rel=1e-5)
    moving = LossModule(nano(dropout=0.3).train(), VOCABULARY, LossSettings(rdrop=1000))
    torch.manual_seed(0)
    with_it = mean_of(moving, batch)
    moving.settings = LossSettings()
    torch.manual_seed(0)
    assert with_it > mean_of(moving, batch) + 0.01


def mean_of(module: LossModule, batch: Batch) -> float:
    loss, counts = module(batch)
    return float(loss.detach() / counts[0])


def test_the_rules_of_rdrop_differ_by_half_its_weight() -> None:
    batch = collate([example(*PAIRS[0])], TOKENIZER, TRANSFORM)
    means = {}
    for rule, weight in (("mean", 5.0), ("original", 10.0), ("original", 5.0)):
        settings = LossSettings(rdrop=weight, rdrop_rule=rule)
        torch.manual_seed(0)
        means[rule, weight] = mean_of(LossModule(nano(dropout=0.3).train(), VOCABULARY, settings), batch)
    assert means["original", 10.0] == pytest.approx(means["mean", 5.0], rel=1e-6)
    assert means["original", 5.0] < means["mean", 5.0] - 1e-3


@pytest.mark.parametrize("group_size", [None, 1])
def test_the_worst_of_a_batch_are_dropped_however_it_is_grouped(group_size: int | None) -> None:
    module = LossModule(nano().eval(), VOCABULARY, LossSettings(drop_worst=0.5))
    batches = [collate([example(*pair) for pair in PAIRS], TOKENIZER, TRANSFORM, size) for size in (None, group_size)]
    with torch.no_grad():
        (one, counts), (other, others) = (module(batch) for batch in batches)
    assert float(other) == pytest.approx(float(one), rel=1e-5)
    assert others[0] == counts[0]


def test_dropping_by_the_original_rule_begins_a_step_later() -> None:
    batch = collate([example(*pair) for pair in PAIRS], TOKENIZER, TRANSFORM)
    sizes = {}
    for rule in ("mean", "original"):
        settings = LossSettings(drop_worst=0.5, drop_worst_after=3, drop_worst_rule=rule)
        module = LossModule(nano().eval(), VOCABULARY, settings)
        sizes[rule] = [float(module(batch, step)[1][0]) for step in (2, 3, 4)]
    assert sizes["mean"][0] > sizes["mean"][1] == sizes["mean"][2]
    assert sizes["original"][0] == sizes["original"][1] > sizes["original"][2]


def test_what_is_ignored_is_not_in_the_loss_and_sentences_may_be_counted() -> None:
    batch = collate([example(*pair) for pair in PAIRS], TOKENIZER, TRANSFORM)
    lengths = [len(example(*pair).target) for pair in PAIRS]

    def counts(**changes: Any) -> list[float]:
        return LossModule(nano().eval(), VOCABULARY, LossSettings(**changes))(batch)[1][:2].tolist()

    assert counts() == [sum(lengths)] * 2
    assert counts(ignore_eos=True) == [sum(lengths) - 2] * 2
    assert counts(ignore_prefix_size=1) == [sum(lengths) - 2] * 2
    assert counts(per_sentence=True) == [2, sum(lengths)]


def test_weights_multiply_the_loss_and_prompts_cost_nothing() -> None:
    module = LossModule(nano().eval(), VOCABULARY, LossSettings())
    plain = example(*PAIRS[0])
    doubled = Example(plain.source, plain.target, weight=2.0)
    prompted = Example(plain.source, plain.target, prompt=plain.source[:-1])
    with torch.no_grad():
        losses = [module(collate([one], TOKENIZER, TRANSFORM)) for one in (plain, doubled, prompted)]
    assert float(losses[1][0]) == pytest.approx(2 * float(losses[0][0]), rel=1e-5)
    assert losses[2][1].tolist()[:2] == losses[0][1].tolist()[:2], "the prompt's tokens are not learned"
    assert float(losses[2][0]) != pytest.approx(float(losses[0][0]), rel=1e-5), "but they are read"


def test_bins_can_count_less_than_words() -> None:
    bins = TOKENIZER.vocabulary.bins_to_ids([1, 2])
    mixed = Example(example(*PAIRS[0]).source, [*TOKENIZER.encode(" red"), *bins, EOS])
    words = Example(mixed.source, [*TOKENIZER.encode(" red")])
    losses = {}
    for weight in (1.0, 0.5):
        module = LossModule(nano().eval(), VOCABULARY, LossSettings(label_smoothing=0, bin_weight=weight))
        with torch.no_grad():
            losses[weight] = [float(module(collate([one], TOKENIZER, TRANSFORM))[0]) for one in (mixed, words)]
    assert losses[1.0][1] == losses[0.5][1]
    assert losses[0.5][0] < losses[1.0][0] - 1
