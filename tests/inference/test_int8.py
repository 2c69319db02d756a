"""int8: products with rounded weights are close to the exact ones, and whatever cannot be computed says so."""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path

import pytest
import torch
from inference.models import answers, batch, faster, images, plain_model
from reference import lively_ofa, picture
from torch import Tensor, nn

import ofa_core
from ofa_core import OFA, OFAError
from ofa_core.cli.main import main
from ofa_core.demo.language import name_phrases
from ofa_core.demo.world import draw, make_scene
from ofa_core.inference import int8, onednn
from ofa_core.inference.fast_model import FastLinear, Int8OFAModel, answering, plain
from ofa_core.inference.int8 import Int8Linear, check_int8
from ofa_core.inference.weight_cache import WeightCache
from ofa_core.vision.boxes import box_iou

VNNI = int8._has_int8_products()
#: How far a small random model may be off, whose weights have half a bit less without VNNI.
OFF = 0.06 if VNNI else 0.07
#: All of 8 bits need a CPU that adds their products without overflow.
BITS = [
    pytest.param(True, marks=pytest.mark.skipif(not VNNI, reason="this CPU has no VNNI"), id="VNNI"),
    pytest.param(False, id="without"),
]


def rounded(exact: nn.Linear, x: Tensor, *, gelu: bool = False) -> Tensor:
    """What a layer gives once its weights are rounded, as within a call of its model."""
    layer, cache = copy.deepcopy(exact), WeightCache()
    layer.__class__ = Int8Linear
    layer.attach(cache)
    with torch.inference_mode(), cache.checked_call():
        return layer.gelu(x) if gelu else layer(x)


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("shape", [(3, 5, 16), (1, 16), (200, 16)], ids=str)
@pytest.mark.parametrize("shift", [0.0, 3.0, -3.0])
@pytest.mark.parametrize("vnni", BITS)
@torch.inference_mode()
def test_a_product_is_off_by_a_rounding(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], shift: float, vnni: bool
) -> None:
    monkeypatch.setattr(int8, "_has_int8_products", lambda: vnni)
    torch.manual_seed(0)
    layer = nn.Linear(16, 24)
    x = torch.randn(shape) + shift
    expected, found = layer(x), rounded(layer, x)
    step = (max(float(x.max()), 0) - min(float(x.min()), 0)) / 254
    weights, largest = layer.weight.abs(), 127 if vnni else 64
    bound = 16 * (step / 2 * weights.max() + x.abs().max() * weights.max() / (2 * largest) * 1.1)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) < bound
    assert float((found - expected).norm() / expected.norm()) < (0.02 if vnni else 0.03)


@pytest.mark.parametrize("gelu", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
@torch.inference_mode()
def test_few_rows_have_a_way_of_their_own_that_computes_the_same(
    monkeypatch: pytest.MonkeyPatch, gelu: bool, with_bias: bool
) -> None:
    """FBGEMM and oneDNN round activations a little differently, and add the same whole numbers."""
    if not int8._computes_few():
        pytest.skip("this torch has no FBGEMM here")
    torch.manual_seed(0)
    layer = linear(torch.randn(24, 16), torch.randn(24) if with_bias else None)
    for rows in (1, 5, int8.FEW_ROWS, int8.FEW_ROWS + 1):
        x = torch.randn(rows, 16)
        found = rounded(layer, x, gelu=gelu)
        with monkeypatch.context() as patch:
            patch.setattr(int8, "_computes_few", lambda: False)
            expected = rounded(layer, x, gelu=gelu)
        assert torch.equal(found, expected) == (rows > int8.FEW_ROWS)
        assert relative(found, expected) < 0.02


@torch.inference_mode()
def test_a_few_rows_of_any_numbers_are_finite() -> None:
    layer = linear(torch.randn(8, 4))
    for x in (torch.zeros(2, 4), torch.full((1, 4), 1e-30), torch.full((3, 4), -1e30), torch.tensor([[0.0, 0, 0, 7]])):
        found, exact = rounded(layer, x), layer(x)
        assert found.isfinite().all()
        assert float((found - exact).abs().max()) <= 0.03 * float(exact.abs().max()) + 1e-6


@torch.inference_mode()
def test_gelu_behind_a_product_is_the_exact_one() -> None:
    torch.manual_seed(0)
    layer, x = linear(torch.randn(24, 16), torch.randn(24)), torch.randn(5, 16)
    expected = torch.nn.functional.gelu(rounded(layer, x))
    torch.testing.assert_close(rounded(layer, x, gelu=True), expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_zeros_stay_zeros_and_rows_of_any_size_have_a_scale_of_their_own() -> None:
    layer = linear(torch.tensor([[1016.0, -504.0], [0.001, 0.002], [0.0, 0.0]]))
    assert torch.equal(rounded(layer, torch.zeros(1, 2)), torch.zeros(1, 3))
    found = rounded(layer, torch.tensor([[1.0, 2.0]]))
    torch.testing.assert_close(found, torch.tensor([[8.0, 0.005, 0.0]]), atol=8, rtol=0)
    assert float(found[0, 1]) == pytest.approx(0.005, rel=0.02)


@torch.inference_mode()
def test_sums_do_not_overflow_where_they_are_held_in_16_bits() -> None:
    """Products of the largest numbers, of one sign, with weights that are alike and such as differ from neighbours."""
    torch.manual_seed(0)
    share = torch.rand(8, 128)
    pairs = torch.stack([share, 1 - share], 2) * (torch.rand(8, 128, 1) - 0.5).sign()
    for rows, inputs in itertools.product((1, int8.FEW_ROWS + 1), (64, 255, 256)):
        x = torch.ones(rows, inputs)
        for weight, atol in (
            (torch.ones(8, inputs), 0),
            (-torch.ones(8, inputs), 0),
            (pairs.flatten(1)[:, :inputs], inputs / 2 / 127),  # signs differ, so that sums are small
        ):
            layer = linear(weight)
            torch.testing.assert_close(rounded(layer, x), layer(x), rtol=0.01, atol=atol)


def test_a_weight_is_as_fine_as_its_pairs_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.tensor([[1.0, -1.0, 0.2], [0.5, 0.5, 0.25]])
    for vnni, steps in ((True, [1.0, 0.5]), (False, [1.0, 1.0])):
        monkeypatch.setattr(int8, "_has_int8_products", lambda vnni=vnni: vnni)
        numbers, scales = int8._rounded([weight])
        torch.testing.assert_close(scales * 127, torch.tensor(steps))
        torch.testing.assert_close(numbers * scales[:, None], weight, atol=0.5 / 127, rtol=0)


@pytest.mark.parametrize("name", ["_product", "_product_of_few"])
def test_a_torch_whose_sums_overflow_is_not_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    int8._computes_few.cache_clear()
    monkeypatch.setattr(int8, name, lambda x, weight, *, gelu: torch.full((1, 2), 16.0))
    if name == "_product_of_few":
        assert not int8._computes_few()
    else:
        with pytest.raises(OFAError, match="its sums overflow; use float32"):
            check_int8(torch.device("cpu"))
    int8._computes_few.cache_clear()


@torch.inference_mode()
def test_no_number_goes_round_the_end() -> None:
    torch.manual_seed(0)
    limits = [(-1.0, 1.0), (-0.17, 4.0), (0.5, 2.0), (-3.0, -1.0), (-1e30, 1e30), (-1e-30, 2e-30), (0.0, 0.0)]
    for low, high in limits + [(-float(torch.rand(())), float(torch.rand(()))) for _ in range(300)]:
        x = torch.tensor([low, high, *torch.linspace(low, high, 61).tolist()])
        numbers, scale, zero = int8._round(x)
        assert 0 <= zero <= 255
        assert numbers.dtype == torch.uint8
        assert float((scale * (numbers.double() - zero) - x.double()).abs().max()) <= scale * 0.5001


@torch.inference_mode()
def test_a_large_weight_is_rounded_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = linear(torch.randn(24, 16), torch.randn(24)), torch.randn(5, 16)
    whole = rounded(layer, x)
    monkeypatch.setattr(int8, "ROWS_AT_ONCE", 5)
    assert torch.equal(rounded(layer, x), whole)


@pytest.fixture(params=[True, False], ids=["bfloat16", "float32"])
def short(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """True where attention and stem compute in bfloat16; whether or not this CPU is fast at it."""
    if request.param and not onednn.available(torch.bfloat16):
        pytest.skip("this CPU computes nothing in bfloat16")
    monkeypatch.setattr(onednn, "computes_bfloat16", lambda: request.param)
    return bool(request.param)


def test_states_and_logits_are_nearly_those_of_float32(short: bool) -> None:
    model = plain_model()
    found, expected = answers(faster(model, int8=True)), answers(model)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert 0 < relative(one, other) < OFF


def test_pictures_are_seen_nearly_as_in_float32(short: bool) -> None:
    model, pixels = plain_model(), images(2)
    with torch.inference_mode():
        found, expected = (one.image_features(pixels).patches for one in (faster(model, int8=True), faster(model)))
    assert found.dtype == torch.float32
    assert 0 < relative(found, expected) < 0.03 if short else torch.equal(found, expected)


def test_a_hook_in_the_stem_sees_what_it_would_in_float32(short: bool) -> None:
    seen: list[Tensor] = []
    fast, pixels = faster(plain_model(), int8=True), images(1)
    with torch.inference_mode():
        fast.image_features(pixels)
        fast.encoder.image_stem.stages[1][0].conv2.register_forward_hook(lambda *call: seen.append(call[2]))
        found = fast.image_features(pixels).patches
        expected = plain_model().image_features(pixels).patches
    assert [one.dtype for one in seen] == [torch.float32]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["self_attn", "cross_attn"])
def test_queries_keys_and_values_are_one_product(short: bool, name: str) -> None:
    model = plain_model()
    fast = faster(model, int8=True)
    exact, attention = (one.decoder.layers[0].get_submodule(name) for one in (model, fast))
    x = torch.randn(2, 7, 64)
    with torch.inference_mode(), answering(fast):
        keys, values = attention.keys_values(x)
        queries = attention.queries(x)
        assert relative(queries, exact.queries(x)) < 0.02
        for found, expected in zip((keys, values), exact.keys_values(x), strict=True):
            assert found.dtype == (torch.bfloat16 if short and name == "cross_attn" else torch.float32)
            assert name == "self_attn" or found.is_contiguous()
            assert relative(found.float(), expected) < 0.02
        other = torch.randn(2, 7, 64)
        attention.keys_values(x)
        assert relative(attention.queries(other), exact.queries(other)) < 0.02  # those of what is asked for


def test_hooks_and_replaced_projections_count() -> None:
    model = plain_model()
    fast = faster(model, int8=True)
    seen: list[str] = []
    for name in ("q_proj", "k_proj", "v_proj"):
        for attention in (fast.encoder.layers[0].self_attn, fast.decoder.layers[0].cross_attn):
            attention.get_submodule(name).register_forward_hook(lambda *_, name=name: seen.append(name))
    found, expected = answers(fast), answers(model)
    assert sorted(seen) == sorted(["q_proj", "k_proj", "v_proj"] * 2)
    assert relative(found[1], expected[1]) < OFF
    before = found[1]
    for changed in (model, fast):
        changed.decoder.layers[0].cross_attn.v_proj = nn.Linear(64, 64, bias=False)
        torch.manual_seed(0)
        nn.init.normal_(changed.decoder.layers[0].cross_attn.v_proj.weight)
    assert relative(answers(fast)[1], answers(model)[1]) < OFF
    assert relative(answers(fast)[1], before) > 0.2


def test_it_can_be_made_plain_again_and_then_holds_nothing() -> None:
    model = plain_model()
    fast = faster(model, int8=True)
    answers(fast)
    plain(fast)
    for before, after in zip(model.modules(), fast.modules(), strict=True):
        assert type(before) is type(after)
        assert vars(before).keys() == vars(after).keys()
    assert torch.equal(answers(fast)[1], answers(model)[1])


def test_it_follows_when_the_embedding_changes() -> None:
    model = plain_model()
    fast = faster(model, int8=True)
    assert isinstance(fast, Int8OFAModel)
    states = torch.randn(3, 64)
    with torch.inference_mode():
        before = fast.logits(states)
        assert 0 < relative(before, model.logits(states)) < 0.02
        fast.token_embedding.weight.data *= 2
        torch.testing.assert_close(fast.logits(states), 2 * before)


def test_explaining_looks_at_the_attention_of_int8() -> None:
    ofa = ofa_core.load("demo", dtype=torch.int8)
    exact = ofa_core.load("demo")
    scene = make_scene(0, "test")
    asked = draw(scene), name_phrases(scene, scene.things[0])[0]
    found, expected = (one.explain(*asked, answer="<bin_10>") for one in (ofa, exact))
    assert relative(found.patches, expected.patches) < 0.2


def test_it_follows_when_weights_change() -> None:
    model = plain_model()
    fast = faster(model, int8=True)
    before = answers(fast)[0]
    fast.encoder.layers[0].ffn.fc1.weight.data *= 2
    assert not torch.allclose(answers(fast)[0], before)
    fast.encoder.layers[0].ffn.fc1.weight.data /= 2
    torch.testing.assert_close(answers(fast)[0], before)


def test_with_gradients_it_is_the_plain_model() -> None:
    model = plain_model().requires_grad_(True)
    fast = faster(model, int8=True)
    answers(fast)
    tokens = batch((9, 5))
    assert torch.equal(fast.encode(tokens).states, model.encode(tokens).states)


def test_the_layers_are_rounded_and_nothing_else() -> None:
    made, other = lively_ofa(), lively_ofa()
    ofa = OFA(other.model, other.tokenizer, int8=True)
    kinds = {name: type(module) for name, module in ofa.pipeline.model.named_modules() if hasattr(module, "weight")}
    rounded = {name for name, kind in kinds.items() if kind is Int8Linear}
    assert rounded == {
        name.removesuffix(".weight")
        for name, _ in made.model.named_parameters()
        if ".layers." in name and name.endswith(("proj.weight", "fc1.weight", "fc2.weight"))
    }
    assert kinds["encoder.image_proj"] is kinds["encoder.position_bias.query"] is FastLinear
    assert ofa.dtype == "int8"
    assert made.dtype == "float32"


def test_answers_are_nearly_those_of_float32() -> None:
    exact, rounded = ofa_core.load("demo"), ofa_core.load("demo", dtype=torch.int8)
    named = [(scene, name_phrases(scene, scene.things[0])) for scene in (make_scene(n, "test") for n in range(20))]
    pictures, texts = zip(*((draw(scene), names[0]) for scene, names in named if names), strict=True)
    one, other = (ofa.ground(list(pictures), list(texts), bins_only=True) for ofa in (exact, rounded))
    boxes = [torch.tensor([found.box for found in results]) for results in (one, other)]
    assert box_iou(*boxes).mean() > 0.95
    assert [found.score for found in one] == pytest.approx([found.score for found in other], rel=0.05)
    assert [found.score for found in one] != [found.score for found in other]


def test_what_cannot_be_computed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    made = lively_ofa()
    with pytest.raises(OFAError, match="int8 is an optimisation: it needs optimize=True"):
        OFA(made.model, made.tokenizer, optimize=False, int8=True)
    with pytest.raises(OFAError, match=r"dtype must be float32, float16, bfloat16 or int8, not torch\.int16"):
        ofa_core.load("demo", dtype=torch.int16)
    with pytest.raises(OFAError, match="int8 is for CPUs, not for cuda"):
        check_int8(torch.device("cuda"))
    monkeypatch.setattr(int8, "_ops", torch.ops.no_such_operators)
    with pytest.raises(OFAError, match="this torch computes no int8 here: "):
        ofa_core.load("demo", dtype=torch.int8)


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(1).save(tmp_path / "it.png")
    scores = []
    for dtype in ("float32", "int8"):
        assert main(["ground", "--model", "demo", "--dtype", dtype, "--json", str(tmp_path / "it.png"), "a star"]) == 0
        scores.append(json.loads(capsys.readouterr().out)["score"])
    assert scores[0] != scores[1]
