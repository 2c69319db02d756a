from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from reference import SCORE_TOLERANCE, generation_model, golden_cases, reference_images, tiny_model
from torch import Tensor

import ofa_core.generation.scoring as candidates_module
from ofa_core import OFAError, OFAModel, score_candidates

BOS, PAD, EOS = range(3)
CASES = {case["name"]: case for case in golden_cases("candidates.json")}
PROMPTS = ("none", "src", "prev_output")

#: Sources of different lengths, so that their decoder prompts differ too.
SOURCES = torch.tensor([[BOS, 5, 7, 4, 9, EOS], [BOS, 6, EOS, PAD, PAD, PAD], [BOS, 8, 8, EOS, PAD, PAD]])


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=SCORE_TOLERANCE, rtol=0)


@pytest.mark.reference
@pytest.mark.parametrize("optimize", [False, True], ids=["plain", "optimized"])
@pytest.mark.parametrize("name", CASES)
def test_scores_equal_the_original(name: str, optimize: bool) -> None:
    case = CASES[name]
    found = score_candidates(
        generation_model(case["model"]["salt"], case["model"]["nano"], optimize=optimize),
        torch.tensor(case["src_tokens"]),
        reference_images(case["image"]),
        case["candidates"],
        case["decoder_prompt"],
    )
    assert_close(found, torch.tensor(case["scores"]))


def naive_scores(
    model: OFAModel,
    tokens: Tensor,
    images: Tensor | None,
    candidates: Sequence[Sequence[int]],
    decoder_prompt: str,
    image_mask: Tensor | None = None,
) -> Tensor:
    """Every candidate of every sample teacher-forced by itself, without a cache, the softmax over what others allow."""
    ended = [(*candidate, EOS) for candidate in candidates]
    rows = []
    for row, source in enumerate(tokens.tolist()):
        one = slice(row, row + 1)
        has_image = images is not None and (image_mask is None or bool(image_mask[row]))
        memory = model.encode(tokens[one], images[one] if images is not None and has_image else None)
        text = [token for token in source if token != PAD]
        prompt = {"none": [BOS], "src": text, "prev_output": text[:-1]}[decoder_prompt]
        longest = max(map(len, ended))
        prefixes = [[*prompt, *candidate[:-1], *[PAD] * (longest - len(candidate))] for candidate in ended]
        every = model.decode(memory, torch.tensor(prefixes))[:, len(prompt) - 1 :]  # each target by itself
        scores = []
        for candidate, logits in zip(ended, every, strict=True):
            total = 0.0
            for place, token in enumerate(candidate):
                allowed = sorted({c[place] for c in ended if len(c) > place and c[:place] == candidate[:place]})
                total += float(logits[place, allowed].log_softmax(-1)[allowed.index(token)])
            scores.append(total)
        rows.append(scores)
    return torch.tensor(rows)


def random_candidates(seed: int, count: int = 25, vocabulary: int = 14, longest: int = 5) -> list[list[int]]:
    """Different sequences of few tokens: many share prefixes, and some are prefixes of others."""
    chance = random.Random(seed)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < count:
        found[
            tuple(
                chance.randrange(4, vocabulary - 6 * (chance.random() < 0.7)) for _ in range(chance.randint(1, longest))
            )
        ] = None
    return [list(candidate) for candidate in found]


SETS = {
    **{f"random_{seed}": random_candidates(seed) for seed in range(3)},
    "one_token_each": [[5], [6], [7], [8], [9]],
    "two": [[5, 6, 7], [5, 6, 8]],
    "a_prefix_of_another": [[5], [5, 6], [5, 6, 7], [5, 6, 7, 8]],
    "no_shared_prefix": [[5, 6], [6, 7, 8], [7]],
    "shared_endings": [[5, 9, 9, 9], [6, 9, 9, 9], [6, 8, 9, 9]],
}


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("name", SETS)
def test_scores_equal_those_of_each_candidate_alone(name: str, prompt: Any) -> None:
    model = tiny_model(14)
    found = score_candidates(model, SOURCES, None, SETS[name], prompt)
    assert found.shape == (len(SOURCES), len(SETS[name]))
    assert_close(found, naive_scores(model, SOURCES, None, SETS[name], prompt))


@pytest.mark.parametrize("prompt", PROMPTS)
def test_probabilities_of_all_candidates_sum_to_one(prompt: Any) -> None:
    scores = score_candidates(tiny_model(14), SOURCES, None, random_candidates(7, 60), prompt)
    assert_close(scores.exp().sum(1), torch.ones(len(SOURCES)))
    assert scores.std(0).max() > 0.1  # and they depend on the source


def test_a_single_candidate_is_certain() -> None:
    scores = score_candidates(tiny_model(14), SOURCES, None, [[5, 6, 7]], "src")
    assert torch.equal(scores, torch.zeros(3, 1))


def test_the_order_of_candidates_is_kept() -> None:
    candidates, model = random_candidates(4), tiny_model(14)
    order = list(range(len(candidates)))
    random.Random(0).shuffle(order)
    shuffled = score_candidates(model, SOURCES, None, [candidates[i] for i in order])
    assert_close(shuffled, score_candidates(model, SOURCES, None, candidates)[:, order])


@pytest.mark.parametrize("prompt", PROMPTS)
def test_pictures_of_some_samples(prompt: Any) -> None:
    model = tiny_model(14)
    torch.manual_seed(0)
    images, mask = torch.randn(3, 3, 48, 32), torch.tensor([True, False, True])
    candidates = random_candidates(5)
    found = score_candidates(model, SOURCES, images, candidates, prompt, image_mask=mask)
    assert_close(found, naive_scores(model, SOURCES, images, candidates, prompt, mask))
    assert_close(
        found, score_candidates(model, SOURCES, model.image_features(images), candidates, prompt, image_mask=mask)
    )
    blind = score_candidates(model, SOURCES, None, candidates, prompt)
    assert_close(found[1], blind[1])
    assert (found - blind)[[0, 2]].abs().max() > 0.01


# What it costs


def needed_nodes(candidates: Sequence[Sequence[int]]) -> set[tuple[int, ...]]:
    """The prefixes behind which candidates part, and all prefixes of these, but for the empty one."""
    ended = [(*candidate, EOS) for candidate in candidates]
    following: dict[tuple[int, ...], set[int]] = {}
    for candidate in ended:
        for place, token in enumerate(candidate):
            following.setdefault(candidate[:place], set()).add(token)
    branching = [prefix for prefix, tokens in following.items() if len(tokens) > 1]
    return {prefix[:length] for prefix in branching for length in range(1, len(prefix) + 1)}


def watch_decoder(model: OFAModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Records the number of positions of every pass through the decoder."""
    positions: list[int] = []
    forward: Callable[..., Tensor] = model.decoder.forward

    def spy(target: Tensor, *rest: Any) -> Tensor:
        positions.append(target.shape[1])
        return forward(target, *rest)

    monkeypatch.setattr(model.decoder, "forward", spy)
    return positions


LONG_TAILS = [[5, number, *[9] * 6] for number in (6, 7, 8)]


@pytest.mark.parametrize(
    ("candidates", "nodes"),
    [
        ([[5, 6, 7, 8]], 0),  # no choice at all
        ([[5, 9, 9], [6, 9, 9], [7, 9, 9]], 0),  # they part at once
        (LONG_TAILS, 1),  # they part behind the first token
        ([[5, 6, 7], [5, 6, 8]], 2),
        (SETS["a_prefix_of_another"], 3),
        (random_candidates(1), None),
    ],
    ids=["single", "first_token", "long_tails", "third_token", "prefixes", "random"],
)
def test_only_the_prompt_and_the_way_to_the_branches_is_computed(
    candidates: list[list[int]], nodes: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(14)
    positions = watch_decoder(model, monkeypatch)
    monkeypatch.setattr(model, "logits", lambda states: pytest.fail("logits of the whole vocabulary were computed"))
    score_candidates(model, SOURCES[:1], None, candidates, "prev_output")
    expected = len(needed_nodes(candidates))
    assert nodes in (None, expected)
    prompt = 5
    assert sum(positions) == prompt + expected
    assert len(positions) <= 2


@pytest.mark.parametrize("limit", [1, 3, 8])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_tree_in_parts_gives_the_same_scores(limit: int, prompt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, candidates = tiny_model(14), random_candidates(2, 40)
    whole = score_candidates(model, SOURCES, None, candidates, prompt)
    positions = watch_decoder(model, monkeypatch)
    monkeypatch.setattr(candidates_module, "MAX_TREE_POSITIONS", limit)
    assert_close(score_candidates(model, SOURCES, None, candidates, prompt), whole)
    prompts = {"none": 1, "src": 3, "prev_output": 3}[prompt]  # groups of samples with equally long prompts
    assert len(positions) > 2 * prompts
    deepest = max(map(len, needed_nodes(candidates)))
    assert max(positions) <= max(limit, deepest, SOURCES.shape[1])


def test_many_edges_are_scored_in_slices() -> None:
    """More than 1,024 edges leave the root: as many one-token answers as a list of class names has."""
    model = tiny_model(1500)
    candidates = [[token] for token in range(4, 1400)]
    found = score_candidates(model, SOURCES, None, candidates)
    logits = model(SOURCES, torch.full((3, 1), BOS))[:, -1, 4:1400]
    assert_close(found, logits.log_softmax(-1))


def test_the_same_candidates_are_laid_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, candidates = tiny_model(14), random_candidates(5, 30)
    first = score_candidates(model, SOURCES, None, candidates)
    monkeypatch.setattr(candidates_module, "Trie", None)
    assert torch.equal(score_candidates(model, SOURCES, None, [tuple(ids) for ids in candidates]), first)
    monkeypatch.undo()
    highest = max(map(max, candidates))
    with pytest.raises(OFAError, match=f"id {highest}"):
        score_candidates(tiny_model(highest), SOURCES, None, candidates)
    turned = score_candidates(model, SOURCES, None, candidates[::-1])
    assert_close(turned, first.flip(1))


# Errors


@pytest.mark.parametrize(
    ("candidates", "prompt", "message"),
    [
        ([], "none", "there are no candidates"),
        ([[5], []], "none", "candidate 1 is empty"),
        ([[5], [6], [5]], "none", "candidate 2 repeats candidate 0"),
        ([[5], [6]], "source", "decoder_prompt is 'none', 'src' or 'prev_output', not 'source'"),
        ([[5], [14]], "none", "id 14"),
        ([[5], [14, 5], [14, 6]], "none", "id 14"),
        ([[14]], "none", "id 14"),
        ([[5], [-1]], "none", "id -1"),
        ([[5] * 30, [5] * 29 + [6]], "none", "too long: this model holds 20"),
    ],
    ids=["none", "empty", "twice", "prompt", "no_such_id", "no_such_branch", "no_such_single", "negative", "too_long"],
)
def test_candidates_that_cannot_be_scored_are_refused(candidates: list[list[int]], prompt: Any, message: str) -> None:
    with pytest.raises(OFAError, match=message):
        score_candidates(tiny_model(14, max_target_positions=20), SOURCES, None, candidates, prompt)
