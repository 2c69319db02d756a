"""The runner on onnxruntime gives the original's tokens and the library's boxes, and needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image
from reference import SCORE_TOLERANCE, generation_model, golden_cases, options_of, reference_images

import ofa_core
from ofa_core import OFA
from ofa_core.demo.language import phrase
from ofa_core.demo.world import draw, make_scene
from ofa_core.export import export_model
from ofa_core.export.folder import searched
from ofa_core.export.graph_files import write_graphs
from ofa_core.export.runner import Runner, Searcher, Tokenizer, normalized
from ofa_core.text import pre_caption, small_vocabulary_dir

pytest.importorskip("onnxruntime", reason="the runner needs onnxruntime")
pytest.importorskip("onnxscript", reason="ONNX files need onnxscript")

#: Pictures of the demo model's world on which the runner and the library are compared.
PICTURES = 100


def is_plain_search(case: dict[str, Any]) -> bool:
    """Tell whether a case searches one small model on pictures, without rules that the runner does not have."""
    settings = case["settings"]
    rules = (
        case["trie_words"],
        case["prefix_tokens"],
        settings["constraint_range"],
        settings.get("diverse_beam_groups"),
    )
    return len(case["models"]) == 1 and case["models"][0]["nano"] and case["image"] is not None and not any(rules)


CASES = {case["name"]: case for case in golden_cases("generate.json") if is_plain_search(case)}


@pytest.fixture(scope="module")
def exported_nano(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of a small reference model for pictures of a side."""

    @cache
    def folder(salt: str, side: int) -> Path:
        directory = tmp_path_factory.mktemp("nano")
        write_graphs(generation_model(salt), side, directory)
        return directory

    return folder


@pytest.mark.reference
@pytest.mark.parametrize("name", CASES)
def test_its_search_equals_the_original(name: str, exported_nano: Any) -> None:
    case = CASES[name]
    folder = exported_nano(case["models"][0]["salt"], case["image"]["height"])
    searcher = Searcher(folder, searched(options_of(case["settings"]), 1024), threads=1)
    images = reference_images(case["image"])
    assert images is not None
    for source, pixels, expected in zip(case["src_tokens"], images, case["hypotheses"], strict=True):
        found = searcher.search(source, pixels[None].numpy())
        assert [tokens for tokens, _ in found] == [one["tokens"] for one in expected]
        for (_, scores), one in zip(found, expected, strict=True):
            assert scores == pytest.approx(one["positional_scores"], abs=SCORE_TOLERANCE)


@pytest.fixture(scope="module")
def exported_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "demo"
    export_model("demo", folder)
    return folder


@pytest.fixture(scope="module")
def demo() -> OFA:
    return ofa_core.load("demo")


def questions(count: int) -> list[tuple[Image.Image, str]]:
    found = []
    for seed in range(2 * count):
        scene = make_scene(seed, "test")
        asked = phrase(scene, Random(f"phrase {seed}"))
        if asked is not None:
            found.append((draw(scene), asked[2]))
    return found[:count]


def test_boxes_and_tokens_equal_the_librarys(exported_demo: Path, demo: OFA, tmp_path: Path) -> None:
    asked = questions(PICTURES)
    expected = demo.ground([picture for picture, _ in asked], [text for _, text in asked], confidence=False)
    runner = Runner(exported_demo, threads=1)
    for number, ((picture, text), one) in enumerate(zip(asked, expected, strict=True)):
        picture.save(tmp_path / f"{number}.png")
        found = runner.ground(tmp_path / f"{number}.png", text)
        assert (None if found["bins"] is None else tuple(found["bins"])) == one.bins
        assert found["box"] == (None if one.box is None else pytest.approx(one.box, abs=1e-4))
        assert found["score"] == pytest.approx(one.score, abs=SCORE_TOLERANCE)
    assert len(asked) == PICTURES


#: Runs a script where importing torch fails.
WITHOUT_TORCH = """
import runpy, sys
sys.modules["torch"] = sys.modules["ofa_core"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, "-c", WITHOUT_TORCH, str(folder / "runner.py"), *arguments]
    return subprocess.run(script, capture_output=True, text=True, check=False)


def test_the_copied_script_needs_no_torch(exported_demo: Path, demo: OFA, tmp_path: Path) -> None:
    picture, text = questions(1)[0]
    picture.save(tmp_path / "picture.png")
    ended = run(exported_demo, str(tmp_path / "picture.png"), text)
    assert ended.stderr == ""
    found, expected = json.loads(ended.stdout), demo.ground(picture, text, confidence=False)
    assert found["box"] == pytest.approx(expected.box, abs=1e-4)
    assert expected.bins is not None
    assert found["bins"] == list(expected.bins)


@pytest.mark.parametrize(
    ("picture", "text", "told"),
    [
        ("missing.png", "it", "No such file"),
        ("text.png", "it", "cannot identify image file"),
        ("grey.png", "it", "grey of more than 8 bits"),
        ("plain.png", " ?! ", ""),
        ("plain.png", "", "the text to ground is empty"),
        ("plain.png", "é" * 3000, "is too long: this model holds"),
    ],
    ids=["missing", "no_picture", "deep_grey", "punctuation", "empty", "long"],
)
def test_wrong_questions_are_one_line(exported_demo: Path, tmp_path: Path, picture: str, text: str, told: str) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.new("I;16", (20, 20), 3000).save(tmp_path / "grey.png")
    Image.new("RGB", (20, 20)).save(tmp_path / "plain.png")
    ended = run(exported_demo, str(tmp_path / picture), text)
    if not told:
        assert ended.returncode == 0
        return
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert told in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_folder_that_was_not_exported(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="was not exported"):
        Runner(tmp_path)
    with pytest.raises(ValueError, match=r"has no encoder\.onnx and no decoder\.onnx"):
        Searcher(tmp_path, {})


TEXTS = (
    "the man in white",
    "ein Häuschen, 12 m² – don't!",
    "  two\u00a0spaces\t\tand\ntabs ",
    "数字 ½ ⅷ 42",
    "🙂🙂 x\u0301",
    "it's we've I'LL",
    "\x1c\x1d odd \ud800",
    "...?!",
    "a-b/c <person> <bin_3>",
)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
@pytest.mark.parametrize("official", [False, True], ids=["small", "official"])
def test_its_tokenizer_is_ours(text: str, official: bool, request: pytest.FixtureRequest) -> None:
    directory = request.getfixturevalue("official_bpe") if official else small_vocabulary_dir()
    ours = ofa_core.Tokenizer.from_dir(directory)
    assert Tokenizer(directory).encode(text) == ours.encode(text)
    assert normalized(text) == pre_caption(text)
