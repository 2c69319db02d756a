"""Low-rank adapters: what trains, what is stored, and that peft understands it and computes the same."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import assert_same
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from training.made import TOKENIZER, differing, nano, picture, settings

import ofa_core
from ofa_core import OFAConfig, OFAError, OFAModel, load
from ofa_core.checkpoint.lora import LoraAdapter, merge, read_adapter, save_adapter
from ofa_core.checkpoint.model_dir import empty_model, load_model, save_directory
from ofa_core.cli.main import main
from ofa_core.training.lora import LoraLinear, add_lora, lora_layers, remove_lora, split
from ofa_core.training.run import make_trainer, train
from ofa_core.training.setting_tables import LoraSettings
from ofa_core.training.settings import TrainingSettings
from ofa_core.training.trainer import Trainer

LORA: dict[str, Any] = {"rank": 4, "alpha": 32.0}
WIDE = LoraSettings(rank=4, alpha=8.0, targets=("q_proj", "v_proj", "fc1", "query", "image_proj"))


def run_settings(out: Path, **changes: Any) -> TrainingSettings:
    """A short run that adapts the model of an earlier one."""
    begun = out.parent / "begun"
    if not begun.exists():
        train(settings(begun, steps=1))
    base: dict[str, Any] = {"model": begun / "last", "new_model": None, "lora": LORA}
    return settings(out, **{**base, "optimizer": {"lr": 3e-2}, **changes})


def moved(model: OFAModel, seed: int = 0, std: float = 0.1) -> OFAModel:
    """The model with an adapter that changes something."""
    torch.manual_seed(seed)
    for _, layer in lora_layers(model):
        nn.init.normal_(layer.lora_b, std=std)
    return model


def logits(model: nn.Module) -> Tensor:
    tokens = torch.tensor([TOKENIZER.encode(" what does the image describe?", add_special_tokens=True)])
    torch.manual_seed(3)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        return model(tokens, tokens[:, :-1], pixels)


def adapted(config: LoraSettings = WIDE) -> OFAModel:
    model = nano().eval()
    add_lora(model, config)
    return moved(model)


def stored(tmp_path: Path, model: OFAModel, config: LoraSettings = WIDE) -> tuple[Path, Path]:
    """The base and the adapter of a model as directories."""
    base, adapter = split(model.state_dict(), config)
    save_directory(tmp_path / "base", base, model.config, TOKENIZER)
    save_adapter(tmp_path / "adapter", adapter, base, model.config)
    return tmp_path / "base", tmp_path / "adapter"


# What trains


@pytest.mark.parametrize("preset", ["base", "large", "huge"])
def test_at_most_one_in_a_hundred_parameters_is_trained(preset: str) -> None:
    with torch.device("meta"):
        model = empty_model(OFAConfig.preset(preset))
        add_lora(model, LoraSettings())
    moving = [(name, p.numel()) for name, p in model.named_parameters() if p.requires_grad]
    assert all(name.endswith(("lora_a", "lora_b")) for name, _ in moving)
    layers = 2 * (model.config.encoder_layers + 2 * model.config.decoder_layers)
    assert sum(count for _, count in moving) == layers * 2 * 8 * model.config.embed_dim
    assert sum(count for _, count in moving) <= 0.01 * sum(p.numel() for p in model.parameters())


def test_an_adapter_begins_as_no_change_and_only_it_moves(tmp_path: Path) -> None:
    run = run_settings(tmp_path / "run", steps=4)
    assert run.model is not None
    before = load_model(run.model, dtype=torch.float32)
    trainer = make_trainer(run)
    assert torch.equal(logits(trainer.model.eval()), logits(before))
    trainer.run()
    after = trainer.model.state_dict()
    assert differing(before.state_dict(), {name: after[name] for name in before.state_dict()}) == []
    layers = dict(lora_layers(trainer.model))
    assert len(layers) == 6
    assert all(bool(layer.lora_b.any()) for layer in layers.values())
    assert not torch.allclose(logits(trainer.model.eval()), logits(before), atol=1e-4)


def test_dropout_is_before_the_change_alone() -> None:
    layer = nn.Linear(16, 16)
    layer.__class__ = LoraLinear
    layer.begin(LoraSettings(rank=2, dropout=0.5))  # type: ignore[operator]
    x = torch.randn(3, 16)
    assert torch.equal(layer(x), nn.Linear.forward(layer, x))
    nn.init.normal_(layer.lora_b)  # type: ignore[arg-type]
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


@pytest.mark.parametrize(
    ("targets", "problem"),
    [
        (["q_proj", "qproj"], "'qproj' cannot be adapted: no layer's name ends so; such as q_proj"),
        (["token_embedding"], "'token_embedding' cannot be adapted: token_embedding is no linear layer"),
        (["self_attn"], "'self_attn' cannot be adapted: .* and 1 more is no linear layer|self_attn"),
    ],
)
def test_targets_that_cannot_be_adapted_are_refused(targets: list[str], problem: str) -> None:
    with pytest.raises(OFAError, match=problem):
        add_lora(nano(), LoraSettings(targets=tuple(targets)))


def test_settings_that_contradict_an_adapter_are_refused(tmp_path: Path) -> None:
    for changes, problem in (
        ({"lora": LORA}, "not with new_model"),
        ({"lora": LORA, "new_model": None, "model": "x", "freeze": ["stem"]}, "freeze says nothing beside lora"),
        ({"lora": {"rank": 0}, "new_model": None, "model": "x"}, "greater than 0"),
        ({"lora": {"targets": []}, "new_model": None, "model": "x"}, "at least 1 item"),
    ):
        with pytest.raises(ValueError, match=problem):
            settings(tmp_path, **changes)
    with pytest.raises(OFAError, match="config can add no adapters and no prompts"):
        make_trainer(run_settings(tmp_path / "run", config={"adapter_dim": 4}))


# Against peft


@pytest.fixture
def peft() -> Any:
    return pytest.importorskip("peft", reason="peft comes with the extra dev")


def test_layers_compute_and_learn_as_pefts_do(peft: Any) -> None:
    ours, theirs = nano(), nano()
    torch.manual_seed(5)
    add_lora(ours, WIDE)
    torch.manual_seed(5)
    wrapped = peft.get_peft_model(
        theirs, peft.LoraConfig(r=4, lora_alpha=8, target_modules=list(WIDE.targets), lora_dropout=0.0)
    )
    names = [name for name, _ in lora_layers(ours)]
    for name in names:
        layer, peer = ours.get_submodule(name), theirs.get_submodule(name)
        a = peer.lora_A["default"].weight
        bound = layer.in_features**-0.5  # of the same distribution: uniform up to 1 / sqrt(in)
        for begun in (layer.lora_a, a):
            assert 0.9 * bound < begun.abs().max() <= bound
        assert not layer.lora_b.any()
        with torch.no_grad():
            a.copy_(layer.lora_a)
            nn.init.normal_(layer.lora_b, std=0.1)
            peer.lora_B["default"].weight.copy_(layer.lora_b)
    assert torch.equal(logits(ours.eval()), logits(theirs.eval()))
    tokens, pixels = torch.tensor([[0, 8, 9, 2]]), torch.ones(1, 3, 64, 64)
    for model in (ours, theirs):
        model(tokens, tokens[:, :-1], pixels).square().mean().backward()
    for name in names:
        layer, peer = ours.get_submodule(name), theirs.get_submodule(name)
        torch.testing.assert_close(layer.lora_a.grad, peer.lora_A["default"].weight.grad)
        torch.testing.assert_close(layer.lora_b.grad, peer.lora_B["default"].weight.grad)
        assert layer.weight.grad is None
    count = sum(p.numel() for p in ours.parameters() if p.requires_grad)
    assert count == wrapped.get_nb_trainable_parameters()[0]


def test_peft_loads_what_is_stored_and_merges_it_as_it_is_merged_here(tmp_path: Path, peft: Any) -> None:
    model = adapted()
    base, adapter = stored(tmp_path, model)
    expected = logits(model)
    theirs = peft.PeftModel.from_pretrained(load_model(base), str(adapter))
    torch.testing.assert_close(logits(theirs), expected, atol=1e-5, rtol=1e-5)
    merged = theirs.merge_and_unload().state_dict()
    ours = load(base, adapter=adapter, optimize=False).model.state_dict()
    assert ours.keys() == merged.keys()
    for name, tensor in merged.items():
        torch.testing.assert_close(ours[name], tensor, atol=1e-6, rtol=0)


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"rank_pattern": {"fc1": 6}}], ids=str)
def test_what_peft_stores_is_loaded(tmp_path: Path, peft: Any, options: dict[str, Any]) -> None:
    base, _ = stored(tmp_path, adapted())
    model = load_model(base)
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "fc1"], **options)
    wrapped = peft.get_peft_model(model, config)
    torch.manual_seed(1)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    wrapped.save_pretrained(tmp_path / "theirs")
    found = logits(load(base, adapter=tmp_path / "theirs").model)
    torch.testing.assert_close(found, logits(model), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, logits(load(base).model), atol=1e-3)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"use_dora": True}, "use_dora = true"),
        ({"modules_to_save": ["fc2"]}, "modules_to_save"),
        ({"bias": "lora_only"}, 'bias = "lora_only"'),
        ({"alpha_pattern": {"fc1": 3}}, "alpha_pattern"),
    ],
    ids=str,
)
def test_what_is_more_than_plain_lora_is_refused(tmp_path: Path, peft: Any, options: dict[str, Any], told: str) -> None:
    base, _ = stored(tmp_path, adapted())
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "fc1"], **options)
    peft.get_peft_model(load_model(base), config).save_pretrained(tmp_path / "theirs")
    with pytest.raises(OFAError, match=f"{told}.* is more than plain LoRA; merge it with peft"):
        load(base, adapter=tmp_path / "theirs")


# Stored and loaded


def test_merging_is_exact(tmp_path: Path) -> None:
    model = adapted()
    base, adapter = stored(tmp_path, model)
    expected = logits(model)
    torch.testing.assert_close(logits(load(base, adapter=adapter).model), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        logits(load(base, adapter=adapter, optimize=False).model), expected, atol=1e-5, rtol=1e-5
    )
    removed = remove_lora(copy.deepcopy(model))
    assert not any("lora" in name for name in removed.state_dict())
    assert not list(lora_layers(removed))
    torch.testing.assert_close(logits(removed), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_round_the_sum_once(tmp_path: Path, dtype: torch.dtype) -> None:
    model = adapted()
    base, adapter = stored(tmp_path, model)
    loaded = load(base, adapter=adapter, dtype=dtype, optimize=False).model.state_dict()
    whole, lora = split(model.state_dict(), WIDE)
    name = "encoder.layers.0.self_attn.q_proj"
    expected = whole[f"{name}.weight"].float() + lora.change(name).float()
    assert loaded[f"{name}.weight"].dtype == dtype
    assert torch.equal(loaded[f"{name}.weight"], expected.to(dtype))
    assert torch.equal(loaded[f"{name}.bias"], whole[f"{name}.bias"].to(dtype))


def test_faster_layers_leave_an_adapted_layer_to_itself() -> None:
    """A run evaluates the model that it trains."""
    model = adapted()
    expected = logits(model)
    ofa = ofa_core.OFA(copy.deepcopy(model), TOKENIZER)
    with torch.inference_mode():
        torch.testing.assert_close(logits(ofa.model), expected, atol=1e-5, rtol=1e-5)
    assert len(list(lora_layers(ofa.model))) == len(list(lora_layers(model)))


def broken(adapter: Path, tmp_path: Path, change: str) -> Path:
    path = Path(shutil.copytree(adapter, tmp_path / "broken"))
    (path / "SHA256SUMS").unlink()
    tensors = load_file(path / "adapter_model.safetensors")
    config = json.loads((path / "adapter_config.json").read_text())
    first = next(name for name in tensors if "q_proj.lora_A" in name)
    if change == "no A":
        del tensors[first]
    elif change == "shape":
        tensors[first] = tensors[first][:, 1:]
    elif change == "stranger":
        tensors["base_model.model.head.lora_A.weight"] = tensors[first]
        tensors["base_model.model.head.lora_B.weight"] = tensors[first.replace("lora_A", "lora_B")]
    elif change == "embedding":
        tensors["base_model.model.token_embedding.lora_embedding_A"] = tensors[first]
    elif change == "kind":
        config["peft_type"] = "IA3"
    elif change == "alpha":
        config["lora_alpha"] = "much"
    elif change == "nothing":
        tensors = {}
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("no A", "A and B are not a pair that fits in "),
        ("shape", r"changes a layer \S+q_proj of \[\d+, \d+\], and the model has one of"),
        ("stranger", "changes a layer head of .*, and the model has no such layer"),
        ("embedding", "lora_embedding_A .* is no factor of a linear layer's change"),
        ("kind", "peft_type is 'IA3'; only LORA is merged"),
        ("alpha", "lora_alpha should be a number, not 'much'"),
        ("nothing", "holds no factors"),
    ],
)
def test_a_wrong_adapter_is_refused(tmp_path: Path, change: str, problem: str) -> None:
    base, adapter = stored(tmp_path, adapted())
    with pytest.raises(OFAError, match=problem) as caught:
        load(base, adapter=broken(adapter, tmp_path, change))
    assert "\n" not in str(caught.value)


def test_what_is_no_adapter_or_was_changed_is_refused(tmp_path: Path) -> None:
    base, adapter = stored(tmp_path, adapted())
    with pytest.raises(OFAError, match=r"is not an adapter: it has no adapter_config\.json"):
        load(base, adapter=base)
    with pytest.raises(OFAError, match=r"is not a model directory: it has no model\.safetensors"):
        load(adapter)
    text = (adapter / "adapter_config.json").read_text()
    (adapter / "adapter_config.json").write_text(text.replace("8.0", "9.0"))
    with pytest.raises(OFAError, match=r"adapter_config\.json is not as written"):
        load(base, adapter=adapter)


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    _, adapter = stored(tmp_path / "one", adapted())
    other = nano(seed=1)
    save_directory(tmp_path / "other", other.state_dict(), other.config, TOKENIZER)
    with pytest.raises(OFAError, match=r"trained on a model with other weights in .*; name that model"):
        load(tmp_path / "other", adapter=adapter)
    other = nano(encoder_layers=3)
    save_directory(tmp_path / "third", other.state_dict(), other.config, TOKENIZER)
    with pytest.raises(OFAError, match=r"is no adapter of .*third"):
        load(tmp_path / "third", adapter=adapter)


@pytest.mark.parametrize("stored_as", [torch.float16, torch.bfloat16])
def test_a_base_that_was_rounded_is_the_same_base(tmp_path: Path, stored_as: torch.dtype) -> None:
    model = adapted()
    base, adapter = stored(tmp_path, model)
    rounded = load_model(base, dtype=torch.float32).to(stored_as)
    save_directory(tmp_path / "rounded", rounded.state_dict(), model.config, TOKENIZER)
    found = logits(load(tmp_path / "rounded", adapter=adapter).model)
    torch.testing.assert_close(found, logits(model), atol=0.1, rtol=0.1)


def test_merge_takes_any_float_type() -> None:
    weight = torch.randn(3, 2, dtype=torch.float64)
    a, b = torch.randn(1, 2), torch.randn(3, 1)
    state = merge({"x.weight": weight}, LoraAdapter(2.0, ("x",), {"x": (a, b)}))
    torch.testing.assert_close(state["x.weight"], weight + (2 * b @ a).double())


# Runs


def test_a_run_stores_model_and_adapter_that_answer_the_same(tmp_path: Path, capsys: Any) -> None:
    run = run_settings(tmp_path / "run", steps=4, config={"task": {"image_size": 48}})
    model = train(run)
    last, adapter = run.out / "last", run.out / "last-adapter"
    assert not any("lora" in name for name in load_file(last / "model.safetensors"))
    assert differing(model.state_dict(), load_model(last).state_dict()) == []
    assert (adapter / "adapter_model.safetensors").stat().st_size < (last / "model.safetensors").stat().st_size / 20
    whole, alone = load(last), load(run.model, adapter=adapter)
    assert differing(whole.model.state_dict(), alone.model.state_dict()) == []
    assert alone.model.config == whole.model.config
    assert_same(alone.caption(picture("red")), whole.caption(picture("red")))
    assert logits(whole.model).ne(logits(load(run.model).model)).any()
    path = tmp_path / "red.png"
    picture("red").save(path)
    told = []
    for model_options in (["--model", str(last)], ["--model", str(run.model), "--adapter", str(adapter)]):
        capsys.readouterr()
        assert main(["caption", str(path), *model_options, "--json"]) == 0
        told.append({k: v for k, v in json.loads(capsys.readouterr().out).items() if k != "seconds"})
    assert_same(told[0], told[1])


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9}, {"autocast": "bfloat16"}, {"checkpoint_activations": True}])
def test_a_run_that_was_cut_short_goes_on_as_if_it_had_not(tmp_path: Path, changes: dict[str, Any]) -> None:
    lora = {**LORA, "dropout": 0.2}
    whole = train(run_settings(tmp_path / "whole", lora=lora, **changes)).state_dict()
    trainer: Trainer = make_trainer(run_settings(tmp_path / "cut", lora=lora, **changes))
    write = trainer._write_model

    def cut(name: str) -> None:
        write(name)
        if trainer.step == 4:
            raise KeyboardInterrupt

    trainer._write_model = cut  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    resumed = train(run_settings(tmp_path / "cut", lora=lora, **changes)).state_dict()
    assert differing(whole, resumed) == []
    files = [load_file(tmp_path / name / "last-adapter" / "adapter_model.safetensors") for name in ("whole", "cut")]
    assert differing(*files) == []


def test_other_settings_of_an_adapter_do_not_go_on_with_a_run(tmp_path: Path) -> None:
    train(run_settings(tmp_path / "run", steps=2))
    with pytest.raises(OFAError, match="other settings"):
        train(run_settings(tmp_path / "run", steps=2, lora={**LORA, "rank": 2}))


def test_a_kill_between_the_two_directories_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ofa_core.training import stored as stored_module

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    run = run_settings(tmp_path / "run", steps=4)
    train(run_settings(tmp_path / "whole", steps=4))
    trainer = make_trainer(run)
    save = stored_module.save_directory
    calls: list[int] = []

    def second_is_killed(*args: Any, **kwargs: Any) -> None:
        calls.append(1)
        (killed if len(calls) == 2 else save)(*args, **kwargs)

    monkeypatch.setattr(stored_module, "save_directory", second_is_killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    monkeypatch.undo()
    make_trainer(run).run()
    whole, cut = (load(tmp_path / name / "last").model.state_dict() for name in ("whole", "run"))
    assert differing(whole, cut) == []
    assert (
        read_adapter(run.out / "last-adapter").factors.keys()
        == read_adapter(tmp_path / "whole/last-adapter").factors.keys()
    )
