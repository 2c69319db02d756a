"""Explanations, against the attention that the plain model computes by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image
from reference import lively_ofa, picture
from torch import Tensor, nn

from ofa_core import OFA, Explanation, OFAError
from ofa_core.heads.grounding import SPEC, caption_sources


@pytest.fixture(scope="module")
def ofa() -> OFA:
    return lively_ofa()


def recorded_by_hand(ofa: OFA, image: Image.Image, text: str, answer: str) -> Tensor:
    """Attention [T, rows, columns] from the inputs of the attention layers, which hooks see."""
    pipeline = ofa.pipeline.for_task(SPEC)
    found: list[Tensor] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x, keys, _, bias = inputs[:4]
        layer: Any = module
        queries = layer.q_proj(x).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
        found.append((torch.einsum("bhte,bhse->bhts", queries, keys) * layer.scale + bias).exp())

    handles = [layer.cross_attn.register_forward_hook(look) for layer in ofa.model.decoder.layers]
    try:
        tokens = ofa.tokenizer.encode(f" {answer}")
        ((_, batch),) = pipeline.batches(pipeline.open([image]), caption_sources(pipeline, [text]), 1)
        ofa.model(batch.tokens, torch.tensor([[0, *tokens[:-1]]]), batch.images)
    finally:
        for handle in handles:
            handle.remove()
    assert batch.images is not None
    rows, columns = batch.images.grid
    layers = [(weights / weights.sum(-1, keepdim=True))[0].mean(0)[:, : rows * columns] for weights in found]
    return (sum(layers, torch.zeros_like(layers[0])) / len(layers)).unflatten(1, (rows, columns))


@pytest.mark.parametrize("optimize", [True, False], ids=["fast", "plain"])
def test_it_is_the_attention_of_the_answer_to_the_patches(ofa: OFA, optimize: bool) -> None:
    same = OFA(ofa.model, ofa.tokenizer, optimize=optimize)
    found = same.explain(picture(1), "the cat", "a red dog")
    expected = recorded_by_hand(same, picture(1), "the cat", "a red dog")
    assert found.patches.shape == expected.shape
    torch.testing.assert_close(found.patches, expected, rtol=1e-4, atol=1e-6)
    OFA(ofa.model, ofa.tokenizer)


def test_the_model_is_as_it_was(ofa: OFA) -> None:
    before = ofa.ground(picture(1), "the cat", bins_only=True)
    ofa.explain(picture(1), "the cat", "a dog")
    ofa.explain(picture(1), "the cat", "a dog", gradients=True)
    assert all("attend" not in vars(layer.cross_attn) for layer in ofa.model.decoder.layers)
    assert ofa.ground(picture(1), "the cat", bins_only=True) == before
    assert all(weights.grad is None for weights in ofa.model.parameters())


def test_gradients_are_those_of_the_answers_log_probability(ofa: OFA) -> None:
    """By a small change of one weight of one layer's attention."""
    found = ofa.explain(picture(2), "the cat", "dog", gradients=True)
    assert bool((found.patches >= 0).all())
    pipeline, (token,) = ofa.pipeline.for_task(SPEC), ofa.tokenizer.encode(" dog")
    ((_, batch),) = pipeline.batches(pipeline.open([picture(2)]), caption_sources(pipeline, ["the cat"]), 1)
    layers = [layer.cross_attn for layer in ofa.model.decoder.layers]
    heads, place = layers[0].heads, int(found.patches[0].flatten().argmax())
    total = 0.0
    for changed in layers:
        for head in range(heads):
            values = [log_probability(ofa, batch, token, changed, head, place, step) for step in (-1e-3, 1e-3)]
            slope, weight = (values[1][0] - values[0][0]) / 2e-3, values[0][1]
            total += max(slope * weight, 0.0)
    assert float(found.patches[0].flatten()[place]) == pytest.approx(total / (len(layers) * heads), rel=0.02)


def log_probability(
    ofa: OFA, batch: Any, token: int, changed: nn.Module, head: int, place: int, step: float
) -> tuple[float, float]:
    """The log-probability of a first token where one weight of the attention is larger by ``step``, and that weight."""
    seen: list[float] = []
    module: Any = changed

    def attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        weights = (queries @ keys.transpose(-1, -2) * module.scale + bias).softmax(-1)
        seen.append(float(weights[0, head, 0, place]))
        weights[0, head, 0, place] += step
        return weights @ values

    original: Callable[..., Tensor] = module.attend
    module.attend = attend
    try:
        with torch.no_grad():
            logits = ofa.model(batch.tokens, torch.tensor([[0]]), batch.images)
        return float(logits.double().log_softmax(-1)[0, 0, token]), seen[0]
    finally:
        del module.attend
        assert module.attend == original


def made(patches: Tensor, size: tuple[int, int] = (80, 40), decisive: int = 1) -> Explanation:
    return Explanation(Image.new("RGB", size, "white"), ("a",) * len(patches), patches, decisive)


def test_the_map_lies_in_the_pictures_pixels() -> None:
    patches = torch.zeros(2, 4, 4)
    patches[0, 1, 2] = 1
    patches[1, 3, 0] = 1
    found = made(patches)
    assert found.map().shape == (40, 80)
    assert float(found.map().max()) == 1
    assert found.peak() == pytest.approx((50, 15), abs=0.6)  # the middle of the third column and the second row
    x, y = found.peak(1)
    assert x < 20
    assert y > 30
    assert not torch.equal(made(patches, decisive=2).map(), found.map())
    with pytest.raises(OFAError, match=r"^the answer has 2 tokens, none at 2$"):
        found.map(2)


def test_the_drawing_is_red_where_it_looked() -> None:
    patches = torch.zeros(1, 4, 8)
    patches[0, 1, 6] = 1
    drawn = made(patches).draw()
    assert drawn.size == (80, 40)
    red, green, _ = drawn.getpixel((65, 15))  # type: ignore[misc]
    assert red > 200 > green
    assert drawn.getpixel((2, 38)) == (255, 255, 255)


def test_a_box_is_explained_by_its_four_bins(ofa: OFA) -> None:
    box = "<bin_100> <bin_250> <bin_500> <bin_998>"
    assert [ofa.explain(picture(1), "the cats", answer).decisive for answer in (box, f"{box} {box}", "a red dog")] == [
        4,
        4,
        3,
    ]


@pytest.mark.parametrize("answer", ["", "  ", 3])
def test_an_answer_that_is_none_is_refused(ofa: OFA, answer: Any) -> None:
    with pytest.raises(OFAError, match=r"^the answer to explain is .* it should be a text that is not empty, or None$"):
        ofa.explain(picture(1), "the cat", answer)
