"""The demo model that draws: small, offline, and it draws what was asked for, as the other demo model sees it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ofa_core
from benchmarks.demo_pictures import judge
from ofa_core import OFA
from ofa_core.checkpoint.names import DRAWING_MODEL
from ofa_core.cli.main import main
from ofa_core.data.readers import read_records
from ofa_core.demo.files import write_captioned
from ofa_core.demo.language import caption
from ofa_core.demo.pictures import SIDE, captioned, picture_scene, small_picture

#: The least share of pictures that must show what was asked for: well below the published figure, far above chance.
DRAWN = 0.5
#: Scenes far from those of the published figures.
SCENES = [picture_scene(seed) for seed in range(50_000_000, 50_000_024)]


@pytest.fixture(scope="module")
def painter() -> OFA:
    return ofa_core.load("demo-pictures")


def test_it_is_small(painter: OFA) -> None:
    assert sum(path.stat().st_size for path in DRAWING_MODEL.iterdir()) < 12_000_000
    assert (DRAWING_MODEL / "vqgan.safetensors").stat().st_size < 3_000_000
    assert painter.draws
    assert {"image_gen", "caption"} <= set(painter.config.task.learned)


def test_codes_keep_what_a_picture_shows(painter: OFA) -> None:
    pictures = [small_picture(scene) for scene in SCENES]
    back = [painter.decode_codes(painter.encode_image(one)) for one in pictures]
    differences = [
        np.abs(np.asarray(a, float) - np.asarray(b, float)).mean() for a, b in zip(pictures, back, strict=True)
    ]
    assert np.mean(differences) < 4  # of 255


def test_it_draws_what_was_asked_for(painter: OFA) -> None:
    drawn = painter.imagine([caption(scene) for scene in SCENES], count=4, seed=1)
    judged = judge(ofa_core.load("demo"), [one[0].image for one in drawn], SCENES)
    assert judged.all_there >= DRAWN


def test_the_command_draws_offline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pictures"
    arguments = ["a red circle and a blue square", "--model", "demo-pictures", "--out", str(out), "--count", "2"]
    assert main(["imagine", *arguments, "--seed", "1"]) == 0
    assert [Image.open(path).size for path in sorted(out.iterdir())] == [(SIDE, SIDE)] * 2
    assert "seed 1" in capsys.readouterr().out


def test_the_model_that_answers_names_the_one_that_draws(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["imagine", "a red circle", "--model", "demo", "--out", str(tmp_path / "one.png")]) == 2
    assert capsys.readouterr().err.strip().endswith("the model demo draws no pictures; demo-pictures does")


def test_rows_of_captions_are_read_as_they_were_drawn(tmp_path: Path) -> None:
    path = tmp_path / "captions.tsv"
    write_captioned(path, 3, first=7)
    rows = list(read_records("caption", path))
    assert [row.text for row in rows] == [captioned(seed)[1] for seed in range(7, 10)]
    assert len({row.id for row in rows}) == 3


def test_the_page_finds_who_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio", reason="the extra web is not installed")
    from ofa_core.web import start

    answering, drawing = SimpleNamespace(draws=False), SimpleNamespace(draws=True)
    monkeypatch.setattr(start, "_loaded", lambda name, *_, **__: {"demo-pictures": drawing}.get(name, answering))

    def found(draw: str | None, *models: tuple[str, Any]) -> str | None:
        painter = start._painter(models, SimpleNamespace(draw=draw))  # type: ignore[arg-type]
        return painter and painter[0]

    assert found(None, ("demo", answering)) == "demo-pictures"
    assert found(None, ("mine", answering)) is None
    assert found(None, ("mine", answering), ("other", drawing)) == "other"
    assert found("demo-pictures", ("mine", answering)) == "demo-pictures"
    with pytest.raises(ofa_core.OFAError, match=r"^elsewhere has no network of image codes, so it draws no pictures$"):
        found("elsewhere", ("mine", answering))
