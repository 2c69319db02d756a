"""Detection: listings are read and constrained, names are asked for, and the demo model finds its shapes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from reference import assert_same, lively_ofa, picture, scripted

import ofa_core
from ofa_core import OFA, Detection, Detections, OFAError, TaskSettings
from ofa_core.demo.world import draw, make_scene
from ofa_core.generation.logits_processors import Step
from ofa_core.heads import detection
from ofa_core.heads.listing import Listing
from ofa_core.text.vocabulary import BOS, EOS

SIZE = (90, 60)


@pytest.fixture(scope="module")
def ofa() -> OFA:
    return lively_ofa()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> OFA:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        return ofa_core.load("demo")


def ids(ofa: OFA, text: str) -> list[int]:
    return [*ofa.tokenizer.encode(text, symbols=True, keep_spaces=False), EOS]


def listing(ofa: OFA, *parts: str | tuple[int, ...]) -> list[int]:
    """Ids of labels and of bins."""
    found: list[int] = []
    for part in parts:
        encode = ofa.tokenizer.vocabulary.bins_to_ids
        found += ofa.tokenizer.encode(f" {part}") if isinstance(part, str) else encode(part)
    return [*found, EOS]


LEFT, RIGHT = (0, 0, 499, 999), (500, 0, 998, 999)


@pytest.mark.parametrize("label_first", [False, True])
def test_everything_is_read_with_its_label(label_first: bool, ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [("red dog", LEFT), ("green dog", RIGHT)]
    parts = [part for label, box in pairs for part in ((label, box) if label_first else (box, label))]
    asked = scripted(monkeypatch, listing(ofa, *parts))
    found = ofa.detect(picture(0))
    assert isinstance(found, Detections)
    assert asked[0].sources == [ofa.tokenizer.encode(" what are the objects in the image?", add_special_tokens=True)]
    assert [region.label for region in found] == ["red dog", "green dog"]
    assert [region.bins for region in found] == [LEFT, RIGHT]
    assert found[0].score == pytest.approx(math.exp(-0.1))
    assert len(found.named("red dog")) == 1
    assert bool(found)


def test_boxes_are_in_pixels_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    own = lively_ofa(task=TaskSettings(image_size=64, max_image_size=64, code_dict_size=0))
    scripted(monkeypatch, listing(own, (0, 333, 666, 999), "dog"))
    (region,) = own.detect(picture(0))
    assert region.box == pytest.approx((0, 20, 60, 60), abs=1e-4)


def test_nothing_is_false(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [EOS])
    found = ofa.detect(picture(0))
    assert not found
    assert list(found) == []
    assert found.text == ""


def test_more_than_four_bins_are_regions_and_a_rest_is_none(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, listing(ofa, LEFT, "red", RIGHT, "green", (1, 2)))
    assert [region.bins for region in ofa.detect(picture(0))] == [LEFT, RIGHT]
    scripted(monkeypatch, listing(ofa, (*LEFT, *RIGHT), "red", RIGHT, "green"))
    assert [region.label for region in ofa.detect(picture(0))] == ["green"]


def test_duplicates_are_merged_and_the_surer_one_stays() -> None:
    sure = Detection((0, 0, 10, 10), "dog", 0.9, (0, 0, 1, 1), ())
    same = Detection((0, 0, 10, 9), "dog", 0.5, (0, 0, 1, 1), ())
    other = Detection((0, 0, 10, 9), "cat", 0.5, (0, 0, 1, 1), ())
    apart = Detection((0, 0, 10, 5), "dog", 0.5, (0, 0, 1, 1), ())
    assert detection.merged([same, sure, other, apart]) == (sure, other, apart)


def test_things_of_a_name_are_kept_in_the_singular_too(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, listing(ofa, "red dog", LEFT, "cat", RIGHT))
    assert [region.label for region in ofa.detect(picture(0), "dogs")] == ["red dog"]
    assert [region.label for region in ofa.detect(picture(0), ["dog", "cats"])] == ["red dog", "cat"]
    assert [region.label for region in ofa.detect(picture(0), "red")] == []
    assert detection.forms(["boxes", "puppies", "glass", "bus", "benches"]) == [
        *("boxes", "puppies", "glass", "bus", "benches"),
        *("box", "puppy", "bu", "bench"),
    ]


def test_a_label_that_the_model_was_made_to_say_is_not_believed(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    said = listing(ofa, LEFT, "dog")
    unsure = [-0.1] * 4 + [-3.0] * (len(said) - 4)
    scripted(monkeypatch, said, scores=unsure)
    assert not ofa.detect(picture(0), "dog")
    assert len(ofa.detect(picture(0))) == 1


def test_tio_is_asked_for_each_name(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = ids(ofa, " there are 2 dog.\n region: <bin_0> <bin_0> <bin_500> <bin_998>\n region: <bin_500> <bin_0>")
    asked = scripted(monkeypatch, [*answer[:-1], *ofa.tokenizer.vocabulary.bins_to_ids((998, 998)), EOS])
    found = ofa.detect([picture(0), picture(1)], ["dogs", "Mug/Cup"], style="tio")
    texts = [ofa.tokenizer.decode(source) for source in asked[0].sources]
    form = ' \n#instruction: where are {} located?\n#context: ""'
    assert texts == [form.format("dogs"), form.format("mug or cup")] * 2
    assert [region.label for region in found[0]] == ["dogs", "dogs", "Mug/Cup", "Mug/Cup"]
    assert found[0][0].box == pytest.approx((0.09, 0.06, 45, 59.88))


def test_tio_says_that_nothing_is_there(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, ids(ofa, " there is no dog."))
    found = ofa.detect(picture(0), "dog", style="tio")
    assert not found
    assert found.text == "there is no dog."


def test_the_style_is_that_of_the_model() -> None:
    for name, style in (("tio", "tio"), ("refcoco", "ofa")):
        own = lively_ofa(task=TaskSettings(image_size=64, max_image_size=64, code_dict_size=0, name=name))
        assert detection.style_for(own.pipeline, ["dog"], None) == style
        assert detection.style_for(own.pipeline, None, None) == "ofa"


# The rule on the next token


def allowed(rule: Listing, ofa: OFA, said: list[int]) -> set[str]:
    """Kinds of tokens that may follow: the end, a word, or a bin."""
    step = Step(torch.tensor([[[BOS, *said]]]), torch.tensor([0]), 100)
    scores = rule(torch.zeros(1, 1, len(ofa.tokenizer)), step)[0, 0]
    vocabulary = ofa.tokenizer.vocabulary
    free = [token for token in range(len(ofa.tokenizer)) if scores[token] == 0]
    kinds = {"end" if t == EOS else "bin" if vocabulary.bin_of(t) is not None else "word" for t in free}
    if any(token < 4 and token != EOS for token in free):
        kinds.add("special")
    return kinds


@pytest.mark.parametrize(
    ("parts", "kinds"),
    [
        ((), {"end", "word", "bin"}),
        (((5,),), {"bin"}),
        (((5, 5, 9),), {"bin"}),
        (((5, 5, 9, 9),), {"word"}),
        (((5, 5, 9, 9), "dog"), {"end", "word", "bin"}),
        (("dog",), {"word", "bin"}),
        (("dog", (5, 5)), {"bin"}),
        (("dog", (5, 5, 9, 9)), {"end", "word"}),
    ],
)
def test_a_listing_is_boxes_and_labels_in_turn(parts: Any, kinds: set[str], ofa: OFA) -> None:
    rule = Listing(ofa.tokenizer.vocabulary)
    assert allowed(rule, ofa, listing(ofa, *parts)[:-1]) == kinds


def test_corners_are_in_order(ofa: OFA) -> None:
    rule = Listing(ofa.tokenizer.vocabulary)
    vocabulary = ofa.tokenizer.vocabulary
    for said, expected in (((), range(999)), ((7, 8), range(8, 1000)), ((7, 8, 9), range(9, 1000))):
        prefix = [BOS, *vocabulary.bins_to_ids(said)]
        scores = rule(torch.zeros(1, 1, len(ofa.tokenizer)), Step(torch.tensor([[prefix]]), torch.tensor([0]), 100))
        bins = scores[0, 0, vocabulary.bin_start : vocabulary.bin_end]
        assert (bins == 0).nonzero()[:, 0].tolist() == list(expected)


def test_labels_are_chosen_from_the_names(ofa: OFA) -> None:
    names = [ofa.tokenizer.encode(f" {name}") for name in ("red dog", "red", "cat")]
    rule = Listing(ofa.tokenizer.vocabulary, names)
    box = ofa.tokenizer.vocabulary.bins_to_ids(LEFT)

    def following(said: list[int]) -> list[int]:
        step = Step(torch.tensor([[[BOS, *said]]]), torch.tensor([0]), 100)
        scores = rule(torch.zeros(1, 1, len(ofa.tokenizer)), step)[0, 0]
        return [token for token in (scores == 0).nonzero()[:, 0].tolist() if token < ofa.tokenizer.vocabulary.mask]

    assert set(following(box)) == {name[0] for name in names}
    red = names[1]
    assert set(following([*box, *red])) == {EOS, names[0][len(red)]}
    assert following([*box, *names[0]]) == [EOS]


# With a model


def test_a_list_gives_what_single_pictures_give(ofa: OFA) -> None:
    pictures = [picture(0), picture(1, 40, 30), picture(2)]
    found = ofa.detect(pictures, batch_size=2, max_new_tokens=40)
    assert any(found)
    for one, alone in zip(found, (ofa.detect(image, max_new_tokens=40) for image in pictures), strict=True):
        assert_same(one, alone)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no names": ({"categories": []}, "the list of categories is empty"),
    "an empty name": ({"categories": ["dog", " "]}, "category 1 is ' '"),
    "a number": ({"categories": [3]}, "category 0 is 3"),
    "style": ({"categories": "dog", "style": "yolo"}, "style is 'ofa' or 'tio', not 'yolo'"),
    "everything of TiO": ({"style": "tio"}, "pass categories"),
    "prompt": ({"categories": "dog", "style": "tio", "prompt": "what?"}, "goes with style='ofa' alone"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use_is_refused(name: str, ofa: OFA) -> None:
    arguments, message = WRONG[name]
    with pytest.raises(OFAError, match=message):
        ofa.detect(picture(0), **arguments)


def test_the_demo_model_finds_its_shapes(demo: OFA) -> None:
    scenes = [make_scene(seed, "test") for seed in range(5_000_000, 5_000_030)]
    found = demo.detect([draw(scene) for scene in scenes])
    right = 0
    for regions, scene in zip(found, scenes, strict=True):
        left = list(scene.things)
        for region in regions:
            thing = next(
                (t for t in left if t.name == region.label and detection.overlap(t.box, region.box) >= 0.5), None
            )
            if thing is not None:
                left.remove(thing)
                right += 1
    f1 = 2 * right / (sum(map(len, found)) + sum(len(scene.things) for scene in scenes))
    assert f1 > 0.7  # 0.784 on 150 others
