"""Rows in bulk: answers are those of the methods of ``OFA``, whoever shares them and whenever they were interrupted."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bench.runs import save_lively, write_data
from jobs import one_job_at_a_time
from PIL import Image
from reference import picture as noise

import ofa_core
from ofa_core import OFA
from ofa_core.cli.main import main
from ofa_core.predict.predictor import Predictor

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
QUICK = ["--num-beams", "2", "--max-new-tokens", "4", "--quiet"]
OPTIONS: dict[str, Any] = {"num_beams": 2, "max_new_tokens": 4}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_lively(tmp_path_factory.mktemp("models") / "lively")


@pytest.fixture(scope="module")
def loaded(model: Path) -> OFA:
    return ofa_core.load(model)


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight rows of phrases: one picture lies on its side, one is damaged, and a row has no text."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(7):
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 2 else 1
        noise(number, 30, 40).save(folder / f"{number}.png", exif=exif)
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:70])
    lines = [{"id": f"r{number}", "image": f"photos/{number}.png", "text": f"the dog {number}"} for number in range(7)]
    lines[5]["text"] = None
    lines.append({"id": "r7", "image": "photos/0.png", "text": "a cat"})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def run(model: Path, head: str, *arguments: object) -> int:
    return main(["predict", head, *map(str, arguments), "--model", str(model)])


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_row_is_answered_as_the_method_does(
    model: Path, loaded: OFA, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = rows.with_name("out.jsonl")
    assert run(model, "ground", "--data", rows, "--out", out, "--batch-size", 3, *QUICK) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{out}: 6 answers\n"
    assert printed.err == f"ofa-core: 2 rows could not be used: {rows.with_name('out.bad.jsonl')}\n"
    found = lines_of(out)
    assert [line["index"] for line in found] == [0, 1, 2, 4, 6, 7]
    assert [line["id"] for line in found] == ["r0", "r1", "r2", "r4", "r6", "r7"]
    for line in found:
        expected = loaded.ground(line["image"], line["text"], **OPTIONS)
        assert line["answer"] == expected.text
        assert line["score"] == pytest.approx(expected.score, abs=1e-5)
        assert line["box"] == (None if expected.box is None else pytest.approx(expected.box, abs=1e-3))
    bad = lines_of(rows.with_name("out.bad.jsonl"))
    assert [(line["index"], line["place"]) for line in bad] == [(3, f"{rows}:4"), (5, f"{rows}:6")]
    assert "3.png cannot be read" in bad[0]["error"]
    assert bad[1]["error"] == "text: ground takes one, and the row has none"


def test_a_directory_of_pictures_is_rows(model: Path, loaded: OFA, rows: Path) -> None:
    out = rows.with_name("captions.jsonl")
    assert run(model, "caption", "--data", rows.with_name("photos"), "--out", out, *QUICK) == 0
    found = lines_of(out)
    assert [line["id"] for line in found] == ["0.png", "1.png", "2.png", "4.png", "5.png", "6.png"]
    assert [line["answer"] for line in found] == [loaded.caption(line["image"], **OPTIONS).text for line in found]


def test_a_text_is_asked_of_all_that_hold_none(model: Path, loaded: OFA, rows: Path) -> None:
    out = rows.with_name("out.jsonl")
    assert run(model, "ground", "--data", rows, "--out", out, "--text", "a bird", "--limit", 6, *QUICK) == 0
    assert [line["text"] for line in lines_of(out)][-2:] == ["the dog 4", "a bird"]


def test_pictures_in_parquet_are_read_in_place(model: Path, loaded: OFA, rows: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pictures = [rows.with_name("photos") / f"{number}.png" for number in (0, 1)]
    table = pyarrow.table(
        {"image": [path.read_bytes() for path in pictures], "question": ["what is it?", "is it red?"]}
    )
    parquet.write_table(table, rows.with_name("q.parquet"))
    out = rows.with_name("out.jsonl")
    assert run(model, "answer", "--data", rows.with_name("q.parquet"), "--out", out, *QUICK) == 0
    expected = loaded.answer(pictures, ["what is it?", "is it red?"], **OPTIONS)
    assert [line["answer"] for line in lines_of(out)] == [one.answer for one in expected]


#: Heads, published data, and the number of answers to its five rows.
PUBLISHED = {
    "ground": ("refcoco", 5),
    "describe": ("refcoco", 5),
    "detect": ("refcoco", 3),  # pictures
    "ask": ("invig", 5),
    "oracle": ("guesswhat", 15),  # questions
}


@pytest.mark.parametrize("head", PUBLISHED)
def test_published_rows_are_asked(head: str, model: Path, tmp_path: Path) -> None:
    format, count = PUBLISHED[head]
    paths = write_data(tmp_path, 5)
    out = tmp_path / "out.jsonl"
    data = ["--data", paths[format], "--images", tmp_path / "images"]  # type: ignore[index]
    assert run(model, head, *data, "--out", out, *QUICK) == 0
    assert len(lines_of(out)) == count
    facts = json.loads((tmp_path / "out.run.json").read_text())
    assert facts["format"] == format
    if "style" in facts["settings"]:
        assert facts["settings"]["style"] == format


def test_a_run_goes_on_where_it_was_killed(model: Path, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, out = rows.with_name("whole.jsonl"), rows.with_name("out.jsonl")
    command = ["--data", rows, "--batch-size", 2, *QUICK, "--out"]
    assert run(model, "ground", *command, whole) == 0
    assert run(model, "ground", *command, out) == 0
    content = out.read_bytes().splitlines(keepends=True)
    facts = json.loads(rows.with_name("out.run.json").read_text())
    for kept in range(len(content)):  # as if killed behind each line, half a line further
        out.write_bytes(b"".join(content[:kept]) + content[kept][:9])
        rows.with_name("out.bad.jsonl").write_bytes(b"")
        rows.with_name("out.run.json").write_text(json.dumps(facts | {"answered": None, "bad": None}))
        assert run(model, "ground", *command, out, "--resume") == 0
        assert out.read_bytes() == whole.read_bytes()
        assert rows.with_name("out.bad.jsonl").read_bytes() == rows.with_name("whole.bad.jsonl").read_bytes()
    capsys.readouterr()
    assert run(model, "ground", *command, out, "--resume") == 0
    assert capsys.readouterr().out == f"{out}: 6 answers (finished before)\n"


KILLED = """
import os, signal, sys
from ofa_core.predict import run
append, count = run.LineFile.append, 0
def kill(self, text):
    global count
    append(self, text)
    count += 1
    if count == 2:
        os.kill(os.getpid(), signal.SIGKILL)
run.LineFile.append = kill
from ofa_core.cli.main import main
main(sys.argv[1:])
"""


def test_a_process_that_was_killed_goes_on(model: Path, rows: Path) -> None:
    whole, out = rows.with_name("whole.jsonl"), rows.with_name("out.jsonl")
    command = ["--data", rows, "--batch-size", 2, *QUICK, "--out"]
    arguments = ["predict", "ground", *map(str, command), str(out), "--model", str(model)]
    with one_job_at_a_time():
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, *arguments],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            check=False,
            timeout=300,
        )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert 0 < len(lines_of(out)) < 6
    assert main([*arguments, "--resume"]) == 0
    assert run(model, "ground", *command, whole) == 0
    assert _close(lines_of(out), lines_of(whole))


def test_two_processes_write_what_one_does(model: Path, rows: Path) -> None:
    one, two = rows.with_name("one.jsonl"), rows.with_name("two.jsonl")
    command = ["predict", "ground", "--data", str(rows), "--batch-size", "2", *QUICK, "--model", str(model), "--out"]
    assert main([*command, str(one)]) == 0
    with one_job_at_a_time():
        together = subprocess.run(
            [sys.executable, *TORCHRUN, "-m", "ofa_core", *command, str(two)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    assert together.returncode == 0, together.stderr
    assert _close(lines_of(two), lines_of(one))
    assert lines_of(rows.with_name("two.bad.jsonl")) == lines_of(rows.with_name("one.bad.jsonl"))
    assert not list(rows.parent.glob("*.rank*"))


def _close(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> bool:
    """Equal, with numbers within rounding: of another number of threads."""
    return len(left) == len(right) and all(
        {key: value for key, value in a.items() if key in ("index", "id", "image", "text", "answer")}
        == {key: value for key, value in b.items() if key in ("index", "id", "image", "text", "answer")}
        and a["score"] == pytest.approx(b["score"], abs=1e-5)
        for a, b in zip(left, right, strict=True)
    )


REFUSED: dict[str, tuple[list[str], str]] = {
    "exists": (["--data", "rows.jsonl", "--out", "taken.jsonl"], "taken.jsonl exists already: pass --resume"),
    "resumed of another": (["--data", "rows.jsonl", "--out", "taken.jsonl", "--resume"], "cannot be resumed"),
    "no data": (["--data", "none.jsonl", "--out", "out.jsonl"], "data none.jsonl does not exist"),
    "empty directory": (["--data", "empty", "--out", "out.jsonl"], "directory without rows and without pictures"),
    "another ending": (["--data", "rows.jsonl", "--out", "out.csv"], "--out out.csv should end in .jsonl"),
    "no text at all": (["--data", "photos", "--out", "out.jsonl"], "text: ground takes one, and the row has none"),
    "pictures of pictures": (
        ["--data", "photos", "--images", "photos", "--out", "out.jsonl"],
        "photos is a directory of pictures: pass it alone",
    ),
    "other columns": (["--data", "other.jsonl", "--out", "out.jsonl"], "holds no rows that ground takes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_input_is_one_line(name: str, model: Path, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows.with_name("empty").mkdir()
    rows.with_name("taken.jsonl").write_text("{}\n")
    rows.with_name("other.jsonl").write_text('{"a": 1}\n')
    before = sorted(rows.parent.rglob("*"))
    arguments, message = REFUSED[name]
    assert run(model, "ground", *arguments, *QUICK) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert sorted(rows.parent.rglob("*")) == before


def test_a_run_of_other_settings_or_data_is_not_gone_on_with(
    model: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--data", rows, "--out", rows.with_name("out.jsonl"), "--limit", 2, *QUICK]
    assert run(model, "ground", *command) == 0
    capsys.readouterr()
    assert run(model, "ground", *command, "--resume", "--threshold", 0.5) == 2
    assert "cannot be resumed: settings is" in capsys.readouterr().err
    rows.write_text(rows.read_text() + "\n")
    assert run(model, "ground", *command, "--resume") == 2
    assert "data changed since" in capsys.readouterr().err


def test_where_nothing_can_be_answered_the_run_fails(
    model: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows.write_text('{"image": "photos/none.png", "text": "a dog"}\n')
    assert run(model, "ground", "--data", rows, "--out", rows.with_name("out.jsonl"), *QUICK) == 2
    assert "could be answered; the first row: image photos/none.png does not exist" in capsys.readouterr().err


def test_the_callable_gives_the_same_lines(model: Path, rows: Path) -> None:
    out = rows.with_name("out.jsonl")
    assert run(model, "ground", "--data", rows, "--out", out, "--batch-size", 8, *QUICK) == 0
    predictor = Predictor("ground", model, shared=OPTIONS)
    columns: dict[str, list[Any]] = {"id": [], "image": [], "text": []}
    for line in lines_of(rows):
        for name, values in columns.items():
            values.append(line[name])
    found = [json.loads(line) for line in predictor(columns)["line"]]
    good = [line for line in found if "error" not in line]
    expected = lines_of(out)
    assert good == [{key: value for key, value in line.items() if key != "index"} for line in expected]
    assert [line["id"] for line in found if "error" in line] == ["r3", "r5"]
    content = base64.b64encode(rows.with_name("photos").joinpath("0.png").read_bytes()).decode()
    (line,) = predictor.rows([{"image": base64.b64decode(content), "text": "the dog 0", "id": "x"}])
    assert line["answer"] == expected[0]["answer"]


def test_a_callable_of_no_head_is_refused(loaded: OFA) -> None:
    for name in ("imagine", "paint"):
        with pytest.raises(ofa_core.OFAError, match=f"there is no head '{name}' for rows"):
            Predictor(name, loaded)
