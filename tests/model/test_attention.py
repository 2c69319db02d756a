from __future__ import annotations

import pytest
import torch
from reference import TOLERANCE, small_config
from torch import Tensor

from ofa_core.model.attention import Attention

B, T, S, H, D = 2, 3, 5, 4, 32
HALF = [torch.float16, torch.bfloat16]


def random_attention(**changes: bool) -> Attention:
    """Every parameter random, those that start at zero or one too."""
    torch.manual_seed(0)
    attention = Attention(small_config(**changes))
    for name, parameter in attention.named_parameters():
        torch.nn.init.normal_(parameter, mean=float(name == "head_scale"), std=0.3)
    return attention.eval().requires_grad_(False)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(B, T, D), torch.randn(B, S, D), torch.randn(B, H, T, S)


def naive(attention: Attention, x: Tensor, source: Tensor, bias: Tensor) -> Tensor:
    """The formula of OFA.md in float64, one query of one head at a time."""
    weights = {name: value.double() for name, value in attention.state_dict().items()}
    x, source, bias = x.double(), source.double(), bias.double().expand(B, H, T, S)
    q, k, v = (
        inner @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        for name, inner in (("q_proj", x), ("k_proj", source), ("v_proj", source))
    )
    q = q * (D / H * 2) ** -0.5
    heads = torch.zeros(B, T, D, dtype=torch.float64)
    for b in range(B):
        for h in range(H):
            of_head = slice(h * D // H, (h + 1) * D // H)
            for t in range(T):
                scores = torch.stack([q[b, t, of_head] @ k[b, s, of_head] + bias[b, h, t, s] for s in range(S)])
                shares = (scores - scores.max()).exp()
                heads[b, t, of_head] = (shares / shares.sum()) @ v[b, :, of_head]
                heads[b, t, of_head] *= weights["head_scale"][h] if "head_scale" in weights else 1
    return heads @ weights["out_proj.weight"].T + weights["out_proj.bias"]


def attend(attention: Attention, x: Tensor, source: Tensor, bias: Tensor) -> Tensor:
    return attention(x, *attention.keys_values(source), bias)


@pytest.mark.parametrize("scale_heads", [True, False])
@pytest.mark.parametrize("shape", [(B, H, T, S), (1, H, T, S), (B, 1, 1, S), (1, 1, 1, 1)])
def test_equals_the_formula_with_a_bias_of_any_shape(scale_heads: bool, shape: tuple[int, ...]) -> None:
    attention = random_attention(scale_heads=scale_heads)
    x, source, bias = inputs()
    bias = bias[tuple(slice(size) for size in shape)]
    assert (attention.head_scale is not None) == scale_heads
    found = attend(attention, x, source, bias)
    torch.testing.assert_close(found, naive(attention, x, source, bias).float(), atol=TOLERANCE[torch.float32], rtol=0)


def test_keys_and_values_are_split_by_head() -> None:
    attention = random_attention()
    _, source, _ = inputs()
    for found, projection in zip(attention.keys_values(source), (attention.k_proj, attention.v_proj), strict=True):
        assert found.shape == (B, H, S, D // H)
        torch.testing.assert_close(found[1, 2, 3], projection(source)[1, 3, 16:24])


def test_a_key_with_bias_of_minus_infinity_does_not_matter() -> None:
    attention = random_attention()
    x, source, bias = inputs()
    bias[0, :, :, 3:] = -torch.inf
    bias[1, :, 1, 0] = -torch.inf
    found = attend(attention, x, source, bias)
    torch.testing.assert_close(found, naive(attention, x, source, bias).float(), atol=TOLERANCE[torch.float32], rtol=0)
    without = attend(attention, x[:1], source[:1, :3], bias[:1, :, :, :3])
    torch.testing.assert_close(found[:1], without, atol=TOLERANCE[torch.float32], rtol=0)
    changed = source.clone()
    changed[0, 3:] = 3e4
    assert torch.equal(attend(attention, x, changed, bias)[0], found[0])
    assert not torch.equal(attend(attention, x, changed, torch.zeros_like(bias))[0], found[0])


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_is_near_float32(dtype: torch.dtype) -> None:
    attention = random_attention()
    x, source, bias = inputs()
    bias[0, :, :, 3:] = -torch.inf
    expected = attend(attention, x, source, bias)
    found = attend(attention.to(dtype), x.to(dtype), source.to(dtype), bias.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, atol=TOLERANCE[dtype], rtol=0)


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_stays_finite_with_large_scores(dtype: torch.dtype) -> None:
    attention = random_attention().to(dtype)
    x, source, bias = (part.to(dtype) for part in inputs())
    bias[:, :, :, 1:3] = -torch.inf
    bias[:, :, :, 3] = 3e4
    found = attend(attention, x * 30, source * 30, bias)
    assert found.isfinite().all()
    only = attend(attention, x * 30, source[:, 3:4] * 30, bias[..., 3:4])  # the key that takes everything
    torch.testing.assert_close(found, only)


def test_dropout_applies_in_training_only() -> None:
    torch.manual_seed(0)
    attention = Attention(small_config(attention_dropout=0.5))
    x, source, bias = inputs()
    assert torch.equal(attend(attention.eval(), x, source, bias), attend(attention, x, source, bias))
    assert not torch.equal(attend(attention.train(), x, source, bias), attend(attention, x, source, bias))
