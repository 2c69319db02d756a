"""The faster step computes the gradients of the plain one."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training.made import nano

from ofa_core import ImageFeatures, OFAModel
from ofa_core.text.vocabulary import PAD
from ofa_core.training.checkpointing import checkpoint_activations
from ofa_core.training.fast_step import BiasedAttention, BlockBiasEncoder, PointwiseConv2d, fast_step
from ofa_core.training.token_gradient import LookupEmbedding, ProjectingModel

#: The largest difference of a gradient's entry, to the largest entry of all gradients.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


def made(dtype: torch.dtype = torch.float64, **changes: Any) -> OFAModel:
    model = nano(**changes).to(dtype).train()
    torch.manual_seed(1)
    for table in (*model.encoder.text_relative.parameters(), *model.encoder.image_relative.parameters()):
        nn.init.normal_(table, std=0.3)  # which begin as zeros
    model.encoder.image_stem.to(memory_format=torch.channels_last)
    return model


def loss_of(model: OFAModel, pictures: bool = True, padded: bool = True, patches: int | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    tokens, prefix = (torch.randint(4, 200, (3, length), generator=generator) for length in (7, 5))
    if padded:
        tokens[1, 4:], prefix[2, 3:] = PAD, PAD
    pixels = torch.randn(3, 3, 64, 48, generator=generator).to(model.dtype) if pictures else None
    mask = torch.tensor([True, True, False]) if padded and pictures else None
    images: Tensor | ImageFeatures | None = pixels
    if patches is not None and pixels is not None:
        torch.manual_seed(5)
        images = model.image_features(pixels).sample_patches(patches)
    logits = model(tokens, prefix, images, mask)
    return (logits.log_softmax(-1)[..., 7] * prefix.ne(PAD)).sum()


def gradients(model: OFAModel, losses: int = 1, *, fast: bool, **inputs: Any) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    with fast_step(model) if fast else contextlib.nullcontext():
        sum((loss_of(model, **inputs) for _ in range(losses)), torch.zeros(())).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    largest = max(float(grad.abs().max()) for grad in expected.values())
    assert largest > 0
    assert {name for name, grad in found.items() if grad.any()} <= set(expected)
    for name, grad in expected.items():
        there = found.get(name)
        difference = grad if there is None else there - grad
        assert float(difference.abs().max()) <= tolerance * largest, name


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("inputs", [{}, {"padded": False}, {"pictures": False}, {"patches": 7}], ids=str)
def test_gradients_are_equal(dtype: torch.dtype, inputs: dict[str, Any]) -> None:
    model = made(dtype)
    expected = gradients(model, fast=False, **inputs)
    assert_equal(gradients(model, fast=True, **inputs), expected, TOLERANCE[dtype])


def test_gradients_are_equal_of_several_passes_and_with_activations_computed_again() -> None:
    model = made()
    expected = gradients(model, losses=2, fast=False)
    assert_equal(gradients(model, losses=2, fast=True), expected, 1e-12)
    checkpoint_activations(model)
    assert_equal(gradients(model, losses=2, fast=True), expected, 1e-12)


def test_gradients_add_up_over_backward_passes() -> None:
    model = made()
    once = gradients(model, fast=False)
    model.zero_grad(set_to_none=True)
    with fast_step(model):
        for _ in range(3):
            loss_of(model).backward()
    found = {name: p.grad / 3 for name, p in model.named_parameters() if p.grad is not None}
    assert_equal(found, once, 1e-12)


def test_a_loss_without_the_output_projection_has_a_dense_gradient() -> None:
    model = made()
    tokens = torch.tensor([[5, 6, 6]])

    def of_encoder() -> Tensor:
        model.zero_grad(set_to_none=True)
        model.encode(tokens).states.square().sum().backward()
        grad = model.token_embedding.weight.grad
        assert grad is not None
        return grad

    expected = of_encoder()
    with fast_step(model):
        torch.testing.assert_close(of_encoder(), expected)


def test_another_use_of_the_embedding_counts_too() -> None:
    model = made()

    def with_decay() -> Tensor:
        model.zero_grad(set_to_none=True)
        (loss_of(model) + 3 * model.token_embedding.weight.square().sum()).backward()
        grad = model.token_embedding.weight.grad
        assert grad is not None
        return grad

    expected = with_decay()
    with fast_step(model):
        torch.testing.assert_close(with_decay(), expected)


def test_bfloat16_differs_by_its_rounding() -> None:
    model = made(torch.float32)
    exact = gradients(model, fast=False)
    with torch.autocast("cpu", torch.bfloat16):
        plain, fast = (gradients(model, fast=way) for way in (False, True))
    name = "token_embedding.weight"

    def error(found: dict[str, Tensor]) -> float:
        return float((found[name] - exact[name]).norm() / exact[name].norm())

    assert error(fast) < max(1.5 * error(plain), 0.02)


def test_modules_are_what_they_were_behind_a_step_and_faster_ones_within() -> None:
    model = made()
    before = {name: type(module) for name, module in model.named_modules()}
    with contextlib.suppress(ZeroDivisionError), fast_step(model):
        kinds = {type(module) for module in model.modules()}
        assert {BiasedAttention, BlockBiasEncoder, PointwiseConv2d, LookupEmbedding, ProjectingModel} <= kinds
        raise ZeroDivisionError
    assert {name: type(module) for name, module in model.named_modules()} == before
    assert "token_gradient" not in vars(model.token_embedding)


def test_a_frozen_embedding_gets_no_gradient() -> None:
    model = made()
    model.token_embedding.requires_grad_(False)
    expected = gradients(model, fast=False)
    found = gradients(model, fast=True)
    assert "token_embedding.weight" not in found
    assert_equal(found, expected, 1e-12)


def test_hooks_see_the_modules_that_are_faster() -> None:
    model = made()
    seen: list[str] = []
    for name in ("token_embedding", "encoder.layers.0.self_attn", "encoder.image_stem.stages.0.0.conv1"):
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: seen.append(name))
    model.encoder.image_relative.tables[0].register_forward_hook(lambda *_: seen.append("table"))
    gradients(model, fast=True)
    assert {"token_embedding", "encoder.layers.0.self_attn", "encoder.image_stem.stages.0.0.conv1", "table"} == set(
        seen
    )
