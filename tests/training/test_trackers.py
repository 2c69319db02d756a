"""TensorBoard and Weights & Biases are told what the log holds, once, however often a run stops."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from bench.made import row
from PIL import Image
from training.made import picture, settings

from ofa_core import OFAError
from ofa_core.demo.files import write_dataset
from ofa_core.training.run import make_trainer, train
from ofa_core.training.sample_pictures import COUNT, DUE, SIDE, drawn
from ofa_core.vision.drawing import COLOR

needs_tensorboard = pytest.mark.skipif(find_spec("tensorboard") is None, reason="needs tensorboard")


def events(directory: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(directory / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def curves(directory: Path) -> dict[str, list[tuple[int, float]]]:
    found = events(directory)
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def logged(directory: Path) -> dict[str, list[tuple[int, float]]]:
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in (directory / "log.jsonl").read_text().splitlines():
        values = json.loads(line)
        step = values.pop("step")
        for name, value in values.items():
            curves.setdefault(name, []).append((step, pytest.approx(value, rel=1e-5, abs=1e-6)))
    return curves


def benchmark(tmp_path: Path) -> dict[str, Any]:
    write_dataset(tmp_path / "data", 6)
    return {"task": "refcoco_grounding", "path": tmp_path / "data/names.tsv"}


@needs_tensorboard
def test_tensorboard_has_the_log_and_pictures_of_each_evaluation(tmp_path: Path) -> None:
    changes = {"evaluation": [benchmark(tmp_path)], "evaluate_every": 3}
    train(settings(tmp_path / "run", tensorboard=True, **changes))
    assert curves(tmp_path / "run") == logged(tmp_path / "run")
    assert "refcoco_grounding/names" in curves(tmp_path / "run")
    found = events(tmp_path / "run")
    assert found.Tags()["images"] == [f"refcoco_grounding/names/{number}" for number in range(1, COUNT + 1)]
    for tag in found.Tags()["images"]:
        assert [event.step for event in found.Images(tag)] == [3, 6]
    shown = Image.open(io.BytesIO(found.Images("refcoco_grounding/names/1")[0].encoded_image_string))
    assert max(shown.size) <= SIDE
    assert DUE in set(
        shown.convert("RGB").get_flattened_data() if hasattr(shown, "get_flattened_data") else shown.getdata()
    )


def test_nothing_is_told_unless_it_is_asked_for(tmp_path: Path) -> None:
    trainer = make_trainer(settings(tmp_path / "run", evaluation=[benchmark(tmp_path)]))
    trainer.run()
    assert not (tmp_path / "run/tensorboard").exists()
    assert trainer.evaluate is not None
    assert trainer.evaluate.pictures == {}  # type: ignore[attr-defined]


@needs_tensorboard
def test_a_run_that_is_killed_and_goes_on_shows_every_step_once(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path; from training.made import settings; from ofa_core.training.run import train\n"
        "train(settings(Path(sys.argv[1]), steps=60, save_every=7, tensorboard=True))\n"
    )
    tests = Path(__file__).parent.parent
    command = [sys.executable, "-c", script, str(tmp_path / "killed"), str(tests), str(tests / "golden")]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    log = tmp_path / "killed/log.jsonl"
    for lines in (9, 25):  # behind the saves of steps 7 and 21
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
        deadline = time.monotonic() + 120
        while (not log.is_file() or len(log.read_text().splitlines()) < lines) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    train(settings(tmp_path / "killed", steps=60, save_every=7, tensorboard=True))
    assert [step for step, _ in curves(tmp_path / "killed")["loss"]] == list(range(1, 61))
    assert curves(tmp_path / "killed") == logged(tmp_path / "killed")


class FakeWandb(ModuleType):
    """The package as runs use it, with a server that remembers."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.told: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        self.begun: list[dict[str, Any]] = []

    def init(self, **given: Any) -> Any:
        self.begun.append(given)
        told = self.told.setdefault(given["id"], [])
        step = told[-1][0] + 1 if told else 0
        return SimpleNamespace(step=step, log=lambda values, step: told.append((step, values)), finish=lambda: None)

    def Image(self, picture: Image.Image) -> Image.Image:  # noqa: N802, as it is called there
        return picture


def test_wandb_goes_on_under_one_name_and_hears_each_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    changes: dict[str, Any] = {"wandb": "boxes", "evaluation": [benchmark(tmp_path)], "evaluate_every": 3}
    trainer = make_trainer(settings(tmp_path / "run", **changes))
    learn = trainer._learn

    def cut_short(*given: Any) -> Any:
        if trainer.step == 5:  # the state is that of step 4
            raise KeyboardInterrupt
        return learn(*given)

    monkeypatch.setattr(trainer, "_learn", cut_short)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    train(settings(tmp_path / "run", **changes))
    (told,) = wandb.told.values()
    assert [step for step, values in told if "loss" in values] == [1, 2, 3, 4, 5, 6]
    assert [step for step, values in told if "refcoco_grounding/names" in values] == [3, 6]
    numbered = {f"refcoco_grounding/names/{number}" for number in range(1, COUNT + 1)}
    assert [step for step, values in told if values.keys() == numbered] == [3, 6]
    assert [(one["project"], one["resume"]) for one in wandb.begun] == [("boxes", "allow")] * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tensorboard": True}, r"^tensorboard = true needs the package tensorboard: pip install tensorboard$"),
        ({"wandb": "boxes"}, r"^wandb = 'boxes' needs the package wandb: pip install wandb$"),
    ],
)
def test_a_package_that_is_missing_is_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    for name in ("tensorboard", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not there
    with pytest.raises(OFAError, match=message):
        make_trainer(settings(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_a_run_may_begin_or_cease_to_be_shown(tmp_path: Path) -> None:
    shown = settings(tmp_path, tensorboard=True, wandb="boxes")
    assert shown.fingerprint() == settings(tmp_path).fingerprint()


def test_boxes_that_were_due_and_found_are_drawn_where_they_are() -> None:
    image = picture("white").resize((800, 400))
    shown = drawn(image, row(0, size=(800, 400), box=(80, 80, 240, 240), found=(400, 80, 640, 240)))
    assert shown.size == (400, 200)
    assert [shown.getpixel(place) for place in ((40, 80), (200, 80), (320, 100))] == [DUE, COLOR, COLOR]
    assert shown.getpixel((60, 80)) == (255, 255, 255)
    said = drawn(image, row(0, size=(800, 400), box=None, found=None, iou=None, output="a white picture"))
    assert said.getpixel((1, 1)) == COLOR, "the answer stands at the top"
