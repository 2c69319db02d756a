"""Commands that ask a model: what they print is what the methods of ``OFA`` answer."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from bench.runs import save_lively
from PIL import Image
from reference import picture as noise

import ofa_core
from ofa_core import OFA, api
from ofa_core.cli.main import main
from ofa_core.cli.pictures import named_pictures

QUICK = ["--num-beams", "2", "--max-new-tokens", "4"]
OPTIONS: dict[str, Any] = {"num_beams": 2, "max_new_tokens": 4}
BOX = ["--box", "1", "1", "9", "9"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_lively(tmp_path_factory.mktemp("models") / "lively")


@pytest.fixture(scope="module")
def loaded(model: Path) -> OFA:
    return ofa_core.load(model)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures, one of them in a folder of its own, and what is none."""
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "inner/c.png")):
        noise(number, 30, 40).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    noise(9, 30, 40).save(folder / ".hidden.png")
    return folder


def lines(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    assert main([str(argument) for argument in arguments]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


#: Arguments of each head, and the method's answer to them.
ASKED: dict[str, tuple[list[str], Any]] = {
    "detect": (QUICK, lambda ofa, image: ofa.detect(image, **OPTIONS)),
    "ask": (
        ["--dialog", "is it red?", "no", *QUICK],
        lambda ofa, image: ofa.ask(image, ["is it red?", "no"], **OPTIONS),
    ),
    "describe": ([*BOX, *QUICK], lambda ofa, image: ofa.describe_region(image, [1, 1, 9, 9], **OPTIONS)),
    "entails": (["it is red", "--caption", "a dog"], lambda ofa, image: ofa.entails(image, "it is red", "a dog")),
    "classify": (["--labels", "dog", "cat"], lambda ofa, image: ofa.classify(image, ["dog", "cat"])),
    "ground": (
        ["the dog", *QUICK, "--prompt", "where is {caption}?", "--threshold", "0.1", "--bins-only"],
        lambda ofa, image: ofa.ground(
            image, "the dog", prompt="where is {caption}?", threshold=0.1, bins_only=True, **OPTIONS
        ),
    ),
    "caption": (
        ["--prompt", "what is it?", *QUICK],
        lambda ofa, image: ofa.caption(image, prompt="what is it?", **OPTIONS),
    ),
    "answer": (["what is it?", *QUICK], lambda ofa, image: ofa.answer(image, "what is it?", **OPTIONS)),
    "oracle": (
        ["is it red?", *BOX, "--style", "invig", "--dialog", "a dog", *QUICK],
        lambda ofa, image: ofa.oracle(image, [1, 1, 9, 9], ["a dog"], "is it red?", style="invig", **OPTIONS),
    ),
}


@pytest.mark.parametrize("head", ASKED)
def test_a_head_answers_as_its_method_does(
    head: str, model: Path, loaded: OFA, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, method = ASKED[head]
    image = photos / "a.png"
    found = method(loaded, image)
    (line,) = lines(capsys, head, image, *arguments, "--model", model, "--json")
    assert line["image"] == str(image)
    said = found.answer if hasattr(found, "answer") else found.text
    assert line["answer"] == said
    if hasattr(found, "score"):
        assert line["score"] == pytest.approx(found.score, abs=1e-5)
    assert main([head, str(image), *arguments, "--model", str(model)]) == 0
    assert capsys.readouterr().out.startswith(f"{image}: ")


def test_texts_alone_are_asked(model: Path, loaded: OFA, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a dog on a sofa"))
    found = lines(capsys, "summarize", "a cat is black", "-", *QUICK, "--model", model, "--json")
    assert [line["text"] for line in found] == ["a cat is black", "a dog on a sofa"]
    assert [line["answer"] for line in found] == [
        loaded.summarize(text, **OPTIONS).text for text in ("a cat is black", "a dog on a sofa")
    ]
    (line,) = lines(capsys, "generate", "what is it?", *QUICK, "--model", model, "--json")
    assert line["answer"] == loaded.generate("what is it?", **OPTIONS).text
    assert "image" not in line


def test_a_raw_prompt_goes_with_pictures(
    model: Path, loaded: OFA, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = lines(capsys, "generate", "what is it?", "--image", photos / "a.png", *QUICK, "--model", model, "--json")
    assert line["answer"] == loaded.generate("what is it?", photos / "a.png", **OPTIONS).text


def test_an_explanation_is_told_and_drawn(
    model: Path, loaded: OFA, photos: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "looked.png"
    (line,) = lines(capsys, "explain", photos / "a.png", "the dog", "--out", out, "--model", model, "--json")
    found = loaded.explain(photos / "a.png", "the dog")
    assert line["peak"] == pytest.approx(found.peak(), abs=0.51)
    assert line["tokens"] == list(found.tokens)
    assert Image.open(out).size == (40, 30)


def test_pictures_that_are_imagined_are_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {}

    def imagine(self: OFA, text: str, **options: Any) -> list[Any]:
        asked.update(options, text=text)
        import numpy as np

        from ofa_core import Imagined

        codes = np.zeros((2, 2), dtype=int)
        return [Imagined(noise(n, 16, 16), codes, (-1.0,) * 4, 0.5 - n / 10, n) for n in range(options["count"])]

    monkeypatch.setattr(api.OFA, "imagine", imagine)
    out = tmp_path / "drawn"
    options = ["--count", "2", "--seed", "3", "--top-k", "9", "--temperature", "0.5", "--guidance", "2.5"]
    found = lines(capsys, "imagine", "a dog", "--out", out, *options, "--model", model, "--json")
    assert [Path(line["file"]).name for line in found] == ["1.png", "2.png"]
    assert [Image.open(line["file"]).size for line in found] == [(16, 16)] * 2
    assert (asked["text"], asked["seed"], asked["top_k"], asked["temperature"]) == ("a dog", 3, 9, 0.5)
    assert asked["guidance"] == 2.5
    assert "top_p" not in asked


def test_directories_and_patterns_are_pictures_in_their_order(
    model: Path, loaded: OFA, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = [photos / "a.png", photos / "b.png", photos / "inner" / "c.png"]
    assert named_pictures([str(photos)]) == expected
    assert named_pictures([f"{photos}/*.png"]) == expected[:2]
    assert named_pictures([f"{photos}/**/c.png", f"{photos}/a.png"]) == [expected[2], expected[0]]
    found = lines(capsys, "caption", photos, *QUICK, "--model", model, "--json", "--batch-size", 2)
    assert [line["image"] for line in found] == list(map(str, expected))
    assert [line["answer"] for line in found] == [one.text for one in loaded.caption(expected, **OPTIONS)]


def test_a_file_whose_name_has_marks_of_a_pattern_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].png").write_bytes(b"")
    assert named_pictures([str(tmp_path / "a[1].png")]) == [tmp_path / "a[1].png"]


def test_results_come_before_the_next_picture_is_asked_about(
    model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []

    def caption(self: OFA, image: list[Any], **options: Any) -> list[Any]:
        printed.append(capsys.readouterr().out.count("\n"))
        return [ofa_core.Caption("a dog") for _ in image]

    monkeypatch.setattr(api.OFA, "caption", caption)
    assert main(["caption", str(photos), "--model", str(model)]) == 0
    assert printed == [0, 1, 1]


def test_bad_pictures_are_left_out_and_counted(model: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "b.png").write_bytes((photos / "b.png").read_bytes()[:60])
    command = ["caption", str(photos), str(photos / "none.png"), *QUICK, "--model", str(model)]
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    for size in ("1", "3"):
        assert main([*command, "--skip-bad", "--batch-size", size]) == 0
        out, err = capsys.readouterr()
        assert [Path(line.partition(": ")[0]).name for line in out.splitlines()] == ["a.png", "c.png"]
        assert err.count("skipped: ") == 2
        assert err.count("b.png") == 1
        assert err.endswith("ofa-core: 2 of 4 could not be used\n")


def test_where_nothing_can_be_answered_the_command_fails(
    model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["caption", str(photos / "x.png"), str(photos / "y.png"), "--skip-bad", "--model", str(model)]
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "none of 2 could be answered" in err


def test_pictures_are_read_at_the_side_that_was_asked_for(
    model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = []
    caption = api.OFA.caption

    def remember(self: OFA, *args: Any, **options: Any) -> Any:
        sides.append(self.model.config.task.image_size)
        return caption(self, *args, **options)

    monkeypatch.setattr(api.OFA, "caption", remember)
    command = ["caption", str(photos / "a.png"), *QUICK, "--model", str(model)]
    assert main([*command, "--image-size", "48"]) == 0
    assert sides == [48]


@pytest.mark.parametrize("text", ["dog.png is red", "3.5", "e.g. a dog", "the dog"])
def test_texts_that_only_look_like_names_are_texts(text: str) -> None:
    from ofa_core.cli.pictures import check_no_picture

    check_no_picture(text, "TEXT", "ground")
