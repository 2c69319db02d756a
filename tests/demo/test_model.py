"""The model that comes with the package: loads offline, is small, and is right about pictures it has never seen."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import torch

import ofa_core
from ofa_core import OFA
from ofa_core.checkpoint.names import DEMO_CHECKPOINT
from ofa_core.cli.main import main
from ofa_core.demo.dialogs import closed_dialog
from ofa_core.demo.language import PHRASES, phrase, region_caption
from ofa_core.demo.world import draw, make_scene
from ofa_core.vision.boxes import box_iou

#: The least shares that must be right: well below the published figures, far above chance.
GROUNDING, NAMES, REGIONS, ORACLE = 0.85, 0.9, 0.7, 0.85
#: Pictures that are asked about, far from those of the published figures.
SCENES = [make_scene(seed, "test") for seed in range(5_000_000, 5_000_060)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> OFA:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("OFA_BPE_DIR", raising=False)
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))  # without a directory named demo
        return ofa_core.load("demo")


def test_it_is_small_and_has_the_usual_architecture(demo: OFA) -> None:
    assert DEMO_CHECKPOINT.stat().st_size < 12_000_000
    config = demo.model.config
    assert (config.encoder_layers, config.decoder_layers, config.embed_dim) == (3, 3, 128)
    assert config.task.num_bins == 1000
    assert config.scale_attn
    assert config.scale_fc
    assert config.scale_heads


def test_a_directory_named_demo_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    with pytest.raises(ofa_core.CheckpointError, match="demo is not a model directory"):
        ofa_core.load("demo")


@pytest.mark.parametrize(("kinds", "least"), [(tuple(PHRASES), GROUNDING), (("name",), NAMES)], ids=["all", "names"])
def test_it_finds_what_phrases_describe(demo: OFA, kinds: tuple[str, ...], least: float) -> None:
    asked = [phrase(scene, Random(number), kinds) for number, scene in enumerate(SCENES)]
    pairs = [(scene, *found) for scene, found in zip(SCENES, asked, strict=True) if found is not None]
    found = demo.ground([draw(scene) for scene, *_ in pairs], [words for *_, words in pairs], num_beams=1)
    overlaps = [
        float(box_iou(torch.tensor(one.box or (0.0, 0.0, 0.0, 0.0)), torch.tensor(thing.box)))
        for one, (_, thing, _, _) in zip(found, pairs, strict=True)
    ]
    assert sum(overlap >= 0.5 for overlap in overlaps) / len(overlaps) >= least


def test_it_names_what_regions_show(demo: OFA) -> None:
    things = [Random(number).choice(scene.things) for number, scene in enumerate(SCENES)]
    pictures, boxes = [draw(scene) for scene in SCENES], [thing.box for thing in things]
    said = demo.describe_region(pictures, boxes, num_beams=1)
    right = [text.text == region_caption(thing) for text, thing in zip(said, things, strict=True)]
    assert sum(right) / len(right) >= REGIONS


def test_it_answers_the_questions_of_games(demo: OFA) -> None:
    pictures, boxes, dialogs, questions, answers = [], [], [], [], []
    for number, scene in enumerate(SCENES):
        talk = closed_dialog(scene, Random(number).choice(scene.things), Random(number))
        for turn, (question, answer) in enumerate(talk.questions):
            pictures.append(draw(scene))
            boxes.append(talk.target.box)
            dialogs.append(talk.questions[:turn])
            questions.append(question)
            answers.append(answer)
    found = demo.oracle(pictures, boxes, dialogs, questions)
    right = [one.answer == answer for one, answer in zip(found, answers, strict=True)]
    assert sum(right) / len(right) >= ORACLE


def test_the_shapes_command_writes_what_the_benchmarks_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shapes", str(tmp_path / "data"), "--count", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(Path(line.split(": ")[0]).exists() for line in lines)
    assert len(list((tmp_path / "data/images").glob("*.png"))) == 3
    assert main(["shapes", str(tmp_path / "data"), "--count", "0"]) == 2
    assert "--count must be at least 1" in capsys.readouterr().err
