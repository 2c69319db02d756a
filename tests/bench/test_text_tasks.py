"""Benchmarks without boxes: closed answers, writing on pictures and texts with gaps."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench.files import encoded
from bench.runs import only, rows_in, save_lively
from reference import picture, scripted

from ofa_core import OFA
from ofa_core.bench.results import NO_PICTURE, Row
from ofa_core.bench.samples import Models, Settings
from ofa_core.bench.summary import read_summary
from ofa_core.bench.tasks import TASKS
from ofa_core.bench.text_tasks import TEXT_TASKS
from ofa_core.cli.main import main
from ofa_core.data.records import BadRow, Record

EOS = 2
TEXT_ALONE = ("cola", "mnli", "rte", "mrpc", "qnli", "qqp", "sst2", "text_infilling")


def record(task: str, **changes: Any) -> Record:
    label = {"snli_ve": "neutral", "cola": "1", "mnli": "2", "sst2": "0", "image_text_matching": "yes"}.get(task, "no")
    if task in ("rte", "qnli"):
        label = "not_entailment"
    if task in ("mrpc", "qqp"):
        label = "0"
    two = task in ("snli_ve", "mnli", "rte", "mrpc", "qnli", "qqp", "answer_matching")
    fields = {"text": "The red dog", "text2": "a Cat" if two else "", "answer": label, "place": "data:7", "row": 7}
    image = "" if task in TEXT_ALONE else "7.png"
    return Record(**({"id": "7", "image": image} | fields | changes))


TARGETS = {"snli_ve": "maybe", "cola": "yes", "mnli": "no", "sst2": "negative", "image_text_matching": "yes"}


def asked(ofa: OFA, task: str, count: int = 2) -> list[Row]:
    samples = [sample for _ in range(count) for sample in TASKS[task].samples(record(task))]
    pictures = [None if task in TEXT_ALONE else ofa.pipeline.prepare(picture(seed)) for seed in range(count)]
    return TASKS[task].answer(Models(ofa, ofa), pictures, samples, Settings(max_new_tokens=4, num_beams=2))


@pytest.mark.parametrize("task", TEXT_TASKS)
def test_a_row_holds_what_was_due_and_said(ofa: OFA, task: str) -> None:
    for row in asked(ofa, task):
        assert (row.id, row.row, row.box, row.found, row.iou) == ("7", 7, None, None, None)
        assert row.size == (NO_PICTURE if task in TEXT_ALONE else (90, 60))
        assert 0 < row.score <= 1
        if row.probabilities:
            assert row.target == TARGETS.get(task, "no")
            assert row.output in row.probabilities
            assert sum(row.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert {name for name in TEXT_TASKS if not asked(ofa, name, 1)[0].probabilities} == {"ocr", "text_infilling"}


def test_writing_is_compared_without_spaces(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [*ofa.tokenizer.encode(" the  red dog"), EOS])
    (row,) = asked(ofa, "ocr", 1)
    assert (row.target, row.output) == ("thereddog", "thereddog")


def test_gaps_are_drawn_by_the_place_in_the_data(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = scripted(monkeypatch, [*ofa.tokenizer.encode(" the red dog"), EOS])
    first, second = asked(ofa, "text_infilling")
    assert first.target == first.output == "the red dog"
    assert calls[0].sources[0] == calls[0].sources[1], "both are of index 0"
    assert ofa.tokenizer.vocabulary.mask in calls[0].sources[0]
    assert second.source == first.source


def test_a_pretrained_model_is_asked_without_the_caption(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = scripted(monkeypatch)
    asked(ofa, "snli_ve", 1)
    task = ofa.model.config.task.model_copy(update={"name": "unify_task"})
    monkeypatch.setattr(ofa.model, "config", ofa.model.config.model_copy(update={"task": task}))
    asked(ofa, "snli_ve", 1)
    texts = [ofa.pipeline.source_text(call.sources[0]) for call in calls]
    assert texts == [
        ' can image and text1 " a cat " imply text2 " the red dog "?',
        ' does the image describe " the red dog "?',
    ]


def test_records_with_and_without_a_caption_keep_their_order(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = scripted(monkeypatch)
    records = [record("snli_ve", id=str(number), text2="a cat" * (number % 2)) for number in range(5)]
    samples = [
        replace(sample, index=index) for index, one in enumerate(records) for sample in TASKS["snli_ve"].samples(one)
    ]
    pictures = [ofa.pipeline.prepare(picture(seed)) for seed in range(5)]
    rows = TASKS["snli_ve"].answer(Models(ofa, ofa), pictures, samples, Settings())
    assert [row.id for row in rows] == list("01234")
    assert [" text1 " in row.source for row in rows] == [False, True, False, True, False]
    assert [len(call.sources) for call in calls] == [2, 3]


@pytest.mark.parametrize("task", [name for name, task in TEXT_TASKS.items() if task.spec.answers])
def test_a_label_of_another_task_is_a_bad_row(task: str) -> None:
    with pytest.raises(BadRow, match=r"^data:7: label: the label 'green' is none of "):
        TASKS[task].samples(record(task, answer="green"))


# Whole runs


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_lively(tmp_path_factory.mktemp("model") / "lively")


def ran(model: Path, tmp_path: Path, task: str, lines: list[str], *more: str) -> Path:
    (tmp_path / "data.tsv").write_text("\n".join(lines) + "\n")
    out = tmp_path / "results"
    command = ["bench", task, "--model", str(model), "--data", str(tmp_path / "data.tsv"), "--out", str(out)]
    assert main([*command, "--comment", "x", "--quiet", "--batch-size", "2", *more]) == 0
    return only(out, "*/*/*.jsonl")


def test_judgements_have_f1_and_matthews(model: Path, tmp_path: Path) -> None:
    lines = [f"a dog {number}\t{number % 2}" for number in range(7)]
    path = ran(model, tmp_path, "cola", lines, "--report")
    rows = rows_in(path)
    assert [(row.id, row.row, row.size) for row in rows] == [(str(n), n, (0, 0)) for n in range(1, 8)]
    summary = read_summary(path.with_suffix(".json"))
    assert summary is not None
    assert summary.headline.name == "matthews"
    assert {"accuracy", "f1", "matthews"} <= summary.scores.keys()
    assert path.with_suffix(".html").is_file()
    assert main(["compare", str(path), str(path)]) == 0
    assert main(["score", str(path)]) == 0


def test_questions_whose_ids_repeat_are_all_asked_and_compared(model: Path, tmp_path: Path, capsys: Any) -> None:
    """Ids need not be unique: results, resuming and comparing know a sample by id and row."""
    shown = [base64.b64encode(encoded(number)).decode() for number in range(2)]
    lines = [f"5\t\t{shown[number % 2]}\ta dog {number}\t{'yes' if number < 3 else 'no'}" for number in range(5)]
    path = ran(model, tmp_path, "image_text_matching", lines)
    rows = rows_in(path)
    assert [(row.id, row.row) for row in rows] == [("5", number) for number in range(1, 6)]
    other = path.with_name("other.jsonl")
    changed = [row.model_copy(update={"output": "yes" if row.row == 2 else "no"}) for row in rows]
    header = path.read_text().splitlines()[0]
    other.write_text("\n".join([header, *(row.model_dump_json() for row in changed)]) + "\n")
    capsys.readouterr()
    assert main(["compare", str(path), str(other)]) == 0
    assert "5 samples in both" in capsys.readouterr().out
    # a run that was cut off goes on where it stopped, though all ids are alike
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:3]))
    path.with_suffix(".json").unlink()
    other.unlink()
    again = ran(model, tmp_path, "image_text_matching", lines, "--resume")
    assert again.read_bytes() == whole


def test_columns_may_stand_in_another_order(model: Path, tmp_path: Path) -> None:
    path = ran(model, tmp_path, "qqp", ["1\tx\ta dog\ta cat"], "--columns", "label,-,text,text2")
    (row,) = rows_in(path)
    assert row.source == ' is question " a dog " and question " a cat " equivalent?'
