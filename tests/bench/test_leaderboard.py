from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bench import made
from bench.made import header, row

from ofa_core import OFAError
from ofa_core.bench.leaderboard import update_leaderboard
from ofa_core.bench.results import result_path
from ofa_core.bench.summary import summarize, write_summary


def ran(out: Path, task: str, right: int, **changes: Any) -> Path:
    """A finished run of 10 samples, so many of which are right."""
    of = header(task, **changes)
    answers = [{"target": "yes", "output": "yes" if i < right else "no", "iou": float(i < right)} for i in range(10)]
    path = result_path(out, task, of.comment, of.started)
    return write_summary(path, summarize(of, [row(i, **answer) for i, answer in enumerate(answers)]))


def table(out: Path) -> list[list[str]]:
    lines = update_leaderboard(out).read_text().splitlines()
    rows = [line for line in lines[: lines.index("", 2)] if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in rows]


def values(cells: list[str]) -> list[str]:
    return [cell.split(" (")[0] for cell in cells]


def test_models_are_rows_and_tasks_are_columns_with_the_best_in_bold(tmp_path: Path) -> None:
    ran(tmp_path, "guesswhat_oracle", 7, model="runs/small", comment="small")
    ran(tmp_path, "guesswhat_grounding", 5, model="runs/small", comment="small")
    ran(tmp_path, "guesswhat_grounding", 8, model="runs/large", comment="beam1")
    ran(tmp_path, "invig_grounding", 2, model="runs/large", comment="beam1")
    head, rule, *rows = table(tmp_path)
    assert head == ["model", "guesswhat_grounding", "guesswhat_oracle", "invig_grounding"]
    assert set(rule) == {"---"}
    assert rows[0][0] == "large (beam1)"
    assert values(rows[0][1:]) == ["**80.0**", "", "**20.0**"]
    assert rows[1][0] == "small"
    assert values(rows[1][1:]) == ["50.0", "**70.0**", ""]
    low, high = map(float, rows[1][1].split("(")[1].rstrip(")").split("–"))
    assert low < 50 < high


def test_the_latest_run_of_a_model_counts(tmp_path: Path) -> None:
    ran(tmp_path, "invig_grounding", 9, started="2025-03-02T00:00:00")
    ran(tmp_path, "invig_grounding", 4, started="2025-03-10T00:00:00")
    ran(tmp_path, "invig_grounding", 6, started="2025-03-09T00:00:00")
    assert values(table(tmp_path)[2][1:]) == ["**40.0**"]


def test_equals_are_equally_bold(tmp_path: Path) -> None:
    for comment in ("a", "b"):
        ran(tmp_path, "invig_grounding", 4, comment=comment)
    assert [values(cells[1:]) for cells in table(tmp_path)[2:]] == [["**40.0**"], ["**40.0**"]]


def test_other_files_are_passed_over_and_broken_summaries_named(tmp_path: Path) -> None:
    path = ran(tmp_path, "invig_grounding", 4)
    path.with_name("notes.json").write_text("{}")
    assert len(table(tmp_path)) == 3
    path.write_text(path.read_text().replace('"samples": 10', '"samples": "ten"', 1))
    with pytest.raises(OFAError, match=path.name):
        update_leaderboard(tmp_path)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a|b", "a\\|b"),
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)>"),
        ("`code`", "\\`code\\`"),
        ("one\ntwo | three", "one\\\\ntwo \\| three"),
        ("\x1b[31mred", "\\\\x1b\\[31mred"),
        ("&lt;b>", "&amp;lt;b>"),
    ],
)
def test_a_name_cannot_break_the_table(tmp_path: Path, name: str, shown: str) -> None:
    of = header("invig_grounding", model=name, comment="c")
    path = result_path(tmp_path, of.task, "c", of.started)
    write_summary(path, summarize(of, [row(0, iou=0.5)]))
    lines = update_leaderboard(tmp_path).read_text().splitlines()
    assert [line for line in lines if shown in line] == [line for line in lines if "(c)" in line]
    assert len([line for line in lines if "(c)" in line]) == 2


def test_without_runs_there_is_no_table(tmp_path: Path) -> None:
    assert "No run has finished yet" in update_leaderboard(tmp_path).read_text()


def test_what_stands_behind_a_row_is_told(tmp_path: Path) -> None:
    ran(tmp_path, "invig_grounding", 4)
    text = update_leaderboard(tmp_path).read_text()
    assert "| invig_grounding | ofa-small (base) | 10 | 0 | 2025-03-01T12:30:05 | abababababab |" in text
    assert made.header().model_sha256 not in text
