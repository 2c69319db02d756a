"""A run as one JSON file: everything that a results file and its summary tell, read by the same commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench import made
from bench.made import header
from bench.runs import only, rows_in, run_of, write_data

from ofa_core import OFA, OFAError
from ofa_core.bench import runner
from ofa_core.bench.compare import compare
from ofa_core.bench.leaderboard import update_leaderboard
from ofa_core.bench.legacy_results import read_results
from ofa_core.bench.runner import Outcome, Run, run_task
from ofa_core.bench.single_json import SINGLE_FORMAT, is_single, write_single
from ofa_core.bench.summary import read_summary, summarize
from ofa_core.cli.main import main
from ofa_core.utils.distributed import Process

TASK = "guesswhat_grounding"


@pytest.fixture
def single(tmp_path: Path) -> Path:
    """30 samples in one file, where a run leaves it."""
    rows, path = made.rows(30, TASK), tmp_path / TASK / "base" / "20250301-123005.json"
    path.parent.mkdir(parents=True)
    write_single(path, header(TASK), summarize(header(TASK), rows), rows)
    return path


def test_it_holds_samples_and_scores(single: Path) -> None:
    content = json.loads(single.read_text())
    assert list(content) == ["format", "summary", "header", "samples"]
    assert content["format"] == SINGLE_FORMAT
    assert content["summary"]["headline"]["name"] == "acc@0.5"
    assert len(content["samples"]) == 30
    assert is_single(single)


@pytest.mark.parametrize("indent", [None, 2], ids=["as written", "indented"])
@pytest.mark.parametrize("sort", [False, True], ids=["in order", "sorted"])
def test_it_is_read_however_it_is_formatted(single: Path, indent: int | None, sort: bool) -> None:
    if indent or sort:
        content = json.loads(single.read_text())
        single.write_text(json.dumps(content, indent=indent, sort_keys=sort, ensure_ascii=False))
    of, rows = read_results(single)
    assert (of, list(rows)) == (header(TASK), made.rows(30, TASK))
    assert read_summary(single) == summarize(header(TASK), made.rows(30, TASK))


def test_score_compare_and_the_leaderboard_read_it(
    single: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = made.written(tmp_path / "lines.jsonl", made.rows(30, TASK), header(TASK))
    printed = []
    for path in (single, lines):
        assert main(["score", str(path), "--json"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert main(["score", str(single), "--report", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text().count("<article") == 36
    found = compare(single, lines)
    assert (found.samples, found.outputs_changed) == (30, 0)
    board = update_leaderboard(tmp_path).read_text()
    assert f"| {TASK} | ofa-small (base) | 30 |" in board


def test_without_samples_there_is_nothing_to_score(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_single(path, header(TASK), summarize(header(TASK), made.rows(1)), [])
    assert list(read_results(path)[1]) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda text: text[: len(text) // 2], "damaged or cut off"),
        (lambda text: text.replace('"samples": [', '"samples": {'), "damaged or cut off"),
        (lambda text: text.replace('"samples"', '"other"'), "there is no samples in it"),
        (lambda text: text.replace('"header": {', '"header": {"more": 1,'), "more: there is no such setting"),
        (lambda text: text.replace('"index":7,', '"index":-7,'), "samples.7: index"),
        (lambda text: text.replace('"index":7,', '"index":9,'), "sample 9 stands where 7 should"),
        (lambda text: text.replace('"score":0.5', '"score":' + "[" * 100_000), "damaged or cut off"),
    ],
)
def test_damage_is_one_line_that_names_the_file(single: Path, change: object, problem: str) -> None:
    rows = [made.row(index) for index in range(12)]
    write_single(single, header(TASK), summarize(header(TASK), rows), rows)
    single.write_text(change(single.read_text()))  # type: ignore[operator]
    with pytest.raises(OFAError) as error:
        list(read_results(single)[1])
    assert str(single) in str(error.value)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


def test_a_broken_summary_is_named(single: Path) -> None:
    single.write_text(single.read_text().replace('"samples":30', '"samples":"many"', 1))
    with pytest.raises(OFAError, match="is not a whole summary"):
        read_summary(single)


# From a run


def finished(run: Run) -> Outcome:
    outcome = run_task(run, Process())
    assert outcome is not None
    return outcome


def test_a_run_leaves_one_file_alone(ofa: OFA, tmp_path: Path) -> None:
    paths = write_data(tmp_path, 3)
    plain = finished(run_of(ofa, TASK, paths, tmp_path / "plain"))
    one = finished(run_of(ofa, TASK, paths, tmp_path / "out", single_json=True, report=True))
    assert one.path == only(tmp_path / "out", "*/*/*.json")
    assert sorted(path.suffix for path in one.path.parent.iterdir()) == [".html", ".json"]
    assert list(read_results(one.path)[1]) == rows_in(plain.path)
    assert one.summary.scores == plain.summary.scores
    assert one.page is not None
    assert one.page.read_text().count("<img ") == 3 * 3
    assert "| c |" not in (tmp_path / "out" / "leaderboard.md").read_text()
    assert TASK in (tmp_path / "out" / "leaderboard.md").read_text()


def test_a_finished_run_is_known_again_and_brought_into_one_file(ofa: OFA, tmp_path: Path) -> None:
    paths, out = write_data(tmp_path, 3), tmp_path / "out"
    lines = finished(run_of(ofa, TASK, paths, out)).path
    again = finished(run_of(ofa, TASK, paths, out, resume=True, single_json=True))
    assert (again.before, again.path) == (True, lines.with_suffix(".json"))
    assert not lines.exists()
    for single_json in (True, False):  # what is one file stays one
        more = finished(run_of(ofa, TASK, paths, out, resume=True, single_json=single_json))
        assert (more.before, more.path, more.summary) == (True, again.path, again.summary)
    assert len(list(read_results(again.path)[1])) == 3


def test_an_end_that_was_interrupted_is_made_up_for(ofa: OFA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, out = write_data(tmp_path, 3), tmp_path / "out"
    with monkeypatch.context() as patch:
        unlink = Path.unlink
        patch.setattr(
            Path, "unlink", lambda path, **k: _interrupted() if path.suffix == ".jsonl" else unlink(path, **k)
        )
        with pytest.raises(KeyboardInterrupt):
            run_task(run_of(ofa, TASK, paths, out, single_json=True), Process())
    single, lines = only(out, "*/*/*.json"), only(out)
    assert is_single(single)
    outcome = finished(run_of(ofa, TASK, paths, out, resume=True, single_json=True))
    assert (outcome.before, outcome.path, lines.exists()) == (True, single, False)
    assert len(list(read_results(single)[1])) == 3


def test_a_run_that_was_interrupted_goes_on(ofa: OFA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, out = write_data(tmp_path, 10), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(runner, "check_stop", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_task(run_of(ofa, TASK, paths, out, single_json=True), Process())
    assert len(rows_in(only(out))) == 4
    outcome = finished(run_of(ofa, TASK, paths, out, resume=True, single_json=True))
    assert (outcome.before, outcome.path.suffix, outcome.summary.samples) == (False, ".json", 10)


def _interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
