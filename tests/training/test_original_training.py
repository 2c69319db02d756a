"""Three updates of the original's own trainer, its schedules, R-drop and freezing: the recipe ``ofa`` gives them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synth
import torch
from reference import GOLDEN, SHARED, fairseq_state, golden
from torch import Tensor
from torch.utils.data import Dataset
from training.made import TOKENIZER

from checkpoints_convert import config_from_fairseq, from_fairseq, to_fairseq
from ofa_core import OFAModel
from ofa_core.checkpoint.model_dir import empty_model
from ofa_core.data.examples import Example
from ofa_core.generation.trie import Trie
from ofa_core.text.vocabulary import EOS, PAD, Vocabulary
from ofa_core.training.average import WeightAverage
from ofa_core.training.collate import Batch, collate
from ofa_core.training.losses import LossModule, TokenLosses, total_loss
from ofa_core.training.optim import freeze, frozen_names, make_optimizer, make_schedule
from ofa_core.training.setting_tables import LossSettings, OptimizerSettings
from ofa_core.training.settings import TrainingSettings
from ofa_core.training.trainer import Trainer
from ofa_core.vision.transform import ImageTransform

pytestmark = pytest.mark.reference

#: Where the references of training are: in the directory that was named, or beside the repository.
DIRECTORY = GOLDEN if (GOLDEN / "training.json").is_file() else SHARED / "golden"

#: Loss settings that go by other names in the original, and ours.
CRITERION = {
    "label_smoothing": "label_smoothing",
    "drop_worst_ratio": "drop_worst",
    "drop_worst_after": "drop_worst_after",
    "ignore_eos": "ignore_eos",
    "ignore_prefix_size": "ignore_prefix_size",
    "sentence_avg": "per_sentence",
}


@cache
def references(name: str) -> Any:
    path = DIRECTORY / name
    return json.loads(path.read_text()) if path.is_file() else []


@cache
def arrays() -> dict[str, np.ndarray[Any, Any]]:
    with np.load(DIRECTORY / "training.npz") as file:
        return {name: file[name] for name in file.files}


def cases() -> dict[str, Any]:
    return {case["name"]: case for case in references("training.json")["cases"]} if references("training.json") else {}


@cache
def vocabulary() -> Vocabulary:
    """The ids of the references' model; only the places of bins and codes count."""
    size = references("training.json")["meta"]["vocabulary"]
    return Vocabulary([str(number) for number in range(size - 8192 - 1000 - 5)])


def reference_training_model() -> OFAModel:
    nano = golden("forward_nano.json")
    state = fairseq_state(nano["shapes"], references("training.json")["meta"]["salt"])
    config = config_from_fairseq(state, nano["meta"]["args"])
    model = empty_model(config)
    model.load_state_dict(from_fairseq(state, config), assign=True)
    return model.requires_grad_(True)


def loss_settings(criterion: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the loss for the original's arguments, all of which must be known."""
    given = dict(criterion)
    found = {CRITERION[name]: given.pop(name) for name in CRITERION if name in given}
    if given.pop("use_rdrop", False):
        found["rdrop"] = given.pop("reg_alpha", 1.0)
    if constraint := given.pop("constraint_range", None):
        found["constraint_range"] = [int(number) for number in constraint.split(",")]
    assert not given.keys() - {"reg_alpha"}, given
    return found


def settings_of(case: Mapping[str, Any], out: Path) -> TrainingSettings:
    """The settings of a case: nothing but what the original was told, and ``recipe = "ofa"``."""
    schedule, optimizer = case["schedule"], case["optimizer"]
    content: dict[str, Any] = {
        "recipe": "ofa",
        "model": out / "unused",
        "out": out,
        "steps": schedule["total"],
        "accumulate": case["update_freq"],
        "data": [{"task": "shapes"}],
        "workers": 0,
        "loss": loss_settings(case["criterion"]),
        "optimizer": {
            "lr": optimizer["lr"],
            "betas": optimizer["betas"],
            "eps": optimizer["eps"],
            "weight_decay": optimizer["weight_decay"],
            "clip_norm": optimizer["clip_norm"],
            "warmup_ratio": schedule["warmup_ratio"],
            "end_lr": schedule["end_learning_rate"],
            "power": schedule["power"],
        },
    }
    if case["ema"]:
        content |= {"ema": case["ema"]["decay"], "ema_start": case["ema"]["start_update"]}
    options = case["model"]
    if options.get("freeze_resnet"):
        content["freeze_batch_norm"] = True
    if options.get("freeze_encoder_embedding") or options.get("freeze_decoder_embedding"):
        content["freeze"] = ["embeddings"]
    if options.get("bitfit"):
        content["freeze"] = ["all_but_bitfit"]
    known = {"freeze_resnet", "freeze_encoder_embedding", "freeze_decoder_embedding", "bitfit"}
    assert not options.keys() - known, options
    return TrainingSettings.model_validate(content)


def batch_of(content: Mapping[str, Any], dtype: torch.dtype) -> Batch:
    """The batch of a pass, put together by the shipped collate."""
    height, width = content["image_size"]
    pictures = [synth.synth_image(height, width, seed) for seed in content["image_seeds"]]
    images = (torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(dtype) / 255 - 0.5) / 0.5
    examples = []
    for row, image in enumerate(images):
        source, prefix, target = (
            [token for token in content[name][row] if keep or token != PAD]
            for name, keep in (("source", False), ("prev_output", False), ("target", True))
        )
        start = next(place for place, token in enumerate(target) if token != PAD)
        said = [token for token in target if token != PAD]
        weight = 1.0 if content["conf"] is None else content["conf"][row]
        examples.append(Example(source, said, image, prompt=prefix[: start + 1], weight=weight))
        assert prefix[start + 1 :] == said[:-1]
        assert said[-1] == EOS
    batch = collate(examples, TOKENIZER, ImageTransform(64))
    (group,) = batch.groups
    shown = torch.tensor(content["patch_masks"])[group.pictures]  # what is not shown goes through the stem all the same
    group = replace(group, pictures=group.pictures.masked_fill(~shown, -1), weights=group.weights.to(dtype))
    return Batch(batch.pixels, (group,))


class GivenBatches(Dataset[Batch]):
    """The passes of a case in their order."""

    cache = None  # no features are kept

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches

    def __getitem__(self, index: int) -> Batch:
        return self.batches[index]


class Recorded:
    """Three updates of the real trainer, with everything that the references tell of them."""

    def __init__(self, case: Mapping[str, Any], out: Path, dtype: torch.dtype) -> None:
        self.case = case
        self.name = case["name"]
        self.settings = settings_of(case, out)
        self.model = reference_training_model().to(dtype)
        freeze(self.model, self.settings)
        answers = None if case["answers"] is None else Trie(case["answers"])
        loss = LossModule(self.model, vocabulary(), self.settings.loss, answers)
        batches = GivenBatches([batch_of(content, dtype) for content in case["batches"]])
        self.passes: list[tuple[float, list[float]]] = []
        self.trainer = Trainer(self.settings, self.model, TOKENIZER, batches, loss)  # type: ignore[arg-type]
        loss.register_forward_hook(lambda _, __, out: self.passes.append((float(out[0].detach()), out[1].tolist())))
        self.rates: list[float] = []
        self.norms: list[float] = []
        self.gradients: dict[str, Tensor | None] = {}
        self.states: dict[int, dict[str, Tensor]] = {}
        self.averages: dict[int, dict[str, Tensor]] = {}
        self._run(len(case["expected"]["float64"]))

    def _run(self, steps: int) -> None:
        trainer, update = self.trainer, self.trainer._update

        def recorded(factor: float) -> float:
            if not self.gradients:
                self.gradients = {
                    name: None if p.grad is None else p.grad * factor for name, p in self.model.named_parameters()
                }
            return update(factor)

        trainer._update = recorded  # type: ignore[method-assign]
        micro_batches = trainer._micro_batches()
        for step in range(1, steps + 1):
            self.rates.append(trainer.schedule.get_last_lr()[0])
            _, _, norm = trainer._learn([next(micro_batches) for _ in range(self.settings.accumulate)])
            trainer.step += 1
            self.norms.append(norm)
            self.states[step] = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
            if trainer.average is not None:
                average = trainer.result.state_dict()
                self.averages[step] = {name: tensor.clone() for name, tensor in average.items()}
        self.rate_after = trainer.schedule.get_last_lr()[0]


def of_fairseq(tensors: Mapping[str, Tensor | None], model: OFAModel) -> dict[str, Tensor]:
    """Tensors by fairseq's names; what is not there is left out."""
    whole = model.state_dict() | {name: tensor for name, tensor in tensors.items() if tensor is not None}
    missing = {name for name, tensor in tensors.items() if tensor is None}
    named = to_fairseq({name: tensor.double() for name, tensor in whole.items()}, model.config)
    gone = to_fairseq({name: whole[name].double() * 0 + (name in missing) for name in whole}, model.config)
    return {name: tensor for name, tensor in named.items() if not bool((gone[name] == 1).all())}


def assert_tensors(name: str, names: Sequence[str], found: Mapping[str, Tensor], tolerance: float) -> None:
    """Entries, norms and sums of tensors are those of the references under ``name``."""
    table = arrays()
    for row, tensor_name in enumerate(names):
        flat = found[tensor_name].flatten().numpy()
        places = [round(i * (flat.size - 1) / 7) for i in range(8)]
        assert np.abs(flat[places] - table[f"{name}/entries"][row]).max() <= tolerance, (name, tensor_name)
        norm, total = table[f"{name}/norm"][row], table[f"{name}/sum"][row]
        assert abs(np.linalg.norm(flat) - norm) <= tolerance * max(1.0, flat.size**0.5), (name, tensor_name)
        assert abs(flat.sum() - total) <= tolerance * flat.size, (name, tensor_name)


@pytest.fixture(scope="module", params=cases())
def double(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A case in float64; tests that share it are run together."""
    return Recorded(cases()[request.param], tmp_path_factory.mktemp("run"), torch.float64)


def test_losses_rates_and_norms_in_float64(double: Recorded) -> None:
    run, case = double, double.case
    expected = case["expected"]["float64"]
    passes = iter(run.passes)
    for step, rate, norm in zip(expected, run.rates, run.norms, strict=True):
        assert rate == pytest.approx(step["rate"], rel=1e-12)
        assert norm == pytest.approx(step["gradient_norm"], rel=2e-7)
        for told in step["passes"]:
            loss, (size, _, _, nll) = next(passes)
            assert loss == pytest.approx(told["loss"], rel=2e-7)
            assert nll == pytest.approx(told["nll_loss"], rel=2e-7)
            assert size == told["sample_size"]
    assert run.rate_after == pytest.approx(case["expected"]["rate_after"], rel=1e-12)


def test_gradients_in_float64(double: Recorded) -> None:
    run, case, name = double, double.case, double.name
    names = references("training.json")["names"][case["gradients"]]
    found = of_fairseq(run.gradients, run.model)
    zero = torch.zeros(1, dtype=torch.float64)
    for row, tensor_name in enumerate(names):
        if tensor_name in case["without_gradient"]:
            assert tensor_name not in found
        elif tensor_name not in case["gradients_of_zero"]:
            flat = found.get(tensor_name, zero).flatten().numpy()
            places = [round(i * (flat.size - 1) / 7) for i in range(8)]
            difference = np.abs(flat[places] - arrays()[f"{name}/grad/entries"][row]).max()
            assert difference <= 2e-8, tensor_name
            norm = arrays()[f"{name}/grad/norm"][row]
            assert np.linalg.norm(flat) == pytest.approx(norm, rel=1e-6, abs=2e-8), tensor_name
    if f"{name}/grad/embedding_rows" in arrays() and "encoder.embed_tokens.weight" in found:
        rows = found["encoder.embed_tokens.weight"][case["embedding_rows"]].numpy()
        assert np.abs(rows - arrays()[f"{name}/grad/embedding_rows"]).max() <= 2e-8
    if case["requires_grad"] is not None:
        moving = {name: torch.tensor(float(p.requires_grad)) for name, p in run.model.named_parameters()}
        probe = {name: torch.full_like(t, float(moving.get(name, 0.0))) for name, t in run.model.state_dict().items()}
        told = to_fairseq(probe, run.model.config)
        tied = {"decoder.embed_tokens.weight", "decoder.output_projection.weight"}
        assert {n for n, t in told.items() if bool((t == 1).all())} - tied == set(case["requires_grad"]) - tied


def test_weights_and_averages_behind_steps_in_float64(double: Recorded) -> None:
    run, case, name = double, double.case, double.name
    names = references("training.json")["names"][case["tensors"]]
    kinds = [("after", run.states), *([("ema", run.averages)] if case["ema"] else [])]
    for kind, states in kinds:
        for step in (1, 3):
            found = of_fairseq(states[step], run.model)
            assert_tensors(f"{name}/{kind}{step}", names, found, 1e-8)
            rows = arrays().get(f"{name}/{kind}{step}/embedding_rows")
            if rows is not None:
                own = found["encoder.embed_tokens.weight"][case["embedding_rows"]].numpy()
                assert np.abs(own - rows).max() <= 1e-8


@pytest.mark.parametrize("name", [name for name, case in cases().items() if case["ema"]])
def test_the_average_of_the_embedding_once_a_step(name: str, tmp_path: Path) -> None:
    """Half-precision runs of the original average the embedding once; ``ema_embedding`` says so."""
    case = cases()[name]
    run = Recorded(case, tmp_path, torch.float64)
    start = reference_training_model().double()
    average = WeightAverage(start, case["ema"]["decay"], start=case["ema"]["start_update"], embedding=1)
    for step in (1, 2, 3):
        start.load_state_dict(run.states[step])
        average.update(start)
        if step in (1, 3):
            found = {"x": average.module.state_dict()["token_embedding.weight"]}
            assert_tensors(f"{name}/ema{step}/embedding_once", ["x"], found, 1e-8)


@pytest.mark.parametrize("name", cases())
def test_losses_and_gradient_norms_in_float32(name: str, tmp_path: Path) -> None:
    case = cases()[name]
    run = Recorded(case, tmp_path, torch.float32)
    first = case["expected"]["float32"][0]
    for told, (loss, (size, _, _, nll)) in zip(first["passes"], run.passes, strict=False):
        assert loss == pytest.approx(told["loss"], rel=1e-5)
        assert nll == pytest.approx(told["nll_loss"], rel=1e-5)
        assert size == told["sample_size"]
    assert run.norms[0] == pytest.approx(first["gradient_norm"], rel=1e-4)
    names = references("training.json")["names"][case["gradients"]]
    found = of_fairseq(run.gradients, run.model)
    left = {*case["gradients_of_zero"], *case["without_gradient"]}
    rows = [row for row, tensor_name in enumerate(names) if tensor_name not in left]
    norms = np.array([float(found[names[row]].norm()) for row in rows])
    # Rounding in float32, which the number of threads changes, moves a ReLU of the stem over its edge in some cases;
    # then the original's own norms in float32 and in float64 differ, and one of both is met as a whole.
    kinds = [arrays()[f"{name}/{kind}grad/norm"][rows] for kind in ("float32/", "")]
    assert min(float(np.abs(norms / kind - 1).max()) for kind in kinds) <= 1e-4


@pytest.mark.parametrize("number", range(len(references("schedule.json"))))
def test_schedules(number: int) -> None:
    case = references("schedule.json")[number]
    settings = OptimizerSettings(
        lr=case["lr"],
        warmup_ratio=case["warmup_ratio"],
        warmup_steps=case["warmup_updates"] or None,
        end_lr=case["end_learning_rate"],
        power=case["power"],
        warmup_from_zero=True,
    )
    optimizer = make_optimizer(torch.nn.Linear(1, 1), settings)
    schedule = make_schedule(optimizer, settings, case["total"], case["updates_per_epoch"])
    rates = []
    for _ in case["rates"]:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx(case["rates"], rel=1e-12, abs=0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(case["rate_after"], rel=1e-12, abs=0)


@pytest.mark.parametrize("number", range(len(references("rdrop.json"))))
def test_rdrop(number: int) -> None:
    case = references("rdrop.json")[number]
    given = {
        "label_smoothing": case["label_smoothing"],
        "rdrop": case["reg_alpha"],
        "drop_worst": case["drop_worst_ratio"],
        "drop_worst_after": case["drop_worst_after"],
    }
    content = {"recipe": "ofa", "model": "x", "out": "x", "steps": 1, "data": [{"task": "shapes"}], "loss": given}
    settings: LossSettings = TrainingSettings.model_validate(content).loss
    logits = torch.tensor(case["logits"], dtype=torch.float64, requires_grad=True)
    target = torch.tensor(case["target"])
    allowed = None
    if case["constraint_range"] is not None:
        start, end = case["constraint_range"]
        allowed = torch.zeros(logits.shape[1], dtype=torch.bool)
        allowed[[0, 1, 2, 3, *range(start, end)]] = True
    masked = logits if allowed is None else logits.masked_fill(~allowed, -torch.inf)
    passes = masked.log_softmax(-1).chunk(2)
    losses = TokenLosses.of(passes, target, settings, allowed)
    loss, counts = total_loss([losses], settings, case["update_num"], sentences=1)
    size, nll = float(counts[0]), float(counts[3])
    (loss / size).backward()
    assert float(loss.detach()) == pytest.approx(case["loss"], rel=1e-7)
    assert nll == pytest.approx(case["nll_loss"], rel=1e-7)
    assert size == case["ntokens"]
    assert float(loss.detach()) / size == pytest.approx(case["mean_loss"], rel=1e-7)
    expected = torch.tensor(case["gradient_of_mean_loss"], dtype=torch.float64)
    assert logits.grad is not None
    assert float((logits.grad - expected).abs().max()) <= 1e-7


#: The options of the original that freeze, and the settings that freeze the same here.
FREEZING: dict[str, dict[str, Any]] = {
    "freeze_resnet": {"freeze_batch_norm": True},
    "freeze_encoder_embedding": {"freeze": ["embeddings"]},
    "freeze_decoder_embedding": {"freeze": ["embeddings"]},
    "bitfit": {"freeze": ["all_but_bitfit"]},
}


@pytest.mark.parametrize("number", range(len(references("frozen.json"))))
def test_what_freezing_leaves(number: int, tmp_path: Path) -> None:
    case = references("frozen.json")[number]
    options = case["options"]
    nano = golden("forward_nano.json")
    config = config_from_fairseq(fairseq_state(nano["shapes"], "x"), nano["meta"]["args"])
    changes: dict[str, Any] = {"adapter_dim": options["adapter_dim"]} if options.get("adapter") else {}
    for stack in ("encoder", "decoder"):
        if options.get(f"{stack}_prompt"):
            changes[f"{stack}_prompt"] = {"length": options[f"{stack}_prompt_length"]}
    content: dict[str, Any] = {"model": "x", "out": "x", "steps": 1, "data": [{"task": "shapes"}], "config": changes}
    for name, change in FREEZING.items():
        content |= change if options.get(name) else {}
    settings = TrainingSettings.model_validate(content)
    assert settings.recipe == "ofa"
    model = OFAModel(type(config).model_validate(config.model_dump() | changes))
    fixed = frozen_names(model, settings)
    probe = {name: torch.full_like(t, float(name in fixed)) for name, t in model.state_dict().items()}
    told = to_fairseq(probe, model.config)
    parameters = {name for name, _ in model.named_parameters()}
    kinds = {name: torch.full_like(t, float(name in parameters)) for name, t in model.state_dict().items()}
    named = {name for name, t in to_fairseq(kinds, model.config).items() if bool((t == 1).all())}
    named -= {"decoder.embed_tokens.weight", "decoder.output_projection.weight"}
    moving = {name for name in named if not bool((told[name] == 1).any())}
    norms_are_constants = "FrozenBatchNorm2d" in case["norm_class_of_stem"]
    in_norm = {n for n in named if ".embed_images." in n and (".bn" in n or "downsample.1" in n)}
    counted = named - in_norm if norms_are_constants else named  # there they are no parameters
    assert len(counted) == case["parameters"]
    if case["moving"] == "the others":
        assert moving == counted - set(case["fixed"])
    else:
        assert moving == set(case["moving"])
    assert not (norms_are_constants and moving & in_norm)
