"""The loop: it learns, freezes what it shall, and goes on after any interruption as if there had been none."""

from __future__ import annotations

import copy
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from training.made import COLOURS, TOKENIZER, Questions, differing, nano, picture, settings

from ofa_core import ImageTransform, OFAError, load
from ofa_core.training import state
from ofa_core.training.batches import Batches
from ofa_core.training.losses import LossModule
from ofa_core.training.optim import BITFIT, make_optimizer, make_schedule
from ofa_core.training.run import make_trainer, train
from ofa_core.training.setting_tables import LossSettings, OptimizerSettings
from ofa_core.training.settings import TrainingSettings
from ofa_core.training.state import read_state
from ofa_core.training.trainer import Trainer
from ofa_core.utils.scratch import sole_writer


def log_of(out: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def questions_trainer(run: TrainingSettings, **changes: Any) -> Trainer:
    model = nano(**changes)
    batches = Batches([Questions()], [1.0], TOKENIZER, ImageTransform(64), batch_size=run.batch_size)
    return Trainer(run, model, TOKENIZER, batches, LossModule(model, TOKENIZER.vocabulary, run.loss))


def test_it_learns_a_few_rows_by_heart_and_the_stored_model_answers(tmp_path: Path) -> None:
    quick = OptimizerSettings(lr=2e-3, warmup_ratio=0.1)
    plain = LossSettings(label_smoothing=0.0)
    run = settings(
        tmp_path, steps=150, batch_size=6, optimizer=quick, loss=plain, save_every=150, freeze_batch_norm=True
    )
    questions_trainer(run, embed_dim=64).run()
    assert log_of(tmp_path)[-1]["accuracy"] > 0.99
    assert log_of(tmp_path)[-1]["loss"] < 0.1 < log_of(tmp_path)[0]["loss"]
    ofa = load(tmp_path / "last")
    answers = ofa.generate([" what color is it?"] * 3, [picture(colour) for colour in COLOURS[:3]], num_beams=1)
    assert [answer.text for answer in answers] == list(COLOURS[:3])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema": 0.9},
        {"accumulate": 2},
        {"autocast": "bfloat16"},
        {"recipe": "ofa", "ema": 0.9},
        {"data": [{"task": "shapes", "options": {"weights": {"ground": 1}}, "sample_patch_num": 5}]},
    ],
    ids=str,
)
def test_a_run_that_was_cut_short_goes_on_as_if_it_had_not(tmp_path: Path, changes: dict[str, Any]) -> None:
    whole = train(settings(tmp_path / "whole", **changes)).state_dict()
    trainer = make_trainer(settings(tmp_path / "cut", **changes))
    trainer._save, saved = lambda: saved_at(trainer), trainer._save  # type: ignore[method-assign]

    def saved_at(trainer: Trainer) -> None:
        saved()
        if trainer.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    with (tmp_path / "cut" / "log.jsonl").open("a") as file:
        file.write('{"step": 5, "loss": 77}\n{"step": 6, "lo')  # what was done but not saved
    resumed = train(settings(tmp_path / "cut", **changes)).state_dict()
    assert differing(whole, resumed) == []
    assert log_of(tmp_path / "cut") == log_of(tmp_path / "whole")


def test_a_killed_run_goes_on_from_its_last_save(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path; from training.made import settings; from ofa_core.training.run import train\n"
        "train(settings(Path(sys.argv[1]), steps=400, save_every=3))\n"
    )
    tests = Path(__file__).parent.parent
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "killed"), str(tests), str(tests / "golden")],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},  # sums depend on it
    )
    state = tmp_path / "killed" / "state.safetensors"
    deadline = time.monotonic() + 120
    while not state.is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, facts = read_state(state)
    assert 3 <= facts["step"] < 400
    steps = facts["step"] + 2
    # The schedule knows the number of steps, so a run of another length is another run.
    with pytest.raises(OFAError, match=r"steps was 400, is"):
        train(settings(tmp_path / "killed", steps=steps, save_every=3))
    whole = make_trainer(settings(tmp_path / "whole", steps=400, save_every=3))
    resumed = make_trainer(settings(tmp_path / "killed", steps=400, save_every=3))
    for trainer in (whole, resumed):
        stop_at(trainer, steps)
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
    assert differing(whole.model.state_dict(), resumed.model.state_dict()) == []
    assert log_of(tmp_path / "killed") == log_of(tmp_path / "whole")


def stop_at(trainer: Trainer, step: int) -> None:
    learn = trainer._learn

    def learned(*given: Any) -> tuple[float, float, float]:
        if trainer.step == step:
            raise KeyboardInterrupt
        return learn(*given)

    trainer._learn = learned  # type: ignore[method-assign]


def test_accumulated_passes_make_the_step_of_one_large_batch(tmp_path: Path) -> None:
    still = {"freeze_batch_norm": True, "new_model": without_dropout(settings(tmp_path))}
    one = train(settings(tmp_path / "one", batch_size=4, **still))
    two = train(settings(tmp_path / "two", batch_size=2, accumulate=2, **still))
    for name, tensor in one.state_dict().items():
        assert torch.allclose(two.state_dict()[name].float(), tensor.float(), atol=2e-5), name


def without_dropout(run: TrainingSettings) -> dict[str, Any]:
    assert run.new_model is not None
    content = run.new_model.model_dump()
    content["config"] = {**content["config"], "dropout": 0.0}
    return content


@pytest.mark.parametrize(
    ("part", "moves"),
    [
        ("stem", lambda name: not name.startswith("encoder.image_stem.")),
        ("embeddings", lambda name: not name.startswith("token_embedding.")),
        ("encoder", lambda name: not name.startswith("encoder.")),
        ("decoder", lambda name: not name.startswith("decoder.")),
        ("all_but_biases", lambda name: name.endswith(".bias")),
        ("all_but_adapters", lambda name: ".adapter." in name),
        ("all_but_prompts", lambda name: ".prompt." in name),
    ],
)
def test_what_is_frozen_does_not_move_and_the_rest_does(tmp_path: Path, part: str, moves: Any) -> None:
    changes = {"adapter_dim": 4, "encoder_prompt": {"length": 2}, "decoder_prompt": {"length": 2}}
    trainer = make_trainer(settings(tmp_path, freeze=[part], config=changes, freeze_batch_norm=True))
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.run()
    moved = differing(before, trainer.model.state_dict())
    assert moved
    assert [name for name in moved if not moves(name)] == []


def test_freezing_everything_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OFAError, match="with all_but_adapters frozen nothing is left to train in this model"):
        make_trainer(settings(tmp_path, freeze=["all_but_adapters"]))


def test_the_moving_average_is_what_is_stored_and_evaluated(tmp_path: Path) -> None:
    trainer = make_trainer(settings(tmp_path, ema=0.9))
    seen = []
    trainer.evaluate = lambda model, step: (seen.append((model is trainer.result, step)), {"score": 1.0})[1]
    trainer.run()
    assert seen == [(True, 6)]
    assert trainer.result is not trainer.model
    stored = load(tmp_path / "last").model.state_dict()
    assert differing(stored, trainer.result.state_dict()) == []
    assert differing(stored, trainer.model.state_dict()) != []


def test_the_best_model_is_kept_when_later_ones_are_worse(tmp_path: Path) -> None:
    trainer = make_trainer(settings(tmp_path, evaluate_every=2))
    scores, states = iter([0.5, 0.9, 0.7]), []

    def evaluate(model: Any, step: int) -> dict[str, float]:
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return {"accuracy_at_05": next(scores)}

    trainer.evaluate = evaluate
    trainer.run()
    assert differing(load(tmp_path / "best").model.state_dict(), states[1]) == []
    assert differing(load(tmp_path / "last").model.state_dict(), states[2]) == []
    assert [row["accuracy_at_05"] for row in log_of(tmp_path) if "accuracy_at_05" in row] == [0.5, 0.9, 0.7]


def test_recomputed_activations_give_the_same_weights(tmp_path: Path) -> None:
    plain = train(settings(tmp_path / "plain"))
    again = train(settings(tmp_path / "again", checkpoint_activations=True))
    for name, tensor in plain.state_dict().items():
        assert torch.allclose(again.state_dict()[name].float(), tensor.float(), atol=1e-6), name


def test_the_rate_rises_and_falls_as_it_shall(tmp_path: Path) -> None:
    run = settings(tmp_path, steps=10, optimizer={"lr": 1e-3, "warmup_ratio": 0.2, "end": 0.1})
    train(run)
    rates = [row["lr"] for row in log_of(tmp_path)]  # of the step that comes next
    expected = [1.0] + [0.1 + 0.9 * (1 - (step - 2) / 8) for step in range(2, 11)]
    assert rates == pytest.approx([1e-3 * factor for factor in expected], abs=1e-6)


def broken_gradients(trainer: Trainer, steps: range) -> None:
    """Make the gradient of one parameter NaN in some steps, with a loss that stays finite."""
    name, weight = next(iter(trainer.model.encoder.layers[0].ffn.named_parameters(prefix="encoder.layers.0.ffn")))
    assert name == "encoder.layers.0.ffn.fc1.weight"
    weight.register_hook(lambda gradient: gradient * (torch.nan if trainer.step in steps else 1))


def test_a_step_whose_gradient_is_not_finite_changes_nothing(tmp_path: Path) -> None:
    trainer = make_trainer(settings(tmp_path, steps=4, save_every=1, ema=0.5, freeze_batch_norm=True))
    broken_gradients(trainer, range(1, 3))
    states = []
    save = trainer._save
    trainer._save = lambda: (save(), states.append(copy.deepcopy(trainer.model.state_dict())))  # type: ignore[method-assign,assign,return-value]
    trainer.run()
    assert differing(states[0], states[1]) == differing(states[1], states[2]) == []
    assert differing(states[2], states[3])
    assert all(bool(tensor.isfinite().all()) for tensor in trainer.result.state_dict().values())
    assert [row["norm"] is None for row in log_of(tmp_path)] == [False, True, True, False]


def test_many_such_steps_in_a_row_stop_the_run_with_the_state_as_it_was(tmp_path: Path) -> None:
    run = settings(tmp_path, steps=9, save_every=1, optimizer={"lr": 1e-3, "max_skipped": 3})
    trainer = make_trainer(run)
    broken_gradients(trainer, range(2, 9))
    said = r"not finite in 3 steps in a row, up to step 5; the first such parameter is encoder\.layers\.0\.ffn\.fc1"
    with pytest.raises(OFAError, match=said):
        trainer.run()
    groups, facts = read_state(tmp_path / "state.safetensors")
    assert (facts["step"], facts["skipped"]) == (4, 2)
    assert all(bool(tensor.isfinite().all()) for tensor in groups["model"].values())
    assert make_trainer(run).run() is None  # it goes on, now that nothing breaks


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path: Path) -> None:
    trainer = make_trainer(settings(tmp_path))
    with torch.no_grad():
        trainer.model.token_embedding.weight[:] = torch.nan
    with pytest.raises(OFAError, match="the loss of step 1 is nan"):
        trainer.run()
    assert not (tmp_path / "state.safetensors").exists()


def test_another_run_does_not_go_on_in_its_place(tmp_path: Path) -> None:
    train(settings(tmp_path))
    with pytest.raises(OFAError, match=r"holds a run with other settings \(batch_size was 2, is 3\)"):
        train(settings(tmp_path, batch_size=3))
    train(settings(tmp_path, save_every=1))  # what is written when is no other run


def test_a_run_that_was_killed_between_its_state_and_its_model_writes_the_model(tmp_path: Path) -> None:
    run = settings(tmp_path, steps=4, save_every=2, ema=0.5)
    trainer = make_trainer(run)
    write = trainer._write_model

    def killed(name: str) -> None:
        if trainer.step == 4:
            raise KeyboardInterrupt
        write(name)

    trainer._write_model = killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    expected = trainer.result.state_dict()
    assert read_state(tmp_path / "state.safetensors")[1]["step"] == 4
    assert differing(load(tmp_path / "last").model.state_dict(), expected) != []
    train(run)
    assert differing(load(tmp_path / "last").model.state_dict(), expected) == []
    written = (tmp_path / "last" / "model.safetensors").stat().st_mtime_ns
    train(run)
    assert (tmp_path / "last" / "model.safetensors").stat().st_mtime_ns == written, "it is not written for nothing"


@pytest.mark.parametrize("left", [".last.abcdefgh.tmp/last.old", ".last.abcdefgh.old"], ids=["now", "earlier version"])
def test_a_model_that_was_moved_away_comes_back_and_remains_go(tmp_path: Path, left: str) -> None:
    run = settings(tmp_path, steps=2)
    train(run)
    (tmp_path / left).parent.mkdir(exist_ok=True)
    (tmp_path / "last").rename(tmp_path / left)
    for name in (".state.safetensors.abcdefgh.tmp", ".best.abcdefgh.tmp", ".log.jsonl.abcdefgh.tmp"):
        (tmp_path / name).mkdir()
    before = (tmp_path / left / "model.safetensors").stat().st_mtime_ns
    train(run)
    assert (tmp_path / "last" / "model.safetensors").stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_run_of_another_recipe_says_which_setting_differs(tmp_path: Path) -> None:
    train(settings(tmp_path, steps=2))
    said = 'channels_last was True, as recipe = "modern" has it, is False'
    with pytest.raises(OFAError, match=said):
        train(settings(tmp_path, steps=2, recipe="ofa"))


def test_epochs_are_rounds_through_all_rows_of_files(tmp_path: Path) -> None:
    source = {"task": "refcoco_grounding", "path": captions(tmp_path, 5, bad=()), "images": tmp_path}
    trainer = make_trainer(settings(tmp_path / "run", steps=None, epochs=3, data=[source]))
    assert trainer.settings.steps == 9, "two of five rows a step: three steps an epoch"
    trainer.run()
    assert log_of(tmp_path / "run")[-1]["step"] == 9
    assert make_trainer(settings(tmp_path / "run", steps=None, epochs=3, data=[source])).run() is None
    with pytest.raises(OFAError, match="epochs needs data with files; what is drawn has no end"):
        make_trainer(settings(tmp_path / "drawn", steps=None, epochs=3))


def test_each_epoch_anneals_from_the_rate_that_it_finds() -> None:
    line = OptimizerSettings(lr=1.0, warmup_ratio=0.0, force_anneal=2)
    optimizer = make_optimizer(torch.nn.Linear(1, 1), line)
    factor = make_schedule(optimizer, line, 8, steps_per_epoch=4).lr_lambdas[0]
    assert [factor(step) for step in range(4)] == [1.0, 0.875, 0.75, 0.625]
    # the second epoch falls in the same line from 0.5, at which it begins
    assert [factor(step) for step in range(4, 9)] == pytest.approx([0.5 * (1 - step / 8) for step in range(4, 9)])


def test_eps_before_the_bias_correction_is_the_formula() -> None:
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(3, 2, dtype=torch.float64)) for _ in range(2)]
    wanted = [weight.detach().clone() for weight in weights]
    moments = [(torch.zeros_like(weight), torch.zeros_like(weight), 0) for weight in wanted]
    module = torch.nn.ParameterList(weights)
    rule = OptimizerSettings(lr=0.1, eps=1e-2, eps_rule="uncorrected", decay="all")
    optimizer = make_optimizer(module, rule)
    for step in range(4):
        for number, weight in enumerate(weights):
            weight.grad = torch.randn(3, 2, dtype=torch.float64) if number == 0 or step % 2 else None
            if weight.grad is None:
                continue  # moves and decays in every other step only, so that its age is another
            mean, square, age = moments[number]
            mean, square, age = 0.9 * mean + 0.1 * weight.grad, 0.999 * square + 0.001 * weight.grad**2, age + 1
            moments[number] = mean, square, age
            size = 0.1 * (1 - 0.999**age) ** 0.5 / (1 - 0.9**age)
            wanted[number] = wanted[number] * (1 - 0.1 * 0.01) - size * mean / (square.sqrt() + 1e-2)
        optimizer.step()
    for weight, expected in zip(weights, wanted, strict=True):
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("parts", "left"),
    [
        (["all_but_adapters", "all_but_prompts"], lambda name: ".adapter." in name or ".prompt." in name),
        (["all_but_bitfit"], lambda name: name.endswith((*BITFIT,))),
        (["as_original"], lambda name: ".adapter." in name or ".prompt." in name),
    ],
)
def test_what_parts_leave_together(tmp_path: Path, parts: list[str], left: Any) -> None:
    changes = {"adapter_dim": 4, "encoder_prompt": {"length": 2}}
    model = make_trainer(settings(tmp_path, freeze=parts, config=changes)).model
    moving = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert moving == {name for name, _ in model.named_parameters() if left(name)}


def test_frozen_batch_norm_keeps_its_gains_where_it_shall(tmp_path: Path) -> None:
    for affine in (False, True):
        run = settings(tmp_path / str(affine), freeze_batch_norm=True, freeze_batch_norm_affine=affine, steps=2)
        trainer = make_trainer(run)
        before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
        trainer.run()
        moved = differing(before, trainer.model.state_dict())
        assert any(".bn1." in name for name in moved) != affine
        assert any(name.endswith("image_stem.conv1.weight") for name in moved)


def test_two_runs_do_not_write_in_one_place(tmp_path: Path) -> None:
    run = settings(tmp_path, steps=1)
    with sole_writer(tmp_path), pytest.raises(OFAError, match="is being written by another process"):
        train(run)


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    trainer = make_trainer(settings(tmp_path, steps=1))
    monkeypatch.setattr(state, "save_file", fail)
    with pytest.raises(OFAError, match=rf"{tmp_path}/state\.safetensors cannot be written: .*No space left on device"):
        trainer.run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "loss.svg"]


def captions(directory: Path, count: int, bad: Sequence[int]) -> Path:
    """Rows on pictures, some of which are damaged, missing or of another size than the row's box needs."""
    lines = []
    for number in range(count):
        path = directory / f"{number}.png"
        if number in bad:
            kind = bad.index(number) % 3
            if kind == 0:
                path.write_bytes(b"damaged")
            elif kind == 1:
                picture("red").resize((8, 8)).save(path)
        else:
            picture(COLOURS[number % len(COLOURS)]).save(path)
        lines.append(f"{number}\t{number}.png\tthing {number}\t8,16,40,48\t\n")
    (directory / "x.tsv").write_text("".join(lines))
    return directory / "x.tsv"


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_pictures_are_left_out_counted_and_told_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], workers: int
) -> None:
    path = captions(tmp_path, 6, bad=(1, 2, 5))
    source = {"task": "refcoco_grounding", "path": path, "images": tmp_path, "skip_bad": True}
    run = {"data": [source], "steps": 6, "workers": workers}
    whole = train(settings(tmp_path / "whole", **run)).state_dict()
    rows = log_of(tmp_path / "whole")
    assert rows[-1]["left_out"] >= 6, "12 rows are two epochs, in each of which 3 of 6 are bad"
    told = [line for line in capfd.readouterr().err.replace("\r", "\n").splitlines() if line.startswith("skipped: ")]
    assert sorted(re.findall(r"x\.tsv:(\d)", " ".join(told))) == ["2", "3", "6"]
    trainer = make_trainer(settings(tmp_path / "cut", **run))
    stop_at(trainer, 3)
    trainer.settings = trainer.settings.model_copy(update={"save_every": 1})
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert differing(train(settings(tmp_path / "cut", **run)).state_dict(), whole) == []
    assert log_of(tmp_path / "cut") == rows


def test_bad_pictures_end_a_run_that_does_not_skip_them(tmp_path: Path) -> None:
    path = captions(tmp_path, 6, bad=(4,))
    source = {"task": "refcoco_grounding", "path": path, "images": tmp_path}
    with pytest.raises(OFAError, match=r"x\.tsv:5: .*4\.png"):
        train(settings(tmp_path / "run", data=[source]))


def test_the_fused_optimizer_moves_weights_as_the_plain_one() -> None:
    models = nano(), nano()
    fused, plain = (make_optimizer(model, OptimizerSettings(lr=1e-3, weight_decay=0.1)) for model in models)
    assert all(group["fused"] for group in fused.param_groups)
    for group in plain.param_groups:
        group["fused"], group["foreach"] = False, False
    for step in range(3):
        torch.manual_seed(step)
        for first, second in zip(*(model.parameters() for model in models), strict=True):
            first.grad = torch.randn_like(first)
            second.grad = first.grad.clone()
        fused.step()
        plain.step()
    for (name, first), second in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-6, msg=name)
