from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from reference import TOLERANCE, small_config
from torch import Tensor, nn

from ofa_core import OFAModel
from ofa_core.config import PromptConfig
from ofa_core.model.kv_cache import LayerCache
from ofa_core.model.layers import Adapter, DecoderLayer, EncoderLayer, PrefixPrompt, prepend_prompt
from ofa_core.vision.drop_path import DropPath

#: Layers with every optional part, and with none.
PARTS: dict[str, dict[str, Any]] = {
    "released": {},
    "everything": {"scale_resids": True, "adapter_dim": 5},
    "nothing": {"scale_attn": False, "scale_fc": False, "scale_heads": False},
}


def randomized(module: nn.Module) -> Any:
    """Every parameter random, those that start at zero or one too."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.eval().requires_grad_(False)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=TOLERANCE[torch.float32], rtol=0)


def test_drop_path_drops_whole_samples_and_scales_up_the_others() -> None:
    torch.manual_seed(0)
    rate, samples = 0.3, 4000
    x = torch.randn(samples, 2, 3)
    out = DropPath(rate).train()(x)
    kept = out.flatten(1).ne(0).all(1)
    assert torch.equal(out[~kept], torch.zeros_like(out[~kept]))  # the whole sample or nothing of it
    torch.testing.assert_close(out[kept], x[kept] / (1 - rate))
    deviation = math.sqrt(rate * (1 - rate) / samples)
    assert abs(kept.float().mean().item() - (1 - rate)) < 4 * deviation
    assert not torch.equal(DropPath(rate).train()(x), out)  # another draw every time


@pytest.mark.parametrize(("rate", "training"), [(0.9, False), (0.0, True), (0.0, False)])
def test_drop_path_is_the_identity_in_evaluation_and_at_rate_zero(rate: float, training: bool) -> None:
    x = torch.randn(50, 3)
    assert torch.equal(DropPath(rate).train(training)(x), x)


def test_drop_path_rates_grow_with_depth() -> None:
    changes = {"encoder_layers": 3, "decoder_layers": 3, "stem_depths": (1, 2, 2)}
    model = OFAModel(small_config(**changes, encoder_drop_path=0.2, decoder_drop_path=0.4, stem_drop_path=0.4))
    rates = {
        "encoder": [layer.drop_path.rate for layer in model.encoder.layers],
        "decoder": [layer.drop_path.rate for layer in model.decoder.layers],
        "stem": [block.drop_path.rate for stage in model.encoder.image_stem.stages for block in stage],
    }
    expected = {"encoder": [0, 0.1, 0.2], "decoder": [0, 0.2, 0.4], "stem": [0, 0.1, 0.2, 0.3, 0.4]}
    for name, of_layers in expected.items():
        assert rates[name] == pytest.approx(of_layers), name


def test_adapter_adds_a_bottleneck_to_its_input() -> None:
    adapter = randomized(Adapter(6, 2))
    x = torch.randn(4, 3, 6)
    inner = x @ adapter.down.weight.T + adapter.down.bias
    inner = torch.where(inner > 0, inner, 0)
    close(adapter(x), x + inner @ adapter.up.weight.T + adapter.up.bias)


@pytest.mark.parametrize("hidden", [None, 7])
def test_layer_l_takes_slices_2l_and_2l_plus_1_of_a_prompt(hidden: int | None) -> None:
    layers, length, width, heads = 3, 5, 32, 4
    prompt = randomized(PrefixPrompt(small_config(), layers, PromptConfig(length=length, projection_dim=hidden)))
    vectors = prompt.embedding.weight
    if hidden:
        first, _, last = prompt.projection
        vectors = torch.relu(vectors @ first.weight.T + first.bias) @ last.weight.T + last.bias
    assert vectors.shape == (length, layers * 2 * width)
    found = prompt()
    assert len(found) == layers
    for layer, pair in enumerate(found):
        for part, tensor in enumerate(pair):  # keys, then values
            assert tensor.shape == (1, heads, length, width // heads)
            for head in range(heads):
                start = (2 * layer + part) * width + head * width // heads
                close(tensor[0, head], vectors[:, start : start + width // heads])


def test_a_prompt_stands_in_front_without_bias_for_every_sample() -> None:
    keys, values, bias = torch.randn(3, 4, 6, 8), torch.randn(3, 4, 6, 8), torch.randn(1, 4, 2, 6)
    bias[..., 0] = -torch.inf
    prompt = torch.randn(1, 4, 5, 8), torch.randn(1, 4, 5, 8)
    new_keys, new_values, new_bias = prepend_prompt(prompt, keys, values, bias)
    for new, old, front in ((new_keys, keys, prompt[0]), (new_values, values, prompt[1])):
        assert torch.equal(new[:, :, 5:], old)
        for sample in new:
            assert torch.equal(sample[:, :5], front[0])
    assert torch.equal(new_bias[..., 5:], bias)
    assert torch.equal(new_bias[..., :5], torch.zeros(1, 4, 2, 5))


def fed_forward(layer: Any, x: Tensor) -> Tensor:
    """OFA.md: x = w_resid*x + fc2(ffn_layernorm(gelu(fc1(final_layer_norm(x))))), with the adapter behind fc2."""
    ffn = layer.ffn
    inner = layer.ffn_norm(x) @ ffn.fc1.weight.T + ffn.fc1.bias
    inner = 0.5 * inner * (1 + torch.erf(inner / math.sqrt(2)))
    if isinstance(ffn.norm, nn.LayerNorm):
        inner = (inner - inner.mean(-1, keepdim=True)) / (inner.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        inner = inner * ffn.norm.weight + ffn.norm.bias
    out = inner @ ffn.fc2.weight.T + ffn.fc2.bias
    if isinstance(ffn.adapter, Adapter):
        out = out + torch.relu(out @ ffn.adapter.down.weight.T + ffn.adapter.down.bias) @ ffn.adapter.up.weight.T
        out = out + ffn.adapter.up.bias
    return (x if layer.residual_scale is None else x * layer.residual_scale) + out


@pytest.mark.parametrize("parts", PARTS)
def test_the_optional_parts_are_there_as_configured(parts: str) -> None:
    config = small_config(**PARTS[parts])
    for layer in (EncoderLayer(config, 0.0), DecoderLayer(config, 0.0)):
        assert isinstance(layer.self_attn_out_norm, nn.LayerNorm) == config.scale_attn
        assert isinstance(layer.ffn.norm, nn.LayerNorm) == config.scale_fc
        assert isinstance(layer.ffn.adapter, Adapter) == bool(config.adapter_dim)
        assert (layer.residual_scale is not None) == config.scale_resids
        assert (layer.self_attn.head_scale is not None) == config.scale_heads


@pytest.mark.parametrize("parts", PARTS)
def test_an_encoder_layer_follows_the_formula(parts: str) -> None:
    layer = randomized(EncoderLayer(small_config(**PARTS[parts]), 0.0))
    x, bias = torch.randn(2, 5, 32), torch.randn(1, 4, 5, 5)
    h = layer.self_attn_norm(x)
    expected = x + layer.self_attn_out_norm(layer.self_attn(h, *layer.self_attn.keys_values(h), bias))
    close(layer(x, bias), fed_forward(layer, expected))


@pytest.mark.parametrize("parts", PARTS)
def test_a_decoder_layer_follows_the_formula(parts: str) -> None:
    layer = randomized(DecoderLayer(small_config(**PARTS[parts]), 0.0))
    x, states = torch.randn(2, 3, 32), torch.randn(2, 6, 32)
    self_bias, cross_bias = torch.randn(2, 4, 3, 3), torch.randn(1, 4, 3, 6)
    h = layer.self_attn_norm(x)
    expected = x + layer.self_attn_out_norm(layer.self_attn(h, *layer.self_attn.keys_values(h), self_bias))
    h = layer.cross_attn_norm(expected)
    memory = layer.cross_attn.keys_values(states)
    expected = expected + layer.cross_attn_out_norm(layer.cross_attn(h, *memory, cross_bias))
    close(layer(x, states, LayerCache(), self_bias, cross_bias), fed_forward(layer, expected))
