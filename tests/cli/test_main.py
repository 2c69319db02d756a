from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from reference import picture as noise
from reference import synth

import ofa_core
from ofa_core import api
from ofa_core.cli.main import main
from ofa_core.cli.options import run
from ofa_core.utils.printable import printable
from ofa_core.utils.stopping import Stopped
from ofa_core.vision.drawing import COLOR

TEXT = "the man in white"
KEYS = {"image", "text", "box", "score", "bins", "answer", "token_scores", "alternatives", "regions", "seconds"} | {
    "confidence",
    "present",
}


@pytest.fixture(autouse=True)
def _no_model_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OFA_MODEL", raising=False)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(synth.synth_image(90, 140, 1)).save(path)
    return path


def ground(directory: Path, *arguments: object) -> int:
    return main(["ground", *map(str, arguments), "--model", str(directory)])


def error_of(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """What the program prints when it fails: one line on stderr, nothing on stdout, exit code 2."""
    try:
        code: Any = main(arguments)
    except SystemExit as exit_:
        code = exit_.code
    out, err = capsys.readouterr()
    assert code == 2, err
    assert out == ""
    assert err.startswith("ofa-core")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert "Traceback" not in err
    return err


# --- answers -------------------------------------------------------------------------------------------------------


def test_a_box_is_printed_in_pixels_of_the_picture(
    small_directory: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ground(small_directory, picture, TEXT, "--bins-only") == 0
    out, err = capsys.readouterr()
    found = ofa_core.load(small_directory).ground(picture, TEXT, bins_only=True)
    assert found.box is not None
    box = ", ".join(f"{value:.1f}" for value in found.box)
    assert out.startswith(f"{picture}: box ({box}) in pixels x0, y0, x1, y1, score {found.score:.4f}, ")
    assert out.endswith(" s\n")
    assert (out.count("\n"), err) == (1, "")


def test_no_text_of_a_model_acts_on_the_terminal(
    small_directory: Path, picture: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = picture.rename(picture.with_name("\x1b[2J.png"))
    monkeypatch.setattr(api.OFA, "caption", lambda *_, **__: [ofa_core.Caption("a\x9b\u202edog", 0.5, (0.5,))])
    for options in ([], ["--json"]):
        assert main(["caption", str(hostile), "--model", str(small_directory), *options]) == 0
        out = capsys.readouterr().out
        assert out == printable(out.rstrip("\n")) + "\n"
        assert r"a\x9b\u202edog" in out or json.loads(out)["answer"] == "a\x9b\u202edog"


def test_an_answer_that_is_no_box_is_printed_as_such(
    small_directory: Path, picture: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = ofa_core.Grounding(box=None, score=0.25, token_scores=(0.25,), bins=None, text="no idea")
    monkeypatch.setattr(api.OFA, "ground", lambda *_, **__: [answer])
    assert ground(small_directory, picture, TEXT, "--json") == 0
    assert json.loads(capsys.readouterr().out)["box"] is None
    assert ground(small_directory, picture, TEXT, "--out", picture.with_name("out.png")) == 0
    assert capsys.readouterr().out.startswith(f"{picture}: no box (the model said 'no idea'), score 0.2500, ")
    assert picture.with_name("out.png").is_file()


@pytest.mark.parametrize("bins_only", [False, True])
def test_json_holds_the_whole_answer(
    small_directory: Path, picture: Path, capsys: pytest.CaptureFixture[str], bins_only: bool
) -> None:
    assert ground(small_directory, picture, TEXT, "--json", *["--bins-only"] * bins_only) == 0
    answer = json.loads(capsys.readouterr().out)
    found = ofa_core.load(small_directory).ground(picture, TEXT, bins_only=bins_only)
    assert set(answer) == KEYS
    assert (answer["image"], answer["text"], answer["answer"]) == (str(picture), TEXT, found.text)
    assert answer["score"] == pytest.approx(found.score)
    assert answer["token_scores"] == pytest.approx(found.token_scores)
    assert answer["box"] == (None if found.box is None else pytest.approx(found.box))
    assert answer["bins"] == (None if found.bins is None else list(found.bins))
    assert [other["score"] for other in answer["alternatives"]] == pytest.approx(
        [other.score for other in found.alternatives]
    )
    assert answer["seconds"] >= 0
    assert (found.box is not None) or not bins_only


def test_json_is_one_line_for_each_picture_in_their_order(
    small_directory: Path, picture: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = tmp_path / "other.jpg"
    Image.fromarray(synth.synth_image(60, 60, 2)).save(other)
    assert ground(small_directory, picture, other, picture, TEXT, "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["image"] for line in lines] == [str(picture), str(other), str(picture)]
    assert lines[0]["answer"] == lines[2]["answer"]


# --- pictures written ----------------------------------------------------------------------------------------------


def test_the_box_is_drawn_and_the_rest_of_the_picture_stays(
    small_directory: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = (60.0, 50.0, 110.0, 80.0)
    answer = ofa_core.Grounding(box=box, score=0.5, token_scores=(0.5,), bins=(1, 2, 3, 4), text="")
    monkeypatch.setattr(api.OFA, "ground", lambda *_, **__: [answer])
    before = picture.read_bytes()
    out = picture.with_name("results") / "drawn.png"
    assert ground(small_directory, picture, TEXT, "--out", out) == 0
    assert picture.read_bytes() == before
    assert [path.name for path in out.parent.iterdir()] == ["drawn.png"]
    original, drawn = (np.asarray(Image.open(path).convert("RGB")) for path in (picture, out))
    assert original.shape == drawn.shape
    for x, y in ((60, 50), (110, 50), (60, 80), (110, 80), (85, 80), (60, 65)):
        assert tuple(drawn[y, x]) == COLOR, (x, y)
    changed = (original != drawn).any(-1)
    assert not changed[54:77, 64:107].any()  # inside the box
    assert not changed[83:].any()  # below it
    assert not changed[:20].any()  # above its label


def test_several_pictures_are_written_into_a_directory_under_their_names(
    small_directory: Path, picture: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.jpg"
    Image.fromarray(synth.synth_image(60, 60, 2)).save(other)
    assert ground(small_directory, picture, other, TEXT, "--out", tmp_path / "a" / "results") == 0
    written = sorted((tmp_path / "a" / "results").iterdir())
    assert [path.name for path in written] == ["other.png", "picture.png"]
    assert [Image.open(path).size for path in written] == [(60, 60), (140, 90)]


def test_a_single_picture_is_written_into_a_directory_that_exists(
    small_directory: Path, picture: Path, tmp_path: Path
) -> None:
    (tmp_path / "results").mkdir()
    assert ground(small_directory, picture, TEXT, "--out", tmp_path / "results") == 0
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["picture.png"]


@pytest.mark.parametrize(("suffix", "kind"), [(".png", "PNG"), (".jpg", "JPEG"), (".JPEG", "JPEG")])
def test_the_name_of_the_output_decides_its_format(
    small_directory: Path, picture: Path, tmp_path: Path, suffix: str, kind: str
) -> None:
    assert ground(small_directory, picture, TEXT, "--out", tmp_path / f"out{suffix}") == 0
    assert Image.open(tmp_path / f"out{suffix}").format == kind


def test_a_failure_to_write_leaves_no_temporary_file(
    small_directory: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def save_half(_self: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save_half)
    assert ground(small_directory, picture, TEXT, "--out", picture.with_name("out.png")) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert list(picture.parent.iterdir()) == [picture]


# --- options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [None, "float32", "float16", "bfloat16"])
def test_the_model_computes_in_the_dtype_asked_for(
    small_directory: Path,
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    dtype: str | None,
) -> None:
    used = []
    answer = api.OFA.ground

    def remember(self: api.OFA, *args: Any, **options: Any) -> Any:
        used.append(self.model.dtype)
        return answer(self, *args, **options)

    monkeypatch.setattr(api.OFA, "ground", remember)
    assert ground(small_directory, picture, TEXT, "--json", *(["--dtype", dtype] if dtype else [])) == 0
    assert used == [getattr(torch, dtype or "float32")]
    assert 0 < json.loads(capsys.readouterr().out)["score"] <= 1


def test_the_model_may_be_named_in_the_environment(
    small_directory: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OFA_MODEL", str(small_directory))
    assert main(["ground", str(picture), TEXT]) == 0
    assert capsys.readouterr().out.startswith(f"{picture}: ")
    assert "/nowhere does not exist" in error_of(capsys, ["ground", str(picture), TEXT, "--model", "/nowhere"])


@pytest.mark.parametrize("arguments", [["--help"], ["ground", "--help"]])
def test_help_returns_zero(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    assert "ofa-core" in capsys.readouterr().out


# --- errors --------------------------------------------------------------------------------------------------------


def broken_picture(folder: Path) -> None:
    whole = (folder / "picture.png").read_bytes()
    (folder / "broken.png").write_bytes(whole[: len(whole) // 2])


def text_picture(folder: Path) -> None:
    (folder / "broken.png").write_text("not a picture")


def same_names(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other" / "picture.jpg").write_bytes((folder / "picture.png").read_bytes())


def an_output_file(folder: Path) -> None:
    (folder / "taken").write_text("a file")
    (folder / "second.png").write_bytes((folder / "picture.png").read_bytes())


def a_checkpoint(folder: Path) -> None:
    (folder / "model.pt").write_bytes(b"PK")


def an_empty_directory(folder: Path) -> None:
    (folder / "empty").mkdir()


def nothing(_folder: Path) -> None:
    pass


#: Preparation, command line ("DIR" is the folder with picture.png, "MODEL" a model directory), what the line must say.
ERRORS: dict[str, tuple[Callable[[Path], None], list[str], str]] = {
    "no command": (nothing, [], "COMMAND"),
    "unknown command": (nothing, ["paint"], "paint"),
    "no arguments": (nothing, ["ground"], "IMAGE"),
    "no text": (nothing, ["ground", "DIR/picture.png"], "TEXT"),
    "unknown option": (nothing, ["ground", "DIR/picture.png", TEXT, "--model", "MODEL", "--fast"], "--fast"),
    "bad dtype": (nothing, ["ground", "DIR/picture.png", TEXT, "--model", "MODEL", "--dtype", "int4"], "int4"),
    "no model named": (nothing, ["ground", "DIR/picture.png", TEXT], "pass --model DIR or set $OFA_MODEL"),
    "model missing": (nothing, ["ground", "DIR/picture.png", TEXT, "--model", "DIR/none"], "none does not exist"),
    "model unconverted": (
        a_checkpoint,
        ["ground", "DIR/picture.png", TEXT, "--model", "DIR/model.pt"],
        "model.pt: this is not a torch checkpoint",
    ),
    "no model directory": (
        an_empty_directory,
        ["ground", "DIR/picture.png", TEXT, "--model", "DIR/empty"],
        "empty is not a model directory: it has no config.json",
    ),
    "picture missing": (nothing, ["ground", "DIR/none.png", TEXT, "--model", "MODEL"], "none.png does not exist"),
    "directory without pictures": (
        an_empty_directory,
        ["ground", "DIR/empty", TEXT, "--model", "MODEL"],
        "empty is a directory without pictures",
    ),
    "pattern that fits nothing": (
        nothing,
        ["ground", "DIR/*.jpg", TEXT, "--model", "MODEL"],
        "no file fits the pattern",
    ),
    "text forgotten": (
        nothing,
        ["ground", "DIR/picture.png", "DIR/picture.png", "--model", "MODEL"],
        "picture.png', which names pictures: ofa-core ground IMAGE... TEXT ends with a text",
    ),
    "text forgotten, and no such picture": (
        nothing,
        ["answer", "DIR/picture.png", "other.JPG", "--model", "MODEL"],
        "QUESTION is 'other.JPG', which names pictures: ofa-core answer IMAGE... QUESTION ends with a text",
    ),
    "mistyped command": (nothing, ["gruond", "DIR/picture.png"], "there is no command 'gruond'; nearest: ground"),
    "option of another command": (
        nothing,
        ["caption", "DIR/picture.png", "--bins-only"],
        "ofa-core caption: unrecognized arguments: --bins-only (see ofa-core caption --help)",
    ),
    "threshold beyond 1": (nothing, ["ground", "DIR/picture.png", TEXT, "--threshold", "2"], "--threshold"),
    "picture cut": (
        broken_picture,
        ["ground", "DIR/broken.png", TEXT, "--model", "MODEL"],
        "broken.png cannot be read",
    ),
    "picture of text": (
        text_picture,
        ["ground", "DIR/broken.png", TEXT, "--model", "MODEL"],
        "broken.png cannot be read: it is not a picture in a known format",
    ),
    "second picture": (
        nothing,
        ["ground", "DIR/picture.png", "DIR/none.png", TEXT, "--model", "MODEL"],
        "none.png does not exist",
    ),
    "text empty": (nothing, ["ground", "DIR/picture.png", "", "--model", "MODEL"], "the text to ground is empty"),
    "text blank": (nothing, ["ground", "DIR/picture.png", " \n ", "--model", "MODEL"], "the text to ground is empty"),
    "output of no format": (
        nothing,
        ["ground", "DIR/picture.png", TEXT, "--model", "MODEL", "--out", "DIR/out.txt"],
        "out.txt should end in .png or .jpg, or be an existing directory",
    ),
    "output of several is a file": (
        an_output_file,
        ["ground", "DIR/picture.png", "DIR/second.png", TEXT, "--model", "MODEL", "--out", "DIR/taken"],
        "taken",
    ),
    "same names": (
        same_names,
        ["ground", "DIR/picture.png", "DIR/other/picture.jpg", TEXT, "--model", "MODEL", "--out", "DIR/results"],
        "several pictures have the same name",
    ),
    "unknown device": (
        nothing,
        ["ground", "DIR/picture.png", TEXT, "--model", "MODEL", "--device", "banana"],
        "banana",
    ),
    "device without a number": (
        nothing,
        ["ground", "DIR/picture.png", TEXT, "--model", "MODEL", "--device", "cpu:x"],
        "cpu:x",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_one_line_and_writes_nothing(
    small_directory: Path, picture: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    prepare, arguments, message = ERRORS[name]
    prepare(picture.parent)
    before = sorted(picture.parent.rglob("*"))
    filled = [
        part.replace("DIR", str(picture.parent), 1)
        if part.startswith("DIR")
        else part.replace("MODEL", str(small_directory))
        for part in arguments
    ]
    assert message in error_of(capsys, filled)
    assert sorted(picture.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("device", "available"), [("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())]
)
def test_a_device_that_is_not_there_is_one_line(
    small_directory: Path, picture: Path, capsys: pytest.CaptureFixture[str], device: str, available: bool
) -> None:
    if available:
        pytest.skip(f"this machine has {device}")
    err = error_of(capsys, ["ground", str(picture), TEXT, "--model", str(small_directory), "--device", device])
    assert f"device '{device}' is not available here" in err


def test_an_empty_variable_names_no_model(
    picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OFA_MODEL", "")
    assert "pass --model DIR or set $OFA_MODEL" in error_of(capsys, ["ground", str(picture), TEXT])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ofa_core.OFAError("two\nlines   of text"), 2, "program: two lines of text\n"),
        (FileNotFoundError(2, "No such file or directory", "x.png"), 2, "program: [Errno 2] No such file"),
        (ofa_core.OFAError("\x1b[31mred\u202e"), 2, "program: \\x1b[31mred\\u202e\n"),
        (KeyboardInterrupt(), 130, "program: interrupted\n"),
        (Stopped(15), 143, "program: interrupted by SIGTERM\n"),
        (BrokenPipeError(32, "Broken pipe"), 0, ""),
    ],
    ids=["own error", "system error", "escape codes", "interrupted", "ended", "reader gone"],
)
def test_errors_of_a_command_become_a_line_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, line: str
) -> None:
    def fail() -> int:
        raise error

    assert run("program", fail) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", line != "")
    assert err.startswith(line)
    assert err != "" or line == ""


def test_errors_that_are_our_own_faults_are_not_hidden() -> None:
    def fail() -> int:
        raise ZeroDivisionError("a fault of the program")

    with pytest.raises(ZeroDivisionError, match="a fault of the program"):
        run("program", fail)


def test_the_installed_program_grounds(small_directory: Path, picture: Path) -> None:
    program = Path(sys.executable).parent / "ofa-core"
    if not program.is_file():
        pytest.skip(f"the package is not installed: there is no {program}")
    command = [str(program), "ground", str(picture), TEXT, "--model", str(small_directory), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(json.loads(done.stdout)) == KEYS


HEADS = {
    "caption": ([], {"image", "answer", "score", "token_scores", "alternatives", "seconds"}),
    "answer": (
        ["what is it?", "--candidates", "red", "blue"],
        {"image", "question", "answer", "score", "probabilities", "alternatives", "seconds"},
    ),
    "oracle": (
        ["is it red?", "--box", "0", "0", "9", "9", "--dialog", "is it a dog?", "no"],
        {"image", "box", "question", "answer", "score", "probabilities", "alternatives", "seconds"},
    ),
}


@pytest.mark.parametrize("head", HEADS)
def test_every_head_prints_text_or_json(head: str, small_directory: Path, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "picture.png"
    noise(1, 40, 60).save(path)
    arguments, keys = HEADS[head]
    command = [head, str(path), *arguments, "--model", str(small_directory)]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == keys
    assert main(command) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"{path}: {found['answer']}")
    if "probabilities" in found:
        assert sum(found["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert all(answer in line for answer in found["probabilities"])


def test_a_region_outside_the_picture_is_refused(small_directory: Path, tmp_path: Path, capsys: Any) -> None:
    noise(1, 40, 60).save(tmp_path / "picture.png")
    box = ["--box", "0", "0", "99", "9"]
    assert main(["oracle", str(tmp_path / "picture.png"), "is it?", *box, "--model", str(small_directory)]) == 2
    assert (
        capsys.readouterr().err
        == "ofa-core: box (0.0, 0.0, 99.0, 9.0) is not 0 <= x0 < x1 <= 60 and 0 <= y0 < y1 <= 40\n"
    )
