"""Benchmarks with published scorers: from rows to scores, and from data files to results files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bench import files, made
from bench.made import header
from bench.runs import only, rows_in, save_lively
from reference import metric_golden, picture, scripted

from ofa_core import OFA, OFAError
from ofa_core.bench.baselines import baseline_lines
from ofa_core.bench.evaluate import evaluate
from ofa_core.bench.results import Detected, Row, Target
from ofa_core.bench.samples import Settings
from ofa_core.bench.summary import Summary, read_summary, summarize
from ofa_core.cli.main import main
from ofa_core.data.loading import DataFiles
from ofa_core.heads.likelihood import token_log_probs

NO_BOX: dict[str, Any] = {"box": None, "found": None, "iou": None}


def corners(box: Any) -> Any:
    x, y, width, height = box
    return (x, y, x + width, y + height)


def scored(task: str, rows: list[Row]) -> dict[str, float]:
    return {name: score.value for name, score in summarize(header(task), rows).scores.items()}


# Rows of a results file have the published scores


@pytest.mark.reference
def test_grefcoco_from_rows() -> None:
    golden = metric_golden("grefcoco.json")
    rows = []
    for index, sample in enumerate(golden["samples"]):
        found = zip(sample["pred_boxes_xyxy"], sample["pred_scores"], strict=True)
        kept = [Detected(box=tuple(box), score=score) for box, score in found if score >= 0.7]
        targets = tuple(Target(box=corners(box)) for box in sample["targets_xywh"])
        rows.append(made.row(index, targets=targets, detected=tuple(kept), **NO_BOX))
    scores, expected = scored("grefcoco", rows), golden["expected"]
    names = {"Pr@(F1=1)": "F1_score", "N-acc": "N_acc", "T-acc": "T_acc"}
    assert {published: scores[name] for name, published in names.items()} == pytest.approx(expected, abs=1e-12)
    assert scores["Pr@(F1=1), plain IoU"] != scores["Pr@(F1=1)"]


@pytest.mark.reference
def test_ref_l4_from_rows() -> None:
    golden = metric_golden("refl4.json")
    found = {one["id"]: one for one in golden["predictions"]}
    rows = []
    for index, target in enumerate(golden["ground_truth"]):
        one = found[target["id"]]
        box = tuple(one["pred_bbox"]) if one["format"] == "xyxy" else corners(one["pred_bbox"])
        box = tuple(float(value) for value in box)
        fields = {"box": corners(target["bbox"]), "found": box, "category": target["ori_category_id"]}
        rows.append(made.row(index, id=target["id"], **fields))
    scores, expected = scored("ref_l4", rows), golden["expected"]
    names = {"acc@0.5": "Ann-level acc iou 0.5", "mAcc": "Ann-level macc iou 0.5:0.95"}
    names |= {"class acc@0.5": "Average class-level acc iou 0.5"}
    names |= {"class mAcc": "Average class-level macc iou 0.5:0.95"}
    for size in ("small", "medium", "large"):
        names |= {f"{size} acc@0.5": f"{size.title()} acc iou 0.5", f"{size} mAcc": f"{size.title()} macc iou 0.5:0.95"}
    for name, published in names.items():
        assert 100 * scores[name] == pytest.approx(expected[published], abs=1e-9), name


@pytest.mark.reference
def test_captions_from_rows() -> None:
    golden = metric_golden("captions.json")
    rows = [
        made.row(index, output=one["candidate"], references=tuple(one["references"]), **NO_BOX)
        for index, one in enumerate(golden["images"])
    ]
    expected = {
        name.replace("Bleu_", "BLEU-").replace("ROUGE_L", "ROUGE-L"): value
        for name, value in golden["expected"].items()
    }
    assert scored("caption", rows) == pytest.approx(expected, abs=1e-9)


@pytest.mark.reference
def test_vqa_from_rows() -> None:
    golden = metric_golden("vqa.json")
    rows = [
        made.row(
            index,
            output=one["answer"],
            references=tuple(one["answers"]),
            category=one["question_type"],
            kept={"answer_type": one["answer_type"], "answer_ids_distinct": one["ids_distinct"]},
            **NO_BOX,
        )
        for index, one in enumerate(golden["questions"])
    ]
    found, expected = summarize(header("vqa"), rows), golden["expected"]
    assert round(100 * found.scores["accuracy"].value, 2) == expected["overall"]
    for kind, value in expected["perAnswerType"].items():
        assert round(100 * found.scores[f"answer: {kind}"].value, 2) == value
    for kind, value in expected["perQuestionType"].items():
        assert round(100 * found.by_category[kind].score.value, 2) == value


@pytest.mark.reference
def test_detection_from_rows() -> None:
    golden = metric_golden("coco_ap.json")
    names = {one["id"]: one["name"] for one in golden["categories"]}
    rows = []
    for index, image in enumerate(golden["images"]):
        truths = [one for one in golden["annotations"] if one["image_id"] == image["id"]]
        found = [one for one in golden["detections"] if one["image_id"] == image["id"]]
        targets = tuple(
            Target(
                box=corners(one["bbox"]),
                label=names[one["category_id"]],
                area=one["area"],
                crowd=bool(one["iscrowd"]),
            )
            for one in truths
        )
        detected = tuple(
            Detected(box=corners(one["bbox"]), label=names[one["category_id"]].upper(), score=one["score"])
            for one in found
        )
        rows.append(made.row(index, id=str(image["id"]), targets=targets, detected=detected, **NO_BOX))
    scores = scored("detection", rows)
    assert {name: scores[name] for name in golden["expected"]} == pytest.approx(golden["expected"], abs=1e-9)


def test_perplexity_is_that_of_all_tokens() -> None:
    rows = [made.row(0, log_probs=(-1.0, -2.0, -3.0), **NO_BOX), made.row(1, log_probs=(-0.5,), **NO_BOX)]
    scores = scored("invig_question", rows)
    assert scores["perplexity"] == pytest.approx(math.exp(6.5 / 4))
    assert scores["token_probability"] == pytest.approx((math.exp(-2) + math.exp(-0.5)) / 2)


@pytest.mark.parametrize("task", ["grefcoco", "caption", "vqa", "classification", "detection", "guesswhat_question"])
def test_rows_of_another_task_are_refused(task: str) -> None:
    with pytest.raises(OFAError, match=r"sample 'game-0' has no .*, which its task is scored by"):
        summarize(header(task), [made.row(0, **NO_BOX)])


def test_a_set_without_phrases_for_nothing_has_no_score_of_them() -> None:
    target = (Target(box=(1.0, 1.0, 9.0, 9.0)),)
    scores = scored("grefcoco", [made.row(0, targets=target, **NO_BOX)])
    assert (scores["T-acc"], scores["Pr@(F1=1)"]) == (0.0, 0.0)
    assert "N-acc" not in scores


def test_presence_is_scored_by_boxes_and_by_what_was_stated() -> None:
    due, said = Target(box=(1.0, 1.0, 9.0, 9.0)), Detected(box=(1.0, 1.0, 9.0, 9.0), score=0.5)
    wrong = Detected(box=(50.0, 50.0, 60.0, 60.0), score=0.5)
    cases: list[tuple[bool, Detected | None, float]] = [
        (True, said, 0.95), (True, wrong, 0.75), (True, None, 0.35), (False, None, 0.15), (False, said, 0.45),
    ]  # fmt: skip
    rows = [
        made.row(
            at,
            targets=(due,) if there else (),
            detected=() if box is None else (box,),
            present=present,
            confidence=None if box is None else 0.85,
            **NO_BOX,
        )
        for at, (there, box, present) in enumerate(cases)
    ]
    summary = summarize(header("grefcoco"), rows)
    scores = {name: score.value for name, score in summary.scores.items()}
    assert scores["presence"] == pytest.approx(3 / 5)
    assert (scores["no box, absent"], scores["N-acc"]) == (0.5, 0.5)
    assert scores["no box, present"] == pytest.approx(1 / 3)
    assert scores["presence AUROC"] == pytest.approx(5 / 6)
    assert scores["presence ECE"] == pytest.approx((0.05 + 0.25 + 0.65 + 0.15 + 0.45) / 5)
    assert scores["confidence ECE"] == pytest.approx(0.85 - 1 / 3)
    assert [one.samples for one in summary.reliability["confidence"]] == [3]
    assert [one.samples for one in summary.reliability["presence"]] == [1, 1, 1, 1, 1]
    untold = summarize(header("grefcoco"), [made.row(0, targets=(due,), detected=(said,), **NO_BOX)])
    assert not [name for name in untold.scores if "ECE" in name or "AUROC" in name]
    assert untold.reliability == {}


def test_published_scores_stand_beside_ours() -> None:
    (line,) = baseline_lines(summarize(header("guesswhat_oracle"), made.rows(5, "guesswhat_oracle")))
    assert line.startswith("accuracy 78.9: GuessWhat?! oracle")
    (line,) = baseline_lines(summarize(header("guesswhat_grounding"), made.rows(5)))
    assert line.startswith("acc@0.5 64.2: GuessWhat?! guesser")


# Boxes in an answer, and probabilities of a text


def test_probabilities_of_tokens_are_those_of_the_model(ofa: OFA) -> None:
    pipeline = ofa.pipeline
    sources = [pipeline.encode(" a dog"), pipeline.encode(" which one is it")]
    targets = [[*ofa.tokenizer.encode(" the red one"), 2], [*ofa.tokenizer.encode(" no"), 2]]
    pictures = pipeline.open([picture(0), picture(1)])
    together = token_log_probs(pipeline, pictures, sources, targets)
    for index in range(2):
        (batch,) = [one for _, one in pipeline.batches(pictures[index : index + 1], sources[index : index + 1], 1)]
        prefix = torch.tensor([[0, *targets[index][:-1]]])
        logits = ofa.model(batch.tokens, prefix, images=batch.images)[0].log_softmax(-1)
        expected = [float(row[token]) for row, token in zip(logits, targets[index], strict=True)]
        assert together[index] == pytest.approx(expected, abs=1e-4)


# Whole runs


def instances(directory: Path, names: list[str]) -> Path:
    pictures = [
        {"id": at, "file_name": name, "width": files.SIZE[0], "height": files.SIZE[1]} for at, name in enumerate(names)
    ]
    thing = {"bbox": [10, 20, 30, 30], "category_id": 1, "area": 700.0, "iscrowd": 0}
    boxes = [{**thing, "id": at, "image_id": at} for at in range(len(names) - 1)]  # nothing is in the last picture
    content = {"images": pictures, "annotations": boxes, "categories": [{"id": 1, "name": "square"}]}
    return files.written(directory / "instances.json", json.dumps(content).encode())


def questions(directory: Path, names: list[str]) -> Path:
    asked = [{"question_id": at, "image_id": name, "question": "what is it?"} for at, name in enumerate(names)]
    said = [{"answer": "a square" if at < 7 else "red", "answer_id": at} for at in range(10)]
    told = {"question_type": "what is", "answer_type": "other"}
    annotated = [{"question_id": at, "answers": said, **told} for at in range(len(names))]
    files.written(directory / "v2_annotations.json", json.dumps({"annotations": annotated}).encode())
    return files.written(directory / "v2_questions.json", json.dumps({"questions": asked}).encode())


def data_of(task: str, directory: Path) -> Path:
    """A data file of a task, in a published layout where there is one."""
    images = directory / "images"
    images.mkdir()
    names = [f"{number}.png" for number in range(4)]
    for number, name in enumerate(names):
        files.drawn(number).save(images / name)
    one = {"width": files.SIZE[0], "height": files.SIZE[1]}
    lines: dict[str, list[dict[str, Any]]] = {
        "grefcoco": [
            {"image": name, "text": "it", "boxes": [list(files.BOX)] * (at % 3)} for at, name in enumerate(names)
        ],
        "ref_l4": [
            {"id": name, "caption": "it", "bbox": [10, 20, 30, 30], "ori_category_id": "refcoco_1", "file_name": name}
            for name in names
        ],
        "caption": [{"image": name, "text": ["a red square", "a square"]} for name in names],
        "classification": [{"image": name, "label": ("red dog", "cat")[at % 2]} for at, name in enumerate(names)],
        "guesswhat_question": [files.game(at, image=one | {"file_name": name}) for at, name in enumerate(names)],
        "invig_question": [files.dialog(at, image_path=name) for at, name in enumerate(names)],
    }
    if task in lines:
        return files.written(directory / f"{task}.jsonl", files.json_lines(lines[task]))
    return instances(directory, names) if task == "detection" else questions(directory, names)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_lively(tmp_path_factory.mktemp("model") / "lively")


SHORT = ("--num-beams", "2", "--max-new-tokens", "9", "--batch-size", "3", "--quiet")
SAMPLES = {"guesswhat_question": 12, "invig_question": 8}
TASKS_HERE = (
    "grefcoco",
    "ref_l4",
    "caption",
    "vqa",
    "classification",
    "detection",
    "guesswhat_question",
    "invig_question",
)


def ran(model: Path, task: str, data: list[Path], out: Path, *more: object) -> int:
    images = ["--images", data[0].parent / "images", "--out", out, "--comment", "x"]
    return main(list(map(str, ["bench", task, "--model", model, "--data", *data, *images, *SHORT, *more])))


def summary_in(out: Path) -> Summary:
    summary = read_summary(only(out).with_suffix(".json"))
    assert summary is not None
    return summary


@pytest.mark.parametrize("task", TASKS_HERE)
def test_a_run_is_scored_reported_compared_and_resumed(model: Path, tmp_path: Path, capsys: Any, task: str) -> None:
    data, out = data_of(task, tmp_path), tmp_path / "out"
    assert ran(model, task, [data], out, "--report") == 0
    path, summary = only(out), summary_in(out)
    assert summary.samples == SAMPLES.get(task, 4)
    assert path.with_suffix(".html").is_file()
    assert main(["compare", str(path), str(path)]) == 0
    capsys.readouterr()
    assert main(["score", str(path), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["scores"] == json.loads(summary.model_dump_json())["scores"]
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:3]))
    path.with_suffix(".json").unlink()
    assert ran(model, task, [data], out, "--resume") == 0
    assert path.read_bytes() == whole
    assert summary_in(out).scores == summary.scores


def test_files_of_several_splits_are_scored_apart_and_together(model: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    files.drawn(0).save(images / "0.png")
    parts = []
    for name, count in (("refcoco_val", 2), ("refcoco_testA", 3)):
        rows = [files.phrase(at, **{"image-id": "0.png", "image": ""}) for at in range(count)]
        parts.append(files.written(tmp_path / f"{name}.tsv", files.tab_lines(rows)))
    assert ran(model, "refcoco_grounding", parts, tmp_path / "out") == 0
    summary = summary_in(tmp_path / "out")
    assert {name: group.samples for name, group in summary.by_split.items()} == {"refcoco_val": 2, "refcoco_testA": 3}
    assert [row.row for row in rows_in(only(tmp_path / "out"))] == [1, 2, 3, 4, 5]
    assert summary.inputs.keys() >= {"data", "data 2"}
    rows = [
        {"image": "0.png", "text": "it", "box": list(files.BOX), "split": ("val", "testA")[at % 2]} for at in range(5)
    ]
    path = files.written(tmp_path / "both.jsonl", files.json_lines(rows))
    assert ran(model, "refcoco_grounding", [path], tmp_path / "again", "--split", "all") == 0
    groups = summary_in(tmp_path / "again").by_split
    assert {name: group.samples for name, group in groups.items()} == {"val": 3, "testA": 2}


def test_answers_are_those_of_a_list(model: Path, tmp_path: Path) -> None:
    data = data_of("vqa", tmp_path)
    listed = files.written(tmp_path / "answers.txt", b"red\na square\n\nyes\n")
    for way in ((), ("--score-answers",)):
        out = tmp_path / f"out{len(way)}"
        assert ran(model, "vqa", [data], out, "--answers", listed, *way) == 0
        rows = rows_in(only(out))
        assert {row.output for row in rows} <= {"red", "a square", "yes"}
        assert all(bool(row.probabilities) == bool(way) for row in rows)
        assert summary_in(out).inputs["answers"]
        assert summary_in(out).settings["answers"] == str(listed)


def test_classes_are_those_of_the_data_whatever_the_limit(model: Path, tmp_path: Path) -> None:
    data = data_of("classification", tmp_path)
    assert ran(model, "classification", [data], tmp_path / "out", "--limit", 1) == 0
    (row,) = rows_in(only(tmp_path / "out"))
    assert {*row.probabilities} == {"red dog", "cat"}


def test_rows_in_memory_are_scored_as_those_of_a_file(ofa: OFA, tmp_path: Path) -> None:
    data = data_of("caption", tmp_path)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    settings = Settings(num_beams=2, max_new_tokens=5)
    found = evaluate(ofa, "caption", rows, images=tmp_path / "images", settings=settings)
    assert found.scores == evaluate(ofa, "caption", DataFiles(data, tmp_path / "images"), settings=settings).scores
    assert found.data == "rows in memory"
    held = [row | {"image": files.drawn(at)} for at, row in enumerate(rows)]
    assert evaluate(ofa, "caption", held, settings=settings).scores == found.scores
    with pytest.raises(OFAError, match="no generator"):
        evaluate(ofa, "caption", iter(rows))


def test_all_captions_of_a_picture_are_one_sample(ofa: OFA, tmp_path: Path) -> None:
    def asked(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        evaluate(ofa, "caption", rows, settings=Settings(num_beams=1, max_new_tokens=2), out=out)
        return [row.references for row in rows_in(only(out))]

    one, two = {"image": files.drawn(0)}, {"image": files.drawn(1)}
    apart = [one | {"text": "a"}, one | {"text": "b"}, two | {"text": "c"}]
    assert asked(apart) == [("a", "b"), ("c",)]
    assert asked([one | {"text": ["a", "a"]}, two | {"text": "c"}]) == [("a", "a"), ("c",)]


def failures(tmp_path: Path) -> Iterator[tuple[str, list[dict[str, Any]], tuple[object, ...], str]]:
    listed = files.written(tmp_path / "list.txt", b"red\nred\n")
    other = files.written(tmp_path / "other.txt", b"green\n")
    row = {"image": "0.png"}
    yield "vqa", [row | {"question": "what?", "answer": ["a", "b"]}], (), r"answers: there are 2; one that is right"
    yield "vqa", [row | {"question": "what?", "answer": "a"}], ("--answers", listed), r"holds 'red' twice"
    yield "vqa", [row | {"question": "what?", "answer": "a"}], ("--score-answers",), r"pass --answers FILE too"
    yield "classification", [row | {"label": "a dog"}], ("--answers", other), r"'a dog' of .* not among the 1 answers"
    yield "ref_l4", [row | {"text": "it", "box": [1, 2, 30, 40]}], (), r"in no layout of ref_l4 \(Ref-L4: no caption"
    captions = [row | {"text": "a"}, {"image": "1.png", "text": "b"}, row | {"text": "c"}]
    yield "caption", captions, (), r"do not follow each other: sort the rows"
    yield (
        "grefcoco",
        [row | {"text": "it", "boxes": []}],
        ("--answers", listed),
        "--answers is for vqa, class",
    )


def test_wrong_inputs_are_told_in_a_line(model: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "images").mkdir()
    for number in range(2):
        files.drawn(number).save(tmp_path / "images" / f"{number}.png")
    for number, (task, rows, more, message) in enumerate(failures(tmp_path)):
        data = files.written(tmp_path / f"{number}.jsonl", files.json_lines(rows))
        assert ran(model, task, [data], tmp_path / "out", *more) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1, err
        with pytest.raises(OFAError, match=message):
            raise OFAError(err)


def test_a_model_that_says_several_boxes_is_read_as_saying_them(
    ofa: OFA, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = "<bin_100> <bin_100> <bin_500> <bin_500> <bin_600> <bin_600> <bin_900> <bin_900>"
    asked = scripted(monkeypatch, [*ofa.tokenizer.encode(text, symbols=True), 2])
    row = {"image": files.drawn(0), "text": "both", "boxes": [[9, 6, 45, 30], [54, 36, 81, 54]]}
    summary = evaluate(ofa, "grefcoco", [row], settings=Settings(max_new_tokens=40))
    assert summary.scores["Pr@(F1=1)"].value == 1.0
    assert asked[0].options is not None
    assert (asked[0].options.min_new_tokens, asked[0].options.max_new_tokens) == (1, 40)
    evaluate(ofa, "grefcoco", [row])
    assert asked[1].options is not None
    assert (asked[1].options.min_new_tokens, asked[1].options.max_new_tokens) == (4, 4)


def test_whole_scores_have_intervals_that_hold_them() -> None:
    found = summarize(header("detection"), made.rows(40, "detection", skill=3.0))
    assert np.isfinite(found.headline.value)
    assert found.headline.low <= found.headline.value <= found.headline.high
