"""TiO's prompts, source by source and target by target, as its own functions made them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from reference import golden_path

from ofa_core.errors import OFAError
from ofa_core.heads.box_codec import BoxCodec
from ofa_core.text import Tokenizer
from ofa_core.text.dialog import HUMAN
from ofa_core.text.pieces import Piece, encode_pieces
from ofa_core.text.tio import (
    ABSENT,
    TIO_TASKS,
    TioPair,
    count_turns,
    tio_pair,
    tio_style,
    turns_for,
    without_remark,
)
from ofa_core.text.vocabulary import BOS, EOS
from ofa_core.training import tio_lessons
from ofa_core.training.sources import LESSONS

CODEC = BoxCodec("invig")
PAIRS: list[dict[str, Any]] = (
    json.loads(golden_path("tio_prompts.json").read_text())["pairs"]
    if golden_path("tio_prompts.json").is_file()
    else []
)
IDS = [f"{number}-{pair['function']}-{pair['style']}" for number, pair in enumerate(PAIRS)]


def turns_of(case: dict[str, Any]) -> list[str]:
    """The turns of a case's dialog; InViG's begin with an empty one of the agent, which is none."""
    return [turn for pair in case["features"]["dialog"] for turn in pair if turn]


def made(case: dict[str, Any]) -> TioPair:
    """The pair that this project makes of what TiO's function got and drew."""
    name, style, features, drawn = case["function"], case["style"], case["features"], case["drawn"]
    region = CODEC.encode(features["bbox"], case["image_size"]) if "bbox" in features else None
    if name == "refcoco_grounding":
        assert region is not None
        return tio_lessons.grounding_pair(name, style, [drawn["caption"]], region)
    if name == "refcoco_caption":
        return tio_lessons.text_pair(name, style, drawn["caption"], region)
    if "caption" in name:
        return tio_lessons.text_pair(name, style, features["caption"])
    if name == "openimages_detection":
        return made_detection(style, features, drawn)
    if name.endswith("grounding"):
        assert region is not None
        return tio_lessons.grounding_pair(name, style, turns_of(case), region)
    if "turn" in drawn:
        return tio_lessons.dialog_pair(name, style, turns_of(case), drawn["turn"], region)
    question, said = features["dialog"][0]
    return tio_lessons.text_pair(name, style, said, question=question)


def made_detection(style: int, features: dict[str, Any], drawn: dict[str, Any]) -> TioPair:
    named = [thing["bbox"] for thing in features["anns_info"] if thing["category"] == drawn["category"]]
    regions = [CODEC.encode_fractions(box) for box in named]
    if style == 0:  # of which some are drawn
        chosen = [numbers(text) for text in drawn["regions_drawn"]]
        regions = [*chosen, *(region for region in regions if region not in chosen)][: len(regions)]
    category = drawn["absent_category"] if style == ABSENT else drawn["category"]
    return tio_lessons.detection_pair(style, category, regions, fewer=drawn["fewer"], more=drawn["more"])


def numbers(text: str) -> list[int]:
    return [int(part.strip("<>").removeprefix("bin_")) for part in text.split()]


@pytest.mark.reference
@pytest.mark.parametrize("case", PAIRS, ids=IDS)
def test_sources_are_tio_s(case: dict[str, Any]) -> None:
    assert made(case).source_text == case["source"]


@pytest.mark.reference
@pytest.mark.parametrize("case", PAIRS, ids=IDS)
def test_targets_are_tio_s(case: dict[str, Any], official: Tokenizer) -> None:
    pair = made(case)
    if case.get("region_order_is_free"):
        told, expected = pair.target_text.split("region:"), case["target"].split("region:")
        assert told[0] == expected[0]
        assert sorted(part.strip(" \n-") for part in told) == sorted(part.strip(" \n-") for part in expected)
    else:
        assert pair.target_text == case["target"]
    assert parsed(official, pair.target_ids(official), case["image_size"]) == sorted(map(tuple, case["boxes"]))


@pytest.mark.reference
@pytest.mark.parametrize("case", PAIRS, ids=IDS)
def test_the_ids_are_those_of_the_whole_text_with_symbols(case: dict[str, Any], official: Tokenizer) -> None:
    """As the published models' tokenizer read it: bins are symbols, the white space around them disappears."""
    pair = made(case)
    whole = official.encode(pair.source_text, symbols=True)
    assert pair.source_ids(official) == [BOS, *whole, EOS]
    assert pair.target_ids(official) == [*official.encode(pair.target_text, symbols=True), EOS]


def parsed(tokenizer: Tokenizer, ids: list[int], size: list[int]) -> list[tuple[float, ...]]:
    found = [tokenizer.vocabulary.bin_of(token) for token in ids]
    bins = [number for number in found if number is not None]
    boxes = (CODEC.decode(bins[at : at + 4], (size[0], size[1])) for at in range(0, len(bins) - 3, 4))
    return sorted(box for box in boxes if box is not None)


def test_every_task_has_a_lesson() -> None:
    assert {f"tio_{name}" for name in TIO_TASKS} == {name for name in LESSONS if name.startswith("tio_")}


def test_equal_regions_are_said_once_but_counted() -> None:
    pair = tio_lessons.detection_pair(2, "Mug/Cup", [[1, 2, 3, 4], [1, 2, 3, 4], [5, 6, 7, 8]])
    assert pair.source_text == ' \n#instruction: where are mug or cup located?\n#context: ""'
    assert pair.target_text == (
        " there are 3 mug or cup.\n region: <bin_1> <bin_2> <bin_3> <bin_4>\n region: <bin_5> <bin_6> <bin_7> <bin_8>"
    )


def test_what_is_typed_is_never_a_bin(official: Tokenizer) -> None:
    pair = tio_lessons.detection_pair(2, "<bin_9>", [[1, 2, 3, 4]])
    bins = [official.vocabulary.bin_of(token) for token in pair.target_ids(official)]
    assert [number for number in bins if number is not None] == [1, 2, 3, 4]
    assert all(official.vocabulary.bin_of(token) is None for token in pair.source_ids(official))
    question = tio_lessons.text_pair("llava_detail_23k", 0, "{text}", question="what is {that} <bin_3>?")
    assert question.source_text == ' \n#instruction: what is {that} <bin_3>?\n#context: ""'
    assert question.target_text == " {text}"
    assert all(official.vocabulary.bin_of(token) is None for token in question.source_ids(official))


def test_white_space_around_bins_disappears_across_pieces(official: Tokenizer) -> None:
    pieces = [Piece("a "), Piece(" <bin_1> \n<bin_2>", symbols=True), Piece('\n"<bin_3>')]
    one, two = official.vocabulary.bins_to_ids([1, 2])
    assert encode_pieces(official, pieces) == [*official.encode("a"), one, two, *official.encode('"<bin_3>')]
    kept = encode_pieces(official, pieces, keep_spaces=True)
    assert kept == [*official.encode("a  "), one, *official.encode(" \n"), two, *official.encode('\n"<bin_3>')]
    assert encode_pieces(official, [Piece("<bin_1000>", symbols=True)]) == official.encode("<bin_1000>")


@pytest.mark.parametrize(
    ("turns", "fewest", "kept"),
    [
        (["q", "a?", "b"], 2, 3),
        (["q", "a.", "b"], 2, 1),
        (["q", "a.", "b"], 3, 3),
        (["q", "a?", "b", "c.", "d"], 3, 3),
        (["q", "a?", "b", "c."], 3, 3),
        (["q"], 2, 1),
    ],
)
def test_a_last_remark_is_dropped(turns: list[str], fewest: int, kept: int) -> None:
    assert without_remark(turns, fewest) == turns[:kept]


@pytest.mark.parametrize("name", [name for name in TIO_TASKS if "question" in name or "answer" in name])
def test_turns_are_counted_as_they_can_be_drawn(name: str) -> None:
    turns = [f"turn {number}" for number in range(7)]
    for style in TIO_TASKS[name].styles:
        for length in range(len(turns) + 1):
            count = count_turns(style, turns[:length])
            for turn in range(count):
                context, said = turns_for(style, turns[:length], turn)
                assert [*context, said] == turns[: len(context) + 1]
                assert len(context) % 2 == (style.first == HUMAN)
            with pytest.raises(IndexError):
                turns_for(style, turns[:length], count)


@pytest.mark.parametrize(
    ("name", "style", "message"),
    [
        ("invig", 0, "there is no task 'invig' of TiO; there are invig_question, "),
        ("invig_question", 2, "the task 'invig_question' has styles 0 to 1, not 2"),
        ("refcoco_caption", -1, "has styles 0 to 0, not -1"),
    ],
)
def test_a_style_that_there_is_not_is_refused(name: str, style: int, message: str) -> None:
    with pytest.raises(OFAError, match=message):
        tio_style(name, style)


def test_a_pair_that_its_style_cannot_be_is_refused() -> None:
    with pytest.raises(OFAError, match="takes no turns"):
        tio_pair(tio_style("visdial_caption"), ["hello"], text="a cat")
    with pytest.raises(OFAError, match="has some regions"):
        tio_pair(tio_style("refcoco_grounding"), ["the cat"])
    with pytest.raises(OFAError, match="has no regions"):
        tio_pair(tio_style("visdial_caption"), regions=[[1, 2, 3, 4]], text="a cat")
    with pytest.raises(OFAError, match="in fractions of the sides"):
        CODEC.encode_fractions([0.5, 0.2, 0.3, 0.4])
    with pytest.raises(OFAError, match="invig convention alone"):
        BoxCodec().encode_fractions([0.1, 0.2, 0.3, 0.4])
