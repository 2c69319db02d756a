"""The faster model is the same model: equal results, the same weights, and the plain path where gradients are wanted.

Against the original's outputs it stands in test_model.py and in generation/, beside the plain model.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference import TOLERANCE, lively_ofa, picture, tiny_model
from torch import Tensor, nn

from ofa_core import OFA, DecoderCache, GenerationOptions, OFAModel, generate, score_candidates
from ofa_core.inference import fast_model as optimize
from ofa_core.inference import onednn
from ofa_core.inference.bias_cache import LENGTH_STEP, BiasCache
from ofa_core.inference.fast_model import FastLinear, optimized
from ofa_core.inference.resnet_folded import FoldedStem
from ofa_core.inference.weight_cache import Following
from ofa_core.model.decoder import TABLE_LENGTH
from ofa_core.model.encoder import Encoder

BOS, PAD, EOS = 0, 1, 2


def batch(vocabulary: int, lengths: tuple[int, ...], seed: int = 0) -> Tensor:
    """Sources of these lengths, padded."""
    torch.manual_seed(seed)
    tokens = torch.full((len(lengths), max(lengths)), PAD)
    for row, length in enumerate(lengths):
        tokens[row, :length] = torch.randint(4, vocabulary, (length,))
        tokens[row, 0], tokens[row, length - 1] = BOS, EOS
    return tokens


@pytest.fixture
def plain() -> OFAModel:
    """Wide enough that products are worth oneDNN, with statistics that BatchNorm does not begin with."""
    model = tiny_model(40, embed_dim=64, ffn_dim=512, encoder_layers=2, num_heads=4)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    for tables in (model.encoder.image_relative, model.encoder.text_relative, model.decoder.text_relative):
        for table in tables.parameters():
            nn.init.normal_(table)
    return model


def images(count: int, height: int = 64, width: int = 96) -> Tensor:
    torch.manual_seed(5)
    return torch.randn(count, 3, height, width)


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=TOLERANCE[torch.float32], rtol=0)


@torch.inference_mode()
def assert_equal_models(first: OFAModel, second: OFAModel) -> None:
    tokens, pixels = batch(40, (9, 5, 7)), images(3)
    prefix = batch(40, (6, 6, 6), seed=1)
    memories = [model.encode(tokens, pixels) for model in (first, second)]
    assert_same(memories[1].states, memories[0].states)
    assert_same(second.decode(memories[1], prefix), first.decode(memories[0], prefix))


# Equal results


def test_it_computes_what_the_plain_model_does(plain: OFAModel) -> None:
    assert_equal_models(plain, optimized(plain))


@pytest.mark.parametrize("mask", [None, [True, False, True], [False, False, False]], ids=str)
@torch.inference_mode()
def test_samples_without_a_picture(plain: OFAModel, mask: list[bool] | None) -> None:
    tokens, pixels = batch(40, (9, 5, 7)), images(3)
    image_mask = None if mask is None else torch.tensor(mask)
    expected = plain.encode(tokens, pixels, image_mask)
    found = optimized(plain).encode(tokens, pixels, image_mask)
    assert_same(found.states, expected.states)


@torch.inference_mode()
def test_texts_and_pictures_of_any_size_one_after_the_other(plain: OFAModel) -> None:
    fast = optimized(plain)
    sizes = [(64, 96), (64, 64), (64, 96), None, (96, 64), None, (64, 96)]
    lengths = [(5,), (LENGTH_STEP, 4), (LENGTH_STEP + 1, 7), (3, 3), (90,), (40, 2), (6,)]
    for size, of in zip(sizes, lengths, strict=True):
        tokens = batch(40, of, seed=len(of))
        pixels = None if size is None else images(len(of), *size)
        assert_same(fast.encode(tokens, pixels).states, plain.encode(tokens, pixels).states)


@torch.inference_mode()
def test_a_batch_is_its_samples_one_by_one(plain: OFAModel) -> None:
    fast = optimized(plain)
    tokens, pixels = batch(40, (9, 5, 7)), images(3)
    together = fast.encode(tokens, pixels).states
    for row, length in enumerate((9, 5, 7)):
        one = fast.encode(tokens[row : row + 1, :length], pixels[row : row + 1]).states
        assert_same(together[row : row + 1, : one.shape[1]], one)


@torch.inference_mode()
def test_feed_forwards_of_large_batches_run_piece_by_piece(plain: OFAModel, monkeypatch: pytest.MonkeyPatch) -> None:
    config = plain.config
    monkeypatch.setattr(optimize, "INNER_BYTES", 5 * 4 * config.ffn_dim)  # five positions
    fast = optimized(plain)
    rows: list[int] = []
    fast.encoder.layers[0].ffn.fc2.register_forward_hook(lambda _, inputs, __: rows.append(inputs[0].numel()))
    assert_equal_models(plain, fast)
    assert len(rows) > 1
    assert max(rows) <= 5 * config.ffn_dim


@torch.inference_mode()
def test_targets_longer_than_the_table_of_positions(plain: OFAModel) -> None:
    fast, tokens = optimized(plain), batch(40, (6,))
    prefix = batch(40, (TABLE_LENGTH + 5,), seed=1)
    expected = plain.decode(plain.encode(tokens), prefix)
    memory, cache = fast.encode(tokens), DecoderCache()
    steps = [fast.decode(memory, prefix[:, : step + 1], cache) for step in range(prefix.shape[1])]
    assert_same(torch.cat(steps, dim=1), expected)


@torch.inference_mode()
def test_searches_and_scores(plain: OFAModel) -> None:
    fast, tokens, pixels = optimized(plain), batch(40, (9, 5, 7)), images(3)
    options = GenerationOptions(num_beams=3, max_new_tokens=6)
    for one, other in zip(
        generate(plain, tokens, pixels, options), generate(fast, tokens, pixels, options), strict=True
    ):
        assert [h.tokens for h in one] == [h.tokens for h in other]
        assert [h.score for h in one] == pytest.approx([h.score for h in other], abs=1e-4)
    candidates = [[5], [5, 6], [5, 6, 7], [8, 9], [10]]
    for prompt in ("none", "src"):
        scores = [score_candidates(model, tokens, pixels, candidates, prompt) for model in (plain, fast)]
        assert_same(scores[1], scores[0])


@pytest.mark.parametrize("part", ["stem", "encoder", "everything"])
@torch.inference_mode()
def test_bfloat16(plain: OFAModel, part: str) -> None:
    half = copy.deepcopy(plain).to(torch.bfloat16)
    if part == "stem":
        found = optimized(half).image_features(images(2)).patches
        expected = half.image_features(images(2)).patches
    else:
        pixels = images(2) if part == "everything" else None
        found = optimized(half).encode(batch(40, (9, 5)), pixels).states
        expected = half.encode(batch(40, (9, 5)), pixels).states
    torch.testing.assert_close(found.float(), expected.float(), atol=TOLERANCE[torch.bfloat16], rtol=0.05)


@torch.inference_mode()
def test_where_there_is_no_onednn(plain: OFAModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "available", lambda dtype: False)
    monkeypatch.setattr(onednn, "linear", None)
    monkeypatch.setattr(onednn, "convolution", None)
    assert_equal_models(plain, optimized(plain))


def test_onednn_is_not_asked_for_what_it_cannot_do() -> None:
    assert not onednn.available(torch.float16)
    assert not onednn.available(torch.float64)


def test_a_onednn_that_computes_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "linear", lambda x, weight, bias, gelu=False: torch.full((2, 4), 4.0))
    assert not onednn.available.__wrapped__(torch.float32)
    monkeypatch.setattr(onednn, "linear", lambda *_: (_ for _ in ()).throw(RuntimeError("no such operator")))
    assert not onednn.available.__wrapped__(torch.float32)


# The same weights


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_a_model_that_has_answered_can_be_copied(plain: OFAModel, copied: Callable[[OFAModel], OFAModel]) -> None:
    fast = optimized(plain)
    assert_equal_models(plain, fast)
    twin = copied(fast)
    assert_equal_models(plain, twin)
    _add(lambda m: m.encoder.layers[0].ffn.fc1.weight)(twin)
    assert_equal_models(plain, fast)


def test_the_weights_are_shared_and_named_as_before(plain: OFAModel) -> None:
    names, count = list(plain.state_dict()), sum(p.numel() for p in plain.parameters())
    fast = optimized(plain)
    assert list(plain.state_dict()) == names
    assert {id(parameter) for parameter in fast.parameters()} == {id(parameter) for parameter in plain.parameters()}
    assert sum(parameter.numel() for parameter in fast.parameters()) == count
    assert any(isinstance(module, FastLinear) for module in fast.modules())
    assert isinstance(fast.encoder.image_stem, FoldedStem)


def _add(get: Callable[[OFAModel], Any]) -> Callable[[OFAModel], None]:
    def change(model: OFAModel) -> None:
        with torch.no_grad():
            get(model).add_(0.25)

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_add(get), id=name)
        for name, get in {
            "a linear layer": lambda m: m.encoder.layers[0].ffn.fc1.weight,
            "its bias": lambda m: m.encoder.layers[0].ffn.fc1.bias,
            "a convolution": lambda m: m.encoder.image_stem.conv1.weight,
            "a statistic": lambda m: m.encoder.image_stem.stages[1][0].bn2.running_mean,
            "a relative table": lambda m: m.encoder.image_relative.tables[1].weight,
            "positions of text": lambda m: m.encoder.text_positions.weight[3:7],
            "positions of the target": lambda m: m.decoder.text_positions.weight[2:4],
            "a table of the target": lambda m: m.decoder.text_relative.tables[0].weight[200:256],
            "the vocabulary": lambda m: m.token_embedding.weight[:20],
        }.items()
    ],
)
def test_it_follows_when_weights_change(plain: OFAModel, change: Callable[[OFAModel], None]) -> None:
    fast = optimized(plain)
    with torch.inference_mode():
        before = fast(batch(40, (9, 5, 7)), batch(40, (6, 6, 6), seed=1), images(3))
    change(plain)
    with torch.inference_mode():
        after = fast(batch(40, (9, 5, 7)), batch(40, (6, 6, 6), seed=1), images(3))
    assert not torch.allclose(before, after)
    assert_equal_models(plain, fast)


def test_it_follows_to_another_type_and_to_loaded_weights(plain: OFAModel) -> None:
    fast, other = optimized(plain), tiny_model(40, seed=3, embed_dim=64, ffn_dim=512, encoder_layers=2, num_heads=4)
    assert_equal_models(plain, fast)
    plain.load_state_dict(other.state_dict())
    assert_equal_models(other, fast)
    plain.to(torch.float64)
    with torch.inference_mode():
        tokens, pixels = batch(40, (9, 5)), images(2).double()
        assert torch.allclose(fast.encode(tokens, pixels).states, plain.encode(tokens, pixels).states)


def test_what_is_made_of_weights_is_made_again_only_when_they_change() -> None:
    tensor, made = torch.zeros(2), []
    following: Following[int] = Following()
    for change in (False, False, True, False):
        if change:
            tensor.add_(1)
        made.append(following.get((tensor,), lambda: len(made)))
    assert made == [0, 0, 2, 2]


# Gradients


def test_with_gradients_it_is_the_plain_model(plain: OFAModel) -> None:
    plain.requires_grad_(True)
    fast = optimized(plain)
    assert_equal_models(plain, fast)  # which fills what is kept
    tokens, prefix = batch(40, (9, 5, 7)), batch(40, (6, 6, 6), seed=1)
    found, expected = (model(tokens, prefix, images(3)) for model in (fast, plain))
    assert torch.equal(found, expected)
    found.square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in plain.named_parameters() if parameter.grad is not None}
    assert {"encoder.image_stem.conv1.weight", "encoder.layers.0.ffn.fc1.weight", "token_embedding.weight"} <= set(
        gradients
    )
    assert all(gradient.isfinite().all() for gradient in gradients.values())


# What is kept, and what is never made


def masks_seen(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    seen = []
    attend = F.scaled_dot_product_attention

    def watched(query: Tensor, *rest: Any, attn_mask: Tensor, **more: Any) -> Tensor:
        seen.append(attn_mask.shape)
        return attend(query, *rest, attn_mask=attn_mask, **more)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    return seen


@torch.inference_mode()
def test_padding_makes_no_mask_for_every_sample(plain: OFAModel, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = masks_seen(monkeypatch)
    optimized(plain).encode(batch(40, (9, 5, 7)), images(3))
    assert {shape[0] for shape in seen} == {1}
    assert {shape[3] for shape in seen} == {24 + 9, 24 + 5, 24 + 7}, "each sees what it has"
    seen.clear()
    plain.encode(batch(40, (9, 5, 7)), images(3))
    assert {shape[0] for shape in seen} == {3}


@torch.inference_mode()
def test_biases_are_computed_once_for_a_shape(plain: OFAModel, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, computed = optimized(plain), []
    compute = Encoder._computed_bias

    def watched(self: Encoder, length: int, grid: Any) -> Any:
        computed.append((length, grid))
        return compute(self, length, grid)

    monkeypatch.setattr(Encoder, "_computed_bias", watched)
    for length in (5, 7, 30, 6):
        fast.encode(batch(40, (length,)), images(1))
    assert computed == [(LENGTH_STEP, (4, 6))]
    fast.encode(batch(40, (LENGTH_STEP + 1,)), images(1))
    fast.encode(batch(40, (3,)), images(1))
    fast.encode(batch(40, (3,)))
    assert computed[1:] == [(2 * LENGTH_STEP, (4, 6)), (LENGTH_STEP, None)]


@pytest.mark.parametrize("layers", [0, 1, 2])
@torch.inference_mode()
def test_layers_for_which_there_is_no_room_are_computed_anew(plain: OFAModel, layers: int) -> None:
    fast = optimized(plain)
    size = 4 * 4 * (24 + LENGTH_STEP) ** 2  # bytes of a layer's biases: four heads of float32
    fast.encoder.bias_cache = BiasCache(2, layers * size)
    for pixels in (images(3), images(3, 96, 64), images(3)):
        assert_same(fast.encode(batch(40, (9, 5, 7)), pixels).states, plain.encode(batch(40, (9, 5, 7)), pixels).states)
        entries = fast.encoder.bias_cache._entries._made
        assert entries is not None
        assert sum(entry.nbytes for entry in entries.values()) <= layers * size
        assert len(list(entries.values())[-1].kept) == layers


# In the library


def test_a_loaded_model_answers_faster_unless_told_otherwise() -> None:
    made = lively_ofa()
    plain, fast = OFA(made.model, made.tokenizer, optimize=False), OFA(made.model, made.tokenizer)
    assert plain.pipeline.model is plain.model
    assert isinstance(fast.pipeline.model.encoder.image_stem, FoldedStem)
    assert not isinstance(fast.model.encoder.image_stem, FoldedStem)
    one, other = (ofa.ground([picture(1), picture(2)], ["it", "a much longer text"]) for ofa in (plain, fast))
    assert [found.bins for found in one] == [found.bins for found in other]
    assert [found.score for found in one] == pytest.approx([found.score for found in other], abs=1e-5)
