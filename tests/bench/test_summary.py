from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import made
from bench.made import header, row

from ofa_core import OFAError
from ofa_core.bench import metrics
from ofa_core.bench.results import Row
from ofa_core.bench.summary import TASK_SCORES, Summary, read_summary, summarize, write_summary


def test_grounding_is_scored_as_counting_by_hand() -> None:
    rows = made.rows(200)
    found = summarize(header(), iter(rows))
    ious = [r.iou for r in rows if r.iou is not None]
    assert found.samples == len(ious) == 200
    for threshold, score in found.accuracy_by_threshold.items():
        assert score.value == pytest.approx(sum(iou > threshold for iou in ious) / 200)
        assert score.low <= score.value <= score.high
    assert list(found.accuracy_by_threshold) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert found.mean_iou is not None
    assert found.mean_iou.value == pytest.approx(sum(ious) / 200)
    assert found.scores["with_box"].value == sum(r.found is not None for r in rows) / 200
    assert found.headline.name == "acc@0.5"
    assert found.headline.value == found.scores["acc@0.5"].value
    assert found.headline.low == found.scores["acc@0.5"].low
    assert found.success_rate is None
    assert found.mean_questions is None
    assert found.confusion == {}


def test_each_task_counts_the_threshold_itself_as_its_convention_says() -> None:
    at_the_border = [row(0, iou=0.5), row(1, iou=0.0)]
    values = {
        task: summarize(header(task), at_the_border).scores["acc@0.5"].value
        for task, scores in TASK_SCORES.items()
        if scores.kind == "grounding" and task != "ref_l4"
    }
    assert values == {"refcoco_grounding": 0.5, "guesswhat_grounding": 0.0, "invig_grounding": 0.0}


def test_categories_and_sizes_divide_the_samples() -> None:
    rows = made.rows(150)
    found = summarize(header(), rows)
    for groups, name in ((found.by_category, lambda r: r.category), (found.by_size, lambda r: _size(r))):
        assert sum(group.samples for group in groups.values()) == 150
        for key, group in groups.items():
            own = [r.iou or 0.0 for r in rows if name(r) == key]
            assert group.samples == len(own)
            assert group.score.value == pytest.approx(sum(iou > 0.5 for iou in own) / len(own))
            assert group.mean_iou is not None
            assert group.mean_iou.value == pytest.approx(sum(own) / len(own))
    assert list(found.by_size) == ["small", "medium", "large"]
    counts = [group.samples for group in found.by_category.values()]
    assert counts == sorted(counts, reverse=True)


def _size(of: Row) -> str:
    return metrics.size_class(of.box) if of.box else ""


def test_rows_without_category_have_no_group() -> None:
    assert summarize(header(), [row(0), row(1)]).by_category == {}
    assert list(summarize(header(), [row(0), row(1, category="cup")]).by_category) == ["cup"]


def test_the_oracle_is_scored_in_full_and_by_the_first_letter() -> None:
    said = [("yes", "yes"), ("yes", "no"), ("no", "no"), ("no", "n/a"), ("n/a", "no"), ("n/a", "maybe")]
    rows = [row(i, target=target, output=output, iou=None) for i, (target, output) in enumerate(said)]
    found = summarize(header("guesswhat_oracle"), rows)
    assert found.scores["accuracy"].value == pytest.approx(2 / 6)
    assert found.scores["first_letter"].value == pytest.approx(4 / 6)
    assert found.headline.name == "first_letter"
    assert found.confusion == {
        "yes": {"yes": 1, "no": 1, "n/a": 0, "other": 0},
        "no": {"yes": 0, "no": 1, "n/a": 1, "other": 0},
        "n/a": {"yes": 0, "no": 1, "n/a": 0, "other": 1},
        "other": {"yes": 0, "no": 0, "n/a": 0, "other": 0},
    }
    assert found.accuracy_by_threshold == {}
    assert summarize(header("invig_oracle"), rows).headline.name == "accuracy"


def test_a_confusion_matrix_has_no_other_answers_where_there_were_none() -> None:
    found = summarize(header("guesswhat_oracle"), [row(0, target="yes", output="no", iou=None)])
    assert list(found.confusion) == ["yes", "no", "n/a"]


def test_self_play_is_scored_by_success_and_questions() -> None:
    games = [(0.9, 2), (0.5, 8), (0.0, 0), (0.51, 4)]
    rows = [row(i, iou=iou, questions=asked) for i, (iou, asked) in enumerate(games)]
    found = summarize(header("invig_grounding_end2end"), rows)
    assert found.success_rate is not None
    assert found.success_rate.value == 0.5
    assert found.mean_questions is not None
    assert found.mean_questions.value == 3.5
    assert found.headline.name == "success_rate"


def test_what_cannot_be_scored_is_named() -> None:
    with pytest.raises(OFAError, match="no sample"):
        summarize(header(), [])
    with pytest.raises(OFAError, match="'game-1' has no IoU"):
        summarize(header(), [row(0), row(1, iou=None)])
    with pytest.raises(OFAError, match="no task 'chess'; the tasks are refcoco_grounding"):
        summarize(header("chess"), [row(0)])


def test_a_summary_says_what_was_run() -> None:
    of = header(oracle="models/b", oracle_sha256="ef" * 32)
    found = summarize(of, made.rows(10), bad_rows=3, seconds=4.0)
    assert (found.bad_rows, found.seconds, found.samples_per_second) == (3, 4.0, 2.5)
    for name in ("task", "comment", "model", "model_sha256", "oracle", "oracle_sha256", "data", "settings", "started"):
        assert getattr(found, name) == getattr(of, name)
    assert summarize(of, made.rows(10)).samples_per_second is None


def test_a_summary_stands_beside_its_results_and_comes_back(tmp_path: Path) -> None:
    found = summarize(header(), made.rows(30), seconds=1.5)
    written = write_summary(tmp_path / "20250301-123005.jsonl", found)
    assert written == tmp_path / "20250301-123005.json"
    assert read_summary(written) == found
    assert json.loads(written.read_text())["headline"]["name"] == "acc@0.5"


def test_other_files_are_no_summaries_and_broken_ones_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for other in ("{", "[]", "{}", '{"format": "x"}', "\x00"):
        path.write_text(other)
        assert read_summary(path) is None
    content = json.loads(summarize(header(), made.rows(3)).model_dump_json())
    path.write_text(json.dumps(content | {"samples": "many"}))
    with pytest.raises(OFAError, match=r"x\.json is not a whole summary: samples"):
        read_summary(path)


def test_rows_are_not_kept() -> None:
    def endless(count: int) -> Iterator[Row]:
        for index in range(count):
            yield row(index, source="s" * 200_000, iou=index % 2)

    tracemalloc.start()
    found = summarize(header(), endless(2000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.headline.value == 0.5
    assert peak < 100e6  # the draws of the bootstrap take half of it; the texts alone would be 400 MB


def test_every_task_of_the_benchmark_can_be_scored_and_has_its_headline() -> None:
    for task, scores in TASK_SCORES.items():
        found = summarize(header(task), made.rows(5, task))
        assert isinstance(found, Summary)
        assert found.headline.name == scores.headline
        assert found.scores[scores.headline].value == found.headline.value
