from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bench import made
from bench.made import header, row

from ofa_core import OFAError
from ofa_core.bench.legacy_results import UNKNOWN_SIZE, bins_of, read_results
from ofa_core.bench.summary import summarize

COLUMNS = ["index", "text_input", "text_output", "text_gen", "image_path"]
GUESSWHAT = ' \n#instruction: which region does the context describe?\n#context: "agent: is it red? human: yes"'
INVIG = ' \n#instruction: which region does the context describe?\n#context: "human: the cup agent: which one?"'
REFCOCO = ' which region does the text " the man " describe?'
BOX = " region: <bin_100> <bin_200> <bin_300> <bin_400>"


def lists(path: Path, *rows: list[Any], columns: list[str] = COLUMNS) -> Path:
    path.write_text("\n".join(json.dumps(line) for line in (columns, *rows)))  # no end of the last line
    return path


def plain_iou(first: tuple[int, ...], second: tuple[int, ...]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    both = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return both / (sum(areas) - both)


def test_boxes_are_those_of_the_bins_over_a_thousand(tmp_path: Path) -> None:
    said = " region: <bin_150> <bin_200> <bin_300> <bin_500>"
    path = lists(tmp_path / "x.jsonl", [7, GUESSWHAT, BOX, said, "a.jpg"], [9, GUESSWHAT, BOX, " not yet.", "b.jpg"])
    of, read = read_results(path)
    first, second = read
    assert (of.task, of.format, of.model, of.comment) == ("guesswhat_grounding", "lists", "x", "x")
    assert (first.index, first.id, first.image, first.size) == (0, "7", "a.jpg", UNKNOWN_SIZE)
    assert first.box == pytest.approx((100, 200, 300, 400))
    assert first.found == pytest.approx((150, 200, 300, 500))
    assert first.iou == pytest.approx(plain_iou((100, 200, 300, 400), (150, 200, 300, 500)))
    assert (first.source, first.target, first.output) == (GUESSWHAT, BOX.strip(), said.strip())
    assert (second.found, second.iou) == (None, 0.0)


def test_bins_at_the_border_are_clipped_as_in_the_convention(tmp_path: Path) -> None:
    corner = " region: <bin_0> <bin_0> <bin_999> <bin_999>"
    of, rows = read_results(lists(tmp_path / "x.jsonl", [0, GUESSWHAT, corner, corner, ""]))
    (only,) = rows
    assert of.task == "guesswhat_grounding"
    assert only.box == pytest.approx((1, 1, 999, 999))
    assert only.iou == 1.0


@pytest.mark.parametrize(
    ("source", "target", "task"),
    [
        (GUESSWHAT, BOX, "guesswhat_grounding"),
        (INVIG, BOX, "invig_grounding"),
        (REFCOCO, "<bin_1> <bin_2> <bin_3> <bin_4>", "refcoco_grounding"),
        ("q", " yes", "guesswhat_oracle"),
        ("q", " N/A", "guesswhat_oracle"),
        ("q", " the left one", "invig_oracle"),
        ([["", "the cup"], ["which one?", "the red one"]], BOX, "invig_grounding_end2end"),
        ([["is it red?", "yes"], ["is it a cup?", "No"]], BOX, "guesswhat_grounding_end2end"),
        ([["", "the cup"], ["is it red?", "yes"]], BOX, "guesswhat_grounding_end2end"),
    ],
)
def test_the_task_is_seen_from_the_content_and_can_be_said(tmp_path: Path, source: Any, target: str, task: str) -> None:
    path = lists(tmp_path / "x.jsonl", [0, source, target, target, ""])
    of, rows = read_results(path)
    assert of.task == task
    assert summarize(of, rows).headline.value == 1.0
    if "oracle" not in task:
        assert read_results(path, "invig_grounding")[0].task == "invig_grounding"


def test_a_single_free_answer_makes_an_oracle_free(tmp_path: Path) -> None:
    rows = [[i, "q", " yes" if i < 20 else " on the left", " yes", ""] for i in range(21)]
    assert read_results(lists(tmp_path / "x.jsonl", *rows))[0].task == "invig_oracle"


def test_played_dialogs_become_turns_and_questions(tmp_path: Path) -> None:
    dialog = [["", "the cup"], ["which one?", "the red one"], ["is it full?", ""]]
    of, rows = read_results(lists(tmp_path / "x.jsonl", [3, dialog, BOX, f" sure.{BOX}", "a.jpg"]))
    (game,) = rows
    assert of.task == "invig_grounding_end2end"
    assert game.turns == ("the cup", "which one?", "the red one", "is it full?")
    assert game.questions == 2
    assert game.source == ""
    assert game.iou == 1.0


def test_columns_may_come_in_any_order_and_more_of_them(tmp_path: Path) -> None:
    path = lists(tmp_path / "x.jsonl", [BOX, 5, "more", BOX], columns=["text_gen", "score", "other", "text_output"])
    (only,) = read_results(path)[1]
    assert (only.id, only.iou, only.image) == ("0", 1.0, "")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"index": 3}', "x.jsonl:3: the line should be a JSON list"),
        ("[1, 2", "x.jsonl:3: the line should be a JSON list"),
        ("[1, 2]", "x.jsonl:3: 2 values for the 5 columns"),
        ('[0, "q", "no bins", "x", ""]', "x.jsonl:3: text_output is 'no bins'; it should hold four bins"),
        ('[0, "q", "<bin_1> <bin_2> <bin_3> <bin_1000>", "x", ""]', "x.jsonl:3: bins"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, line: str, told: str) -> None:
    path = lists(tmp_path / "x.jsonl", [0, GUESSWHAT, BOX, BOX, ""])
    path.write_text(f"{path.read_text()}\n{line}\n")
    with pytest.raises(OFAError) as error:
        list(read_results(path)[1])
    assert told in str(error.value)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = lists(tmp_path / "x.jsonl", [0], columns=["text_output"])
    with pytest.raises(OFAError, match=r"x\.jsonl:1: there is no column text_gen; the columns are text_output"):
        read_results(path)


def test_sizes_that_the_file_does_not_tell_are_not_scored(tmp_path: Path) -> None:
    of, rows = read_results(lists(tmp_path / "x.jsonl", [0, GUESSWHAT, BOX, BOX, "a.jpg"]))
    assert summarize(of, rows).by_size == {}


def test_only_four_bins_are_a_box() -> None:
    assert bins_of("sure. region: <bin_1> <bin_20> <bin_300> <bin_999>") == [1, 20, 300, 999]
    assert bins_of("<bin_1> <bin_2> <bin_3>") is None
    assert bins_of("<bin_1> <bin_2> <bin_3> <bin_4> <bin_5>") is None
    assert bins_of("<bin_a> <bin_2> <bin_3> <bin_4>") is None


def test_our_own_files_are_read_too(tmp_path: Path) -> None:
    rows = made.rows(5)
    path = made.written(tmp_path / "x.jsonl", rows, header())
    of, read = read_results(path)
    assert (of, list(read)) == (header(), rows)
    assert read_results(path, "invig_grounding")[0] == header("invig_grounding")
    with pytest.raises(OFAError, match="no task 'chess'"):
        read_results(path, "chess")


def test_a_file_with_holes_is_not_a_finished_run(tmp_path: Path) -> None:
    path = made.written(tmp_path / "x.jsonl", [row(0), row(16)], header())
    with pytest.raises(OFAError, match="sample 16 stands where 1 should"):
        list(read_results(path)[1])
