"""``ofa-core bench``: which tasks read which data, what is printed, and errors of one line."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from bench import files
from bench.runs import only, rows_in, save_lively, write_data

from ofa_core.bench.results import iter_rows
from ofa_core.bench.runner import Run
from ofa_core.bench.summary import Summary
from ofa_core.bench.tasks import TASKS
from ofa_core.cli import bench as commands
from ofa_core.cli.main import main
from ofa_core.data.loading import DataFiles
from ofa_core.data.read_options import ReadOptions
from ofa_core.data.records import Format
from ofa_core.utils.printable import printable

SHORT = ["--num-beams", "2", "--max-new-tokens", "3", "--quiet"]


@pytest.fixture(autouse=True)
def _nothing_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("OFA_MODEL", "OFA_DATA", "OFA_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_lively(tmp_path_factory.mktemp("models") / "lively")


@pytest.fixture
def paths(tmp_path: Path) -> dict[Format, Path]:
    return write_data(tmp_path, 3)


def bench(*arguments: object) -> int:
    return main(["bench", *map(str, arguments)])


def error_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that the program says when it fails."""
    try:
        code: Any = bench(*arguments)
    except SystemExit as exit_:
        code = exit_.code
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("ofa-core")
    return err


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """What would be run, without running it."""
    asked: list[Run] = []
    monkeypatch.setattr(commands, "run_task", lambda run, process: asked.append(run))
    return asked


# A whole run


def test_scores_are_printed_with_the_path_of_the_results(
    model: Path, paths: dict[Format, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--images", tmp_path / "images", "--out", tmp_path / "out", *SHORT]
    assert bench("guesswhat_oracle", "--model", model, "--data", paths["guesswhat"], *options) == 0
    out, err = capsys.readouterr()
    path = only(tmp_path / "out")
    assert path.parent == tmp_path / "out" / "guesswhat_oracle" / "lively"
    assert out.splitlines()[0] == str(path)
    assert out.splitlines()[1] == f"guesswhat_oracle, {model}, 9 samples"
    assert err == ""
    assert bench("guesswhat_oracle", "--model", model, "--data", paths["guesswhat"], *options, "--resume") == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{path} (finished before)"


def test_the_page_is_told_beside_the_results_and_written_where_it_is_missing(
    model: Path, paths: dict[Format, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--images", tmp_path / "images", "--out", tmp_path / "out", *SHORT]
    run = ["guesswhat_grounding", "--model", model, "--data", paths["guesswhat"], *options]
    assert bench(*run) == 0
    assert ".html" not in capsys.readouterr().out
    assert bench(*run, "--resume", "--report") == 0
    path = only(tmp_path / "out")
    page = path.with_suffix(".html")
    assert capsys.readouterr().out.splitlines()[:2] == [f"{path} (finished before)", str(page)]
    assert page.read_text().count("<article") == 3 * 3


def test_rows_lead_out_of_the_pictures_only_where_that_is_allowed(
    model: Path, paths: dict[Format, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = shutil.copy(tmp_path / "images" / "1.png", tmp_path / "secret.png")
    rows = paths["guesswhat"].with_name("hostile.jsonl")
    rows.write_bytes(files.json_lines([files.game(1, image={"file_name": str(secret), "width": 90, "height": 60})]))
    options = ["--model", model, "--data", rows, "--images", tmp_path / "images", *SHORT]
    assert bench("guesswhat_oracle", *options, "--out", tmp_path / "refused") == 2
    assert f"secret.png lies outside of {tmp_path / 'images'}, where rows may not lead" in capsys.readouterr().err
    assert bench("guesswhat_oracle", *options, "--out", tmp_path / "out", "--allow-outside") == 0
    results = only(tmp_path / "out")
    page = ["--report", tmp_path / "x.html", "--images", tmp_path / "images"]
    assert main(["score", *map(str, [results, *page, "--allow-outside"])]) == 0


def test_the_header_tells_everything_that_answers_depend_on(
    model: Path, paths: dict[Format, Path], tmp_path: Path
) -> None:
    options = ["--images", tmp_path / "images", "--out", tmp_path / "out", "--comment", "mine", "--limit", 2, *SHORT]
    assert bench("invig_grounding", "--model", model, "--data", paths["invig"], *options, "--dtype", "bfloat16") == 0
    header, rows = iter_rows(only(tmp_path / "out"))
    sha256 = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    assert (header.task, header.comment, header.model, header.data) == (
        "invig_grounding",
        "mine",
        str(model),
        str(paths["invig"]),
    )
    assert (header.model_sha256, header.oracle, header.oracle_sha256) == (sha256, None, None)
    assert header.settings == {
        "batch_size": 16,
        "limit": 2,
        "num_beams": 2,
        "max_new_tokens": 3,
        "dtype": "bfloat16",
        "device": "cpu",
    }
    assert header.versions.keys() == {"ofa_core", "torch", "python"}
    assert len(list(rows)) == 2


def test_all_tasks_run_one_after_the_other_and_stand_in_the_leaderboard(
    model: Path, paths: dict[Format, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [f"{format}={path}" for format, path in paths.items()]
    options = ["--images", tmp_path / "images", "--out", tmp_path / "out", "--json", "--limit", 1, *SHORT]
    assert bench("all", "--model", model, "--data", *data, *options) == 0
    summaries = [Summary.model_validate_json(line) for line in capsys.readouterr().out.splitlines()]
    with_rows = [name for name, task in TASKS.items() if task.format in paths]
    assert [summary.task for summary in summaries] == with_rows
    table = (tmp_path / "out" / "leaderboard.md").read_text()
    assert all(f" {task} |" in table for task in with_rows)
    assert len(list((tmp_path / "out").glob("*/*/*.jsonl"))) == len(with_rows)


def test_bad_rows_are_left_out_on_demand(
    model: Path, paths: dict[Format, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with paths["refcoco"].open("a") as file:
        file.write("x\ty\n")
    options = ["--images", tmp_path / "images", "--model", model, "--data", paths["refcoco"], *SHORT]
    line = error_of(capsys, "refcoco_grounding", *options, "--out", tmp_path / "out")
    assert f"{paths['refcoco']}:4: the line has 2 columns" in line
    assert bench("refcoco_grounding", *options, "--out", tmp_path / "out", "--skip-bad") == 0
    out, err = capsys.readouterr()
    assert "3 samples, 1 bad rows" in out
    assert err == f"skipped: {line.removeprefix('ofa-core: ').partition(' (--skip-bad')[0]}\n"


def test_no_text_of_rows_acts_on_the_terminal(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    escapes = "\x1b[31m\x9b\u202e"
    rows = [files.dialog(0, id=f"0{escapes}", category=escapes, image_path="0.png")]
    rows += [files.dialog(1, id=f"1{escapes}", image_path=f"no{escapes}.png")]
    paths = write_data(tmp_path, 2)
    data = files.written(paths["invig"], files.json_lines(rows))
    options = ["--images", tmp_path / "images", "--out", tmp_path / "out", *SHORT]
    line = error_of(capsys, "invig_grounding", "--model", model, "--data", data, *options)
    assert r"no\x1b[31m\x9b\u202e.png" in line
    for more in ([], ["--json"]):
        assert bench("invig_grounding", "--model", model, "--data", data, *options, "--skip-bad", *more) == 0
        captured = capsys.readouterr()
        for text in (captured.out, captured.err):
            assert text == "\n".join(map(printable, text.split("\n")))
        assert r"no\x1b[31m\x9b\u202e.png" in captured.err


def test_games_may_have_an_oracle_of_their_own_and_be_played_by_the_closed_protocol(
    model: Path, paths: dict[Format, Path], tmp_path: Path
) -> None:
    other = save_lively(tmp_path / "other", seed=1)
    options = ["--images", tmp_path / "images", "--out", tmp_path / "out", "--limit", 1, *SHORT]
    game = "guesswhat_grounding_end2end"
    data = ["--data", paths["guesswhat"], "--oracle", other, "--protocol", "closed"]
    assert bench(game, "guesswhat_grounding", "--model", model, *data, *options) == 0
    header, rows = iter_rows(only(tmp_path / "out", f"{game}/*/*.jsonl"))
    sha256 = hashlib.sha256((other / "model.safetensors").read_bytes()).hexdigest()
    assert (header.oracle, header.oracle_sha256, header.settings["protocol"]) == (str(other), sha256, "closed")
    (row,) = rows
    assert set(row.turns[1::2]) <= {"yes", "no", "n/a"}
    header, _ = iter_rows(only(tmp_path / "out", "guesswhat_grounding/*/*.jsonl"))
    assert (header.oracle, header.oracle_sha256, "protocol" in header.settings) == (None, None, False)


def test_columns_of_a_refcoco_file_come_in_any_order(model: Path, tmp_path: Path) -> None:
    row = files.phrase(1)
    names = ("image", "text", "region-coord", "uniq-id")
    (tmp_path / "x.tsv").write_text("\t".join(row[name] for name in names) + "\n")
    options = ["--columns", ",".join(names), "--out", tmp_path / "out", *SHORT]
    assert bench("refcoco_grounding", "--model", model, "--data", tmp_path / "x.tsv", *options) == 0
    (found,) = rows_in(only(tmp_path / "out"))
    assert (found.id, found.box, found.size) == ("r1", (10.0, 20.0, 40.0, 50.0), files.SIZE)


def test_options_reach_the_run(model: Path, paths: dict[Format, Path], tmp_path: Path, runs: list[Run]) -> None:
    data = [
        "--data",
        f"refcoco={paths['refcoco']}",
        paths["guesswhat"],
        "--columns",
        "uniq-id,image-id,text,region-coord",
    ]
    images = ["--images", tmp_path, f"refcoco={tmp_path / 'images'}"]
    switches = [
        "--resume",
        "--skip-bad",
        "--report",
        "--quiet",
        "--workers",
        0,
        "--out",
        tmp_path / "o",
        "--batch-size",
        3,
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "read_samples", lambda *_: iter(()))
        assert bench("guesswhat_oracle", "refcoco_grounding", "--model", model, *data, *images, *switches) == 0
    assert [run.task.name for run in runs] == ["refcoco_grounding", "guesswhat_oracle"]  # in the table's order
    columns = ("uniq-id", "image-id", "text", "region-coord")
    assert [run.data for run in runs] == [
        DataFiles(paths["refcoco"], tmp_path / "images", columns),
        DataFiles(paths["guesswhat"], tmp_path, None),
    ]
    for run in runs:
        assert (run.resume, run.skip_bad, run.report, run.quiet, run.workers) == (True, True, True, True, 0)
        assert (run.out, run.settings.batch_size) == (tmp_path / "o", 3)


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ([], {"guesswhat": "open", "invig": "open"}),
        (["--protocol", "closed"], {"guesswhat": "closed", "invig": "open"}),
    ],
)
def test_a_protocol_is_for_the_games_that_have_it(
    model: Path, paths: dict[Format, Path], runs: list[Run], protocol: list[str], expected: dict[str, str]
) -> None:
    data = [f"{format}={path}" for format, path in paths.items()]
    assert bench("all", "--model", model, "--data", *data, *protocol) == 0
    games = {run.task.format: run.settings.protocol for run in runs if run.task.protocols}
    assert games == expected
    assert {run.header.settings.get("protocol") for run in runs if not run.task.protocols} == {None}


def test_all_are_the_tasks_that_there_are_data_for(model: Path, paths: dict[Format, Path], runs: list[Run]) -> None:
    assert bench("all", "--model", model, "--data", f"invig={paths['invig']}") == 0
    assert [run.task.name for run in runs] == [name for name, task in TASKS.items() if task.format == "invig"]


# Data that nobody named


def put(path: Path, place: Path) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.move(path, place))


def test_a_whole_run_needs_no_more_than_the_model_where_a_directory_has_the_data(
    model: Path,
    paths: dict[Format, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = put(paths["invig"], tmp_path / "data" / "invig" / "invig.test.jsonl")
    pictures = put(tmp_path / "images", tmp_path / "data" / "invig" / "images")
    monkeypatch.setenv("OFA_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    assert bench("invig_grounding", "--model", model, "--comment", "C", "--batch-size", 16, "--quiet") == 0
    out, err = capsys.readouterr()
    assert err == f"invig rows: {rows}, pictures {pictures} (from $OFA_DATA)\n"
    path = only(tmp_path / "results")
    assert (path.parent, out.splitlines()[0]) == (
        tmp_path / "results" / "invig_grounding" / "C",
        str(path.relative_to(tmp_path)),
    )
    header, found = iter_rows(path)
    assert (header.data, len(list(found))) == (str(rows), 3)


def test_settings_of_the_user_name_data_and_options_come_before_them(
    model: Path,
    paths: dict[Format, Path],
    tmp_path: Path,
    runs: list[Run],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = tmp_path / "mine.toml"
    named = "\n".join(f'{format} = "{path.name}"' for format, path in paths.items())
    settings.write_text(f'[data]\n{named}\n[images]\ninvig = "images"\n')
    monkeypatch.setenv("OFA_CONFIG", str(settings))
    assert bench("all", "--model", model) == 0
    assert {run.task.format: run.data.path for run in runs} == paths
    assert {run.data.images for run in runs if run.task.format == "invig"} == {tmp_path / "images"}
    assert {run.data.images for run in runs if run.task.format != "invig"} == {None}
    assert len(capsys.readouterr().err.splitlines()) == len(paths)
    runs.clear()
    other = Path(shutil.copy(paths["invig"], tmp_path / "other.jsonl"))
    assert bench("invig_oracle", "--model", model, "--data", other) == 0
    assert [(run.data.path, run.data.images) for run in runs] == [(other, None)]
    assert capsys.readouterr().err == ""
    runs.clear()
    assert bench("invig_oracle", "--model", model, "--images", tmp_path) == 0
    assert [(run.data.path, run.data.images) for run in runs] == [(paths["invig"], tmp_path)]


@pytest.mark.parametrize("tasks", [["invig_oracle"], ["all"], ["guesswhat_oracle", "invig_oracle"]])
def test_without_data_both_ways_to_name_them_are_told(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tasks: list[str]
) -> None:
    (tmp_path / "data").mkdir()
    if len(tasks) == 2:
        (tmp_path / "data" / "guesswhat.jsonl").touch()
        monkeypatch.setenv("OFA_DATA", str(tmp_path / "data"))
    line = error_of(capsys, *tasks, "--model", model)
    assert "has no data: pass --data PATH, or name them by $OFA_DATA (" in line
    assert f"under [data] in {tmp_path}/config/ofa_core.toml" in line
    assert ("invig_oracle has no data" in line) == (tasks != ["all"])


# Errors of one line


@pytest.mark.parametrize(
    ("tasks", "data", "problem"),
    [
        (["invig_oracle"], ["guesswhat={guesswhat}"], "invig_oracle has no data: pass --data invig=PATH"),
        (["all"], ["{refcoco}"], "phrases.tsv tells no format, pass --data FORMAT="),
        (["all"], ["{invig}", "{invig}"], "dialogs.jsonl twice"),
        (
            ["guesswhat_oracle", "refcoco_grounding"],
            ["{invig}", "{guesswhat}"],
            "dialogs.jsonl tells no format, pass --data FORMAT=",
        ),
        (
            ["invig_oracle", "guesswhat_oracle"],
            ["{invig}"],
            "these tasks read rows of 2 formats: pass --data guesswhat=PATH invig=PATH",
        ),
        (["invig_oracle"], ["{invig}", "{guesswhat}"], "games.jsonl.gz tells no format, pass --data FORMAT="),
        (["invig_oracle"], ["invig={invig}", "invig=b"], "data b does not exist"),
        (["invig_oracle"], ["{invig}", "--images", "invig=a", "invig=b"], "--images names two paths for invig"),
        (["invig_oracle"], ["nowhere.jsonl"], "data nowhere.jsonl does not exist"),
        (["invig_oracle"], ["{refcoco}"], "invig rows come in .jsonl"),
        (["chess"], ["{invig}"], "invalid choice: 'chess'"),
    ],
)
def test_data_that_do_not_fit_the_tasks(
    model: Path,
    paths: dict[Format, Path],
    capsys: pytest.CaptureFixture[str],
    tasks: list[str],
    data: list[str],
    problem: str,
) -> None:
    values = [value.format(**paths) for value in data]
    assert problem in error_of(capsys, *tasks, "--model", model, "--data", *values)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--protocol", "closed"], "--protocol closed is for guesswhat_grounding_end2end"),
        (["--oracle", "x"], "--oracle is for guesswhat_grounding_end2end, invig_grounding_end2end"),
        (["--batch-size", "0"], "argument --batch-size: '0' is not a whole number of at least 1"),
        (["--limit", "0"], "argument --limit: '0' is not a whole number of at least 1"),
        (["--workers", "-1"], "argument --workers: '-1' is not a whole number of at least 0"),
        (["--images", "nowhere"], "images nowhere does not exist"),
        (["--columns", "a,b"], "--columns is for refcoco_grounding"),
        (["--information-gain"], "--information-gain is for guesswhat_grounding_end2end"),
        (["--boxes", "inches"], "argument --boxes: invalid choice: 'inches'"),
        (["--boxes", "fractions"], "is not in fractions of the sides"),
        (["--split", "val"], "the row names no split, so --split val has no use here"),
        (["--language", "cn"], "dialog_cn: the row has none"),
        (["--comment", "a/b"], "the comment 'a/b' names a directory"),
        (["--model", "nowhere"], "nowhere does not exist"),
        (["--device", "cuda:99"], "device 'cuda:99' is not available"),
    ],
)
def test_options_that_cannot_be(
    model: Path,
    paths: dict[Format, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    problem: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--model", model, "--data", paths["invig"], "--quiet", *options]
    assert problem in error_of(capsys, "invig_oracle", *arguments)


@pytest.mark.parametrize("option", ["--language=cn", "--keep-last-turn"])
def test_options_of_dialogs_are_for_dialogs(
    model: Path, paths: dict[Format, Path], capsys: pytest.CaptureFixture[str], option: str
) -> None:
    arguments = ["--model", model, "--data", paths["guesswhat"], option]
    assert f"{option.replace('=', ' ')} is for invig_grounding" in error_of(capsys, "guesswhat_oracle", *arguments)


def test_formats_of_several_files_are_told_by_their_content(
    model: Path, paths: dict[Format, Path], runs: list[Run]
) -> None:
    assert bench("all", "--model", model, "--data", paths["guesswhat"], paths["invig"]) == 0
    assert {(run.task.format, run.data.path) for run in runs} == {(f, paths[f]) for f in ("guesswhat", "invig")}
    runs.clear()
    assert bench("all", "--model", model, "--data", paths["invig"], f"refcoco={paths['refcoco']}") == 0
    assert {run.task.format for run in runs} == {"invig", "refcoco"}


def test_options_of_reading_reach_the_run(model: Path, paths: dict[Format, Path], runs: list[Run]) -> None:
    options = ["--language", "cn", "--boxes", "pixels", "--keep-last-turn", "--split", "all"]
    assert bench("invig_oracle", "--model", model, "--data", paths["invig"], *options) == 0
    assert runs[0].data.options == ReadOptions("cn", "pixels", True, "all")


def test_a_model_must_be_named(paths: dict[Format, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert "pass --model DIR or set $OFA_MODEL" in error_of(capsys, "invig_oracle", "--data", paths["invig"])


def test_bench_score_and_compare_are_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("bench", "score", "compare"):
        with pytest.raises(SystemExit) as exit_:
            main([command, "--help"])
        assert exit_.value.code == 0
        assert f"ofa-core {command}" in capsys.readouterr().out


def test_results_of_a_run_can_be_scored_and_compared(
    model: Path, paths: dict[Format, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_lively(tmp_path / "other", seed=1)
    options = [
        "--data",
        paths["guesswhat"],
        "--images",
        tmp_path / "images",
        "--out",
        tmp_path / "out",
        "--json",
        *SHORT,
    ]
    for directory in (model, other):
        assert bench("guesswhat_oracle", "guesswhat_grounding", "--model", directory, *options) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()][:2]
    for task, summary in ((summary["task"], summary) for summary in printed):
        mine, its = (only(tmp_path / "out", f"{task}/{name}/*.jsonl") for name in ("lively", "other"))
        assert main(["score", str(mine), "--json"]) == 0
        out, err = capsys.readouterr()
        assert err == ""  # every IoU in the file is that of its boxes
        assert json.loads(out)["scores"] == summary["scores"]
        assert main(["compare", str(mine), str(its)]) == 0
        assert "samples in both" in capsys.readouterr().out
