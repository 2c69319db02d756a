"""The faster model computes what the plain one does, and keeps what it should.

Against the original's outputs it stands in model/test_ofa.py and in generation/, beside the plain model. That it is one
model with the plain one is in test_one_model.py.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from inference.models import assert_close, assert_equal_models, batch, faster, images, plain_model
from reference import TOLERANCE, lively_ofa, picture
from torch import Tensor

from ofa_core import OFA, DecoderCache, GenerationOptions, OFAModel, generate, score_candidates
from ofa_core.inference import bias_cache, fast_layers, onednn
from ofa_core.inference.bias_cache import LENGTH_STEP, BiasCache, FastEncoder
from ofa_core.inference.position_table import TABLE_LENGTH
from ofa_core.inference.resnet_folded import FastResNetStem
from ofa_core.model.layers import FeedForward


@pytest.fixture
def plain() -> OFAModel:
    return plain_model()


# Equal results


def test_it_computes_what_the_plain_model_does(plain: OFAModel) -> None:
    assert_equal_models(plain, faster(plain))


@pytest.mark.parametrize("mask", [None, [True, False, True], [False, False, False]], ids=str)
@torch.inference_mode()
def test_samples_without_a_picture(plain: OFAModel, mask: list[bool] | None) -> None:
    tokens, pixels = batch((9, 5, 7)), images(3)
    image_mask = None if mask is None else torch.tensor(mask)
    expected = plain.encode(tokens, pixels, image_mask)
    found = faster(plain).encode(tokens, pixels, image_mask)
    assert_close(found.states, expected.states)


@torch.inference_mode()
def test_texts_and_pictures_of_any_size_one_after_the_other(plain: OFAModel) -> None:
    fast = faster(plain)
    sizes = [(64, 96), (64, 64), (64, 96), None, (96, 64), None, (64, 96)]
    lengths = [(5,), (LENGTH_STEP, 4), (LENGTH_STEP + 1, 7), (3, 3), (90,), (40, 2), (6,)]
    for size, of in zip(sizes, lengths, strict=True):
        tokens = batch(of, seed=len(of))
        pixels = None if size is None else images(len(of), *size)
        assert_close(fast.encode(tokens, pixels).states, plain.encode(tokens, pixels).states)


@torch.inference_mode()
def test_a_batch_is_its_samples_one_by_one(plain: OFAModel) -> None:
    fast = faster(plain)
    tokens, pixels = batch((9, 5, 7)), images(3)
    together = fast.encode(tokens, pixels).states
    for row, length in enumerate((9, 5, 7)):
        one = fast.encode(tokens[row : row + 1, :length], pixels[row : row + 1]).states
        assert_close(together[row : row + 1, : one.shape[1]], one)


@torch.inference_mode()
def test_feed_forwards_of_large_batches_run_piece_by_piece(plain: OFAModel, monkeypatch: pytest.MonkeyPatch) -> None:
    config = plain.config
    monkeypatch.setattr(fast_layers, "INNER_BYTES", 5 * 4 * config.ffn_dim)  # five positions
    rows: list[int] = []
    whole = fast_layers.FastFeedForward._whole

    def watched(self: FeedForward, x: Tensor) -> Tensor:
        rows.append(x.numel() // x.shape[-1] * config.ffn_dim)
        return whole(self, x)

    monkeypatch.setattr(fast_layers.FastFeedForward, "_whole", watched)
    assert_equal_models(plain, faster(plain))
    assert len(rows) > 1
    assert max(rows) <= 5 * config.ffn_dim


@torch.inference_mode()
def test_targets_longer_than_the_table_of_positions(plain: OFAModel) -> None:
    fast, tokens = faster(plain), batch((6,))
    prefix = batch((TABLE_LENGTH + 5,), seed=1)
    expected = plain.decode(plain.encode(tokens), prefix)
    memory, cache = fast.encode(tokens), DecoderCache()
    steps = [fast.decode(memory, prefix[:, : step + 1], cache) for step in range(prefix.shape[1])]
    assert_close(torch.cat(steps, dim=1), expected)


@torch.inference_mode()
def test_searches_and_scores(plain: OFAModel) -> None:
    fast, tokens, pixels = faster(plain), batch((9, 5, 7)), images(3)
    options = GenerationOptions(num_beams=3, max_new_tokens=6)
    for one, other in zip(
        generate(plain, tokens, pixels, options), generate(fast, tokens, pixels, options), strict=True
    ):
        assert [h.tokens for h in one] == [h.tokens for h in other]
        assert [h.score for h in one] == pytest.approx([h.score for h in other], abs=1e-4)
    candidates = [[5], [5, 6], [5, 6, 7], [8, 9], [10]]
    for prompt in ("none", "src"):
        scores = [score_candidates(model, tokens, pixels, candidates, prompt) for model in (plain, fast)]
        assert_close(scores[1], scores[0])


@pytest.mark.parametrize("part", ["stem", "encoder", "everything"])
@torch.inference_mode()
def test_bfloat16(plain: OFAModel, part: str) -> None:
    half = copy.deepcopy(plain).to(torch.bfloat16)
    if part == "stem":
        found = faster(half).image_features(images(2)).patches
        expected = half.image_features(images(2)).patches
    else:
        pixels = images(2) if part == "everything" else None
        found = faster(half).encode(batch((9, 5)), pixels).states
        expected = half.encode(batch((9, 5)), pixels).states
    torch.testing.assert_close(found.float(), expected.float(), atol=TOLERANCE[torch.bfloat16], rtol=0.05)


@torch.inference_mode()
def test_where_there_is_no_onednn(plain: OFAModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "available", lambda dtype: False)
    monkeypatch.setattr(onednn, "linear", None)
    monkeypatch.setattr(onednn, "convolution", None)
    assert_equal_models(plain, faster(plain))


def test_onednn_is_not_asked_for_what_it_cannot_do() -> None:
    assert not onednn.available(torch.float16)
    assert not onednn.available(torch.float64)


def test_a_onednn_that_computes_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "linear", lambda x, weight, bias, gelu=False: torch.full((2, 4), 4.0))
    assert not onednn.available.__wrapped__(torch.float32)
    monkeypatch.setattr(onednn, "linear", lambda *_: (_ for _ in ()).throw(RuntimeError("no such operator")))
    assert not onednn.available.__wrapped__(torch.float32)


# Gradients


def test_with_gradients_it_is_the_plain_model(plain: OFAModel) -> None:
    plain.requires_grad_(True)
    fast = faster(plain)
    assert_equal_models(plain, fast)  # which fills what is kept
    tokens, prefix = batch((9, 5, 7)), batch((6, 6, 6), seed=1)
    found, expected = (model(tokens, prefix, images(3)) for model in (fast, plain))
    assert torch.equal(found, expected)
    for logits in (found, expected):
        logits.square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in fast.named_parameters() if parameter.grad is not None}
    assert {"encoder.image_stem.conv1.weight", "encoder.layers.0.ffn.fc1.weight", "token_embedding.weight"} <= set(
        gradients
    )
    for name, parameter in plain.named_parameters():
        assert (parameter.grad is None) == (name not in gradients)
        assert parameter.grad is None or torch.equal(parameter.grad, gradients[name]), name


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
    faster(plain).encode(batch((9, 5, 7)), images(3))
    assert {shape[0] for shape in seen} == {1}
    assert {shape[3] for shape in seen} == {24 + 9, 24 + 5, 24 + 7}, "each sees what it has"
    seen.clear()
    plain.encode(batch((9, 5, 7)), images(3))
    assert {shape[0] for shape in seen} == {3}


@torch.inference_mode()
def test_biases_are_computed_once_for_a_shape(plain: OFAModel, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, computed = faster(plain), []
    compute = FastEncoder._computed

    def watched(self: FastEncoder, length: int, grid: Any) -> Any:
        computed.append((length, grid))
        return compute(self, length, grid)

    monkeypatch.setattr(FastEncoder, "_computed", watched)
    for length in (5, 7, 30, 6):
        fast.encode(batch((length,)), images(1))
    assert computed == [(LENGTH_STEP, (4, 6))]
    fast.encode(batch((LENGTH_STEP + 1,)), images(1))
    fast.encode(batch((3,)), images(1))
    fast.encode(batch((3,)))
    assert computed[1:] == [(2 * LENGTH_STEP, (4, 6)), (LENGTH_STEP, None)]


@pytest.mark.parametrize("layers", [0, 1, 2])
@torch.inference_mode()
def test_layers_for_which_there_is_no_room_are_computed_anew(
    plain: OFAModel, layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = faster(plain)
    size = 4 * 4 * (24 + LENGTH_STEP) ** 2  # bytes of a layer's biases: four heads of float32
    made: list[BiasCache] = []
    monkeypatch.setattr(bias_cache, "BiasCache", lambda count: made.append(BiasCache(count, layers * size)) or made[0])
    for pixels in (images(3), images(3, 96, 64), images(3)):
        assert_close(fast.encode(batch((9, 5, 7)), pixels).states, plain.encode(batch((9, 5, 7)), pixels).states)
        (entries,) = (cache.entries for cache in made)
        assert sum(entry.nbytes for entry in entries.values()) <= layers * size
        assert len(list(entries.values())[-1].kept) == layers


# In the library


def test_a_loaded_model_answers_faster_unless_told_otherwise() -> None:
    made = lively_ofa()
    plain = OFA(copy.deepcopy(made.model), made.tokenizer, optimize=False)
    assert made.pipeline.model is made.model
    assert plain.pipeline.model is plain.model
    assert isinstance(made.model.encoder.image_stem, FastResNetStem)
    assert not isinstance(plain.model.encoder.image_stem, FastResNetStem)
    one, other = (ofa.ground([picture(1), picture(2)], ["it", "a much longer text"]) for ofa in (plain, made))
    assert [found.bins for found in one] == [found.bins for found in other]
    assert [found.score for found in one] == pytest.approx([found.score for found in other], abs=1e-5)
