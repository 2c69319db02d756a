"""The page of commands names all of them, and its examples run."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path

import pytest
from bench.runs import save_lively
from reference import ROOT

from ofa_core.cli.main import main, parser
from ofa_core.predict.heads import HEADS

PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
(RUNNING,) = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = [line.partition(" < ")[0] for line in RUNNING.splitlines() if line.startswith("ofa-core ")]


def test_every_command_stands_on_the_page() -> None:
    names = set(parser().commands.choices)  # type: ignore[attr-defined]
    assert names >= {*HEADS, "chat", "predict"}
    assert {name for name in names if not re.search(rf"^ofa-core {name} ", PAGE, re.MULTILINE)} == set()


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With a smaller model than the demo's, and short answers."""
    monkeypatch.setenv("OFA_MODEL", str(save_lively(tmp_path / "model")))
    monkeypatch.setenv("OFA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        words = shlex.split(command)[1:]
        if words[0] == "inspect":
            words[1] = str(tmp_path / "model")
        if "max_new_tokens" in getattr(HEADS.get(words[0]), "shared", ()):
            words += ["--max-new-tokens", "5"]
        if words[0] == "bench":
            words += ["--max-new-tokens", "5", "--quiet"]
        if words[0] == "predict":
            words += ["--max-new-tokens", "5", "--quiet", "--batch-size", "4"]
        monkeypatch.setattr("sys.stdin", io.StringIO("is it red?\n/quit\n"))
        assert main(words) == 0, (command, capsys.readouterr().err)
        assert capsys.readouterr().out, command
    assert {"box.png", "boxes", "looked.png", "boxes.jsonl", "captions.jsonl"} <= {
        path.name for path in tmp_path.iterdir()
    }
