from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from bench import made
from bench.made import header, row
from PIL import Image

from ofa_core import OFAError
from ofa_core.bench.gallery import QUALITY, THUMBNAIL, card, choose_samples, first_speaker, thumbnail
from ofa_core.bench.results import Row


def nothing(of: Row) -> None:
    return None


def test_best_and_worst_are_those_of_sorting_everything() -> None:
    rows = [*made.rows(200), *(row(200 + i, iou=0.0, score=0.99) for i in range(3))]
    found = choose_samples(header(), iter(rows), 12)
    by_iou = sorted(rows, key=lambda r: (-(r.iou or 0.0), -r.score, r.index))
    assert found["best"] == by_iou[:12]
    assert found["worst"] == sorted(rows, key=lambda r: (r.iou or 0.0, -r.score, r.index))[:12]


def test_the_worst_answers_are_the_surest_mistakes() -> None:
    rows = made.rows(100, "guesswhat_oracle")
    found = choose_samples(header("guesswhat_oracle"), rows, 3)
    wrong = [r for r in rows if r.target != r.output]
    right = [r for r in rows if r.target == r.output]
    assert found["worst"] == sorted(wrong, key=lambda r: -r.score)[:3]
    assert found["best"] == sorted(right, key=lambda r: -r.score)[:3]


def test_rows_at_random_are_distinct_in_order_and_the_same_each_time() -> None:
    rows = made.rows(100)
    drawn = choose_samples(header(), rows, 10, seed=1)["random"]
    assert len({r.index for r in drawn}) == 10
    assert [r.index for r in drawn] == sorted(r.index for r in drawn)
    assert drawn == choose_samples(header(), rows, 10, seed=1)["random"]
    assert drawn != choose_samples(header(), rows, 10, seed=2)["random"]


def test_every_row_is_drawn_equally_often() -> None:
    rows = [row(i) for i in range(20)]
    counts = Counter(r.index for seed in range(1000) for r in choose_samples(header(), rows, 5, seed)["random"])
    assert set(counts) == set(range(20))  # each expected 250 times, with a standard deviation of 14
    assert 190 < min(counts.values()) <= max(counts.values()) < 310


def test_few_rows_are_all_shown() -> None:
    rows = made.rows(3)
    found = choose_samples(header(), rows, 12)
    assert found["random"] == rows
    assert {r.index for r in found["best"]} == {r.index for r in found["worst"]} == {0, 1, 2}


def test_rows_are_read_once_and_few_are_kept() -> None:
    alive = 0

    class Counted(Row):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def stream() -> Iterator[Row]:
        nonlocal alive
        for index in range(500):
            alive += 1
            yield Counted(**row(index, iou=index / 500).model_dump())
            most.append(alive)

    most: list[int] = []
    choose_samples(header(), stream(), 5)
    assert max(most) <= 3 * 5 + 3


@pytest.mark.parametrize(
    ("task", "protocol", "speaker"),
    [
        ("guesswhat_grounding", "open", "agent"),
        ("guesswhat_oracle", "open", "human"),
        ("invig_grounding", "open", "human"),
        ("invig_oracle", "open", "human"),
        ("refcoco_grounding", "open", "human"),
        ("invig_grounding_end2end", "open", "human"),
        ("guesswhat_grounding_end2end", "open", "human"),
        ("guesswhat_grounding_end2end", "closed", "agent"),
    ],
)
def test_dialogs_begin_with_whoever_spoke_first(task: str, protocol: str, speaker: str) -> None:
    of = header(task, settings={"protocol": protocol})
    assert first_speaker(of) == speaker
    text = card(row(0, turns=("one", "two", "three"), iou=0.0, questions=1), of, nothing)
    other = {"agent": "human", "human": "agent"}[speaker]
    assert f'<li class="{speaker}"><span>{speaker}</span> one</li><li class="{other}">' in text


def headline(text: str) -> str:
    """What stands above the picture of a card."""
    return text.partition('<div class="shot">')[0]


def test_the_phrase_is_the_headline_and_in_older_files_what_the_model_read() -> None:
    of = header("refcoco_grounding")
    assert '<h4 class="asked">the man &amp; dog</h4>' in headline(card(row(0, text="the man & dog"), of, nothing))
    assert '<h4 class="asked">which region does the context describe?</h4>' in headline(card(row(0), of, nothing))


def test_a_dialog_is_the_headline_and_of_an_oracle_its_last_question() -> None:
    text = headline(card(row(0, turns=("is it red?", "yes")), header(), nothing))
    assert '<div class="asked"><ol class="dialog">' in text
    assert text.count("<li") == 2
    asked = row(0, iou=None, target="no", output="no", found=None, turns=("is it red?", "yes", "is it big?"))
    text = headline(card(asked, header("guesswhat_oracle"), nothing))
    assert '<h4 class="asked">is it big?</h4><ol class="dialog">' in text
    assert text.count("<li") == 2


def test_boxes_are_told_in_pixels_beside_their_bins() -> None:
    one = row(0, box=(10.0, 20.0, 50.46, 60.0), found=(1.0, 2.0, 4.0, 8.0))
    text = card(one, header(), nothing)
    bins = "<code>region: {}</code>".format(" ".join(f"&lt;bin_{number}&gt;" for number in (1, 2, 3, 4)))
    assert f'<dt>target</dt><dd>{bins}<span class="pixels">10, 20, 50.5, 60 px</span></dd>' in text
    assert '<span class="pixels">1, 2, 4, 8 px</span>' in text
    older = card(one, header(format="lists"), nothing)  # in thousandths of sides that nobody knows
    assert "pixels" not in older
    oracle = row(0, iou=None, target="no", output="no", found=None, box=(10.0, 20.0, 50.0, 60.0))
    text = card(oracle, header("guesswhat_oracle"), nothing)
    assert '<dt>region</dt><dd><span class="pixels">10, 20, 50, 60 px</span></dd>' in text
    assert "<dt>target</dt><dd><code>no</code></dd>" in text


def test_both_boxes_are_drawn_where_they_are() -> None:
    text = card(row(0, box=(10.0, 20.0, 50.5, 60.0), found=(1.0, 2.0, 4.0, 8.0)), header(), nothing)
    assert '<rect class="target" x="10" y="20" width="40.5" height="40">' in text
    assert '<rect class="found" x="1" y="2" width="3" height="6">' in text
    assert 'viewBox="0 0 320 240"' in text
    assert "no box" not in text
    assert "no box" in card(row(0, found=None), header(), nothing)


@pytest.mark.parametrize(
    ("task", "changes", "right"),
    [
        ("guesswhat_grounding", {"iou": 0.51}, True),
        ("guesswhat_grounding", {"iou": 0.5}, False),
        ("refcoco_grounding", {"iou": 0.5}, True),
        ("guesswhat_oracle", {"iou": None, "target": "no", "output": "n/a"}, False),
        ("guesswhat_oracle", {"iou": None, "target": "no", "output": "no"}, True),
    ],
)
def test_a_card_tells_right_from_wrong(task: str, changes: dict[str, Any], right: bool) -> None:
    text = card(row(0, **changes), header(task), nothing)
    assert text.startswith(f'<article class="card {"right" if right else "wrong"}"')


def test_nothing_in_a_row_becomes_markup() -> None:
    nasty = '"><script>alert(1)</script>&'
    strange = row(
        0,
        id=nasty,
        image=nasty,
        category=nasty,
        source=nasty,
        target=nasty,
        output=nasty,
        turns=(nasty,),
        probabilities={nasty: 1.0},
    )
    text = card(strange, header(), made.picture)
    assert "<script" not in text
    assert text.count("&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;") == 9
    assert "<bin_" not in card(row(0), header(), nothing)


def test_a_picture_that_cannot_be_loaded_leaves_its_boxes() -> None:
    def broken(of: Row) -> Image.Image:
        raise OFAError("it is missing")

    text = card(row(0), header(), broken)
    assert "picture not at hand" in text
    assert '<rect class="target"' in text


def test_thumbnails_are_small_jpegs_of_the_whole_picture() -> None:
    address = thumbnail(Image.new("RGBA", (3000, 1500), "red"))
    kind, data = address.split(",")
    assert kind == "data:image/jpeg;base64"
    shown = Image.open(BytesIO(base64.b64decode(data)))
    assert shown.size == (THUMBNAIL, THUMBNAIL // 2)
    assert len(data) < 20_000
    assert 0 < QUALITY < 96
    small = Image.open(BytesIO(base64.b64decode(thumbnail(Image.new("L", (30, 20))).split(",")[1])))
    assert small.size == (30, 20)
