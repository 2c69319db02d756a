from __future__ import annotations

import math
from typing import Any

import pytest
from reference import lively_ofa, picture, scripted

from ofa_core import OFA, Caption, OFAError, TaskSettings, Text

BOS, PAD, EOS, UNK = range(4)


def test_a_caption_is_asked_for_as_in_training(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = scripted(monkeypatch, [EOS])
    ofa.caption([picture(0), picture(1)])
    (call,) = asked
    assert call.sources == [[BOS, *ofa.tokenizer.encode(" what does the image describe?"), EOS]] * 2
    assert call.options is not None
    changed = call.options.model_dump(exclude_defaults=True)
    assert (call.options.num_beams, changed) == (5, {"max_new_tokens": 16, "no_repeat_ngram_size": 3})


def test_options_change_how_a_caption_is_searched(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = scripted(monkeypatch, [EOS])
    ofa.caption(picture(0), num_beams=2, length_penalty=0.5, batch_size=3)
    (call,) = asked
    assert call.options is not None
    assert (call.options.num_beams, call.options.length_penalty, call.options.max_new_tokens) == (2, 0.5, 16)
    assert call.batch_size == 3


def test_a_caption_is_the_best_beam_with_the_others_beside_it(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [" a red circle.", " a circle", " red"]
    scripted(monkeypatch, *([*ofa.tokenizer.encode(text), EOS] for text in texts))
    found = ofa.caption(picture(0))
    assert isinstance(found, Caption)
    assert (found.text, found.alternatives) == ("a red circle.", ("a circle", "red"))
    tokens = len(ofa.tokenizer.encode(texts[0])) + 1
    assert found.score == pytest.approx(math.exp(-0.1))
    assert found.token_scores == pytest.approx([math.exp(-0.1)] * tokens)


def test_captions_of_different_pictures_differ(ofa: OFA) -> None:
    found = ofa.caption([picture(0), picture(1), picture(2)], num_beams=2, max_new_tokens=4)
    assert len({one.score for one in found}) == 3
    for one in found:
        assert 0 < one.score < 1
        assert len(one.token_scores) <= 5


def test_a_search_that_finds_nothing_is_an_empty_caption(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch)
    assert ofa.caption([picture(0)]) == [Caption("", 0.0, (), ())]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a red circle.", "a red circle"),
        ("it's a man, isn't it?", "its a man isnt it"),
        ("well-known (blue) #1 !", "wellknown blue 1"),
        ("a  b", "a  b"),
        ("...", ""),
        ("çà et là", "çà et là"),
    ],
)
def test_benchmarks_score_a_caption_without_punctuation(text: str, plain: str) -> None:
    caption = Caption(text)
    assert caption.without_punctuation == plain
    assert caption.text == text


# Regions


@pytest.mark.parametrize(
    ("image_size", "max_image_size", "bins"),
    [
        (64, 64, [100, 250, 500, 749]),
        (64, 128, [50, 125, 250, 375]),
    ],
)
def test_a_region_is_described_by_its_bins_in_the_convention_of_captions(
    monkeypatch: pytest.MonkeyPatch, image_size: int, max_image_size: int, bins: list[int]
) -> None:
    task = TaskSettings(image_size=image_size, max_image_size=max_image_size, code_dict_size=0)
    ofa = lively_ofa(task=task)
    size = {"width": 999, "height": 400}
    box = (100, 100, 500, 300)
    asked = scripted(monkeypatch, [*ofa.tokenizer.encode(" a red circle"), EOS])
    found = ofa.describe_region(picture(0, **size), box)
    bin_start = len(ofa.tokenizer) - 1000
    question = ofa.tokenizer.encode("  what does the region describe? region:")
    assert asked[0].sources == [[BOS, *question, *(bin_start + number for number in bins), EOS]]
    assert type(found) is Text
    assert found.text == "a red circle"


def test_a_prompt_is_followed_by_the_region(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = scripted(monkeypatch, [EOS])
    ofa.describe_region(picture(0, 64, 64), (0, 0, 32, 64), prompt=" what is at")
    bin_start = len(ofa.tokenizer) - 1000
    bins = [bin_start, bin_start, bin_start + 500, bin_start + 999]  # 499.5 rounds to even
    assert asked[0].sources == [[BOS, *ofa.tokenizer.encode(" what is at"), *bins, EOS]]


def test_a_description_depends_on_the_region(ofa: OFA) -> None:
    boxes = [(0, 0, 30, 30), (10, 20, 90, 60), (50, 5, 60, 55)]
    found = ofa.describe_region([picture(0)] * 3, boxes, num_beams=2, max_new_tokens=4)
    assert len({one.score for one in found}) == 3


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((10, 10, 91, 20), r"box \(10, 10, 91, 20\) is not 0 <= x0 < x1 <= 90 and 0 <= y0 < y1 <= 60"),
        ((-1, 0, 5, 5), r"box \(-1, 0, 5, 5\) is not 0 <= x0"),
        ((5, 5, 5, 9), r"box \(5, 5, 5, 9\) is not 0 <= x0 < x1"),
        ((9, 5, 5, 9), r"box \(9, 5, 5, 9\) is not 0 <= x0 < x1"),
        ((1, 2, 3), r"a box is \(x0, y0, x1, y1\), not \(1, 2, 3\)"),
        ("left", r"a box is \(x0, y0, x1, y1\), not 'left'"),
        (None, r"a box is \(x0, y0, x1, y1\), not None"),
        ((float("nan"), 0, 5, 5), r"is not 0 <= x0"),
    ],
    ids=repr,
)
def test_a_box_that_is_none_of_the_picture_is_refused(ofa: OFA, box: Any, message: str) -> None:
    with pytest.raises(OFAError, match=message):
        ofa.describe_region(picture(0), box)
