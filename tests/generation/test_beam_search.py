from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from reference import SCORE_TOLERANCE, generation_model, golden_cases, options_of, reference_images, tiny_model
from torch import Tensor

from ofa_core import AllowedRange, AnswerTrie, DecoderCache, GenerationOptions, Hypothesis, OFAError, OFAModel, generate
from ofa_core.generation import Step
from ofa_core.generation.beam_search import BLOCK, _top_k
from ofa_core.generation.stepper import Stepper
from ofa_core.inference.compiled_decoder import static_step
from ofa_core.inference.fast_model import optimized, plain

BOS, PAD, EOS, UNK = range(4)

CASES = {case["name"]: case for case in golden_cases("generate.json")}

Found = list[list[Hypothesis]]


def search(
    model: OFAModel | Sequence[OFAModel],
    tokens: Tensor,
    images: Tensor | None = None,
    *,
    more: Any = None,
    **options: Any,
) -> Found:
    """``generate`` with options by keyword; ``more`` are its other arguments."""
    return generate(model, tokens, images, GenerationOptions(**options), **(more or {}))


def assert_same(found: Found, expected: Found) -> None:
    assert [[h.tokens for h in one] for one in found] == [[h.tokens for h in one] for one in expected]
    for left, right in zip(itertools.chain(*found), itertools.chain(*expected), strict=True):
        assert left.score == pytest.approx(right.score, abs=SCORE_TOLERANCE)
        assert left.token_scores == pytest.approx(right.token_scores, abs=SCORE_TOLERANCE)


def padded(sources: Sequence[Sequence[int]]) -> Tensor:
    longest = max(map(len, sources))
    return torch.tensor([[*source, *[PAD] * (longest - len(source))] for source in sources])


# Against the original implementation


def static(model: OFAModel) -> OFAModel:
    """The model, which decodes in static shapes from now on, without a compiler."""
    optimized(model).compiled_step = static_step
    return model


#: The ways in which one model can answer.
WAYS: dict[str, Callable[[OFAModel], OFAModel]] = {"plain": plain, "optimized": optimized, "static": static}


@pytest.mark.reference
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
def test_search_equals_the_original(name: str, way: str) -> None:
    case = CASES[name]
    constraints: list[Any] = []
    if case["settings"]["constraint_range"]:
        constraints.append(AllowedRange(*map(int, case["settings"]["constraint_range"].split(","))))
    if case["trie_words"]:
        constraints.append(AnswerTrie(case["trie_words"]))
    found = generate(
        [WAYS[way](generation_model(model["salt"], model["nano"])) for model in case["models"]],
        torch.tensor(case["src_tokens"]),
        reference_images(case["image"]),
        options_of(case["settings"]),
        constraints=constraints,
        prefix=None if case["prefix_tokens"] is None else torch.tensor(case["prefix_tokens"]),
    )
    expected = [
        [Hypothesis(h["tokens"], h["score"], h["positional_scores"]) for h in one] for one in case["hypotheses"]
    ]
    assert_same(found, expected)


# Against enumeration


@dataclass
class Rules:
    """What the enumeration below needs to know; the names are the options'."""

    max_new_tokens: int
    min_new_tokens: int = 1
    length_penalty: float = 1.0
    normalize_scores: bool = True
    unk_penalty: float = 0.0
    temperature: float = 1.0
    no_repeat_ngram_size: int = 0
    suppress_special_tokens: bool = False
    allowed: Sequence[int] = field(default_factory=tuple)


def enumerate_all(model: OFAModel, source: Tensor, rules: Rules) -> list[Hypothesis]:
    """Every target there is, best first: uncached, without a beam, one rule after the other."""
    memory = model.encode(source)
    ended: list[Hypothesis] = []
    alive: dict[tuple[int, ...], list[float]] = {(BOS,): []}
    for number in range(rules.max_new_tokens + 1):
        prefixes = list(alive)
        logits = model.decode(memory, torch.tensor(prefixes))[:, -1] / rules.temperature
        if rules.allowed:
            banned = [token for token in range(4, logits.shape[-1]) if token not in rules.allowed]
            logits[:, banned] = -torch.inf
        going_on: dict[tuple[int, ...], list[float]] = {}
        for prefix, scores in zip(prefixes, logits.log_softmax(-1).tolist(), strict=True):
            for token, score in enumerate(scores):
                if not _may_follow(prefix, token, number, rules) or score == -float("inf"):
                    continue
                so_far = [*alive[prefix], score - rules.unk_penalty * (token == UNK)]
                if token == EOS:
                    total = sum(so_far)
                    final = total / len(so_far) ** rules.length_penalty if rules.normalize_scores else total
                    ended.append(Hypothesis([*prefix[1:], EOS], final, so_far))
                else:
                    going_on[(*prefix, token)] = so_far
        alive = going_on
        if not alive:
            break
    return sorted(ended, key=lambda hypothesis: -hypothesis.score)


def _may_follow(prefix: tuple[int, ...], token: int, number: int, rules: Rules) -> bool:
    if number == rules.max_new_tokens:
        wanted = token == EOS
    else:
        wanted = token != PAD and not (token == EOS and number < rules.min_new_tokens)
        wanted &= not (rules.suppress_special_tokens and token < 4)
    size = rules.no_repeat_ngram_size
    if size:
        text = (*prefix, token)
        wanted &= text[-size:] not in [text[i : i + size] for i in range(len(text) - size)]
    return wanted


ENUMERATED = {
    "plain": {"max_new_tokens": 3},
    "nothing_but_the_end": {"max_new_tokens": 0, "min_new_tokens": 0},
    "empty_target_allowed": {"max_new_tokens": 2, "min_new_tokens": 0},
    "all_of_one_length": {"max_new_tokens": 2, "min_new_tokens": 2},
    "length_penalty": {"max_new_tokens": 3, "length_penalty": 2.5},
    "length_reward": {"max_new_tokens": 3, "length_penalty": -1.0},
    "unnormalized": {"max_new_tokens": 3, "normalize_scores": False},
    "unknown_tokens_cost": {"max_new_tokens": 3, "unk_penalty": 1.5},
    "temperature": {"max_new_tokens": 3, "temperature": 0.5},
    "no_token_twice": {"max_new_tokens": 3, "no_repeat_ngram_size": 1},
    "no_pair_twice": {"max_new_tokens": 3, "no_repeat_ngram_size": 2},
    "no_special_tokens": {"max_new_tokens": 3, "min_new_tokens": 3, "suppress_special_tokens": True},
    "range": {"max_new_tokens": 3, "allowed": (5, 6)},
}


@pytest.mark.parametrize("name", ENUMERATED)
def test_a_wide_beam_finds_exactly_what_enumeration_finds(name: str) -> None:
    rules = Rules(**ENUMERATED[name])
    model, source = tiny_model(9), torch.tensor([[BOS, 5, 7, 4, EOS]])
    expected = enumerate_all(model, source, rules)
    options = {key: value for key, value in ENUMERATED[name].items() if key != "allowed"}
    constraints = [AllowedRange(5, 7)] if rules.allowed else []
    found = search(model, source, num_beams=420, more={"constraints": constraints}, **options)
    assert len(expected) > 6 or rules.max_new_tokens == 0
    assert_same(found, [expected])


@pytest.mark.parametrize("seed", range(4))
def test_a_beam_wider_than_the_vocabulary_finds_the_best_target(seed: int) -> None:
    model, source = tiny_model(6, seed), torch.tensor([[BOS, 5, 4, 5, EOS]])
    best = enumerate_all(model, source, Rules(4))
    found = search(model, source, num_beams=5**3, max_new_tokens=4)  # every live prefix of up to three tokens
    assert found[0][0].tokens == best[0].tokens
    assert found[0][0].score == pytest.approx(best[0].score, abs=SCORE_TOLERANCE)


def greedy(model: OFAModel, tokens: Tensor, images: Tensor | None, length: int) -> tuple[list[int], list[float]]:
    """Argmax after argmax, everything computed anew at each step."""
    memory, target, scores = model.encode(tokens, images), [BOS], []
    for number in range(length + 1):
        log_probs = model.decode(memory, torch.tensor([target]))[0, -1].log_softmax(-1)
        log_probs[PAD] = -torch.inf
        if number == 0:
            log_probs[EOS] = -torch.inf
        token = EOS if number == length else int(log_probs.argmax())
        target.append(token)
        scores.append(float(log_probs[token]))
        if token == EOS:
            break
    return target[1:], scores


@pytest.mark.parametrize("name", ["greedy", "caption_beam5", "text_only", "lenpen_min_len"])
def test_beam_1_is_greedy(name: str) -> None:
    case, model = CASES[name], generation_model("generate_a")
    tokens, images = torch.tensor(case["src_tokens"]), reference_images(case["image"])
    for row, (found,) in enumerate(search(model, tokens, images, num_beams=1, max_new_tokens=9)):
        one = slice(row, row + 1)
        target, scores = greedy(model, tokens[one], None if images is None else images[one], 9)
        assert found.tokens == target
        assert found.token_scores == pytest.approx(scores, abs=SCORE_TOLERANCE)


# A batch is its samples


BIG = CASES["big_batch"]


@pytest.mark.parametrize("with_images", [True, False], ids=["images", "text"])
@pytest.mark.parametrize("more", [{}, {"num_beam_groups": 2}, {"no_repeat_ngram_size": 1}], ids=str)
def test_a_batch_equals_its_samples_one_by_one(
    with_images: bool, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    keep = Stepper.keep_samples
    monkeypatch.setattr(Stepper, "keep_samples", lambda self, kept: (left.append(len(kept)), keep(self, kept))[1])
    model = generation_model("generate_a")
    sources = [[token for token in row if token != PAD] for row in BIG["src_tokens"]]
    sources[1] = [*sources[1][:-1], *range(40, 70), EOS]  # much longer than its neighbours
    images = reference_images(BIG["image"]) if with_images else None
    options = {"num_beams": 4, "max_new_tokens": 12, "length_penalty": 0.2, **more}
    together = search(model, padded(sources), images, **options)
    assert left, "no sample left the batch before the others, so the test shows nothing about that"
    one_by_one = [
        search(model, padded([source]), None if images is None else images[i : i + 1], **options)[0]
        for i, source in enumerate(sources)
    ]
    assert_same(together, one_by_one)
    assert len({len(one[0].tokens) for one in together}) > 1


def test_samples_without_a_picture_are_as_if_given_text_alone() -> None:
    model, images = generation_model("generate_a"), reference_images(BIG["image"])
    assert images is not None
    tokens = padded([[token for token in row if token != PAD] for row in BIG["src_tokens"]])
    mask = torch.arange(len(tokens)) % 3 != 1
    options = {"num_beams": 3, "max_new_tokens": 8}
    masked = search(model, tokens, images, more={"image_mask": mask}, **options)
    seeing, blind = search(model, tokens, images, **options), search(model, tokens, **options)
    assert_same(masked, [a if has else b for has, a, b in zip(mask.tolist(), seeing, blind, strict=True)])
    assert [one[0].tokens for one in seeing] != [one[0].tokens for one in blind]


def test_image_features_serve_as_pixels() -> None:
    model, images = generation_model("generate_a"), reference_images(BIG["image"])
    assert images is not None
    tokens, options = torch.tensor(BIG["src_tokens"]), GenerationOptions(num_beams=2, max_new_tokens=5)
    assert_same(
        generate(model, tokens, model.image_features(images), options), generate(model, tokens, images, options)
    )


def test_the_memory_of_a_sample_is_never_copied_for_its_beams(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(12)
    rows: list[tuple[int, int, int]] = []
    forward = model.decoder.forward

    def spy(target: Tensor, memory: Any, cache: DecoderCache, *rest: Any) -> Tensor:
        states = forward(target, memory, cache, *rest)
        for layer in cache.layers:
            assert layer.cross is not None
            rows.append((target.shape[0], memory.states.shape[0], layer.cross[0].shape[0]))
        return states

    monkeypatch.setattr(model.decoder, "forward", spy)
    search(model, torch.tensor([[BOS, 5, EOS], [BOS, 6, EOS]]), num_beams=7, max_new_tokens=4, min_new_tokens=4)
    assert set(rows) == {(2, 2, 2), (14, 2, 2)}  # before the first step beams are alike, and computed once


# Hypotheses


@pytest.mark.parametrize("count", [1, 3, 6])
def test_as_many_hypotheses_as_asked_for_best_first(count: int) -> None:
    model, tokens = generation_model("generate_a"), torch.tensor(BIG["src_tokens"][:3])
    every = search(model, tokens, num_beams=6, max_new_tokens=6)
    found = search(model, tokens, num_beams=6, max_new_tokens=6, num_return_sequences=count)
    assert_same(found, [one[:count] for one in every])
    for one in every:
        scores = [hypothesis.score for hypothesis in one]
        assert len(one) == 6
        assert scores == sorted(scores, reverse=True)
        assert len({tuple(hypothesis.tokens) for hypothesis in one}) == 6


@pytest.mark.parametrize(
    ("options", "exponent"), [({}, 1.0), ({"length_penalty": 0.5}, 0.5), ({"normalize_scores": False}, 0.0)], ids=str
)
def test_a_score_is_the_sum_of_token_scores_over_the_length(options: dict[str, Any], exponent: float) -> None:
    found = search(tiny_model(20), torch.tensor([[BOS, 5, 6, EOS]]), num_beams=4, max_new_tokens=6, **options)
    for hypothesis in found[0]:
        assert hypothesis.tokens[-1] == EOS
        assert EOS not in hypothesis.tokens[:-1]
        assert len(hypothesis.token_scores) == len(hypothesis.tokens)
        expected = sum(hypothesis.token_scores) / len(hypothesis.tokens) ** exponent
        assert hypothesis.score == pytest.approx(expected, abs=SCORE_TOLERANCE)


@pytest.mark.parametrize("options", [{}, {"num_beam_groups": 2}, {"do_sample": True}], ids=str)
def test_pad_and_scores_that_are_no_numbers_are_never_chosen(options: dict[str, Any]) -> None:
    @dataclass
    class Tempt:
        stage: str

        def __call__(self, scores: Tensor, step: Step) -> Tensor:
            scores[..., PAD] += 50
            if self.stage == "log_probs":
                scores[..., 7] = torch.nan
            return scores

    for stage in ("logits", "log_probs"):
        found = search(
            tiny_model(12),
            torch.tensor([[BOS, 5, 6, EOS]]),
            num_beams=4,
            max_new_tokens=6,
            more={"constraints": [Tempt(stage)]},
            **options,
        )
        assert found[0]
        for hypothesis in found[0]:
            assert not {PAD, 7 if stage == "log_probs" else PAD} & set(hypothesis.tokens)
            assert all(score == score for score in hypothesis.token_scores)


@dataclass
class Boost:
    """Adds ``amount`` to the logit of ``token``."""

    token: int
    amount: float
    stage: str = "logits"

    def __call__(self, scores: Tensor, step: Step) -> Tensor:
        scores[..., self.token] += self.amount
        return scores


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_ngram_occurs_twice_counting_the_start_token(size: int) -> None:
    more = {"constraints": [Boost(BOS, 9.0)]}
    tokens, options = torch.tensor([[BOS, 5, 6, EOS]]), {"num_beams": 3, "max_new_tokens": 6, "min_new_tokens": 5}
    free = search(tiny_model(12), tokens, more=more, **options)
    assert free[0][0].tokens[:5] == [BOS] * 5
    for hypothesis in search(tiny_model(12), tokens, more=more, no_repeat_ngram_size=size, **options)[0]:
        text = [BOS, *hypothesis.tokens]
        ngrams = [tuple(text[i : i + size]) for i in range(len(text) - size + 1)]
        assert len(set(ngrams)) == len(ngrams)


@pytest.mark.parametrize("options", [{}, {"do_sample": True}], ids=["beam", "sample"])
def test_a_rule_of_the_users_own_is_told_which_sample_it_sees(options: dict[str, Any]) -> None:
    only = {0: 5, 1: 6, 2: 7}
    lengths = {0: 1, 1: 3, 2: 5}

    class OneToken:
        stage = "logits"

        def __call__(self, scores: Tensor, step: Step) -> Tensor:
            keep = torch.full_like(scores, -torch.inf)
            for row, sample in enumerate(step.samples.tolist()):
                token = only[sample] if step.number < lengths[sample] else EOS
                keep[row, :, token] = 0
            return scores + keep

    tokens = torch.tensor([[BOS, 5, EOS]] * 3)
    found = search(tiny_model(12), tokens, num_beams=1, max_new_tokens=8, more={"constraints": [OneToken()]}, **options)
    assert [one[0].tokens for one in found] == [[5, EOS], [6] * 3 + [EOS], [7] * 5 + [EOS]]
    for one in found:
        assert one[0].score == pytest.approx(0, abs=SCORE_TOLERANCE)  # the softmax came after the rule


@pytest.mark.parametrize("stage", ["logits", "log_probs"])
@pytest.mark.parametrize("options", [{}, {"do_sample": True, "num_return_sequences": 3}], ids=["beam", "sample"])
def test_a_sample_for_which_nothing_is_allowed_gets_no_hypothesis(stage: str, options: dict[str, Any]) -> None:
    @dataclass
    class Forbid:
        stage: str

        def __call__(self, scores: Tensor, step: Step) -> Tensor:
            hit = step.samples == 1 if step.number == 2 else torch.zeros_like(step.samples, dtype=torch.bool)
            return scores.masked_fill(hit[:, None, None], -torch.inf)

    tokens = torch.tensor([[BOS, 5, EOS], [BOS, 6, EOS], [BOS, 7, EOS]])
    found = search(
        tiny_model(12), tokens, num_beams=3, max_new_tokens=6, min_new_tokens=4,
        more={"constraints": [Forbid(stage)]}, **options,
    )  # fmt: skip
    assert [len(one) for one in found] == [3, 0, 3]


def test_more_tokens_asked_for_than_allowed_is_an_error() -> None:
    """The original refuses it too; without an error every sample would come back empty."""
    with pytest.raises(OFAError, match="min_new_tokens"):
        search(tiny_model(9), torch.tensor([[BOS, 5, EOS]]), max_new_tokens=2, min_new_tokens=3)


# Several models


def test_an_ensemble_of_a_model_with_itself_is_the_model() -> None:
    model, tokens = generation_model("generate_a"), torch.tensor(BIG["src_tokens"][:4])
    options = {"num_beams": 3, "max_new_tokens": 6}
    assert_same(search([model, model, model], tokens, **options), search(model, tokens, **options))


def test_an_ensemble_averages_probabilities() -> None:
    first, second = tiny_model(12, 0), tiny_model(12, 1)
    tokens = torch.tensor([[BOS, 5, 6, EOS]])
    for hypothesis in search([first, second], tokens, num_beams=3, max_new_tokens=5)[0]:
        target = torch.tensor([hypothesis.tokens])
        prefix = torch.cat([torch.tensor([[BOS]]), target[:, :-1]], dim=1)
        mean = torch.stack([model(tokens, prefix).softmax(-1) for model in (first, second)]).mean(0).log()
        expected = mean.gather(-1, target[..., None]).flatten().tolist()
        assert hypothesis.token_scores == pytest.approx(expected, abs=SCORE_TOLERANCE)


# Forced prefixes


def test_forced_prefixes_may_differ_in_length() -> None:
    model = generation_model("generate_a")
    tokens = torch.tensor(BIG["src_tokens"][:4])
    prefixes = [[11, 22, 33], [44], [], [55, 66]]
    options = {"num_beams": 3, "max_new_tokens": 6}
    found = search(model, tokens, more={"prefix": padded(prefixes)}, **options)
    alone = [
        search(model, tokens[i : i + 1], more={"prefix": torch.tensor([prefix]) if prefix else None}, **options)[0]
        for i, prefix in enumerate(prefixes)
    ]
    assert_same(found, alone)
    for one, prefix in zip(found, prefixes, strict=True):
        assert all(hypothesis.tokens[: len(prefix)] == prefix for hypothesis in one)
        assert len({tuple(hypothesis.tokens) for hypothesis in one}) == len(one) == 3


def test_a_neighbours_longer_prefix_does_not_switch_the_minimum_length_off() -> None:
    tokens = torch.tensor([[BOS, 5, 6, EOS]] * 2)
    options = {"num_beams": 2, "max_new_tokens": 6, "min_new_tokens": 3}
    eager = {"constraints": [Boost(EOS, 30.0)]}  # ends as soon as it may
    both = search(
        tiny_model(12), tokens, more={**eager, "prefix": torch.tensor([[5, 6, 7, 8], [5, PAD, PAD, PAD]])}, **options
    )
    alone = search(tiny_model(12), tokens[1:], more={**eager, "prefix": torch.tensor([[5]])}, **options)
    assert len(both[0][0].tokens) == 5
    assert len(both[1][0].tokens) == 4
    assert_same(both[1:], alone)


# Precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("options", [{}, {"do_sample": True}, {"num_beam_groups": 2}], ids=str)
def test_half_precision_gives_finite_scores(dtype: torch.dtype, options: dict[str, Any]) -> None:
    model = copy.deepcopy(generation_model("generate_a")).to(dtype)
    model.encoder.image_stem.float()
    images = reference_images(BIG["image"])
    assert images is not None
    mask = torch.arange(len(images)) % 2 == 0
    found = search(
        model,
        torch.tensor(BIG["src_tokens"]),
        images,
        num_beams=4,
        max_new_tokens=6,
        more={"image_mask": mask},
        **options,
    )
    for one in found:
        assert one
        for hypothesis in one:
            assert all(-100 < score <= 0 for score in hypothesis.token_scores)


# Errors


OPTION_ERRORS = [
    ({"beam": 3}, "beam: there is no such setting"),
    ({"num_beams": 0}, "num_beams"),
    ({"num_beams": 5, "num_beam_groups": 2}, "^generation options: num_beams 5 is not a multiple of num_beam_groups 2"),
    (
        {"num_beams": 2, "num_return_sequences": 3},
        "^generation options: num_return_sequences 3 is more than num_beams 2",
    ),
    ({"temperature": 0}, "temperature: .*greater than 0"),
    ({"top_p": 0}, "top_p: .*greater than 0"),
    ({"top_p": 1.1}, "top_p: .*less than or equal to 1"),
    ({"top_k": -1}, "top_k: "),
    ({"max_new_tokens": -1}, "max_new_tokens: "),
    ({"min_new_tokens": -1}, "min_new_tokens: "),
    ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size: "),
    ({"num_beams": "many"}, "num_beams: "),
]


@pytest.mark.parametrize(("options", "message"), OPTION_ERRORS, ids=[str(options) for options, _ in OPTION_ERRORS])
def test_options_that_make_no_sense_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OFAError, match=message):
        GenerationOptions(**options)
    with pytest.raises(OFAError, match=message):
        GenerationOptions().updated(**options)


def test_options_are_changed_by_name_and_keep_the_rest() -> None:
    changed = GenerationOptions(num_beams=7, length_penalty=0.5).updated(num_beams=2)
    assert changed == GenerationOptions(num_beams=2, length_penalty=0.5)


TWO = torch.tensor([[BOS, 5, EOS], [BOS, 6, EOS]])

CALL_ERRORS = [
    ([], TWO, {}, "there is no model"),
    ([9, 10], TWO, {}, "same vocabulary"),
    ([9], TWO, {"prefix": torch.tensor([[5]])}, r"prefix must be \[2, length\], not \[1, 1\]"),
    ([9], TWO, {"prefix": torch.tensor([5, 6])}, r"prefix must be \[2, length\], not \[2\]"),
    ([9], torch.tensor([[BOS, 9, EOS]]), {}, "source tokens hold id 9; ids run from 0 to 8"),
    ([9], torch.tensor([BOS, 5, EOS]), {}, r"source tokens must be \[batch, length\]"),
    ([9], TWO, {"prefix": torch.tensor([[5], [9]])}, "id 9"),
    ([9], TWO, {"images": torch.zeros(1, 3, 32, 32)}, "images holds 1 samples, the source tokens 2"),
    ([9], TWO, {"image_mask": torch.ones(3)}, "image_mask holds 3 samples, the source tokens 2"),
]


@pytest.mark.parametrize(("sizes", "tokens", "arguments", "message"), CALL_ERRORS, ids=[e[-1] for e in CALL_ERRORS])
def test_arguments_that_do_not_fit_are_refused(
    sizes: list[int], tokens: Tensor, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(OFAError, match=message):
        generate([tiny_model(size) for size in sizes], tokens, **arguments)


def test_the_models_own_limit_ends_a_target() -> None:
    model = tiny_model(9, max_target_positions=8)
    found = search(model, torch.tensor([[BOS, 5, EOS]]), num_beams=2, min_new_tokens=7, max_new_tokens=50)
    assert {len(hypothesis.tokens) for hypothesis in found[0]} == {8}


# The largest scores, found by runs


@pytest.mark.parametrize("length", [BLOCK * 4, BLOCK * 9, BLOCK * 9 + 1, BLOCK * 40 - 1], ids=str)
def test_the_largest_are_what_sorting_finds(length: int) -> None:
    torch.manual_seed(length)
    scores = torch.randn(5, length)
    scores[1] = -torch.inf
    scores[1, [7, length - 1]] = torch.tensor([-2.0, -1.0])  # no more than two are possible
    scores[2, -1] = 9.0  # in the incomplete run
    scores[3, BLOCK : BLOCK + 4] = torch.tensor([8.0, 7.0, 6.0, 5.0])  # all in one run
    values, places = _top_k(scores, 4)
    assert torch.equal(values, scores.sort(dim=1, descending=True).values[:, :4])
    assert torch.equal(scores.gather(1, places), values)
    assert all(len(set(row)) == 4 for row in places.tolist())
    assert places[1, :2].tolist() == [length - 1, 7]
