"""Conversations about pictures: plain rows, LLaVA's list and VisDial's file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ofa_core import OFAError
from ofa_core.data.readers import read_records

VISDIAL: dict[str, Any] = {
    "split": "train",
    "version": "1.0",
    "data": {
        "questions": ["is it red", "is it a dog"],
        "answers": ["yes", "no", "maybe"],
        "dialogs": [
            {
                "image_id": 42,
                "caption": "a red thing ",
                "dialog": [{"question": 1, "answer": 2, "answer_options": [0]}, {"question": 0, "answer": 0}],
            }
        ],
    },
}
LLAVA = [
    {
        "id": "000000000007",
        "image": "000000000007.jpg",
        "conversations": [
            {"from": "human", "value": "What is it?\n<image>"},
            {"from": "gpt", "value": "A dog."},
        ],
    }
]


def records(tmp_path: Path, content: Any, name: str = "rows.json") -> list[Any]:
    (tmp_path / name).write_text(json.dumps(content))
    return list(read_records("conversation", tmp_path / name))


def test_plain_rows(tmp_path: Path) -> None:
    row = {"image": "a.jpg", "dialog": [["is it red", "yes"]], "caption": "a dog"}
    (record,) = records(tmp_path, row, "rows.jsonl")
    assert (record.image, record.turns, record.text) == ("a.jpg", ("is it red", "yes"), "a dog")


def test_llava(tmp_path: Path) -> None:
    (record,) = records(tmp_path, LLAVA)
    assert (record.id, record.image) == ("000000000007", "000000000007.jpg")
    assert record.turns == ("What is it?", "A dog.")


@pytest.mark.parametrize(
    ("split", "image"),
    [("train", "000000000042.jpg"), ("val2018", "VisualDialog_val2018_000000000042.jpg")],
)
def test_visdial(split: str, image: str, tmp_path: Path) -> None:
    (record,) = records(tmp_path, VISDIAL | {"split": split})
    assert (record.image, record.text, record.split) == (image, "a red thing", split)
    assert record.turns == ("is it a dog", "maybe", "is it red", "yes")


def test_a_question_that_nobody_answered_is_left_out(tmp_path: Path) -> None:
    content = json.loads(json.dumps(VISDIAL))
    del content["data"]["dialogs"][0]["dialog"][1]["answer"]
    (record,) = records(tmp_path, content)
    assert record.turns == ("is it a dog", "maybe")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["data"]["dialogs"][0]["dialog"][0].update(question=2), "question 2 is none of 0 to 1"),
        (lambda c: c["data"]["dialogs"][0].update(dialog=3), "dialog: it should be a list of numbers"),
        (lambda c: c["data"].update(answers=None), "data: it should hold the lists questions, answers and dialogs"),
        (lambda c: c.update(data=[]), "data: it should hold the lists questions, answers and dialogs"),
        (lambda c: c["data"]["dialogs"][0]["dialog"].clear(), "asked"),
        (lambda c: c.update(split=7), "split"),
    ],
)
def test_a_broken_visdial_file_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    content = json.loads(json.dumps(VISDIAL))
    change(content)
    with pytest.raises(OFAError, match=message) as caught:
        records(tmp_path, content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            [{"from": "gpt", "value": "A"}, {"from": "human", "value": "B"}],
            "0.from: human and gpt should speak in turn",
        ),
        ([{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "B"}], "conversations.0.value: it is empty"),
        ([{"from": "human", "value": "A"}], "conversations"),
    ],
)
def test_a_broken_llava_row_is_refused(said: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(OFAError, match=message):
        records(tmp_path, [LLAVA[0] | {"conversations": said}])
