"""The commands ``serve`` and ``web``: they listen, finish what they began, and say in a line why they cannot."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the extra web is not installed")

from ofa_core.cli.main import main


@contextmanager
def started(arguments: Sequence[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A command that listens, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ofa_core", *arguments, "--port", "0"], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if match := re.search(r"listening on (http://127\.0\.0\.1:\d+)", line):
                yield process, match[1]
                return
        raise AssertionError("".join(lines))
    finally:
        process.kill()
        process.wait()


def get(address: str) -> str:
    with urllib.request.urlopen(address, timeout=120) as response:
        return str(response.read().decode())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_service_ends_well_when_it_is_told_to(small_directory: Path, number: signal.Signals) -> None:
    with started(["serve", "--model", str(small_directory)]) as (process, address):
        assert json.loads(get(f"{address}/health"))["model"] == str(small_directory)
        process.send_signal(number)
        assert process.wait(60) == 0


def test_the_page_is_served(small_directory: Path) -> None:
    with started(["web", "--model", str(small_directory)]) as (process, address):
        assert "<title>ofa_core" in get(address) or "gradio" in get(address)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def refusal(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> str:
    """What is printed where the command fails: one line, exit code 2."""
    try:
        code: object = main(arguments)
    except SystemExit as exit_:
        code = exit_.code
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1), err
    return err


@pytest.mark.parametrize("command", ["serve", "web"])
def test_a_port_that_is_taken_is_named(small_directory: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"at port {port}" in refusal(capsys, [command, "--model", str(small_directory), "--port", port])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--port", "70000"], "at port 70000"),
        (["--host", "nowhere.invalid"], "nowhere.invalid"),
        (["--batch-size", "0"], "--batch-size"),
        (["--batch-wait", "-1"], "batch_wait"),
        (["--timeout", "0"], "time-outs"),
        (["--timeout", "nan"], "time-outs"),
    ],
)
def test_what_cannot_be_is_refused(
    small_directory: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: Sequence[str],
    reason: str,
) -> None:
    monkeypatch.setenv("OFA_API_KEY", "key")
    assert reason in refusal(capsys, ["serve", "--model", str(small_directory), *options])


@pytest.mark.parametrize("key", ["", " x", "schlüssel", "a\nb"])
def test_a_key_that_no_header_can_carry_is_refused(
    small_directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OFA_API_KEY", key)
    assert "OFA_API_KEY" in refusal(capsys, ["serve", "--model", str(small_directory)])


@pytest.mark.parametrize("command", ["serve", "web"])
def test_a_missing_extra_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    for name in list(sys.modules):
        if name.startswith(("ofa_core.service", "ofa_core.web")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert "pip install '.[web]'" in refusal(capsys, [command, "--model", "demo"])
