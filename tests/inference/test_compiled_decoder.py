"""Decoding in static shapes: the same searches, token by token, and nothing that a compiler would have to leave."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from inference.models import faster
from reference import (
    SCORE_TOLERANCE,
    lively_ofa,
    picture,
    tiny_model,
)
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from ofa_core import OFA, DecoderCache, GenerationOptions, OFAError, OFAModel, generate, optimized
from ofa_core.inference.compiled_decoder import CAPACITY_STEP, CompiledDecoder, static_step
from ofa_core.inference.fast_layers import MIN_MULTIPLICATIONS
from ofa_core.inference.fast_model import answering
from ofa_core.inference.position_table import TABLE_LENGTH


def static(model: OFAModel) -> OFAModel:
    """A copy that decodes in static shapes, without a compiler."""
    other = faster(model)
    other.compiled_step = static_step
    return other


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
    fast, memory, cache = faster(model), model.encode(TOKENS), DecoderCache()
    targets = prefixes(6, 11)
    with answering(fast):
        decoder = CompiledDecoder(fast, memory, 6, 11)
        for position in range(11):
            prefix = targets[:, : position + 1]
            expected = model.decode(memory, prefix, cache)[:, -1]
            torch.testing.assert_close(decoder.logits(prefix), expected, atol=1e-5, rtol=0)
            rows = torch.tensor([1, 0, 1, 5, 3, 3])  # within samples of three
            decoder.reorder(rows)
            cache.reorder(rows)
            targets = targets[rows]


@torch.inference_mode()
def test_no_more_positions_than_there_are(model: OFAModel) -> None:
    fast, memory = faster(model), model.encode(TOKENS)
    with answering(fast):
        assert CompiledDecoder(fast, memory, 2, 1).self_bias.shape[-1] == CAPACITY_STEP
        assert CompiledDecoder(fast, memory, 2, TABLE_LENGTH).self_bias.shape[-1] == TABLE_LENGTH
        with pytest.raises(OFAError, match=f"static decoding is for targets of up to {TABLE_LENGTH} tokens, not 65"):
            CompiledDecoder(fast, memory, 2, TABLE_LENGTH + 1)
        with pytest.raises(OFAError, match="needs the table of positions of a model that is made faster"):
            CompiledDecoder(model, memory, 2, 5)


def test_longer_targets_take_the_usual_way(model: OFAModel, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    init = CompiledDecoder.__init__
    monkeypatch.setattr(CompiledDecoder, "__init__", lambda self, *a: made.append(a) or init(self, *a))
    for longest, expected in ((TABLE_LENGTH, 0), (TABLE_LENGTH - 1, 1)):
        made.clear()
        generate(static(model), TOKENS, None, GenerationOptions(num_beams=2, max_new_tokens=longest))
        assert len(made) == expected


def test_samples_stay_until_all_are_done(model: OFAModel) -> None:
    """Otherwise the shapes would change."""
    seen = set()
    watched = static(model)
    watched.compiled_step = lambda decoder: (seen.add(tuple(decoder.tokens.shape)), static_step(decoder))[1]
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
    compiled.compiled_step = torch.compile(static_step, backend=counter, fullgraph=True)
    options = GenerationOptions(num_beams=3, min_new_tokens=7, max_new_tokens=7)
    expected = generate(model, TOKENS, None, options)
    for _ in range(2):
        found = generate(compiled, TOKENS, None, options)
    assert counter.frame_count == 1, "compiled once for all steps of both searches"
    assert [[h.tokens for h in one] for one in found] == [[h.tokens for h in one] for one in expected]


@pytest.mark.parametrize("touch", ["hook", "replacement"])
def test_a_decoder_that_is_hooked_into_is_not_compiled(model: OFAModel, touch: str) -> None:
    """A compiler does not look for hooks that come later."""
    compiled, steps = static(model), []
    compiled.compiled_step = lambda decoder: (steps.append(1), static_step(decoder))[1]
    options = GenerationOptions(num_beams=2, max_new_tokens=4)
    generate(compiled, TOKENS, None, options)
    assert steps
    steps.clear()
    for changed in (model, compiled):
        fc1 = changed.decoder.layers[0].ffn.fc1
        if touch == "hook":
            fc1.register_forward_hook(lambda _, __, out: 2 * out)
        else:
            changed.decoder.layers[0].ffn.activation = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Tanh())
    found, expected = (generate(asked, TOKENS, None, options) for asked in (compiled, model))
    assert [[h.tokens for h in one] for one in found] == [[h.tokens for h in one] for one in expected]
    assert not steps


def test_it_compiles_on_a_cpu_where_products_are_large_enough_for_onednn() -> None:
    """With the compiler itself, its own code and all."""
    torch._dynamo.reset()
    sizes = {"embed_dim": 256, "num_heads": 4, "ffn_dim": 2048, "decoder_layers": 1}
    plain = tiny_model(4200, token_bucket_size=16, image_bucket_size=8, **sizes)
    assert 2 * plain.decoder.layers[0].ffn.fc1.weight.numel() >= MIN_MULTIPLICATIONS
    compiled = faster(plain, compile_steps=True)
    options = GenerationOptions(num_beams=2, min_new_tokens=3, max_new_tokens=3)
    tokens = torch.tensor([[0, 5, 7, 2]])
    for _ in range(2):
        (found,), (expected,) = (generate(model, tokens, None, options) for model in (compiled, plain))
        assert [h.tokens for h in found] == [h.tokens for h in expected]
        assert [h.score for h in found] == pytest.approx([h.score for h in expected], abs=SCORE_TOLERANCE)
        for changed in (compiled, plain):  # what is written to the weights counts in the compiled step too
            changed.decoder.layers[0].ffn.fc1.weight.data *= 1.5
            changed.token_embedding.weight.data[7] += 0.1


def test_it_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch, "compile", lambda step, **how: asked.append((step, how)) or step)
    made, other = lively_ofa(), lively_ofa()
    compiled = OFA(other.model, other.tokenizer, compile_steps=True)
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
