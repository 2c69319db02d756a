"""Parsers: what they offer is what there is, and they wait for no model and no torch."""

from __future__ import annotations

import argparse
import inspect
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import get_args

import pytest

import ofa_core
from ofa_core.bench.self_play import PROTOCOLS
from ofa_core.bench.summary import TASK_SCORES
from ofa_core.bench.tasks import TASKS
from ofa_core.cli import bench, choices
from ofa_core.cli.main import main, parser
from ofa_core.cli.parsers.heads import COMMANDS
from ofa_core.data.records import Format
from ofa_core.demo.files import FILES
from ofa_core.demo.world import Split
from ofa_core.heads.chat_styles import ChatStyle
from ofa_core.heads.detection import DetectionStyle
from ofa_core.predict.heads import HEADS
from ofa_core.text.dialog import STYLES
from ofa_core.vision.terminal import PROTOCOLS as PICTURE_PROTOCOLS

#: Names in parsers, and those of the tables that they stand for.
OFFERED = {
    "benchmarks": (choices.BENCHMARKS, tuple(TASKS)),
    "formats": (choices.DATA_FORMATS, bench.FORMATS),
    "scored": (tuple(sorted(choices.SCORED)), tuple(sorted(TASK_SCORES))),
    "protocols": (choices.PROTOCOLS, tuple(PROTOCOLS)),
    "shapes": (choices.SHAPES_FILES, tuple(FILES)),
    "splits": (tuple(sorted(choices.SHAPES_SPLITS)), tuple(sorted(get_args(Split)))),
    "styles": (choices.STYLES, STYLES),
    "chat styles": (choices.CHAT_STYLES, get_args(ChatStyle)),
    "detection styles": (choices.DETECTION_STYLES, get_args(DetectionStyle)),
    "pictures": (choices.TERMINAL_PICTURES, ("auto", *PICTURE_PROTOCOLS, "file")),
    "heads": (tuple(HEADS), tuple(COMMANDS)),
}


@pytest.mark.parametrize("name", OFFERED)
def test_what_parsers_offer_is_what_there_is(name: str) -> None:
    offered, there = OFFERED[name]
    assert offered == there


def test_heads_name_formats_and_methods_that_there_are() -> None:
    for head in HEADS.values():
        assert set(head.formats) <= set(get_args(Format)), head.name
        assert callable(getattr(ofa_core.OFA, head.method))
        known = set(_parameters(head.method))
        searched = {"num_beams", "max_new_tokens", "top_k", "top_p", "temperature"}
        assert {*head.columns, *head.optional, *head.shared} - searched <= known, head.name


def _parameters(method: str) -> list[str]:
    return list(inspect.signature(getattr(ofa_core.OFA, method)).parameters)


def parsers(of: argparse.ArgumentParser | None = None) -> Iterator[argparse.ArgumentParser]:
    """The program's parser and those of all its commands."""
    of = of or parser()
    yield of
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from parsers(below)


ALL = {one.prog: one for one in parsers()}
LOADS_NOTHING = """
import contextlib, io, json, sys
from ofa_core.cli.main import main
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main(arguments)
        except SystemExit as end:
            expected = 0 if {"--help", "--version"} & set(arguments) else 2
            assert end.code == expected, (arguments, end.code, err.getvalue())
        else:
            raise AssertionError(arguments)
    assert not {"torch", "numpy", "pydantic"} & set(sys.modules), arguments
"""


def test_help_and_usage_errors_import_no_torch() -> None:
    helps = [[*prog.split()[1:], "--help"] for prog in ALL]
    wrong = [[*prog.split()[1:], "--no-such-option"] for prog in ALL if prog != "ofa-core train"]
    others = [["--version"], [], ["gruond"], ["ground", "a.png", "x", "--num-beams", "0"], ["bench", "nothing"]]
    lines = json.dumps([*helps, *wrong, *others])
    done = subprocess.run([sys.executable, "-c", LOADS_NOTHING, lines], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, ofa_core; ofa_core.__version__, dir(ofa_core), ofa_core.OFAError; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    code = "import ofa_core; print(ofa_core.heads.grounding.Grounding is ofa_core.Grounding)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


@pytest.mark.parametrize("prog", ALL)
def test_every_help_has_examples_that_parse(prog: str) -> None:
    text = ALL[prog].format_help()
    examples = ALL[prog].examples  # type: ignore[attr-defined]
    assert examples, "no examples"
    for example in examples:
        assert f"  {example}\n" in f"{text}\n", "an example does not stand as it is written"
        words = shlex.split(example.partition(" > ")[0])
        words = words[words.index("-m") + 1 :] if words[0] == "torchrun" else words
        assert words[0] in ("ofa-core", "ofa_core")
        if "--help" not in words:
            parser().parse_args(words[1:])


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"ofa-core {ofa_core.__version__}\n"


def test_help_names_the_demo_model(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["ground"]):
        with pytest.raises(SystemExit):
            main([*arguments, "--help"])
        assert "demo" in capsys.readouterr().out.partition("examples:")[0]


@pytest.mark.parametrize(
    ("option", "wrong", "due"),
    [
        ("--count", ("0", "-3", "2.5", "many", ""), "a whole number of at least 1"),
        ("--seed", ("-1", "x"), "a whole number of at least 0"),
        ("--top-p", ("1.1", "-0.1", "nan", "half"), "a number from 0 to 1"),
        ("--guidance", ("0", "-1", "inf", "nan", "strong"), "a number above 0"),
    ],
)
def test_a_number_that_is_none_is_told_with_what_would_be_right(
    capsys: pytest.CaptureFixture[str], option: str, wrong: tuple[str, ...], due: str
) -> None:
    for text in wrong:
        with pytest.raises(SystemExit) as ended:
            parser().parse_args(["imagine", "a dog", "--model", "demo", "--out", "x.png", f"{option}={text}"])
        assert ended.value.code == 2
        told = capsys.readouterr().err
        assert told.startswith(f"ofa-core imagine: argument {option}: {text!r} is not {due} (")
        assert told.count("\n") == 1
