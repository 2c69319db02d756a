"""There is one model: whatever is done to ``ofa.model`` counts at the next answer, as it does in the plain model."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from inference.models import (
    VOCABULARY,
    answers,
    assert_close,
    assert_equal_models,
    batch,
    faster,
    images,
    plain_model,
)
from reference import assert_same, picture, tiny_model
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import ofa_core
from ofa_core import OFAModel, optimized
from ofa_core.checkpoint.model_dir import read_safetensors, unshare_tensors
from ofa_core.inference import fast_layers, onednn
from ofa_core.inference.fast_layers import FastLinear
from ofa_core.inference.fast_model import FAST, FastOFAModel, plain, refresh
from ofa_core.inference.weight_cache import DerivedTensors
from ofa_core.model.layers import EncoderLayer
from ofa_core.utils.mapped_memory import is_unwritten
from ofa_core.vision.resnet import Bottleneck


@pytest.fixture
def model() -> OFAModel:
    """A plain model, and what others are compared with."""
    return plain_model()


# The same object


def test_it_is_the_same_model_with_the_same_weights_and_names(model: OFAModel) -> None:
    names, parameters = list(model.state_dict()), dict(model.named_parameters())
    fast = optimized(model)
    assert fast is model
    assert isinstance(fast, FastOFAModel)
    assert list(fast.state_dict()) == names
    assert all(parameter is parameters[name] for name, parameter in fast.named_parameters())
    assert type(fast.encoder.layers[0].ffn.fc1) is FastLinear
    assert isinstance(fast.encoder.layers[0].ffn.fc1, nn.Linear)


def test_it_can_be_made_plain_again_and_then_holds_nothing(model: OFAModel) -> None:
    fast = faster(model)
    answers(fast)
    assert plain(fast) is fast
    kinds = {type(module) for module in fast.modules()}
    assert kinds == {type(module) for module in model.modules()}
    for before, after in zip(model.modules(), fast.modules(), strict=True):
        assert vars(before).keys() == vars(after).keys()
    assert_equal_models(fast, model)


def test_a_model_of_a_users_own_class_stays_what_it_is(model: OFAModel) -> None:
    class Louder(OFAModel):
        def logits(self, states: Tensor) -> Tensor:
            return 2 * super().logits(states)

    own = Louder(model.config)
    own.load_state_dict(model.state_dict())
    assert_close(answers(optimized(own.eval().requires_grad_(False)))[1], 2 * answers(model)[1])


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_a_model_that_has_answered_can_be_copied(model: OFAModel, copied: Callable[[OFAModel], OFAModel]) -> None:
    fast = faster(model)
    assert_equal_models(model, fast)
    twin = copied(fast)
    assert_equal_models(model, twin)
    twin.encoder.layers[0].ffn.fc1.weight.data.add_(0.25)
    assert_equal_models(model, fast)
    model.encoder.layers[0].ffn.fc1.weight.data.add_(0.25)
    assert_equal_models(model, twin)


# Weights that change


def in_place(weight: nn.Parameter) -> None:
    with torch.no_grad():
        weight.add_(0.25)


def through_data(weight: nn.Parameter) -> None:
    weight.data += 0.25


def other_data(weight: nn.Parameter) -> None:
    weight.data = weight.data + 0.25


def copied(weight: nn.Parameter) -> None:
    weight.data.copy_(weight.data + 0.25)


def swapped(weight: nn.Parameter) -> None:
    """As a moving average takes a weight's place for a while."""
    other = nn.Parameter(weight.data + 0.25)
    weight.data, other.data = other.data, weight.data


def all_at_once(weight: nn.Parameter) -> None:
    torch._foreach_add_([weight.data], 0.25)


PARTS: dict[str, Callable[[OFAModel], Any]] = {
    "a linear layer": lambda m: m.encoder.layers[0].ffn.fc1.weight,
    "its bias": lambda m: m.encoder.layers[0].ffn.fc1.bias,
    "the first convolution": lambda m: m.encoder.image_stem.conv1.weight,
    "a convolution": lambda m: m.encoder.image_stem.stages[2][0].conv2.weight,
    "a shortcut": lambda m: m.encoder.image_stem.stages[1][0].downsample[0].weight,
    "a statistic": lambda m: m.encoder.image_stem.stages[1][0].bn2.running_mean,
    "a relative table": lambda m: m.encoder.image_relative.tables[1].weight,
    "positions of text": lambda m: m.encoder.text_positions.weight,
    "a position bias": lambda m: m.encoder.position_bias.query.weight,
    "a head's scale": lambda m: m.encoder.layers[0].self_attn.head_scale,
    "positions of the target": lambda m: m.decoder.text_positions.weight,
    "a table of the target": lambda m: m.decoder.text_relative.tables[0].weight,
    "the vocabulary": lambda m: m.token_embedding.weight,
}


WRITES = [in_place, through_data, other_data, copied, swapped, all_at_once]


@pytest.mark.parametrize(
    ("part", "write"),
    [
        *((part, write) for part in PARTS for write in (in_place, through_data)),
        *((part, write) for part in ("a linear layer", "a convolution", "a relative table") for write in WRITES[2:]),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_weights_that_are_written_to_count(part: str, write: Callable[[nn.Parameter], None]) -> None:
    model = plain_model()
    fast = faster(model)
    before = answers(fast)
    for changed in (model, fast):
        write(PARTS[part](changed))
    after = answers(fast)
    assert not all(torch.allclose(one, other) for one, other in zip(before, after, strict=True))
    assert_equal_models(fast, model)


def test_rows_that_torch_counts_a_write_to_count(model: OFAModel) -> None:
    """Not a single sampled value changes."""
    fast = faster(model)
    answers(fast)
    for changed in (model, fast):
        with torch.no_grad():
            changed.decoder.text_positions.weight[2:4].add_(0.25)
            changed.encoder.layers[0].ffn.fc1.weight[3, 5] += 1.0
    assert_equal_models(fast, model)


def test_a_single_value_that_was_written_to_unseen_counts_after_refresh(model: OFAModel) -> None:
    fast = faster(model)
    before = answers(fast)[0]
    for changed in (model, fast):
        changed.encoder.layers[0].ffn.fc1.weight.data[3, 5] += 100.0
    assert_close(answers(fast)[0], before)
    refresh(fast)
    assert_equal_models(fast, model)
    assert not torch.allclose(answers(fast)[0], before)


def test_a_single_value_of_a_mapped_file_counts_at_once(tmp_path: Path) -> None:
    plain_one = tiny_model(VOCABULARY, embed_dim=256, ffn_dim=512, num_heads=4)
    directory = tmp_path / "weights.safetensors"
    save_file(unshare_tensors(plain_one.state_dict()), directory)
    fast = optimized(plain_one)
    fast.load_state_dict(read_safetensors(directory), assign=True)
    if not is_unwritten(fast.encoder.layers[0].ffn.fc1.weight):
        pytest.skip("this system does not tell what was written to mapped memory")
    before = answers(fast)[0]
    packed = fast.encoder.layers[0].ffn.fc1._product._packed
    assert all(snapshot.is_mapped for snapshot in packed.snapshots)
    fast.encoder.layers[0].ffn.fc1.weight.data[3, 5] += 100.0
    after = answers(fast)[0]
    assert not torch.allclose(before, after)
    twin = plain(copy.deepcopy(fast))
    assert_close(after, answers(twin)[0])
    fast.encoder.layers[0].ffn.fc1.weight.data += 1.0  # which is no longer the file's
    twin.encoder.layers[0].ffn.fc1.weight.data += 1.0
    assert_equal_models(fast, twin)


def test_loaded_weights_count(model: OFAModel) -> None:
    fast = faster(model)
    answers(fast)
    torch.manual_seed(9)
    state = {
        name: tensor + 0.1 * torch.randn_like(tensor) if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
    }
    state = {name: tensor.abs() if name.endswith("running_var") else tensor for name, tensor in state.items()}
    for assign in (False, True):
        for loaded in (model, fast):
            loaded.load_state_dict(state, assign=assign)
        assert_equal_models(fast, model)
        state = {name: tensor * 1.1 if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def test_another_type_and_back_counts(model: OFAModel) -> None:
    fast = faster(model)
    answers(fast)
    for kind in (torch.float64, torch.float32, torch.bfloat16, torch.float32):
        for moved in (model, fast):
            moved.to(kind)
        with torch.inference_mode():
            tokens, pixels = batch((9, 5)), images(2)
            found, expected = (m.encode(tokens, pixels).states.float() for m in (fast, model))
        torch.testing.assert_close(found, expected, atol=0.15 if kind == torch.bfloat16 else 2e-4, rtol=0.05)


def test_a_tied_replacement_of_a_parameter_counts(model: OFAModel) -> None:
    fast = faster(model)
    answers(fast)
    for changed in (model, fast):
        changed.encoder.layers[0].ffn.fc2.weight = nn.Parameter(changed.encoder.layers[0].ffn.fc2.weight * 1.5)
    assert_equal_models(fast, model)


def test_a_weight_that_is_not_a_number_is_not_derived_anew_every_time(
    model: OFAModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = faster(model)
    fast.encoder.layers[0].ffn.fc1.weight.data[0, 0] = torch.nan
    packed = watch_packing(monkeypatch)
    answers(fast)
    first = len(packed)
    answers(fast)
    assert len(packed) == first > 0


def watch_packing(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    packed: list[torch.Size] = []
    pack = onednn.packed

    def watched(weight: Tensor) -> Tensor:
        packed.append(weight.shape)
        return pack(weight)

    monkeypatch.setattr(onednn, "packed", watched)
    return packed


@pytest.mark.parametrize("made", ["made", "loaded"])
def test_a_model_made_in_inference_mode_is_as_fast(
    model: OFAModel, made: str, monkeypatch: pytest.MonkeyPatch, small_directory: Any
) -> None:
    packed = watch_packing(monkeypatch)
    monkeypatch.setattr(fast_layers, "MIN_MULTIPLICATIONS", 1)
    with torch.inference_mode():
        if made == "loaded":
            ofa = ofa_core.load(small_directory)
            twin = ofa_core.load(small_directory, optimize=False)
            ask = [lambda o=o: o.generate("it", picture(1), max_new_tokens=3) for o in (ofa, twin)]
        else:
            fast = OFAModel(model.config).eval().requires_grad_(False)
            fast.load_state_dict(model.state_dict())
            optimized(fast)
            ask = [lambda m=m: answers(m)[0] for m in (fast, model)]
    first = ask[0]()
    count = len(packed)
    assert_same(ask[0](), first)
    assert len(packed) == count > 0, "packed once, not at every call"
    assert_same(ask[0](), ask[1](), 2e-4)
    if made == "made":
        with torch.inference_mode():
            for changed in (fast, model):
                changed.encoder.layers[0].ffn.fc1.weight.add_(0.25)
        assert_close(answers(fast)[0], answers(model)[0])


def test_a_part_by_itself_computes_with_its_weights_as_they_are(model: OFAModel) -> None:
    fast = faster(model)
    answers(fast)
    ffn, x = fast.encoder.layers[0].ffn, torch.randn(64, 64)
    ffn.fc1.weight.data[3, 5] += 100.0  # which no sample sees
    model.encoder.layers[0].ffn.fc1.weight.data[3, 5] += 100.0
    with torch.inference_mode():
        assert_close(ffn(x), model.encoder.layers[0].ffn(x))


# Hooks


def names_of(kind: type[nn.Module] | None = None) -> list[str]:
    return [name for name, module in plain_model().named_modules() if name and (kind is None or type(module) is kind)]


def hooked(model: OFAModel, names: list[str]) -> dict[str, list[Tensor]]:
    """Everything that the modules ``names`` give out while the model answers."""
    seen: dict[str, list[Tensor]] = {name: [] for name in names}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: seen[name].append(out) if isinstance(out, Tensor) else None
        )
        for name in names
    ]
    answers(model)
    for handle in handles:
        handle.remove()
    return seen


def assert_same_hooks(model: OFAModel, fast: OFAModel, names: list[str]) -> None:
    expected, found = hooked(model, names), hooked(fast, names)
    for name in names:
        assert len(found[name]) == len(expected[name]), name
        for one, other in zip(found[name], expected[name], strict=True):
            assert one.shape == other.shape, name
            assert_close(one, other)


def test_hooks_on_everything_see_what_they_see_in_the_plain_model(model: OFAModel) -> None:
    fast = faster(model)
    answers(fast)
    assert_same_hooks(model, fast, names_of())
    assert_equal_models(fast, model)


@pytest.mark.parametrize(
    "name",
    [
        "encoder",
        "encoder.image_stem",
        "encoder.image_stem.conv1",
        "encoder.image_stem.stages.1",
        "encoder.image_stem.stages.1.0",
        "encoder.image_stem.stages.2.0.bn3",
        "encoder.position_bias.key",
        "encoder.text_relative.tables.0",
        "encoder.layers.0",
        "encoder.layers.0.ffn",
        "encoder.layers.0.ffn.fc1",
        "encoder.layers.0.ffn.activation",
        "encoder.layers.1.ffn.norm",
        "encoder.layers.1.self_attn.q_proj",
        "decoder.text_positions",
        "decoder.self_position_bias.query",
        "decoder.layers.0.cross_attn",
        "decoder.layers.1.ffn.activation_dropout",
        "token_embedding",
    ],
)
def test_a_hook_on_one_module_sees_what_it_sees_in_the_plain_model(model: OFAModel, name: str) -> None:
    fast = faster(model)
    answers(fast)
    assert_same_hooks(model, fast, [name])


def test_a_hook_that_changes_what_passes_counts(model: OFAModel) -> None:
    fast = faster(model)
    answers(fast)
    for changed in (model, fast):
        changed.encoder.layers[0].ffn.fc1.register_forward_hook(lambda _, __, out: 1.5 * out)
        changed.encoder.image_stem.stages[1][0].bn1.register_forward_pre_hook(lambda _, x: (x[0] + 0.3,))
    assert_equal_models(fast, model)


def test_hooks_on_all_modules_of_torch_see_everything(model: OFAModel) -> None:
    fast, counts = faster(model), []
    answers(fast)
    for asked in (model, fast):
        seen: list[str] = []
        handle = nn.modules.module.register_module_forward_hook(lambda m, *_, seen=seen: seen.append(repr(m)[:5]))
        answers(asked)
        handle.remove()
        counts.append(len(seen))
    assert counts[0] == counts[1] > 100


# Parts that are replaced


class Scaled(nn.Module):
    """A module with a factor behind it, as adapters wrap what they change."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name == "inner" else getattr(self.inner, name)

    def forward(self, *args: Any) -> Any:
        return 1.1 * self.inner(*args)


def replace(model: OFAModel, name: str, make: Callable[[nn.Module], nn.Module]) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, make(model.get_submodule(name)))


@pytest.mark.parametrize(
    "name",
    [
        "encoder.layers.0.ffn.fc1",
        "encoder.layers.0.ffn.fc2",
        "encoder.layers.0.ffn.activation",
        "encoder.layers.0.ffn.activation_dropout",
        "encoder.layers.0.self_attn",
        "encoder.layers.0.self_attn.v_proj",
        "encoder.layers.1",
        "encoder.position_bias.query",
        "encoder.image_relative.tables.0",
        "encoder.image_stem.stages.1.0.conv2",
        "encoder.image_stem.stages.1.0.bn2",
        "encoder.image_stem.stages.2.0",
        "encoder.image_stem.stages.0",
        "encoder.image_stem",
        "decoder.layers.0.ffn",
        "decoder.cross_position_bias.query",
        "decoder.text_position_norm",
        "decoder.final_norm",
    ],
)
def test_a_part_that_is_replaced_counts(model: OFAModel, name: str) -> None:
    fast = faster(model)
    before = answers(fast)
    for changed in (model, fast):
        replace(changed, name, Scaled)
    assert not torch.allclose(before[1], answers(fast)[1])
    assert_equal_models(fast, model)


def test_other_activations_count(model: OFAModel) -> None:
    fast = faster(model)
    for make in (lambda _: nn.GELU("tanh"), lambda _: nn.ReLU()):
        for changed in (model, fast):
            replace(changed, "encoder.layers.0.ffn.activation", make)
        assert_equal_models(fast, model)


def test_new_layers_of_the_plain_kinds_count(model: OFAModel) -> None:
    fast = faster(model)
    answers(fast)
    torch.manual_seed(3)
    layer, block = EncoderLayer(model.config, 0.0).eval(), Bottleneck(256, 128, 2, 0.0).eval()
    for changed in (model, fast):
        changed.encoder.layers[1] = copy.deepcopy(layer)
        changed.encoder.image_stem.stages[1][0] = copy.deepcopy(block)
    assert_equal_models(fast, model)


def test_parametrized_and_pruned_weights_count(model: OFAModel) -> None:
    fast = faster(model)
    answers(fast)
    for changed in (model, fast):
        parametrizations.weight_norm(changed.encoder.layers[0].ffn.fc1)
        prune.l1_unstructured(changed.encoder.layers[1].ffn.fc2, "weight", amount=0.5)
    assert_equal_models(fast, model)
    with torch.no_grad():
        for changed in (model, fast):
            changed.encoder.layers[0].ffn.fc1.parametrizations.weight.original0.mul_(1.3)
    assert_equal_models(fast, model)


def test_a_forward_of_an_objects_own_counts(model: OFAModel) -> None:
    """As libraries that move weights about put it."""
    fast = faster(model)
    answers(fast)
    for changed in (model, fast):
        for name in ("encoder.layers.0.ffn.fc1", "encoder.image_stem.stages.1.0.conv1", "encoder.position_bias.query"):
            module = changed.get_submodule(name)
            module.forward = lambda x, forward=module.forward: 1.1 * forward(x)
    assert_equal_models(fast, model)


def test_what_was_derived_for_a_part_that_is_gone_is_gone(model: OFAModel) -> None:
    fast = faster(model)
    answers(fast)
    kept = len(fast.weight_cache._derived)
    fast.encoder.layers[0].ffn.fc1 = nn.Linear(64, 512)
    gc.collect()
    assert len(fast.weight_cache._derived) == kept - 1


def test_every_plain_class_has_a_faster_one_of_its_own_kind() -> None:
    for kind, fast in FAST.items():
        assert issubclass(fast, kind)
        assert issubclass(fast, nn.Module)


# On the demo model, as a user meets it


def demos(monkeypatch: pytest.MonkeyPatch) -> tuple[ofa_core.OFA, ofa_core.OFA]:
    monkeypatch.setattr(fast_layers, "MIN_MULTIPLICATIONS", 1)  # small as it is
    return ofa_core.load("demo"), ofa_core.load("demo", optimize=False)


def test_noise_through_data_changes_a_caption_as_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, plain_ofa = demos(monkeypatch)
    image = picture(1)
    before = fast.caption(image)
    assert_same(before, plain_ofa.caption(image))
    for ofa in (fast, plain_ofa):
        torch.manual_seed(0)
        weight = ofa.model.encoder.layers[0].ffn.fc1.weight
        weight.data += 0.1 * torch.randn_like(weight)
    after = fast.caption(image)
    assert abs(after.score - before.score) > 1e-3
    assert_same(after, plain_ofa.caption(image))


def test_lora_of_peft_counts_trains_and_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    peft = pytest.importorskip("peft", reason="peft comes with the extra dev")
    fast, plain_ofa = demos(monkeypatch)
    image = picture(1)
    before = fast.caption(image)
    adapted = []
    for ofa in (fast, plain_ofa):
        torch.manual_seed(0)
        settings = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "fc1", "query", "image_proj"])
        adapted.append(peft.get_peft_model(ofa.model, settings))
        for name, parameter in ofa.model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.1)
    with_lora = fast.caption(image)
    assert abs(with_lora.score - before.score) > 1e-3
    assert_same(with_lora, plain_ofa.caption(image))

    for ofa, wrapped in zip((fast, plain_ofa), adapted, strict=True):
        moving = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(moving, lr=0.3)
        tokens = torch.tensor([ofa.tokenizer.encode(" what does the image describe?", add_special_tokens=True)])
        pixels = ofa.pipeline.transform(image)[None]
        logits = ofa.model(tokens, tokens[:, :-1], pixels)
        nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step()
    trained = fast.caption(image)
    assert abs(trained.score - with_lora.score) > 1e-4
    assert_same(trained, plain_ofa.caption(image))

    merged = [wrapped.merge_and_unload() for wrapped in adapted]
    assert merged[0] is fast.model
    assert not any("lora" in name for name in fast.model.state_dict())
    assert_same(fast.caption(image), trained, 1e-4)
    assert_same(fast.caption(image), plain_ofa.caption(image))


@pytest.mark.parametrize("options", [{}, {"dtype": torch.int8}, {"optimize": False}], ids=str)
def test_a_model_that_nobody_holds_leaves_memory_at_once(options: dict[str, Any]) -> None:
    """Nothing that is kept leads back to it, so no collector has to come by."""
    gc.collect()
    gc.disable()
    try:
        ofa = ofa_core.load("demo", **options)
        ofa.caption(picture(1))
        ofa.answer(picture(1), "what?", candidates=["a", "b"])
        model = weakref.ref(ofa.model)
        del ofa
        assert model() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_warm_model_has_packed_what_its_first_answer_needs(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    derived: list[object] = []
    plain_get = DerivedTensors.get

    def counted(self: Any, sources: tuple[Tensor, ...], derive: Callable[[], Any]) -> Any:
        return plain_get(self, sources, lambda: (derived.append(sources), derive())[1])

    ofa = ofa_core.load("demo", dtype=dtype, warm_up=True)
    monkeypatch.setattr(DerivedTensors, "get", counted)
    warm = ofa.ground(picture(3, 64, 64), "the red circle")
    left = len(derived)  # weights so small that a few rows more decide about them
    derived.clear()
    cold = ofa_core.load("demo", dtype=dtype)
    assert cold.ground(picture(3, 64, 64), "the red circle") == warm
    assert left * 8 < len(derived)
