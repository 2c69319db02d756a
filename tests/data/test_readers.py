"""Every container and format gives the same records; a bad row is named with its line and reason."""

from __future__ import annotations

import copy
import gzip
import itertools
import json
import os
import pickle
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench import files
from bench.files import dialog, game, json_lines, phrase, tab_lines, write_arrow, write_parquet, written

from ofa_core.data.readers import read_records
from ofa_core.data.records import NO_BOX, BadRow, Record, check_box
from ofa_core.errors import OFAError

GAME_TURNS = ("is it a circle?", "no", "Is it red?", "yes", "is it loud?", "n/a")
DIALOG_TURNS = ("the Square", "which one?", "the red one", "this?", "yes")


def all_of(path: Path, format: Any, **options: Any) -> tuple[list[Record], list[str]]:
    """The records, and what is wrong with the others."""
    bad: list[BadRow] = []
    records = list(read_records(format, path, on_bad=bad.append, **options))
    return records, [str(row).removeprefix(f"{path.parent}/") for row in bad]


# --- what a row becomes --------------------------------------------------------------------------------------------


def test_a_game_becomes_a_record(tmp_path: Path) -> None:
    path = written(tmp_path / "guesswhat.test.jsonl.gz", json_lines([game(3)]))
    assert list(read_records("guesswhat", path)) == [
        Record(
            id="3",
            image="3.png",
            box=(10.0, 20.0, 40.0, 50.0),
            turns=GAME_TURNS,
            object_boxes=((0.0, 0.0, 9.5, 9.0), (10.0, 20.0, 40.0, 50.0)),
            category="square",
            size=(90, 60),
            place=f"{path}:1",
        )
    ]


def test_only_successful_games_count_and_what_others_lack_is_no_error(tmp_path: Path) -> None:
    others = [game(1, status="failure", object_id=...), game(2, status="incomplete", qas=[]), game(3)]
    records, bad = all_of(written(tmp_path / "x.jsonl", json_lines(others)), "guesswhat")
    assert [record.id for record in records] == ["3"]
    assert bad == []


def test_a_dialog_becomes_a_record(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl", json_lines([dialog(2)]))
    assert list(read_records("invig", path)) == [
        Record(
            id="i2",
            image="2.png",
            box=files.BOX,
            turns=DIALOG_TURNS,
            text="a red square",
            category="square",
            place=f"{path}:1",
        )
    ]


@pytest.mark.parametrize(
    ("pairs", "turns"),
    [
        ([["", "query"], ["a?", "b"]], ("query", "a?", "b")),
        ([[None, "query"]], ("query",)),
        ([["query", "a?"], ["b", "c?"]], ("query", "a?", "b", "c?")),
        ([["", "query"], ["a?", ""]], ("query", "a?")),
        ([["", "query"], ["a?", " "], ["", ""]], ("query", "a?")),
    ],
)
def test_the_turns_of_a_dialog_alternate_from_the_query_on(tmp_path: Path, pairs: Any, turns: Any) -> None:
    path = written(tmp_path / "x.jsonl", json_lines([dialog(dialog=pairs)]))
    assert next(read_records("invig", path)).turns == turns


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"caption": ["", "first", "second"]}, "first"),
        ({"caption": ..., "captions": ["one", "two"]}, "one"),
        ({"caption": ..., "captions": "a text"}, "a text"),
        ({"caption": None}, ""),
    ],
)
def test_the_text_of_a_dialog_is_its_first_caption(tmp_path: Path, fields: Any, text: str) -> None:
    path = written(tmp_path / "x.jsonl", json_lines([dialog(**fields)]))
    assert next(read_records("invig", path)).text == text


def test_a_phrase_becomes_a_record(tmp_path: Path) -> None:
    path = written(tmp_path / "refcoco_val.tsv", tab_lines([phrase(4)]))
    assert list(read_records("refcoco", path)) == [
        Record(
            id="r4",
            image="4",
            box=files.BOX,
            text='the "red" square',
            inline=files.encoded(4),
            place=f"{path}:1",
        )
    ]


@pytest.mark.parametrize("altchars", [b"+/", b"-_"])
def test_either_alphabet_of_base64_is_read(tmp_path: Path, altchars: bytes) -> None:
    import base64

    content = bytes(range(256)) + b"\xff\xfe\xfb" * 20
    text = base64.b64encode(content, altchars).decode()
    assert altchars.decode()[0] in text
    assert altchars.decode()[1] in text
    path = written(tmp_path / "x.tsv", tab_lines([phrase(image=text)]))
    assert next(read_records("refcoco", path)).inline == content


def test_columns_may_come_in_any_order_with_others_between(tmp_path: Path) -> None:
    row = phrase(4)
    columns = ["region-coord", "-", "image", "text", "-", "uniq-id"]
    line = "\t".join(row.get(name, "whatever") for name in columns)
    path = written(tmp_path / "x.tsv.gz", line.encode() + b"\n")
    record = next(read_records("refcoco", path, columns=columns))
    assert (record.id, record.image, record.box, record.text) == ("r4", "", files.BOX, 'the "red" square')
    assert record.inline == files.encoded(4)


def test_a_phrase_without_a_picture_names_it(tmp_path: Path) -> None:
    path = written(tmp_path / "x.tsv", b"a square\t4.png\tr4\t10,20,40,50\n")
    record = next(read_records("refcoco", path, columns=["text", "image-id", "uniq-id", "region-coord"]))
    assert (record.image, record.inline) == ("4.png", None)


# --- containers ----------------------------------------------------------------------------------------------------

ROWS = [dialog(number) for number in range(1, 6)]

CONTAINERS: dict[str, Callable[[Path], Path]] = {
    "jsonl": lambda d: written(d / "x.jsonl", json_lines(ROWS)),
    "jsonl.gz": lambda d: written(d / "x.jsonl.gz", json_lines(ROWS)),
    "gzip under another name": lambda d: written(d / "x.jsonl", gzip.compress(json_lines(ROWS))),
    "windows": lambda d: written(d / "x.jsonl", b"\xef\xbb\xbf" + json_lines(ROWS).replace(b"\n", b"\r\n")),
    "parquet": lambda d: write_parquet(d / "x.parquet", ROWS, row_group_size=2),
    "arrow": lambda d: write_arrow(d / "x.arrow", ROWS, rows_a_batch=2),
    "saved": lambda d: files.save_to_disk(d / "x", [ROWS[:2], ROWS[2:]]),
}


def shards(directory: Path) -> Path:
    (directory / "x").mkdir()
    write_parquet(directory / "x" / "test-00001-of-00002.parquet", ROWS[2:])
    write_parquet(directory / "x" / "test-00000-of-00002.parquet", ROWS[:2])
    return directory / "x"


@pytest.mark.parametrize("make", [*CONTAINERS.values(), shards], ids=[*CONTAINERS, "shards"])
def test_every_container_gives_the_same_records_in_the_same_order(
    tmp_path: Path, make: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ofa_core.data.containers.ROWS_AT_ONCE", 2)
    records = list(read_records("invig", make(tmp_path)))
    assert [record.id for record in records] == ["i1", "i2", "i3", "i4", "i5"]
    assert {(record.box, record.turns, record.text) for record in records} == {
        (files.BOX, DIALOG_TURNS, "a red square")
    }


def test_rows_of_a_table_are_counted_from_one_in_each_file(tmp_path: Path) -> None:
    places = [
        record.place for record in read_records("invig", files.save_to_disk(tmp_path / "x", [ROWS[:2], ROWS[2:]]))
    ]
    first, second = (tmp_path / "x" / f"data-0000{index}-of-00002.arrow" for index in (0, 1))
    assert places == [f"{first}:1", f"{first}:2", f"{second}:1", f"{second}:2", f"{second}:3"]
    path = write_parquet(tmp_path / "x.parquet", ROWS, row_group_size=2)
    assert [record.place for record in read_records("invig", path)] == [f"{path}:{row}" for row in range(1, 6)]


def test_the_files_of_a_saved_dataset_are_those_it_lists_in_that_order(tmp_path: Path) -> None:
    names = [{"filename": f"data-0000{index}-of-00003.arrow"} for index in (2, 0)]
    path = files.save_to_disk(tmp_path / "x", [ROWS[:1], ROWS[1:2], ROWS[2:3]], _data_files=names)
    assert [record.id for record in read_records("invig", path)] == ["i3", "i1"]


@pytest.mark.parametrize("write", [write_parquet, write_arrow])
def test_games_are_read_from_tables_too(tmp_path: Path, write: Callable[..., Path]) -> None:
    path = write(tmp_path / f"x.{write.__name__.removeprefix('write_')}", [game(1), game(2, status="failure"), game(3)])
    records = list(read_records("guesswhat", path))
    assert [(record.id, record.turns) for record in records] == [("1", GAME_TURNS), ("3", GAME_TURNS)]


@pytest.mark.parametrize("write", [write_parquet, write_arrow])
def test_a_picture_in_a_table_is_taken(tmp_path: Path, write: Callable[..., Path]) -> None:
    rows = [
        dialog(1, image={"bytes": files.encoded(1), "path": "inner.png"}),
        dialog(2, image={"bytes": files.encoded(2), "path": "inner.png"}, image_path=None),
        dialog(3, image={"bytes": None, "path": "inner.png"}, image_path=""),
    ]
    path = write(tmp_path / f"x.{write.__name__.removeprefix('write_')}", rows)
    found = [(record.image, record.inline) for record in read_records("invig", path)]
    assert found == [("1.png", files.encoded(1)), ("inner.png", files.encoded(2)), ("inner.png", None)]


def test_a_picture_may_be_a_plain_column_of_bytes(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", [dialog(1, image=files.encoded(1), image_path=...)])
    assert [(r.image, r.inline) for r in read_records("invig", path)] == [("", files.encoded(1))]


def test_only_needed_columns_of_a_table_are_read(tmp_path: Path) -> None:
    paths = [write_parquet(tmp_path / "x.parquet", ROWS, compression="none"), write_arrow(tmp_path / "x.arrow", ROWS)]
    for path in paths:
        content = path.read_bytes()
        assert content.count(b"whatever") >= 1
        path.write_bytes(content.replace(b"whatever", b"\xff" * 8))  # not UTF-8 any more
        assert len(list(read_records("invig", path))) == 5


def test_empty_lines_are_skipped_but_counted(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl", json_lines([b"\n", dialog(1), b"  \n", dialog(2)]))
    assert [record.place for record in read_records("invig", path)] == [f"{path}:2", f"{path}:4"]


# --- streaming -----------------------------------------------------------------------------------------------------


def test_the_first_records_of_an_endless_file_come_at_once(tmp_path: Path) -> None:
    path = tmp_path / "endless.jsonl.gz"
    os.mkfifo(path)
    written_rows = 0

    def write() -> None:
        nonlocal written_rows
        try:
            with path.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=0) as file:
                for number in itertools.count():
                    file.write(json_lines([dialog(number)]))
                    written_rows += 1
        except BrokenPipeError:
            pass

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    records = read_records("invig", path)
    assert [next(records).id for _ in range(3)] == ["i0", "i1", "i2"]
    records.close()  # type: ignore[attr-defined]
    writer.join(20)
    assert not writer.is_alive()
    assert written_rows < 5000  # what fits in buffers and the pipe


def test_a_parquet_file_is_read_as_far_as_it_is_used(tmp_path: Path) -> None:
    rows = [dialog(number) for number in range(4000)]
    options = {"row_group_size": 500, "use_dictionary": False, "compression": "none", "write_statistics": False}
    path = write_parquet(tmp_path / "x.parquet", rows, **options)
    content = path.read_bytes()
    start = content.index(b"i3500")
    path.write_bytes(content[: start - 60] + b"\xff" * 60 + content[start:])  # the header of a later page
    records = read_records("invig", path)
    assert [record.id for record in itertools.islice(records, 3000)] == [f"i{number}" for number in range(3000)]
    with pytest.raises(OFAError, match=rf"^{re.escape(str(path))} cannot be read on after row 3488: ."):
        list(records)


@pytest.mark.parametrize(
    ("name", "rows"), [("x.jsonl.gz", [dialog(n) for n in range(900)]), ("x.arrow", [dialog(n) for n in range(900)])]
)
def test_a_file_that_ends_too_early_gives_what_it_has_and_then_an_error(tmp_path: Path, name: str, rows: Any) -> None:
    path = tmp_path / name
    _ = write_arrow(path, rows, rows_a_batch=100) if name == "x.arrow" else written(path, json_lines(rows))
    path.write_bytes(path.read_bytes()[:-3000])
    records = []
    with pytest.raises(OFAError, match=rf"{name} cannot be read on after (line|row) \d+: .") as caught:
        records += read_records("invig", path)
    assert not isinstance(caught.value, BadRow)
    assert "\n" not in str(caught.value)
    first = next(read_records("invig", path))
    assert first.id == "i0"


def test_a_damaged_gzip_is_an_error_of_one_line(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl.gz", json_lines([dialog(number) for number in range(900)]))
    content = path.read_bytes()
    for damaged in (content[:10] + b"\xff" * 40 + content[50:], content[:-8] + b"\0" * 8):  # a block; the checksum
        path.write_bytes(damaged)
        with pytest.raises(OFAError, match=r"x\.jsonl\.gz cannot be read on after line \d+: .") as caught:
            list(read_records("invig", path))
        assert "\n" not in str(caught.value)


# --- bad rows ------------------------------------------------------------------------------------------------------


def objects(**changes: Any) -> list[Any]:
    found = copy.deepcopy(game()["objects"])
    found[1].update(changes)
    return found


BAD_GAMES: list[tuple[Any, str]] = [
    (b"{broken\n", r"not JSON at character 2: "),
    (b'{"id": "\xff"}\n', r"byte 9 of the line is not UTF-8"),
    (b"[1, 2]\n", r"a row is an object with fields, not list"),
    (b'{"id": ' + b"9" * 5000 + b"}\n", r"not JSON that can be read: "),
    (b"[" * 200_000 + b"\n", r"not JSON"),
    (game(id=...), r"id: Field required"),
    (game(id=""), r"id: it is empty"),
    (game(id=True), r"id: Input should be a valid string"),
    (game(id="\ud800"), r"id: it holds half of a surrogate pair"),
    (game(status=...), r"the row is in no layout of guesswhat \(GuessWhat\?! as released: no status; .*: no dialog; "),
    (game(status="won"), r"status: Input should be 'success', 'failure' or 'incomplete'"),
    (game(image=...), r"image: Field required"),
    (game(image={"file_name": " ", "width": 90, "height": 60}), r"image\.file_name: it is empty"),
    (game(image={"file_name": "x", "width": 0, "height": 1}), r"image\.width: Input should be greater than 0"),
    (game(image={"file_name": "x", "width": 9, "height": "8"}), r"image\.height: Input should be a valid integer"),
    (game(objects=[]), r"object_id: 0 of the objects \(\) are 5, one should be"),
    (game(object_id=6), r"object_id: 0 of the objects \(4, 5\) are 6, one should be"),
    (game(objects=objects(id=4), object_id=4), r"object_id: 2 of the objects \(4, 4\) are 4, one should be"),
    (game(objects=objects(category=5)), r"objects\.1\.category: Input should be a valid string"),
    (game(objects=objects(bbox=[1, 2, 3])), r"objects\.1\.bbox: List should have at least 4 items"),
    (game(objects=objects(bbox=[1, 2, "3", 4])), r"objects\.1\.bbox\.2: Input should be a valid number"),
    (game(objects=objects(bbox=[1, 2, float("nan"), 4])), r"bbox: \(1, 2, nan, 6\) is not four finite numbers"),
    (game(objects=objects(bbox=[1, 2, 1e999, 4])), r"bbox: \(1, 2, inf, 6\) is not four finite numbers"),
    (game(objects=objects(bbox=[1, 2, 10**400, 4])), r"objects\.1\.bbox\.2: Input should be a valid number"),
    (game(objects=objects(bbox=[10, 20, 0, 5])), r"bbox: \(10, 20, 10, 25\) has no area"),
    (game(objects=objects(bbox=[10, 20, 5, -5])), r"bbox: \(10, 20, 15, 15\) has no area"),
    (game(objects=objects(bbox=[80, 20, 13.5, 5])), r"bbox: .* is not within the picture of 90 × 60 pixels"),
    (game(objects=objects(bbox=[80, 50, 5, 13.5])), r"bbox: .* is not within the picture of 90 × 60 pixels"),
    (game(objects=objects(bbox=[-3.5, 20, 5, 5])), r"bbox: .* is not within the picture"),
    (game(objects=objects(bbox=[90, 20, 1, 5])), r"bbox: .* is not within the picture"),
    (game(qas=[]), r"qas: List should have at least 1 item"),
    (game(qas=[{"question": "", "answer": "yes"}]), r"qas\.0\.question: it is empty"),
    (game(qas=[{"question": "why?", "answer": "maybe"}]), r"qas\.0\.answer: an answer is yes, no or n/a, not 'maybe'"),
]

BAD_DIALOGS: list[tuple[Any, str]] = [
    (dialog(bbox=...), r"bbox: Field required"),
    (dialog(bbox=[0.1, 0.2, 0.5, 0.9]), r"bbox: .* is within one pixel, or in fractions of the sides: pass --boxes"),
    (dialog(bbox=[40, 20, 10, 50]), r"bbox: .* has no area"),
    (dialog(bbox=[10, -9, 40, -2]), r"bbox: \(10, -9, 40, -2\) is not within the picture$"),
    (dialog(image_path=...), r"image_path: the row names no picture and holds none"),
    (dialog(image_path=" ", image={"path": None}), r"image_path: the row names no picture"),
    (dialog(image_path=5), r"image_path: Input should be a valid string"),
    (
        dialog(dialog=...),
        r"the row is in no layout of invig \(InViG by picture: no ref_list; .*: no dialog or dialog_cn",
    ),
    (dialog(dialog=[]), r"dialog: it does not begin with a query"),
    (dialog(dialog=[["", ""], ["which?", "that"]]), r"dialog: it does not begin with a query"),
    (dialog(dialog=[["", "q"], ["which?", ""], ["this?", "no"]]), r"dialog: pair 1 holds an empty text"),
    (dialog(dialog=[["q", ""], ["this?", "no"]]), r"dialog: pair 0 holds an empty text"),
    (dialog(dialog=[["one text"]]), r"dialog\.0: List should have at least 2 items"),
    (dialog(dialog=[["", "q"], ["a", "b", "c"]]), r"dialog\.1: List should have at most 2 items"),
    (dialog(dialog=[["", 5]]), r"dialog\.0\.1: Input should be a valid string"),
    (dialog(dialog="a text"), r"dialog: Input should be a valid list"),
]

BAD_PHRASES: list[tuple[Any, str]] = [
    (phrase(**{"uniq-id": ""}), r"uniq-id: it is empty"),
    (phrase(text="  "), r"text: it is empty"),
    (phrase(**{"region-coord": "1,2,3"}), r"region-coord: List should have at least 4 items"),
    (phrase(**{"region-coord": "1,2,3,4,5"}), r"region-coord: List should have at most 4 items"),
    (phrase(**{"region-coord": "1 2 3 4"}), r"region-coord: it should be x0,y0,x1,y1, not '1 2 3 4'"),
    (phrase(**{"region-coord": "1,2,nan,4"}), r"region-coord: .* is not four finite numbers"),
    (phrase(**{"region-coord": "9,2,3,4"}), r"region-coord: .* has no area"),
    (phrase(image="%%%"), r"image: it is not base64"),
    (phrase(image="QUJD" * 5 + "Q"), r"image: it is not base64"),
    (phrase(image="", **{"image-id": ""}), r"image-id: the row names no picture and holds none"),
    (phrase(text="a\tb"), r"the line has 6 columns, not 5 \(uniq-id, image-id, text, region-coord, image\)"),
    (phrase(image=...), r"the line has 4 columns, not 5"),
]


def lines_of(format: str, rows: list[Any]) -> bytes:
    return tab_lines(rows) if format == "refcoco" else json_lines(rows)


@pytest.mark.parametrize(
    ("format", "good", "row", "reason"),
    [
        *[("guesswhat", game, *case) for case in BAD_GAMES],
        *[("invig", dialog, *case) for case in BAD_DIALOGS],
        *[("refcoco", phrase, *case) for case in BAD_PHRASES],
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_row_is_named_and_only_it_is_skipped(
    tmp_path: Path, format: Any, good: Callable[[int], Any], row: Any, reason: str
) -> None:
    path = tmp_path / ("x.tsv" if format == "refcoco" else "x.jsonl")
    path.write_bytes(lines_of(format, [good(100), row, good(101)]))
    records, bad = all_of(path, format)
    assert len(records) == 2
    assert len(bad) == 1
    assert re.match(rf"{path.name}:2: {reason}", bad[0]), bad[0]
    assert "\n" not in bad[0]
    assert len(bad[0]) < 200
    reader = read_records(format, path)
    assert next(reader) == records[0]
    with pytest.raises(BadRow) as caught:
        next(reader)
    assert caught.value.place == f"{path}:2"
    assert str(caught.value) == f"{path}:2: {caught.value.reason}"


def test_a_bad_row_of_a_table_is_named_by_its_row(tmp_path: Path) -> None:
    rows = [dialog(1), dialog(2, bbox=[1.0, 2.0, 1.0, 9.0]), dialog(3)]
    records, bad = all_of(write_parquet(tmp_path / "x.parquet", rows), "invig")
    assert [record.id for record in records] == ["i1", "i3"]
    assert bad == ["x.parquet:2: bbox: (1, 2, 1, 9) has no area: x0 < x1 and y0 < y1 would be right"]


def test_rows_of_one_id_are_told_apart_by_their_numbers_over_all_files(tmp_path: Path) -> None:
    path = files.save_to_disk(tmp_path / "x", [[dialog(1), dialog(2)], [dialog(1), dialog(3)]])
    records, bad = all_of(path, "invig")
    assert [(record.id, record.row) for record in records] == [("i1", 1), ("i2", 2), ("i1", 3), ("i3", 4)]
    assert bad == []


def test_every_row_of_a_file_counts_in_their_numbers(tmp_path: Path) -> None:
    rows = [game(1, status="failure"), game(1, qas=[]), game(1)]
    records, bad = all_of(written(tmp_path / "x.jsonl", json_lines(rows)), "guesswhat")
    assert ([record.row for record in records], len(bad)) == ([3], 1)


def test_a_question_of_several_rows_is_read_as_often(tmp_path: Path) -> None:
    """VQA's own files have a row for every answer."""
    rows = [f"79459\t1.png\tis it?\t{answer}\t\t" for answer in ("0.6|!+yes", "0.3|!+no", "1.0|!+yes")]
    records, bad = all_of(written(tmp_path / "x.tsv", "\n".join(rows).encode()), "vqa")
    assert [(record.id, record.answer, record.row) for record in records] == [
        ("79459", "yes", 1),
        ("79459", "no", 2),
        ("79459", "yes", 3),
    ]
    assert bad == []


def test_a_bad_row_survives_the_way_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(BadRow("x:3", "bbox: why")))
    assert (str(error), error.place, error.reason) == ("x:3: bbox: why", "x:3", "bbox: why")


# --- boxes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        ((-1, -1, 91, 61), (0, 0, 90, 60)),
        ((0, 0, 90, 60), (0, 0, 90, 60)),
        ((-0.25, 3, 20, 60.75), (0, 3, 20, 60)),
        ((1, 1, 2, 2), (1, 1, 2, 2)),
    ],
)
def test_a_box_a_little_over_the_edge_is_clipped(box: Any, clipped: Any) -> None:
    found = check_box(box, (90, 60), "x:1", "bbox")
    assert found == clipped
    assert all(type(value) in (int, float) for value in found)


def test_without_a_size_only_the_edges_at_zero_are_known() -> None:
    assert check_box((-0.5, 0, 5000, 4000), None, "x:1", "bbox") == (0, 0, 5000, 4000)


def test_a_record_is_fitted_to_the_picture_that_was_found() -> None:
    record = Record(id="1", image="1.png", box=(10, 20, 90.5, 50), place="x:1")
    assert record.fit_to((90, 60)).box == (10, 20, 90, 50)
    assert record.fit_to((90, 60)).size == (90, 60)
    with pytest.raises(BadRow, match=r"^x:1: box: .* is not within the picture of 60 × 60 pixels"):
        record.fit_to((60, 60))
    known = Record(id="1", image="1.png", box=(10, 20, 30, 50), size=(90, 60), place="x:1")
    assert known.fit_to((90, 60)) == known
    with pytest.raises(BadRow, match=r"^x:1: picture 1.png is 180 × 120 pixels, the row says 90 × 60"):
        known.fit_to((180, 120))


def test_a_record_is_shown_without_its_picture() -> None:
    assert "ABAB" not in repr(Record(id="1", image="", box=(1, 2, 3, 4), inline=b"ABAB"))


# --- wrong calls, told before anything is read ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "name", "columns", "message"),
    [
        ("coco", "x.jsonl", None, r"a format of rows is guesswhat, invig, refcoco, caption, vqa, .*, not 'coco'"),
        ("invig", "absent.jsonl", None, r"data .*absent\.jsonl does not exist"),
        (
            "invig",
            "x.tsv",
            None,
            r"x\.tsv: invig rows come in \.jsonl, \.jsonl\.gz, .*, JSON \(\.json\) or a directory",
        ),
        ("refcoco", "x.txt", None, r"x\.txt: refcoco rows come in \.jsonl, .*, \.tsv, \.tsv\.gz, JSON \(\.json\), ref"),
        (
            "invig",
            "x.jsonl",
            ["text"],
            r"columns have an order in refcoco, caption, vqa, .* rows alone; invig rows have names",
        ),
        ("refcoco", "x.tsv", ["uniq-id", "text", "image"], r"; region-coord is missing$"),
        ("refcoco", "x.tsv", ["uniq-id", "text", "region-coord"], r"; image or image-id is missing$"),
        ("refcoco", "x.tsv", ["uniq-id", "text", "region-coord", "image", "box"], r"; 'box' is none of them"),
        ("refcoco", "x.tsv", ["uniq-id", "text", "text", "region-coord", "image"], r"; 'text' is none .* twice"),
    ],
)
def test_a_wrong_call_is_an_error_at_once(tmp_path: Path, format: Any, name: str, columns: Any, message: str) -> None:
    for made in ("x.jsonl", "x.tsv", "x.txt"):
        (tmp_path / made).write_bytes(b"")
    with pytest.raises(OFAError, match=message):
        read_records(format, tmp_path / name, columns=columns)


def test_a_directory_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OFAError, match=r"holds no \.parquet or \.arrow files"):
        read_records("invig", tmp_path)


def test_splits_are_never_mixed(tmp_path: Path) -> None:
    both = tmp_path / "both"
    files.save_to_disk(both / "test", [ROWS])
    files.save_to_disk(both / "train", [ROWS])
    (both / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(OFAError, match=r"both holds the splits test, train: name one, such as .*both/test$"):
        read_records("invig", both)
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for split in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        write_parquet(mixed / f"{split}.parquet", ROWS)
    with pytest.raises(OFAError, match=r"holds the splits 'test', 'train': name a file of one of them"):
        read_records("invig", mixed)


@pytest.mark.parametrize(
    "names", [["0000", "0001"], ["part-0", "part-1"], ["test-00000-of-00002", "test-00001-of-00002"]]
)
def test_shards_of_one_split_are_not_taken_for_several(tmp_path: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        write_parquet(tmp_path / f"{name}.parquet", [dialog(number)])
    assert [record.id for record in read_records("invig", tmp_path)] == ["i0", "i1"]


def test_a_saved_dataset_that_is_not_whole_is_an_error(tmp_path: Path) -> None:
    path = files.save_to_disk(tmp_path / "x", [ROWS[:2], ROWS[2:]])
    (path / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(OFAError, match=r"x is not whole: data-00001-of-00002\.arrow is missing"):
        read_records("invig", path)
    (path / "state.json").write_text("[]")
    with pytest.raises(OFAError, match=r"state\.json is not what Dataset\.save_to_disk writes"):
        read_records("invig", path)


def test_a_saved_selection_of_rows_is_not_read_as_all_of_them(tmp_path: Path) -> None:
    path = files.save_to_disk(tmp_path / "x", [ROWS], _indices_data_files=[{"filename": "indices.arrow"}])
    with pytest.raises(OFAError, match=r"x holds a selection of rows: call flatten_indices\(\)"):
        read_records("invig", path)


def test_a_listed_file_is_never_outside_the_directory(tmp_path: Path) -> None:
    write_arrow(tmp_path / "outside.arrow", ROWS)
    path = files.save_to_disk(tmp_path / "x", [ROWS], _data_files=[{"filename": "../outside.arrow"}])
    with pytest.raises(OFAError, match=r"x is not whole: outside\.arrow is missing"):
        read_records("invig", path)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "x.parquet", ROWS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OFAError, match=r"x\.parquet needs pyarrow: pip install pyarrow"):
        next(read_records("invig", path))


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow"])
def test_what_is_no_table_is_an_error_of_one_line(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, json.dumps(dialog()).encode())
    with pytest.raises(OFAError, match=rf"{name} cannot be read on after row 0: .") as caught:
        next(read_records("invig", path))
    assert "\n" not in str(caught.value)


# Captions and questions, which have no box


def test_captions_in_the_originals_columns(tmp_path: Path) -> None:
    path = tmp_path / "captions.tsv"
    path.write_text("7\t42.jpg\ta dog\tdog&&grass\t\n8\t\ta cat\t\taGVsbG8=\n")
    first, second = read_records("caption", path)
    assert (first.id, first.image, first.text, first.inline, first.box) == ("7", "42.jpg", "a dog", None, NO_BOX)
    assert (second.image, second.inline) == ("", b"hello")
    assert first.fit_to((10, 20)).size == (10, 20), "where there is no box, any picture fits"


def test_questions_have_the_answer_that_most_people_gave(tmp_path: Path) -> None:
    path = tmp_path / "vqa.tsv"
    rows = ["1\t1.jpg\twhat is it?\t0.6|!+a dog&&1.0|!+dog&&0.3|!+cat\tdog&&red ball", "2\t2.jpg\tis it?\tyes\t"]
    path.write_text("\n".join(f"{row}\t" for row in rows))
    first, second = read_records("vqa", path)
    assert (first.text, first.answer, first.agreement, first.objects) == (
        "what is it?",
        "dog",
        1.0,
        ("dog", "red ball"),
    )
    assert (second.answer, second.agreement, second.objects) == ("yes", 1.0, ("",))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1\t1.jpg\twhat?\tmuch|!+dog\t\t", r"v.tsv:1: answer: it should be weight\|!\+answer&&"),
        ("1\t1.jpg\twhat?\t2|!+dog\t\t", r"v.tsv:1: answer.*less than or equal to 1"),
        ("1\t1.jpg\twhat?\t1.0|!+\t\t", r"v.tsv:1: answer.*it is empty"),
        ("1\t\twhat?\tdog\t\t", r"v.tsv:1: image-id: the row names no picture and holds none"),
    ],
)
def test_bad_questions_are_named(tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "v.tsv").write_text(row)
    with pytest.raises(BadRow, match=message):
        list(read_records("vqa", tmp_path / "v.tsv"))
