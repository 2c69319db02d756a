from __future__ import annotations

from pathlib import Path

import pytest
from bench import made
from bench.made import header, row

from ofa_core import OFAError
from ofa_core.bench.compare import compare, rows_of


def file(path: Path, ious: dict[str, float], task: str = "guesswhat_grounding", said: str = "") -> Path:
    rows = [row(i, id=name, iou=iou, output=said or f"{iou}") for i, (name, iou) in enumerate(ious.items())]
    return made.written(path, rows, header(task))


def test_samples_are_matched_by_id_and_named_where_they_changed(tmp_path: Path) -> None:
    first = file(tmp_path / "a.jsonl", {"p": 0.9, "q": 0.1, "r": 0.6, "s": 0.2, "only": 0.9})
    second = file(tmp_path / "b.jsonl", {"s": 0.8, "r": 0.5, "q": 0.7, "p": 0.9, "x": 0.0, "y": 0.0})
    found = compare(first, second)
    assert (found.samples, found.only_first, found.only_second) == (4, 1, 2)
    assert found.gained == ("q", "s")
    assert found.lost == ("r",)  # 0.5 is not above 0.5
    assert found.outputs_changed == 3
    assert found.headline == "acc@0.5"
    assert found.differences["acc@0.5"].value == pytest.approx(1 / 4)
    assert found.differences["mean_iou"].value == pytest.approx((0.0 + 0.6 - 0.1 + 0.6) / 4)
    assert compare(second, first).gained == ("r",)


def test_a_file_does_not_differ_from_itself(tmp_path: Path) -> None:
    path = made.written(tmp_path / "a.jsonl", made.rows(50), header())
    found = compare(path, path)
    assert (found.gained, found.lost, found.outputs_changed) == ((), (), 0)
    assert not any(change.significant for change in found.differences.values())


def test_a_much_better_model_is_significantly_better(tmp_path: Path) -> None:
    paths = [made.written(tmp_path / f"{skill}.jsonl", made.rows(200, skill=skill), header()) for skill in (20.0, 4.0)]
    change = compare(*paths).differences["mean_iou"]
    assert change.value > 0
    assert change.low > 0
    assert change.significant


def test_oracles_and_games_are_compared_by_their_own_scores(tmp_path: Path) -> None:
    for task, expected in (
        ("guesswhat_oracle", {"accuracy", "first_letter"}),
        ("invig_grounding_end2end", {"success_rate", "mean_iou", "mean_questions"}),
    ):
        path = made.written(tmp_path / f"{task}.jsonl", made.rows(10, task), header(task))
        assert expected <= compare(path, path).differences.keys()


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    first = file(tmp_path / "a.jsonl", {"p": 0.9})
    with pytest.raises(OFAError, match=r"is of guesswhat_grounding and .* of invig_grounding"):
        compare(first, file(tmp_path / "b.jsonl", {"p": 0.9}, "invig_grounding"))
    with pytest.raises(OFAError, match="share no sample"):
        compare(first, file(tmp_path / "c.jsonl", {"q": 0.9}))


def told(path: Path, *samples: tuple[str, int | None, float]) -> Path:
    rows = [row(index, id=id, row=number, iou=iou) for index, (id, number, iou) in enumerate(samples)]
    return made.written(path, rows, header())


def test_samples_of_one_id_are_matched_by_their_rows(tmp_path: Path) -> None:
    first = told(tmp_path / "a.jsonl", ("p", 1, 0.1), ("p", 2, 0.2), ("q", 3, 0.9), ("p", 4, 0.9))
    second = told(tmp_path / "b.jsonl", ("q", 9, 0.9), ("p", 4, 0.3), ("p", 2, 0.9))  # 1 had no picture
    found = compare(first, second)
    assert (found.samples, found.only_first, found.only_second) == (3, 1, 0)
    assert (found.gained, found.lost) == (("p (row 2)",), ("p (row 4)",))
    named = {name: one.iou for name, one in rows_of(second, ["p (row 2)", "p (row 4)"]).items()}
    assert named == {"p (row 2)": 0.9, "p (row 4)": 0.3}


def test_without_rows_samples_of_one_id_are_matched_by_their_order(tmp_path: Path) -> None:
    first = told(tmp_path / "a.jsonl", ("p", None, 0.1), ("p", None, 0.2))
    second = told(tmp_path / "b.jsonl", ("p", 7, 0.1), ("p", 8, 0.9), ("p", 9, 0.9))
    found = compare(first, second)
    assert (found.samples, found.only_second, found.gained) == (2, 1, ("p (number 2)",))
    assert [rows_of(path, found.gained)["p (number 2)"].iou for path in (first, second)] == [0.2, 0.9]


def test_a_few_rows_are_fetched_by_id(tmp_path: Path) -> None:
    path = file(tmp_path / "a.jsonl", {"p": 0.9, "q": 0.1, "r": 0.6})
    assert {name: found.iou for name, found in rows_of(path, ["q", "z"]).items()} == {"q": 0.1}
