from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from ofa_core import AllowedRange, AnswerTrie, GenerationOptions, NoRepeatNgram, OFAError
from ofa_core.generation.logits_processors import (
    ForcedPrefix,
    LogitsProcessor,
    MaxLength,
    MinNewTokens,
    NeverInvalid,
    Step,
    SuppressSpecialTokens,
    UnkPenalty,
    allowed_ids,
)
from ofa_core.generation.stepper import processors_of

BOS, PAD, EOS, UNK = range(4)
VOCABULARY = 10
EVERYTHING = set(range(VOCABULARY))


def step(prefixes: Sequence[Sequence[Sequence[int]]], *, forced: object = None, max_length: int = 20) -> Step:
    """A step of samples, each with its beams, each with its tokens (``<s>`` first)."""
    tokens = torch.tensor(prefixes)
    return Step(tokens, torch.arange(len(tokens)), max_length, None if forced is None else torch.tensor(forced))


def left_by(rule: LogitsProcessor, at: Step) -> list[list[set[int]]]:
    """What a rule leaves of each beam's tokens; those that are left must keep their scores."""
    torch.manual_seed(0)
    before = torch.randn(*at.prefixes.shape[:2], VOCABULARY)
    after = rule(before.clone(), at)
    assert after.shape == before.shape
    possible = after > -torch.inf
    assert torch.equal(after[possible], before[possible])
    return [[set(beam.nonzero().flatten().tolist()) for beam in sample] for sample in possible]


def two_beams(*tokens: int) -> list[list[list[int]]]:
    return [[[BOS, *tokens]] * 2]


@pytest.mark.parametrize(("start", "end", "kept"), [(5, 7, {5, 6}), (4, 5, {4}), (8, 10, {8, 9}), (9, 99, {9})])
def test_allowed_range_leaves_its_ids_and_the_special_ones(start: int, end: int, kept: set[int]) -> None:
    assert left_by(AllowedRange(start, end), step(two_beams(5))) == [[{0, 1, 2, 3} | kept] * 2]


@pytest.mark.parametrize(("start", "end"), [(3, 9), (6, 6), (8, 7), (-5, -2)])
def test_allowed_range_refuses_what_is_no_range(start: int, end: int) -> None:
    with pytest.raises(OFAError, match=f"needs 4 <= start < end, not {start}, {end}"):
        AllowedRange(start, end)


ANSWERS = [[5, 6, 8], [5], [7]]


@pytest.mark.parametrize(
    ("tokens", "kept"),
    [([], {5, 7}), ([5], {6, EOS}), ([5, 6], {8}), ([5, 6, 8], {EOS}), ([9], {EOS}), ([5, 9, 9], {EOS})],
)
def test_answer_trie_leaves_what_continues_an_answer(tokens: list[int], kept: set[int]) -> None:
    assert left_by(AnswerTrie(ANSWERS), step([[[BOS, *tokens]]])) == [[kept]]


def test_answer_trie_follows_each_beam_of_each_sample() -> None:
    at = step([[[BOS, 5], [BOS, 7]], [[BOS, 9], [BOS, 5]]])
    assert left_by(AnswerTrie(ANSWERS), at) == [[{6, EOS}, {EOS}], [{EOS}, {6, EOS}]]


def test_answer_trie_begins_behind_the_forced_prefix_of_each_sample() -> None:
    forced = [[9, 4, 9], [5, PAD, PAD], [PAD, PAD, PAD]]
    after_two = step([[[BOS, 9, 4]], [[BOS, 5, 5]], [[BOS, 5, 6]]], forced=forced)
    assert left_by(AnswerTrie(ANSWERS), after_two) == [[EVERYTHING], [{6, EOS}], [{8}]]
    after_three = step([[[BOS, 9, 4, 9]], [[BOS, 5, 5, 6]], [[BOS, 5, 6, 8]]], forced=forced)
    assert left_by(AnswerTrie(ANSWERS), after_three) == [[{5, 7}], [{8}], [{EOS}]]


@pytest.mark.parametrize(
    ("size", "tokens", "banned"),
    [
        (1, [], {BOS}),
        (1, [5, 7], {BOS, 5, 7}),
        (2, [], set()),
        (2, [5], set()),
        (2, [5, 6, 5], {6}),
        (2, [5, 5], {5}),
        (2, [5, BOS], {5}),  # <s> stands in front and counts
        (2, [5, 6, 5, 7, 5], {6, 7}),
        (3, [5, 6], set()),
        (3, [5, 6, 7, 5, 6], {7}),
        (3, [5, 6, 7, 6], set()),
        (3, [5, BOS, 5], {BOS}),
        (3, [5, 6, BOS, 5], {6}),
        (4, [5, 6], set()),  # too short for any run
        (9, [5, 6], set()),
    ],
)
def test_no_repeat_ngram_bans_what_would_complete_a_run_again(size: int, tokens: list[int], banned: set[int]) -> None:
    assert left_by(NoRepeatNgram(size), step([[[BOS, *tokens]]])) == [[EVERYTHING - banned]]


def test_no_repeat_ngram_looks_at_each_beam_alone() -> None:
    at = step([[[BOS, 5, 6, 5], [BOS, 6, 7, 6]], [[BOS, 8, 8, 8], [BOS, 4, 5, 6]]])
    expected = [[{6}, {7}], [{8}, set()]]
    assert left_by(NoRepeatNgram(2), at) == [[EVERYTHING - banned for banned in sample] for sample in expected]


def test_no_repeat_ngram_leaves_banned_tokens_banned() -> None:
    scores = torch.full((1, 1, VOCABULARY), -torch.inf)
    assert NoRepeatNgram(1)(scores, step([[[BOS, 5]]])).isneginf().all()


def test_an_ngram_needs_a_token() -> None:
    with pytest.raises(OFAError, match="at least one token, not 0"):
        NoRepeatNgram(0)


FORCED = [[6, 7, 8], [5, PAD, PAD]]


@pytest.mark.parametrize(
    ("number", "max_length", "kept"),
    [
        (0, 20, [{6}, {5}]),
        (1, 20, [{7}, EVERYTHING]),
        (2, 20, [{8}, EVERYTHING]),
        (3, 20, [EVERYTHING, EVERYTHING]),  # past the end of the longest
        (2, 3, [{8}, EVERYTHING]),  # the last token that fits
        (2, 2, [EVERYTHING, EVERYTHING]),  # at the last step only </s> is left, by another rule
    ],
)
def test_a_forced_prefix_leaves_its_next_token(number: int, max_length: int, kept: list[set[int]]) -> None:
    prefixes = [[[BOS, *[4] * number]] * 2] * 2
    found = left_by(ForcedPrefix(), step(prefixes, forced=FORCED, max_length=max_length))
    assert found == [[tokens] * 2 for tokens in kept]


def test_without_a_prefix_nothing_is_forced() -> None:
    assert left_by(ForcedPrefix(), step(two_beams(5))) == [[EVERYTHING] * 2]


@pytest.mark.parametrize(("number", "ends"), [(0, False), (1, False), (2, True), (3, True)])
def test_min_new_tokens_rules_the_end_out_before(number: int, ends: bool) -> None:
    kept = EVERYTHING if ends else EVERYTHING - {EOS}
    assert left_by(MinNewTokens(2), step(two_beams(*[5] * number))) == [[kept] * 2]


def test_min_new_tokens_leaves_a_forced_end_alone_sample_by_sample() -> None:
    at = step([[[BOS, 6]], [[BOS, 5]]], forced=[[6, EOS], [5, PAD]])
    assert left_by(MinNewTokens(4), at) == [[EVERYTHING], [EVERYTHING - {EOS}]]


@pytest.mark.parametrize(("number", "kept"), [(0, EVERYTHING), (2, EVERYTHING), (3, {EOS}), (4, {EOS})])
def test_max_length_leaves_only_the_end(number: int, kept: set[int]) -> None:
    assert left_by(MaxLength(), step(two_beams(*[5] * number), max_length=3)) == [[kept] * 2]


@pytest.mark.parametrize(("number", "kept"), [(0, EVERYTHING - {0, 1, 2, 3}), (3, EVERYTHING)])
def test_special_tokens_are_suppressed_before_the_last_step(number: int, kept: set[int]) -> None:
    assert left_by(SuppressSpecialTokens(), step(two_beams(*[5] * number), max_length=3)) == [[kept] * 2]


def test_never_invalid_bans_pad_and_what_is_no_number() -> None:
    scores = torch.zeros(1, 2, VOCABULARY)
    scores[0, 0, 6] = scores[0, 1, 7] = torch.nan
    after = NeverInvalid()(scores, step(two_beams(5)))
    assert after[0, 0].isneginf().nonzero().flatten().tolist() == [PAD, 6]
    assert after[0, 1].isneginf().nonzero().flatten().tolist() == [PAD, 7]


@pytest.mark.parametrize("penalty", [1.5, -9.0])
def test_unk_penalty_is_taken_from_unk_alone(penalty: float) -> None:
    after = UnkPenalty(penalty)(torch.zeros(1, 2, VOCABULARY), step(two_beams(5)))
    expected = torch.zeros(1, 2, VOCABULARY)
    expected[..., UNK] = -penalty
    assert torch.equal(after, expected)


# All rules together


def after_all(
    options: GenerationOptions, at: Step, constraints: Sequence[LogitsProcessor] = ()
) -> list[list[set[int]]]:
    scores: Tensor = torch.zeros(*at.prefixes.shape[:2], VOCABULARY)
    for stage in ("logits", "log_probs"):
        for rule in processors_of(options, constraints):
            if rule.stage == stage:
                scores = rule(scores, at)
    return [[set(beam.nonzero().flatten().tolist()) for beam in sample] for sample in scores > -torch.inf]


FREE = EVERYTHING - {PAD}


@pytest.mark.parametrize(
    ("options", "tokens", "kept"),
    [
        ({}, [], FREE - {EOS}),
        ({}, [5], FREE),
        ({"min_new_tokens": 0}, [], FREE),
        ({"max_new_tokens": 3}, [5, 6, 5], {EOS}),
        ({"no_repeat_ngram_size": 2}, [5, 6, 5], FREE - {6}),
        ({"suppress_special_tokens": True}, [5], EVERYTHING - {0, 1, 2, 3}),
        ({"image_codes": True}, [5], EVERYTHING - {0, 1, 2, 3}),
        ({"image_codes": True, "max_new_tokens": 3}, [5, 6, 5], {EOS}),
    ],
    ids=str,
)
def test_options_become_rules(options: dict[str, object], tokens: list[int], kept: set[int]) -> None:
    settings = GenerationOptions(**options)
    at = step([[[BOS, *tokens]]], max_length=settings.max_length(4, 1024))
    assert after_all(settings, at) == [[kept]]


def test_a_forced_prefix_is_cut_where_the_length_ends() -> None:
    at = step([[[BOS, 6, 7]]], forced=[[6, 7, 8]], max_length=2)
    assert after_all(GenerationOptions(), at) == [[{EOS}]]


def test_a_forced_end_wins_over_the_minimum_length() -> None:
    at = step([[[BOS, 6]]], forced=[[6, EOS]])
    assert after_all(GenerationOptions(min_new_tokens=5), at) == [[{EOS}]]


def test_an_answer_off_the_trie_can_only_end() -> None:
    at = step([[[BOS, 9, 9]]])
    assert after_all(GenerationOptions(), at, [AnswerTrie(ANSWERS)]) == [[{EOS}]]


@pytest.mark.parametrize(
    ("per_source", "new", "source", "limit", "expected"),
    [
        (0.0, 16, 9, 1024, 16),
        (0.5, 2, 11, 1024, 7),
        (2.0, 0, 9, 1024, 18),
        (0.0, 2000, 9, 1024, 1023),
        (0.9, 0, 1, 99, 0),
    ],
)
def test_the_length_grows_with_the_source_up_to_the_models_limit(
    per_source: float, new: int, source: int, limit: int, expected: int
) -> None:
    options = GenerationOptions(max_new_tokens=new, max_new_tokens_per_source_token=per_source)
    assert options.max_length(source, limit) == expected


# The ids that are left, told beforehand


class Wider(AllowedRange):
    """A user's own, which leaves more than its parent."""

    def __call__(self, scores: Tensor, step: Step) -> Tensor:
        return scores


LATER: list[LogitsProcessor] = [NeverInvalid(), NoRepeatNgram(2)]


@pytest.mark.parametrize(
    ("rules", "at", "expected"),
    [
        ([AllowedRange(5, 6)], step(two_beams()), [0, 1, 2, 3, 5]),
        ([*LATER, AllowedRange(9, 99)], step(two_beams(5)), [0, 1, 2, 3, 9]),
        ([AllowedRange(5, 6), Wider(4, 9)], step(two_beams()), [0, 1, 2, 3, 5]),
        ([AnswerTrie(ANSWERS)], step(two_beams()), [5, 7]),
        ([AnswerTrie(ANSWERS)], step([[[BOS, 5], [BOS, 7]]]), [EOS, 6]),
        ([AnswerTrie(ANSWERS)], step([[[BOS, 4, 5]]], forced=[[4]]), [EOS, 6]),
        ([AnswerTrie([[99], [5]])], step(two_beams()), [5]),
    ],
    ids=["range", "behind the softmax", "first", "trie", "beams", "behind a prefix", "no ids"],
)
def test_ids_that_are_left_are_those_that_the_rule_leaves(
    rules: list[LogitsProcessor], at: Step, expected: list[int]
) -> None:
    found = allowed_ids(rules, at, VOCABULARY)
    assert found is not None
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("rules", "at"),
    [
        (LATER, step(two_beams())),
        ([Wider(5, 6)], step(two_beams())),
        ([Wider(4, 9), AllowedRange(5, 6)], step(two_beams())),
        ([AllowedRange(4, 9)], step(two_beams())),
        ([AnswerTrie(ANSWERS)], step([[[BOS]], [[BOS]]], forced=[[4], [PAD]])),
        ([AnswerTrie([[99]])], step(two_beams())),
    ],
    ids=["none", "own", "own first", "most", "prefix lasts", "nothing"],
)
def test_all_logits_are_needed_where_rules_tell_nothing(rules: list[LogitsProcessor], at: Step) -> None:
    assert allowed_ids(rules, at, VOCABULARY) is None
