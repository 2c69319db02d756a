"""Rows in the layouts that are published, one or two of each, as they lie on a disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from reference import ROOT

from ofa_core.data.images import Images
from ofa_core.data.read_options import ReadOptions
from ofa_core.data.readers import read_records
from ofa_core.data.records import BadRow, Record

SHARED = ROOT.parent / "shared"
pytestmark = pytest.mark.skipif(not (SHARED / "rows").is_dir(), reason="the published rows are not here")

NAME = "COCO_val2014_000000250993.jpg"
BOX = (50.0, 60.0, 250.0, 240.0)
ENGLISH = (
    "there is a man in white",
    "which one do you mean?",
    "the one on the left",
    "is he with a racket?",
    "yes",
)
CHINESE = ("有一个穿白衣服的男人", "你说的是哪一个？", "左边那个", "他拿着球拍吗？", "是的")


def read(name: str, format: Any, **options: Any) -> list[Record]:
    return list(read_records(format, SHARED / "rows" / name, options=ReadOptions(**options)))


def told(record: Record) -> tuple[Any, ...]:
    return record.id, record.image, record.box, record.turns, record.category


EXPECTED: list[tuple[str, str, list[tuple[Any, ...]]]] = [
    ("guesswhat_2022.jsonl.gz", "guesswhat", [("2400", NAME, BOX, ("Is it a person?", "yes"), "person")]),
    (
        "hub_guesswhat.parquet",
        "guesswhat",
        [("coco.1719647", f"coco/train2014/{NAME}", BOX, ("Is it a person?", "yes", "left?", "no"), "person")],
    ),
    ("invig.jsonl", "invig", [("invig-1", f"openimages_v1.2/imgs/{NAME}", BOX, ENGLISH, "person")]),
    ("invig_chinese.jsonl", "invig", [("invig-1", f"openimages_v1.2/imgs/{NAME}", BOX, CHINESE, "person")]),
    (
        "invig_without_id.jsonl",
        "invig",
        [("invig_without_id.jsonl:1", f"openimages_v1.2/imgs/{NAME}", BOX, ENGLISH, "person")],
    ),
    (
        "hub_invig.parquet",
        "invig",
        [
            ("r1", NAME, (50.0, 60.0, 250.0, 240.0), ENGLISH, "person"),
            ("r2", NAME, (320.0, 240.0, 576.0, 432.0), ENGLISH, "person"),
        ],
    ),
]


@pytest.mark.parametrize(("name", "format", "records"), EXPECTED, ids=[name for name, *_ in EXPECTED])
def test_rows_become_records(name: str, format: str, records: list[tuple[Any, ...]]) -> None:
    assert [told(record) for record in read(name, format)] == records


def test_a_row_of_2023_names_its_picture_by_what_stands_in_it() -> None:
    (record,) = read("hub_invig_2023.parquet", "invig")
    assert (record.box, record.turns, record.id) == (BOX, ENGLISH, "hub_invig_2023.parquet:1")
    assert record.inline is not None
    with Images.open(None) as images:
        assert images.load(record).size == (640, 480)


def test_phrases_of_the_hub_are_a_record_each() -> None:
    records = read("hub_refcoco.parquet", "refcoco")
    assert [(record.id, record.text, record.box, record.split) for record in records] == [
        ("2/1", "man in white", BOX, "val"),
        ("2/2", "left man", BOX, "val"),
    ]
    assert {record.image for record in records} == {f"coco/train2014/{NAME}"}


def test_every_file_is_read() -> None:
    names = {path.name for path in (SHARED / "rows").iterdir() if path.suffix in (".gz", ".jsonl", ".parquet")}
    assert names == {name for name, *_ in EXPECTED} | {"hub_invig_2023.parquet", "hub_refcoco.parquet"}


@pytest.mark.parametrize("name", [name for name, format, _ in EXPECTED if format == "invig"])
def test_dialogs_in_chinese(name: str) -> None:
    assert {record.turns for record in read(name, "invig", language="cn")} == {CHINESE}


def test_the_last_turn_is_kept_where_that_is_asked_for() -> None:
    (record,) = read("invig.jsonl", "invig", keep_last_turn=True)
    assert record.turns == (*ENGLISH, "ok")


def test_what_is_kept_for_results() -> None:
    (record,) = read("invig.jsonl", "invig")
    assert record.kept == {"captions": ["man"], "raw_target": [1, 2], "raw_anns": '{"a": 1}', "raw_info": "{}"}
    assert record.text == "man in white"


def test_a_split_that_is_not_there() -> None:
    assert len(read("hub_refcoco.parquet", "refcoco", split="val")) == 2
    with pytest.raises(ValueError, match=r"hub_refcoco\.parquet holds no split test; it holds val"):
        read("hub_refcoco.parquet", "refcoco", split="test")


def test_pixels_that_are_said_to_be_fractions_are_refused() -> None:
    with pytest.raises(BadRow, match=r"bbox: .* is not in fractions of the sides"):
        read("invig.jsonl", "invig", boxes="fractions")


def test_the_photo_of_the_rows_is_found(tmp_path: Path) -> None:
    """The picture of every row is found by the name that the row has for it."""
    photos = list((SHARED / "photos").rglob("COCO_val2014_000000250993.*"))
    if not photos:
        pytest.skip("the photo is not here")
    (tmp_path / NAME).write_bytes(photos[0].read_bytes())
    with Images.open(tmp_path) as images:
        for name, format, _ in EXPECTED:
            for record in read(name, format):
                assert images.load(record).size == (640, 480)
