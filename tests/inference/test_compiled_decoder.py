"""Decoding in static shapes: the same searches, token by token, and nothing that a compiler would have to leave."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference import SCORE_TOLERANCE, generation_model, golden, lively_ofa, picture, reference_images, tiny_model
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from ofa_core import OFA, DecoderCache, GenerationOptions, OFAError, OFAModel, generate
from ofa_core.inference.compiled_decoder import CAPACITY_STEP, StaticDecoder, static_step
from ofa_core.inference.fast_model import optimized
from ofa_core.model.decoder import TABLE_LENGTH

CASES = [case for case in golden("generate.json") if not case["settings"].get("gen_code") and not case["trie_words"]]


def static(model: OFAModel) -> OFAModel:
    """The same weights, decoding in static shapes."""
    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    other = copy.deepcopy(model, memo)
    other.static_step = static_step
    return other


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_searches_equal_the_usual_ones(case: dict[str, Any]) -> None:
    models = [generation_model(model["salt"], model["nano"]) for model in case["models"]]
    options = GenerationOptions(
        num_beams=case["settings"].get("beam", 5),
        max_new_tokens=12,
        no_repeat_ngram_size=case["settings"].get("no_repeat_ngram_size", 0),
    )
    tokens, images = torch.tensor(case["src_tokens"]), reference_images(case["image"])
    prefix = None if case["prefix_tokens"] is None else torch.tensor(case["prefix_tokens"])
    expected = generate(models, tokens, images, options, prefix=prefix)
    found = generate([static(model) for model in models], tokens, images, options, prefix=prefix)
    for one, other in zip(found, expected, strict=True):
        assert [h.tokens for h in one] == [h.tokens for h in other]
        assert [h.score for h in one] == pytest.approx([h.score for h in other], abs=SCORE_TOLERANCE)


@pytest.fixture
def model() -> OFAModel:
    return tiny_model(30, embed_dim=32, num_heads=4)


TOKENS = torch.tensor([[0, 5, 7, 4, 9, 2], [0, 6, 2, 1, 1, 1]])


def prefixes(rows: int, length: int) -> Tensor:
    torch.manual_seed(length)
    tokens = torch.randint(4, 30, (rows, length))
    tokens[:, 0] = 0
    return tokens


@torch.inference_mode()
def test_steps_equal_those_of_a_growing_cache_while_beams_change_places(model: OFAModel) -> None:
    memory = model.encode(TOKENS)
    decoder, cache = StaticDecoder(model, memory, 6, 11), DecoderCache()
    targets = prefixes(6, 11)
    for position in range(11):
        expected = model.decode(memory, targets[:, : position + 1], cache)[:, -1]
        torch.testing.assert_close(decoder.step(targets[:, position], position), expected, atol=1e-5, rtol=0)
        rows = torch.tensor([1, 0, 1, 5, 3, 3])  # within samples of three
        decoder.reorder(rows)
        cache.reorder(rows)
        targets = targets[rows]


@torch.inference_mode()
def test_no_more_positions_than_there_are(model: OFAModel) -> None:
    memory = model.encode(TOKENS)
    assert StaticDecoder(model, memory, 2, 1).table.shape[-1] == CAPACITY_STEP
    assert StaticDecoder(model, memory, 2, TABLE_LENGTH).table.shape[-1] == TABLE_LENGTH
    with pytest.raises(OFAError, match=f"static decoding is for targets of up to {TABLE_LENGTH} tokens, not 65"):
        StaticDecoder(model, memory, 2, TABLE_LENGTH + 1)


def test_longer_targets_take_the_usual_way(model: OFAModel, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    init = StaticDecoder.__init__
    monkeypatch.setattr(StaticDecoder, "__init__", lambda self, *a: made.append(a) or init(self, *a))
    for longest, expected in ((TABLE_LENGTH, 0), (TABLE_LENGTH - 1, 1)):
        made.clear()
        generate(static(model), TOKENS, None, GenerationOptions(num_beams=2, max_new_tokens=longest))
        assert len(made) == expected


def test_samples_stay_until_all_are_done(model: OFAModel) -> None:
    """Otherwise the shapes would change."""
    seen = set()
    watched = static(model)
    watched.static_step = lambda decoder: (seen.add(tuple(decoder.tokens.shape)), static_step(decoder))[1]
    options = GenerationOptions(num_beams=3, max_new_tokens=20)
    prefix = torch.tensor([[5, 2], [6, 1]])  # the first is over at once
    found = generate(watched, TOKENS, None, options, prefix=prefix)
    assert seen == {(6,)}
    assert [[h.tokens for h in one] for one in found] == [
        [h.tokens for h in one] for one in generate(model, TOKENS, None, options, prefix=prefix)
    ]


def test_all_steps_are_one_graph(model: OFAModel) -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = static(model)
    compiled.static_step = torch.compile(static_step, backend=counter, fullgraph=True)
    options = GenerationOptions(num_beams=3, min_new_tokens=7, max_new_tokens=7)
    expected = generate(model, TOKENS, None, options)
    for _ in range(2):
        found = generate(compiled, TOKENS, None, options)
    assert counter.frame_count == 1, "compiled once for all steps of both searches"
    assert [[h.tokens for h in one] for one in found] == [[h.tokens for h in one] for one in expected]


def test_it_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch, "compile", lambda step, **how: asked.append((step, how)) or step)
    made = lively_ofa()
    compiled = OFA(made.model, made.tokenizer, compile_steps=True)
    for _ in range(2):
        assert compiled.ground(picture(1), "it").bins == made.ground(picture(1), "it").bins
    assert asked == [(static_step, {"fullgraph": True, "mode": None})]
    with pytest.raises(OFAError, match="compile_steps is an optimisation: it needs optimize=True"):
        OFA(made.model, made.tokenizer, optimize=False, compile_steps=True)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_model_that_has_compiled_its_step_can_be_copied(
    model: OFAModel, copied: Callable[[OFAModel], OFAModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(torch, "compile", lambda step, **_: asked.append(step) or (lambda static: step(static)))
    options = GenerationOptions(num_beams=2, max_new_tokens=4)
    fast = optimized(model, compile_steps=True)
    first = generate(fast, TOKENS, None, options)
    again = generate(copied(fast), TOKENS, None, options)
    assert [[h.tokens for h in one] for one in again] == [[h.tokens for h in one] for one in first]
    assert asked == [static_step] * 2, "each compiles its own"
