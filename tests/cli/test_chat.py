"""Conversations in the terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from reference import picture as noise

from ofa_core import Chat, ChatTurn, Detection
from ofa_core.cli.main import main
from ofa_core.vision.drawing import COLOR

REGION = Detection((2.0, 3.0, 20.0, 25.0), "dog", 0.5, (1, 2, 3, 4), (0.5,))


@pytest.fixture
def talk(
    small_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """Say lines in a conversation; gives the code, what is printed and the errors."""
    noise(1, 30, 40).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)

    def talk(*said: str, options: tuple[str, ...] = ()) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in said)))
        code = main(["chat", "photo.png", "--model", str(small_directory), "--num-beams", "1", *options])
        return code, *capsys.readouterr()

    return talk


@pytest.fixture
def replies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that finds the dog whenever something is said."""
    turn = ChatTurn("the dog?\x1b[2J", (REGION,), False, ("the dog?",))
    monkeypatch.setattr(Chat, "say", lambda self, text: turn)


@pytest.mark.usefixtures("replies")
def test_boxes_are_drawn_into_a_file(talk: Any, tmp_path: Path) -> None:
    code, out, err = talk("hello")
    assert (code, err) == (0, "")
    assert out == "the dog?\\x1b[2J\n  (2.0, 3.0, 20.0, 25.0) dog\n  drawn in chat.png\n"
    drawn = Image.open(tmp_path / "chat.png")
    assert drawn.size == (40, 30)
    assert drawn.convert("RGB").getpixel((10, 25)) == COLOR


@pytest.mark.usefixtures("replies")
@pytest.mark.parametrize(("protocol", "begins"), [("kitty", "\x1b_G"), ("iterm", "\x1b]1337;"), ("sixel", "\x1bP")])
def test_boxes_are_drawn_in_the_terminal(talk: Any, tmp_path: Path, protocol: str, begins: str) -> None:
    code, out, _ = talk("hello", options=("--pictures", protocol))
    assert code == 0
    assert out.partition("dog\n")[2].startswith(begins)
    assert not (tmp_path / "chat.png").exists()
    talk("hello", options=("--pictures", protocol, "--out", "both.png"))
    assert (tmp_path / "both.png").is_file()


@pytest.mark.usefixtures("replies")
def test_replies_are_json_for_programs(talk: Any, tmp_path: Path) -> None:
    _, out, _ = talk("hello", "more", options=("--json",))
    found = [json.loads(line) for line in out.splitlines()]
    assert [turn["box"] for turn in found] == [list(REGION.box)] * 2
    assert found[0]["regions"][0]["label"] == "dog"
    assert not (tmp_path / "chat.png").exists()


def test_a_line_that_is_wrong_ends_no_conversation(talk: Any) -> None:
    code, out, err = talk("/undo", "/paint", "/oracle 1 2", "/save", "/reset none.png", "", "/help", "/quit", "/undo")
    assert code == 0
    assert err.splitlines()[0] == "ofa-core: nothing was said yet: there is nothing to undo"
    assert "there is no /paint; there are /ground, /undo" in err
    assert "/oracle takes the region" in err
    assert "/save takes the file" in err
    assert "none.png does not exist" in err
    assert err.count("\n") == 5
    assert "/quit" in out


def test_a_conversation_is_saved_and_goes_on(talk: Any, tmp_path: Path) -> None:
    code, _, _ = talk("hello", "/save talk.json")
    assert code == 0
    said = json.loads((tmp_path / "talk.json").read_text())["turns"]
    assert [turn["said"] for turn in said] == ["hello"]
    _, out, _ = talk("/load talk.json", "/undo", "/reset", "/oracle 1 1 20 20")
    assert out.startswith("> hello\n")
    assert "forgotten: hello\n" in out
    assert "a new conversation\n" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chat", "none.png", "--model", "demo"], "none.png does not exist"),
        (["chat", "photo.png", "--model", "demo", "--out", "x.txt"], "should end in .png or .jpg"),
        (["chat", "photo.png"], "no model was named"),
    ],
    ids=["picture", "output", "model"],
)
def test_wrong_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OFA_MODEL", raising=False)
    noise(1, 30, 40).save("photo.png")
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
