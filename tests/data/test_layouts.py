"""Data sets made after their published schemas, odd rows included, become records."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from bench import files
from bench.files import BOX, dialog, game, json_lines, write_parquet, written
from PIL import Image

from ofa_core.data.documents import picture_folder
from ofa_core.data.images import Images
from ofa_core.data.read_options import ReadOptions
from ofa_core.data.readers import read_records
from ofa_core.data.records import BadRow, Record
from ofa_core.errors import OFAError


def read(format: Any, source: Any, **options: Any) -> list[Record]:
    return list(read_records(format, source, options=ReadOptions(**options)))


def saved(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def rows(tmp_path: Path, *made: Any) -> Path:
    return written(tmp_path / "x.jsonl", json_lines(made))


# --- InViG ---------------------------------------------------------------------------------------------------------


def picture(*boxes: list[float], ids: Any = ("a", "b"), **changes: Any) -> dict[str, Any]:
    """A row of the hub: a picture with a dialog about each of ``boxes``."""
    refs = [
        {
            "bbox": box,
            "category": "square",
            "dialog": dialog()["dialog"],
            "dialog_cn": None,
            **({"id": id} if id else {}),
        }
        for box, id in zip(boxes, ids, strict=False)
    ]
    info = {"file_name": "1.png", "width": 90, "height": 60, "id": "000abc"}
    return files.changed({"ref_list": refs, "image_info": info, "image": {"bytes": None, "path": None}}, changes)


def test_a_row_of_several_dialogs_gives_a_record_each(tmp_path: Path) -> None:
    found = read("invig", rows(tmp_path, picture([0.1, 0.2, 0.5, 1], [0.5, 0.5, 1, 1])))
    assert [(one.id, one.image, one.box, one.size, one.row) for one in found] == [
        ("a", "1.png", (9, 12, 45, 60), (90, 60), 1),
        ("b", "1.png", (45, 30, 90, 60), (90, 60), 1),
    ]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ((None, None), ["x.jsonl:1/1", "x.jsonl:1/2"]),
        (("a", None), ["a", "x.jsonl:1/2"]),
        (("a", "a"), ["a/1", "a/2"]),
        ((7, "8"), ["7", "8"]),
    ],
    ids=["none", "one", "the same", "numbers"],
)
def test_dialogs_of_one_row_are_told_apart(tmp_path: Path, ids: Any, expected: list[str]) -> None:
    box = [10.0, 20.0, 40.0, 50.0]
    assert [one.id for one in read("invig", rows(tmp_path, picture(box, box, ids=ids)))] == expected


def test_a_bad_dialog_is_named_within_its_row(tmp_path: Path) -> None:
    made = picture([10.0, 20.0, 40.0, 50.0])
    made["ref_list"].append({"bbox": [1, 2, 3]})
    with pytest.raises(BadRow, match=r"x\.jsonl:1: ref_list\.1\.bbox: List should have at least 4 items"):
        read("invig", rows(tmp_path, made))


def test_a_language_that_a_row_lacks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadRow, match=r"dialog_cn: the row has none"):
        read("invig", rows(tmp_path, dialog()), language="cn")


@pytest.mark.parametrize(
    ("pairs", "turns", "kept"),
    [
        ([["", "q"], ["a?", "b"], ["ok", ""]], ("q", "a?", "b"), ("q", "a?", "b", "ok")),
        ([["", "q"], ["a?", "b"], ["ok", "bye"]], ("q", "a?", "b"), ("q", "a?", "b", "ok", "bye")),
        ([["", "q"], ["ok", ""]], ("q",), ("q", "ok")),
        ([["", "q"], ["a？", "b"]], ("q", "a？", "b"), ("q", "a？", "b")),
        ([["", "q"]], ("q",), ("q",)),
    ],
    ids=["said", "answered", "at once", "Chinese", "query"],
)
def test_a_dialog_ends_with_its_last_question(tmp_path: Path, pairs: Any, turns: Any, kept: Any) -> None:
    path = rows(tmp_path, dialog(dialog=pairs))
    assert [one.turns for one in read("invig", path)] == [turns]
    assert [one.turns for one in read("invig", path, keep_last_turn=True)] == [kept]


# --- units of boxes ------------------------------------------------------------------------------------------------


def test_fractions_of_a_picture_of_unknown_size_wait_for_it(tmp_path: Path) -> None:
    (record,) = read("invig", rows(tmp_path, dialog(bbox=[0.1, 0.2, 0.5, 1.01])), boxes="fractions")
    fitted = record.fit_to((90, 60))
    assert fitted.box == pytest.approx((9, 12, 45, 60))
    assert (fitted.in_fractions, fitted.clipped) == (False, True), "0.6 pixels over the edge"
    assert fitted.fit_to((90, 60)) == fitted


def test_pixels_may_be_as_small_as_they_are_said_to_be(tmp_path: Path) -> None:
    (record,) = read("invig", rows(tmp_path, dialog(bbox=[0, 0, 1, 1])), boxes="pixels")
    assert record.fit_to((90, 60)).box == (0, 0, 1, 1)


@pytest.mark.parametrize("box", [[0.1, 0.2, 0.5, 1.01], [-0.01, 0.2, 0.5, 0.6]])
def test_what_could_be_either_is_asked_about(tmp_path: Path, box: Any) -> None:
    with pytest.raises(BadRow, match=r"bbox: .* is within one pixel, or in fractions of the sides: pass --boxes"):
        read("invig", rows(tmp_path, picture(box)))


def test_boxes_of_one_row_are_in_one_unit(tmp_path: Path) -> None:
    path = rows(tmp_path, picture([10, 20, 40, 50], [0, 0, 1, 1]))
    with pytest.raises(BadRow, match=r"ref_list: \(0, 0, 1, 1\) is within one pixel and others are not: pass --boxes"):
        read("invig", path)
    assert [one.box for one in read("invig", path, boxes="pixels")] == [(10, 20, 40, 50), (0, 0, 1, 1)]


def test_a_box_over_the_edge_is_clipped_and_told_of(tmp_path: Path) -> None:
    over = [{"id": 5, "category": "square", "bbox": [60, 20, 32.5, 30]}]
    (found,) = read("guesswhat", rows(tmp_path, game(objects=over)))
    assert (found.box, found.clipped) == ((60, 20, 90, 50), True)
    wide = {"file_name": "x.png", "width": 640, "height": 480}
    (found,) = read("guesswhat", rows(tmp_path, game(image=wide, objects=[{"id": 5, "bbox": [600, 20, 52, 30]}])))
    assert (found.box, found.clipped) == ((600, 20, 640, 50), True), "two per cent of 640 are 12.8"
    with pytest.raises(BadRow, match=r"is not within the picture of 640"):
        read("guesswhat", rows(tmp_path, game(image=wide, objects=[{"id": 5, "bbox": [600, 20, 54, 30]}])))


def test_a_box_over_the_edge_of_a_picture_of_unknown_size_waits_for_it() -> None:
    record = Record("1", "1.png", box=(-8, 0, 90.0005, 50), place="x:1")
    fitted = record.fit_to((640, 480))
    assert (fitted.box, fitted.clipped) == ((0, 0, 90.0005, 50), True)
    with pytest.raises(BadRow, match=r"is not within the picture of 90"):
        record.fit_to((90, 60))


# --- GuessWhat?! ---------------------------------------------------------------------------------------------------


def game_2022(**changes: Any) -> dict[str, Any]:
    row = game()
    things = {str(one["id"]): {"object_id": one["id"], **one} for one in row["objects"]}
    pairs = [{"q": pair["question"], "a": pair["answer"], "id": pair["id"]} for pair in row["qas"]]
    made = {"dialogue_id": 3, "picture": row["image"], "objects": things, "qas": pairs, "status": "success"}
    return files.changed(made | {"object_id": 5}, changes)


def test_both_structures_are_one_game(tmp_path: Path) -> None:
    old, new = read("guesswhat", rows(tmp_path, game(3, image=game()["image"]), game_2022()))
    assert (old.id, old.image, old.box, old.turns, old.size, old.category) == (
        new.id,
        new.image,
        new.box,
        new.turns,
        new.size,
        new.category,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {
            "objects": [
                {"id": 4, "bbox": "none", "category": 8},
                {"id": 5, "category": "square", "bbox": [10, 20, 30, 30]},
            ]
        },
        {"objects": [None, {"id": "5", "category": "square", "bbox": [10, 20, 30, 30]}]},
        {"object_id": "5"},
        {"image": {"file_name": "1.png", "width": 90.0, "height": 60}},
        {"image": {"coco_url": "http://images.cocodataset.org/train2014/1.png", "width": 90, "height": 60}},
        {"image": {"file_name": None, "coco_url": "http://x.org/1.png?size=9", "width": 90, "height": 60}},
    ],
    ids=["another object", "no object", "id as text", "width as float", "no file name", "null file name"],
)
def test_what_is_not_asked_about_ends_no_run(tmp_path: Path, changes: Any) -> None:
    (found,) = read("guesswhat", rows(tmp_path, game(**changes)))
    assert (found.image, found.box, found.category, found.size) == ("1.png", (10, 20, 40, 50), "square", (90, 60))


@pytest.mark.parametrize("sized", [True, False])
def test_games_list_the_objects_that_fit_their_picture(tmp_path: Path, sized: bool) -> None:
    own = {"id": 5, "category": "square", "bbox": [10, 20, 30, 30]}
    others: list[Any] = [
        {"id": number, "bbox": box}
        for number, box in enumerate(
            [[0, 0, 9.5, 9], [70, 40, 21, 20], [0, 0, 0, 9], [200, 9, 9, 9], [1, 2, 3], "0,0,9,9", [10**400, 0, 1, 1]],
            10,
        )
    ]
    image = {"file_name": "1.png"} | ({"width": 90, "height": 60} if sized else {})
    (found,) = read("guesswhat", rows(tmp_path, game(objects=[*others, None, own], image=image)))
    expected = ((0, 0, 9.5, 9), (70, 40, 90, 60), (10, 20, 40, 50))
    assert found.fit_to((90, 60)).object_boxes == expected
    assert found.object_boxes == (expected if sized else ((0, 0, 9.5, 9), (70, 40, 91, 60), (200, 9, 209, 18), BOX))
    assert not found.fit_to((90, 60)).clipped  # that is about its own box


def test_a_game_without_a_category_is_a_game(tmp_path: Path) -> None:
    (found,) = read("guesswhat", rows(tmp_path, game(objects=[{"id": 5, "category": None, "bbox": [10, 20, 30, 30]}])))
    assert found.category == ""


@pytest.mark.parametrize("answer", ["NA", "N/A", "n/a", "na"])
def test_ways_to_write_that_nobody_knows(tmp_path: Path, answer: str) -> None:
    (found,) = read("guesswhat", rows(tmp_path, game_2022(qas=[{"q": "why?", "a": answer}])))
    assert found.turns == ("why?", "n/a")


def hub_game(**changes: Any) -> dict[str, Any]:
    made = {
        "dialog": [["left?", "No"]],
        "bbox": list(BOX),
        "image_path": "1.png",
        "anns_id": "coco.1",
        "raw_info": "{}",
    }
    return files.changed(made, changes)


def test_games_of_the_hub(tmp_path: Path) -> None:
    lost = hub_game(raw_info='{"status": "failure"}')
    (found,) = read("guesswhat", write_parquet(tmp_path / "x.parquet", [hub_game(), lost]))
    assert (found.id, found.box, found.turns) == ("coco.1", BOX, ("left?", "no"))
    with pytest.raises(BadRow, match=r"dialog\.0\.answer: an answer is yes, no or n/a, not 'maybe'"):
        read("guesswhat", rows(tmp_path, hub_game(dialog=[["left?", "maybe"]])))


# --- RefCOCO, its originals and kin --------------------------------------------------------------------------------

INSTANCES = {
    "images": [{"id": 7, "file_name": "COCO_train2014_7.jpg", "width": 90, "height": 60}],
    "annotations": [
        {"id": 70, "image_id": 7, "bbox": [10, 20, 30, 30], "category_id": 3},
        {"id": 71, "image_id": 7, "bbox": [0, 0, 5, 6], "category_id": 3},
    ],
    "categories": [{"id": 3, "name": "square"}],
}


def reference(number: int, split: str, *phrases: str, **changes: Any) -> dict[str, Any]:
    """A reference as ``refs(unc).p`` has it."""
    sentences = [
        {"tokens": text.split(), "raw": text.upper(), "sent": text, "sent_id": 10 * number + at}
        for at, text in enumerate(phrases)
    ]
    row = {"ref_id": number, "ann_id": 70, "image_id": 7, "category_id": 3, "split": split, "sentences": sentences}
    return row | {"file_name": "COCO_train2014_7_70.jpg", "sent_ids": [s["sent_id"] for s in sentences]} | changes


def references(directory: Path, *made: Any, name: str = "refs(unc).p", protocol: int = 0) -> Path:
    saved(directory / "instances.json", INSTANCES)
    (directory / name).write_bytes(pickle.dumps(list(made), protocol))
    return directory / name


@pytest.mark.parametrize("protocol", range(6))
def test_references_are_joined_with_their_boxes(tmp_path: Path, protocol: int) -> None:
    path = references(tmp_path, reference(1, "val", "red square", "the big one"), protocol=protocol)
    assert [(one.id, one.image, one.text, one.box, one.category) for one in read("refcoco", path)] == [
        ("10", "COCO_train2014_7.jpg", "red square", (10, 20, 40, 50), "square"),
        ("11", "COCO_train2014_7.jpg", "the big one", (10, 20, 40, 50), "square"),
    ]


def test_texts_of_python_2_are_read_in_either_encoding(tmp_path: Path) -> None:
    for content, text in ((b"caf\xc3\xa9", "café"), (b"caf\xe9", "café")):
        path = references(tmp_path, reference(1, "val", "WORD"))
        pickled = pickle.dumps([reference(1, "val", "WORD")], 2)
        old = pickled.replace(b"X\x04\x00\x00\x00WORD", b"U" + bytes([len(content)]) + content)
        path.write_bytes(old)
        assert b"WORD" not in old
        raw = [one.text for one in read("refcoco", path)]
        assert raw == [text]


def test_splits_are_not_mixed_unless_that_is_meant(tmp_path: Path) -> None:
    path = references(tmp_path, reference(1, "train", "a"), reference(2, "val", "b"), reference(3, "testA", "c"))
    with pytest.raises(OFAError, match=r"refs\(unc\)\.p holds the splits train, val, \.\.\.: pass --split NAME"):
        read("refcoco", path)
    assert [one.text for one in read("refcoco", path, split="val")] == ["b"]
    assert [one.text for one in read("refcoco", path, split="testA,val")] == ["b", "c"]
    assert [one.text for one in read("refcoco", path, split="all")] == ["a", "b", "c"]
    with pytest.raises(OFAError, match=r"holds no split test; it holds train, val, testA"):
        read("refcoco", path, split="test")
    with pytest.raises(OFAError, match=r"x\.jsonl:1: the row names no split, so --split val has no use here"):
        read("invig", rows(tmp_path, dialog()), split="val")
    assert len(read("invig", rows(tmp_path, dialog()), split="all")) == 1  # all there are, split or not


def test_what_references_need_is_said(tmp_path: Path) -> None:
    path = references(tmp_path, reference(1, "val", "a", ann_id=99))
    with pytest.raises(OFAError, match=r"refs\(unc\)\.p:1: ann_id: 99 is not in .*instances\.json"):
        read("refcoco", path)
    (tmp_path / "instances.json").unlink()
    with pytest.raises(OFAError, match=r"refs\(unc\)\.p needs instances\.json beside it"):
        read("refcoco", path)


class Calls:
    """Runs something when it is unpickled."""

    def __reduce__(self) -> Any:
        return print, ("this ran",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps([Calls()]), r"it names builtins\.print; only lists"),
        (b"cos\nsystem\n(S'true'\ntR.", r"it names os\.system; only lists"),
        (pickle.dumps([1, 2])[:-2], r"."),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f]", r"."),
        (b"Pgone\n.", r"it refers to something outside"),
        (b"r\xff\xff\xff\xff.", r"."),
        (b"not a pickle", r"."),
    ],
    ids=["reduce", "global", "cut off", "frame", "persistent", "memo", "text"],
)
def test_a_pickle_that_is_not_plain_data_is_refused(tmp_path: Path, content: bytes, reason: str, capsys: Any) -> None:
    path = references(tmp_path)
    path.write_bytes(content)
    with pytest.raises(OFAError, match=rf"refs\(unc\)\.p: not a pickle of plain data: {reason}") as caught:
        read("refcoco", path)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_a_file_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFA_MAX_TABLE_BYTES", "40")
    with pytest.raises(OFAError, match=r"refs\(unc\)\.p: has more than 40 bytes; set \$OFA_MAX_TABLE_BYTES"):
        read("refcoco", references(tmp_path, reference(1, "val", "a phrase")))


def test_phrases_of_grefcoco_mean_none_one_or_several(tmp_path: Path) -> None:
    saved(tmp_path / "instances.json", INSTANCES)
    made = [
        reference(1, "val", "both", ann_id=[70, 71]),
        reference(2, "val", "the circle", ann_id=[-1], no_target=True),
        reference(3, "val", "one", ann_id=[71]),
    ]
    path = saved(tmp_path / "grefs(unc).json", made)
    found = read("grefcoco", path)
    assert [(one.text, one.boxes) for one in found] == [
        ("both", ((10, 20, 40, 50), (0, 0, 5, 6))),
        ("the circle", ()),
        ("one", ((0, 0, 5, 6),)),
    ]
    with pytest.raises(BadRow, match=r"ann_id: the phrase means 2 boxes, one should be; gRefCOCO has others"):
        read("refcoco", path)


def hub_phrase(**changes: Any) -> dict[str, Any]:
    made = {
        "bbox": list(BOX),
        "captions": ["red", "big"],
        "sent_ids": [8, 9],
        "ref_id": 2,
        "image_path": "a/1.png",
        "split": "val",
        "raw_anns": json.dumps({"bbox": [10, 20, 30, 30]}),
    }
    return files.changed(made, changes)


def test_boxes_of_the_hub_are_those_of_the_annotation_that_is_kept(tmp_path: Path) -> None:
    told = [hub_phrase(), hub_phrase(bbox=[10, 20, 30, 30]), hub_phrase(raw_anns="{}"), hub_phrase(raw_anns="no JSON")]
    found = read("refcoco", rows(tmp_path, *told))
    assert {one.box for one in found} == {BOX}
    assert [one.id for one in found[:2]] == ["8", "9"]
    with pytest.raises(BadRow, match=r"bbox: \(1, 2, 3, 4\) is another box than that of raw_anns, \(10, 20, 40, 50\)"):
        read("refcoco", rows(tmp_path, hub_phrase(bbox=[1, 2, 3, 4])))


def test_sentences_stand_in_for_captions(tmp_path: Path) -> None:
    sentences = [{"raw": "Red", "sent": "red", "sent_id": 4, "tokens": ["red"]}]
    (found,) = read("refcoco", rows(tmp_path, hub_phrase(captions=..., sentences=sentences)))
    assert (found.id, found.text) == ("4", "red")
    for changes, reason in (
        ({"captions": []}, "sentences: the row holds no phrase"),
        ({"captions": ["a", " "]}, r"sentences\.1: it is empty"),
    ):
        with pytest.raises(BadRow, match=reason):
            read("refcoco", rows(tmp_path, hub_phrase(**changes)))


def test_ref_l4_in_parquet_and_json(tmp_path: Path) -> None:
    row = {"id": 5, "caption": "a red square", "bbox": [10, 20, 30, 30], "ori_category_id": "o365_3", "height": 60}
    row |= {"width": 90, "file_name": "1.png", "split": "val", "bbox_area": 900.0, "bbox_id": 1, "is_rewrite": False}
    paths = [write_parquet(tmp_path / "x.parquet", [row]), saved(tmp_path / "x.json", [row]), rows(tmp_path, row)]
    for path in paths:
        (found,) = read("refcoco", path)
        assert (found.id, found.text, found.box, found.image) == ("5", "a red square", BOX, "1.png")
        assert (found.category, found.split) == ("o365_3", "val")


# --- captions, objects, questions, hypotheses, classes -------------------------------------------------------------


def test_captions_of_coco(tmp_path: Path) -> None:
    annotations = [{"id": 1, "image_id": 7, "caption": "a"}, {"id": 2, "image_id": 7, "caption": "b"}]
    path = saved(tmp_path / "captions_val2014.json", INSTANCES | {"annotations": annotations})
    assert [(one.id, one.text, one.references, one.image, one.size) for one in read("caption", path)] == [
        ("1", "a", ("a", "b"), "COCO_train2014_7.jpg", (90, 60)),
        ("2", "b", ("a", "b"), "COCO_train2014_7.jpg", (90, 60)),
    ]


def test_objects_of_coco(tmp_path: Path) -> None:
    crowd = {"id": 72, "image_id": 7, "bbox": [0, 0, 9, 9], "category_id": 3, "iscrowd": 1}
    path = saved(tmp_path / "x.json", INSTANCES | {"annotations": [*INSTANCES["annotations"], crowd]})
    (found,) = read("pretrain_detection", path)
    assert found.things == (((10, 20, 40, 50), "square"), ((0, 0, 5, 6), "square"))
    assert (found.id, found.image, found.size) == ("7", "COCO_train2014_7.jpg", (90, 60))


def test_a_json_file_of_another_kind_says_what_was_tried(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.json", INSTANCES)
    with pytest.raises(
        OFAError, match=r"holds caption rows \(COCO captions: no caption; a list of rows: it is no list"
    ):
        read("caption", path)


def questions(directory: Path, **changes: Any) -> Path:
    asked = {"question_id": 70, "image_id": 7, "question": "what is it?"}
    said = ["square"] * 4 + ["box"] * 3 + ["art"] * 2 + ["Cat"]
    answers = [{"answer": one, "answer_confidence": "yes", "answer_id": at} for at, one in enumerate(said, 1)]
    known = {"question_id": 70, "image_id": 7, "answers": answers, "question_type": "what is", "answer_type": "other"}
    known |= {"multiple_choice_answer": "square"}
    saved(directory / "v2_mscoco_val2014_annotations.json", {"annotations": [known | changes]})
    content = {"questions": [asked], "data_subtype": "val2014", "task_type": "Open-Ended"}
    return saved(directory / "v2_OpenEnded_mscoco_val2014_questions.json", content)


def test_questions_are_joined_with_their_answers(tmp_path: Path) -> None:
    (found,) = read("vqa", questions(tmp_path))
    assert (found.id, found.image, found.text) == ("70", "COCO_val2014_000000000007.jpg", "what is it?")
    assert (found.answer, found.agreement, len(found.references)) == ("square", 1.0, 10)
    with pytest.raises(OFAError, match=r"question 70 has no annotation in .*annotations\.json"):
        read("vqa", questions(tmp_path, question_id=71))


def test_questions_without_annotations_say_what_is_missing(tmp_path: Path) -> None:
    path = questions(tmp_path)
    (tmp_path / "v2_mscoco_val2014_annotations.json").unlink()
    with pytest.raises(OFAError, match=r"needs the file of its annotations beside it: v2_mscoco_val2014_annotations"):
        read("vqa", path)


@pytest.mark.parametrize("key", ["Flickr30K_ID", "Flickr30kID", "Flikr30kID"])
def test_hypotheses_of_snli_ve(tmp_path: Path, key: str) -> None:
    row = {"gold_label": "neutral", "sentence1": "a man", "sentence2": "a king", "pairID": "9.jpg#1r1n", key: "9"}
    found = read("snli_ve", rows(tmp_path, row, row | {"gold_label": "-"}))
    assert [(one.id, one.image, one.text, one.text2, one.answer) for one in found] == [
        ("9.jpg#1r1n", "9.jpg", "a king", "a man", "neutral")
    ]


def classes(directory: Path) -> Path:
    for folder, number in (("n01", 1), ("n02", 2)):
        (directory / "set" / folder).mkdir(parents=True)
        (directory / "set" / folder / f"{number}.png").write_bytes(files.encoded(number))
        (directory / "set" / folder / "notes.txt").write_text("no picture")
    return directory / "set"


def test_folders_of_classes(tmp_path: Path) -> None:
    root = classes(tmp_path)
    assert [(one.image, one.answer) for one in read("image_classify", root)] == [
        ("n01/1.png", "n01"),
        ("n02/2.png", "n02"),
    ]
    (root / "LOC_synset_mapping.txt").write_text("n01 tench, Tinca tinca\nn02 great white shark\n")
    found = read("image_classify", root)
    assert [one.answer for one in found] == ["tench", "great white shark"]
    with Images.open(picture_folder(root, None)) as images:
        assert [images.load(one).size for one in found] == [files.SIZE, files.SIZE]
    (root / "LOC_synset_mapping.txt").write_text("n01 tench\n")
    with pytest.raises(OFAError, match=r"its file of names has none for the folder n02"):
        read("image_classify", root)


# --- the plain form ------------------------------------------------------------------------------------------------

PLAIN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "refcoco": ({"text": "red", "box": list(BOX)}, {"text": "red", "box": BOX}),
    "grefcoco": ({"text": "red", "boxes": [list(BOX)]}, {"text": "red", "boxes": (BOX,)}),
    "caption": ({"text": "a square"}, {"text": "a square", "references": ("a square",)}),
    "vqa": ({"question": "is it?", "answer": "yes"}, {"text": "is it?", "answer": "yes", "agreement": 1.0}),
    "snli_ve": (
        {"text": "it is red", "label": "neutral", "caption": "a square"},
        {"text": "it is red", "text2": "a square", "answer": "neutral"},
    ),
    "image_classify": ({"label": "square"}, {"answer": "square"}),
    "ocr": ({"text": "STOP"}, {"text": "STOP"}),
    "matching": ({"text": "red", "label": "1"}, {"text": "red", "answer": "1"}),
    "answer_matching": (
        {"question": "is it?", "answer": "yes", "label": "1"},
        {"text": "is it?", "text2": "yes", "answer": "1"},
    ),
    "pretrain_detection": ({"boxes": [list(BOX)], "label": ["square"]}, {"things": ((BOX, "square"),)}),
    "invig": (
        {"dialog": ["query", "which?", "this"], "box": list(BOX)},
        {"turns": ("query", "which?", "this"), "box": BOX},
    ),
    "guesswhat": ({"dialog": [["left?", "Yes"]], "box": list(BOX)}, {"turns": ("left?", "yes"), "box": BOX}),
}


@pytest.mark.parametrize("format", PLAIN)
@pytest.mark.parametrize("form", ["jsonl", "folder", "rows", "parquet"])
def test_the_plain_form_of_every_format(tmp_path: Path, format: Any, form: str) -> None:
    row, expected = PLAIN[format]
    (tmp_path / "1.png").write_bytes(files.encoded(1))
    sources: dict[str, Any] = {
        "jsonl": lambda: rows(tmp_path, {"image": "1.png", **row}),
        "folder": lambda: written(tmp_path / "metadata.jsonl", json_lines([{"file_name": "1.png", **row}])).parent,
        "rows": lambda: [{"image": files.drawn(1), **row}],
        "parquet": lambda: write_parquet(tmp_path / "x.parquet", [{"image": files.encoded(1), **row}]),
    }
    source = sources[form]()
    (found,) = read(format, source)
    assert {name: getattr(found, name) for name in expected} == expected
    root = picture_folder(source, None) if isinstance(source, Path) else None
    with Images.open(tmp_path if form == "jsonl" else root) as images:
        assert images.load(found).tobytes() == files.drawn(1).tobytes()


def test_texts_alone_have_a_plain_form_too(tmp_path: Path) -> None:
    (found,) = read("gigaword", rows(tmp_path, {"text": "long", "summary": "short"}))
    assert (found.text, found.text2, found.has_picture) == ("long", "short", False)
    (found,) = read("mnli", rows(tmp_path, {"text": "a", "text2": "b", "label": "0"}))
    assert (found.text, found.text2, found.answer) == ("a", "b", "0")


def test_several_captions_are_a_record_each_and_several_answers_are_one(tmp_path: Path) -> None:
    found = read("caption", rows(tmp_path, {"id": 3, "image": "1.png", "text": ["a", "b"]}))
    assert [(one.id, one.text, one.references) for one in found] == [("3/1", "a", ("a", "b")), ("3/2", "b", ("a", "b"))]
    (one,) = read("vqa", rows(tmp_path, {"image": "1.png", "question": "?", "answer": ["no", "yes", "yes"]}))
    assert (one.answer, one.agreement, one.references) == ("yes", 0.6, ("no", "yes", "yes"))


@pytest.mark.parametrize(
    ("format", "row", "reason"),
    [
        ("refcoco", {"text": "red"}, r"plain rows: no image or file_name\)"),
        ("refcoco", {"image": "1.png", "text": "red"}, r"Ref-L4: no caption; plain rows: no box\)"),
        ("refcoco", {"image": "", "text": "red", "box": list(BOX)}, r"image: the row names no picture"),
        (
            "grefcoco",
            {"image": "1", "text": "a", "boxes": [[0, 0, 9, 9], [0, 0, 1, 1]]},
            r"boxes: .* pass --boxes pixels",
        ),
        (
            "pretrain_detection",
            {"image": "1", "boxes": [list(BOX)], "label": []},
            r"label: there are 0 names for 1 boxes",
        ),
        (
            "guesswhat",
            {"image": "1", "dialog": ["left?"], "box": list(BOX)},
            r"dialog: the last question has no answer",
        ),
        ("invig", {"image": "1", "dialog": [], "box": list(BOX)}, r"dialog: .* should have at least 1 item"),
    ],
    ids=["no picture", "no box", "empty", "units", "names", "odd", "nothing"],
)
def test_plain_rows_that_cannot_be_used(tmp_path: Path, format: Any, row: Any, reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        read(format, rows(tmp_path, row))


def test_pictures_of_any_mode_are_taken_from_memory() -> None:
    made = [{"image": Image.new(mode, (9, 6)), "label": "x"} for mode in ("L", "P", "RGBA", "CMYK", "1")]
    with Images.open(None) as images:
        assert [images.load(one).size for one in read("image_classify", made)] == [(9, 6)] * 5
