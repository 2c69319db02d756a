from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from bench import made
from bench.made import header, row

from ofa_core.bench.compare import compare
from ofa_core.bench.summary import TASK_SCORES, Summary, summarize
from ofa_core.cli.options import Parser, run
from ofa_core.cli.parsers.score import add_commands
from ofa_core.utils.printable import printable


def command(*words: object) -> int:
    """Run ``score`` or ``compare`` as the program does."""
    parser = Parser(prog="ofa-core")
    commands = parser.add_subparsers(required=True)
    add_commands(commands)
    args = parser.parse_args([str(word) for word in words])
    return run("ofa-core", lambda: args.command(args))


@pytest.mark.parametrize(
    "task", ["refcoco_grounding", "guesswhat_grounding", "guesswhat_oracle", "invig_grounding_end2end"]
)
def test_score_gives_what_the_run_gave(tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str) -> None:
    rows = made.rows(60, task)
    path = made.written(tmp_path / "x.jsonl", rows, header(task))
    assert command("score", path, "--json") == 0
    captured = capsys.readouterr()
    assert Summary.model_validate_json(captured.out) == summarize(header(task), rows)
    assert captured.err == ""


def test_scores_are_printed_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = made.rows(60)
    path = made.written(tmp_path / "x.jsonl", rows, header())
    assert command("score", path, "--verbose") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [str(path), "guesswhat_grounding, models/ofa-small, 60 samples"]
    found = summarize(header(), rows).scores["acc@0.5"]
    (headline,) = [line for line in lines if line.endswith("<-")]
    assert headline.split()[:3] == ["acc@0.5", f"{100 * found.value:.1f}", f"({100 * found.low:.1f}"]
    assert sum("of" in line for line in lines if line.startswith("    ")) == 6  # three sizes, three categories


def _scores(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of scores that were printed, without what was published."""
    lines = capsys.readouterr().out.splitlines()[2:]
    return [line for line in lines if not line.startswith("  published: ")]


def _name(line: str) -> str:
    """The name of the score that a line tells."""
    return re.split(r"\s{2,}", line.strip())[0]


@pytest.mark.parametrize("task", TASK_SCORES)
def test_the_headline_and_three_scores_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    rows = made.rows(30, task)
    path = made.written(tmp_path / "x.jsonl", rows, header(task))
    found = summarize(header(task), rows)
    assert command("score", path) == 0
    scores = _scores(capsys)
    names = list(map(_name, scores))
    assert names[0] == found.headline.name
    assert len(names) == len(set(names)) == min(4, len(found.scores))
    assert set(names) <= set(found.scores)
    assert command("score", path, "--verbose") == 0
    everything = list(map(_name, _scores(capsys)))
    assert scores[0].endswith("<-, all with --verbose" if len(everything) > len(scores) else "<-")
    assert everything[: len(found.scores)] == list(found.scores)


def test_a_grounder_is_told_by_its_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command("score", made.written(tmp_path / "x.jsonl", made.rows(9), header()))
    names = list(map(_name, _scores(capsys)))
    assert names == ["acc@0.5", "mean_iou", "with_box", "acc@0.7"]


def test_games_are_printed_by_their_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = "invig_grounding_end2end"
    rows = made.rows(40, task)
    command("score", made.written(tmp_path / "x.jsonl", rows, header(task)), "--verbose")
    lines = capsys.readouterr().out.splitlines()
    games = summarize(header(task), rows).games
    assert games is not None
    assert games.questions_per_won is not None
    (line,) = [line for line in lines if line.startswith("  questions per won game")]
    assert line.split()[4] == f"{games.questions_per_won.value:.3f}"
    start = lines.index("  success_rate by questions") + 1
    told = [line.split() for line in lines[start : start + len(games.by_questions)]]
    assert [(int(words[0]), int(words[-1])) for words in told] == [(n, g.games) for n, g in games.by_questions.items()]


def test_a_confusion_matrix_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = [("yes", "no"), ("no", "no"), ("no", "no")]
    rows = [row(i, target=a, output=b, iou=None) for i, (a, b) in enumerate(answers)]
    command("score", made.written(tmp_path / "x.jsonl", rows, header("guesswhat_oracle")), "--verbose")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["yes", "no", "n/a"] in lines
    assert ["yes", "0", "1", "0"] in lines
    assert ["no", "0", "2", "0"] in lines


def test_several_files_are_scored_one_after_the_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [made.written(tmp_path / f"{n}.jsonl", made.rows(n), header()) for n in (3, 5)]
    assert command("score", *paths, "--json") == 0
    assert [json.loads(line)["samples"] for line in capsys.readouterr().out.splitlines()] == [3, 5]


def test_boxes_are_scored_not_what_a_row_says_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = made.rows(20)
    boasting = [r.model_copy(update={"iou": 1.0}) for r in rows[:5]] + rows[5:]
    path = made.written(tmp_path / "x.jsonl", boasting, header())
    command("score", path, "--json")
    captured = capsys.readouterr()
    assert Summary.model_validate_json(captured.out) == summarize(header(), rows)
    assert f"{path}: 5 of 20 rows hold another IoU than their boxes have; the boxes were scored" in captured.err


def test_the_older_form_is_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box, other = "region: <bin_1> <bin_1> <bin_501> <bin_500>", "region: <bin_1> <bin_1> <bin_9> <bin_9>"
    lines = [["text_output", "text_gen"], [box, box], [box, other], [box, "not yet."], [box, box]]
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert command("score", path, "--json") == 0
    captured = capsys.readouterr()
    found = Summary.model_validate_json(captured.out)
    assert (found.task, found.samples, found.headline.value) == ("invig_grounding", 4, 0.5)
    assert found.scores["with_box"].value == 0.75
    assert captured.err == ""  # bins read from bins are not bins of pixels


def test_the_task_can_be_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = row(0, box=(0.0, 0.0, 100.0, 100.0), found=(0.0, 0.0, 100.0, 50.0), iou=0.5)
    path = made.written(tmp_path / "x.jsonl", [half], header("refcoco_grounding"))
    values = {}
    for task in ("refcoco_grounding", "guesswhat_grounding"):
        command("score", path, "--json", "--task", task)
        values[task] = Summary.model_validate_json(capsys.readouterr().out).headline.value
    assert values["refcoco_grounding"] == 1.0
    with pytest.raises(SystemExit, match="2"):
        command("score", path, "--task", "chess")
    assert "invalid choice: 'chess'" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "{}\n", "rubbish"])
def test_a_file_that_holds_no_results_is_one_line_and_exit_code_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (tmp_path / "x.jsonl").write_text(content)
    assert command("score", tmp_path / "x.jsonl") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert command("score", tmp_path / "absent.jsonl") == 2


def test_a_run_that_has_no_rows_yet_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made.written(tmp_path / "x.jsonl", [], header())
    assert command("score", path) == 2
    assert capsys.readouterr().err == f"ofa-core: {path}: there is no sample to score\n"


def test_a_report_has_the_pictures_of_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = made.rows(3)
    path = made.written(tmp_path / "x.jsonl", rows, header())
    (tmp_path / "images").mkdir()
    for r in rows[:2]:
        made.picture(r).save(tmp_path / "images" / r.image)
    made.picture(rows[2]).resize((50, 50)).save(tmp_path / "images" / rows[2].image)  # not the picture of that row
    page = tmp_path / "page.html"
    assert command("score", path, "--report", page, "--images", tmp_path / "images") == 0
    assert page.read_text().count("<img ") == 2 * 3  # in each of the three galleries
    assert page.read_text().count("picture not at hand") == 1 * 3
    assert command("score", path, path, "--report", page) == 2
    assert "--report is a page of one results file, not of 2" in capsys.readouterr().err


def test_compare_prints_what_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = made.written(tmp_path / "a.jsonl", [row(i, iou=0.0, output=f"A{i}") for i in range(6)], header())
    second = made.written(tmp_path / "b.jsonl", [row(i, iou=0.9, output=f"B{i}") for i in range(5)], header())
    assert command("compare", first, second, "--show", 2) == 0
    out = capsys.readouterr().out
    assert "5 samples in both, 1 only in A left out" in out
    assert "acc@0.5: 5 gained, 0 lost; 5 answers differ" in out
    assert "+100.0 (+100.0 to +100.0), p 0.002, significant" in out
    shown = [line for line in out.splitlines() if line.startswith("  gained")]
    assert [line.split(":")[0] for line in shown] == ["  gained game-0", "  gained game-1"]
    assert "A said 'A0', B 'B0'" in shown[0]
    assert command("compare", first, second, "--json") == 0
    assert capsys.readouterr().out == compare(first, second).model_dump_json() + "\n"


def test_compare_shows_no_sample_if_none_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made.written(tmp_path / "a.jsonl", made.rows(5), header())
    assert command("compare", path, path, "--show", 0) == 0
    assert "gained game" not in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        command("compare", path, path, "--show", "-1")


ESCAPES = "\x1b]0;owned\x07\x9b2J\u202e\nid"


def test_no_text_of_a_file_acts_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = [row(n, id=f"{n}{ESCAPES}", category=ESCAPES, target="a" + ESCAPES, iou=float(n)) for n in range(2)]
    better = [one.model_copy(update={"iou": 1.0, "found": one.box, "output": ESCAPES}) for one in hostile]
    of = header(model=f"models/{ESCAPES}")
    first, second = made.written(tmp_path / "a.jsonl", hostile, of), made.written(tmp_path / "b.jsonl", better, of)
    for words in (["score", first, "--verbose"], ["score", first, "--json"], ["compare", first, second]):
        assert command(*words) == 0
        captured = capsys.readouterr()
        shown = captured.out + captured.err
        assert shown == "\n".join(map(printable, shown.split("\n"))), words
        assert all(len(line.strip()) > 8 or not line.startswith("id") for line in shown.splitlines())
        assert r"\x1b]0;owned\x07" in shown or json.loads(captured.out)["by_category"].keys() == {ESCAPES}
    first.write_text(first.read_text().replace('"iou":0.0', f'"iou":{json.dumps(ESCAPES)}', 1))
    assert command("score", first) == 2
    err = capsys.readouterr().err
    assert err == printable(err.rstrip("\n")) + "\n"
