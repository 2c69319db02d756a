"""How arguments pair up: the functions, and every method of OFA with one picture, with many and with wrong ones."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from reference import assert_same, lively_ofa, picture

from ofa_core import OFA, OFAError
from ofa_core.config import ClassificationHeadConfig
from ofa_core.heads.arguments import as_list, is_sequence, one_per_image, pair_up, unwrap

# The functions


@pytest.mark.parametrize(
    ("image", "text", "images", "texts", "single"),
    [
        ("A", "a", ["A"], ["a"], True),
        (["A"], "a", ["A"], ["a"], False),
        ("A", ["a"], ["A"], ["a"], False),
        (["A", "B"], "a", ["A", "B"], ["a", "a"], False),
        ("A", ["a", "b"], ["A", "A"], ["a", "b"], False),
        (("A", "B"), ("a", "b"), ["A", "B"], ["a", "b"], False),
        (["A"], ["a"], ["A"], ["a"], False),
        (None, ["a", "b"], [None, None], ["a", "b"], False),
        (None, "a", [None], ["a"], True),
    ],
)
def test_one_of_either_goes_with_all_of_the_other(
    image: Any, text: Any, images: list[Any], texts: list[str], single: bool
) -> None:
    assert pair_up(image, text) == (images, texts, single)


@pytest.mark.parametrize(
    ("image", "text", "message"),
    [
        (["A", "B"], ["a"], "^2 images and 1 texts do not pair up$"),
        (["A"], ["a", "b"], "^1 images and 2 texts do not pair up$"),
        (["A"], [], "^1 images and 0 texts do not pair up$"),
        ([], "a", "^an empty list was given: at least one image and one text are needed$"),
        ("A", [], "^an empty list was given"),
        ([], [], "^an empty list was given"),
        ("A", 7, "^a text must be a string, not int$"),
        ("A", None, "^a text must be a string, not NoneType$"),
        ("A", ["a", 1.5], "^a text must be a string, not float$"),
        ("A", [["a"]], "^a text must be a string, not list$"),
    ],
)
def test_what_does_not_pair_up_is_refused(image: Any, text: Any, message: str) -> None:
    with pytest.raises(OFAError, match=message):
        pair_up(image, text)


def test_pictures_are_listed() -> None:
    assert as_list("A") == (["A"], True)
    assert as_list(["A", "B"]) == (["A", "B"], False)
    assert as_list(("A",)) == (["A"], False)
    with pytest.raises(OFAError, match=r"^an empty list was given: at least one image is needed$"):
        as_list([])


def test_a_list_the_caller_passed_is_not_the_one_that_is_used() -> None:
    images, boxes = ["A", "B"], [(1, 2), (3, 4)]
    assert as_list(images)[0] is not images
    assert pair_up(images, "a")[0] is not images
    assert one_per_image(boxes, 2, False, "boxes") is not boxes


def test_a_single_picture_has_a_single_value_whatever_it_is() -> None:
    assert one_per_image((1, 2, 3, 4), 1, True, "boxes") == [(1, 2, 3, 4)]
    assert one_per_image([], 1, True, "dialogs") == [[]]


@pytest.mark.parametrize("value", [[1], [1, 2, 3], [], 7, None, "ab"], ids=repr)
def test_many_pictures_need_a_value_each(value: Any) -> None:
    assert one_per_image([1, 2], 2, False, "boxes") == [1, 2]
    with pytest.raises(OFAError, match=r"^2 images need a list of 2 boxes, one for each$"):
        one_per_image(value, 2, False, "boxes")


def test_results_are_a_list_where_arguments_were() -> None:
    assert unwrap(("x",), True) == "x"
    assert unwrap(("x",), False) == ["x"]
    assert unwrap(["x", "y"], False) == ["x", "y"]


@pytest.mark.parametrize(("value", "many"), [([], True), ((), True), ("ab", False), ({}, False), (range(3), False)])
def test_lists_and_tuples_are_many(value: object, many: bool) -> None:
    assert is_sequence(value) is many


# Every method


@dataclass(frozen=True)
class Case:
    """A way to call a method: what each picture has of its own, and what is the same for all of them."""

    method: str
    each: dict[str, list[Any]] = field(default_factory=dict)
    same: dict[str, Any] = field(default_factory=dict)
    image: bool = True  # whether it takes pictures
    searches: bool = True  # whether it takes generation options


SHORT = {"num_beams": 2, "max_new_tokens": 4}
LONG = {"num_beams": 2, "max_new_tokens": 40}  # leaves room for the questions that the decoder starts from
SIZES = [(60, 90), (33, 70), (80, 40)]
TEXTS = ["a dog", "is the man in white on the left of the red car or on its right?", "red"]
BOXES = [(9, 15, 45, 60), (0, 0, 70, 33), (1.5, 2.5, 30, 40)]
PAIRS = [[("is it a dog?", "no")], [], [("is it red?", "yes"), ("on the left?", "no")]]
TURNS = [["the cup"], ["the red one", "which?", "left"], ["it"]]
LABELS = ["red", "not red", "blue car"]

CASES = {
    "look": Case("look", searches=False),
    "ground": Case("ground", {"text": TEXTS}, {"num_beams": 2}),
    "ground bins": Case("ground", {"text": TEXTS}, {"num_beams": 2, "bins_only": True}),
    "ground_dialog": Case("ground_dialog", {"dialog": TURNS}, SHORT),
    "ground_dialog invig": Case("ground_dialog", {"dialog": TURNS}, {"style": "invig", **SHORT}),
    "oracle": Case("oracle", {"box": BOXES, "dialog": PAIRS, "question": TEXTS}),
    "oracle candidates": Case(
        "oracle",
        {"box": BOXES, "dialog": PAIRS, "question": TEXTS},
        {"answers": LABELS, "scoring": "candidates"},
    ),
    "oracle invig": Case(
        "oracle", {"box": BOXES, "dialog": TURNS, "question": TEXTS}, {"style": "invig", **SHORT}
    ),
    "query": Case("query", {"box": BOXES}, SHORT),
    "ask": Case("ask", {"dialog": PAIRS}, SHORT),
    "ask invig": Case("ask", {"dialog": TURNS}, {"style": "invig", **SHORT}),
    "agent_turn": Case("agent_turn", {"dialog": TURNS}, SHORT),
    "caption": Case("caption", {}, SHORT),
    "describe_region": Case("describe_region", {"box": BOXES}, SHORT),
    "answer": Case("answer", {"question": TEXTS}, LONG),
    "answer objects": Case("answer", {"question": TEXTS, "objects": [["car"], None, ["dog", "cat"]]}, LONG),
    "answer candidates": Case("answer", {"question": TEXTS}, {"candidates": LABELS}),
    "answer beam": Case("answer", {"question": TEXTS}, {"candidates": LABELS, "method": "beam", "num_beams": 2}),
    "entails": Case("entails", {"text": TEXTS}, searches=False),
    "entails caption": Case("entails", {"text": TEXTS, "caption": TEXTS[::-1]}, searches=False),
    "classify": Case("classify", {}, {"labels": LABELS}, searches=False),
    "head_probabilities": Case("head_probabilities", {"text": TEXTS}, {"head": "cls"}, searches=False),
    "head_probabilities text": Case(
        "head_probabilities", {"text": TEXTS}, {"head": "cls"}, image=False, searches=False
    ),
    "summarize": Case("summarize", {"text": TEXTS}, SHORT, image=False),
    "read": Case("read", {}, SHORT),
    "read document": Case("read", {}, {"document": True, **SHORT}),
    "judge": Case("judge", {"text": TEXTS}, {"task": "cola"}, image=False, searches=False),
    "judge pair": Case("judge", {"text": TEXTS, "text2": TEXTS[::-1]}, {"task": "qqp"}, image=False, searches=False),
    "matches": Case("matches", {"text": TEXTS}, searches=False),
    "is_answer": Case("is_answer", {"question": TEXTS, "answer": TEXTS[::-1]}, searches=False),
    "complete": Case("complete", {"text": [f"{text} <mask>" for text in TEXTS]}, SHORT, image=False),
    "generate": Case("generate", {"text": TEXTS}, SHORT),
    "generate text": Case("generate", {"text": TEXTS}, SHORT, image=False),
}  # fmt: skip
WITH_PICTURES = [name for name, case in CASES.items() if case.image]


@pytest.fixture(scope="module")
def ofa() -> OFA:
    return lively_ofa(classification_heads={"cls": ClassificationHeadConfig(num_classes=3, inner_dim=16)})


@pytest.fixture(scope="module")
def images() -> list[Any]:
    return [picture(seed, *size) for seed, size in enumerate(SIZES)]


def call(ofa: OFA, case: Case, image: Any, index: int | None = None, **more: Any) -> Any:
    """Call a method with one picture, what belongs to it, or with all of them."""
    each = {name: values if index is None else values[index] for name, values in case.each.items()}
    given = {"image": image} if case.image else {}
    return getattr(ofa, case.method)(**given, **each, **{**case.same, **more})


def test_every_method_is_tested_here() -> None:
    public = {name for name, _ in inspect.getmembers(OFA, inspect.isfunction) if not name.startswith("_")}
    assert {case.method for case in CASES.values()} == public - {"refresh"}  # which asks nothing


@pytest.mark.parametrize("name", CASES)
def test_a_list_equals_its_items_one_by_one_in_any_batch_size(ofa: OFA, images: list[Any], name: str) -> None:
    case = CASES[name]
    alone = [call(ofa, case, image, index) for index, image in enumerate(images)]
    together = call(ofa, case, images)
    assert isinstance(together, list)
    assert_same(together, alone)
    for one, other in ((0, 1), (1, 2), (0, 2)):
        with pytest.raises(AssertionError):
            assert_same(alone[one], alone[other])
    if case.method != "look":
        assert_same(call(ofa, case, images, batch_size=2), alone)


@pytest.mark.parametrize("name", WITH_PICTURES)
def test_a_look_in_place_of_a_picture_gives_the_same(ofa: OFA, images: list[Any], name: str) -> None:
    case = CASES[name]
    looks = ofa.look(images)
    assert_same(call(ofa, case, looks), call(ofa, case, images))
    assert_same(call(ofa, case, looks[1], 1), call(ofa, case, images[1], 1))
    assert_same(call(ofa, case, [images[0], looks[1], images[2]]), call(ofa, case, images))


@pytest.mark.parametrize("name", CASES)
def test_an_option_that_does_not_exist_is_refused_by_name(ofa: OFA, images: list[Any], name: str) -> None:
    error = OFAError if CASES[name].searches else TypeError
    message = "^beams: there is no such setting$" if CASES[name].searches else "'beams'"
    with pytest.raises(error, match=message):
        call(ofa, CASES[name], images, beams=3)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.searches])
def test_an_option_out_of_range_is_refused(ofa: OFA, images: list[Any], name: str) -> None:
    with pytest.raises(OFAError, match=r"^num_beams: "):
        call(ofa, CASES[name], images, num_beams=0)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.method != "look"])
def test_a_batch_size_of_nothing_is_refused(ofa: OFA, images: list[Any], name: str) -> None:
    with pytest.raises(OFAError, match=r"^batch_size must be at least 1, not 0$"):
        call(ofa, CASES[name], images, batch_size=0)


@pytest.mark.parametrize("name", WITH_PICTURES)
def test_a_picture_that_cannot_be_read_is_refused(ofa: OFA, images: list[Any], name: str, tmp_path: Path) -> None:
    text_file = tmp_path / "notes.png"
    text_file.write_text("no picture")
    for bad, message in (
        ("nowhere.png", r"^image nowhere\.png does not exist$"),
        (text_file, r"^image .*notes\.png cannot be read: it is not a picture in a known format$"),
        (7, "^an image is a path, a PIL image, an array or a tensor, not int$"),
    ):
        with pytest.raises(OFAError, match=message):
            call(ofa, CASES[name], bad, 0)
        with pytest.raises(OFAError, match=message):
            call(ofa, CASES[name], [images[0], images[1], bad])


@pytest.mark.parametrize("name", [name for name in WITH_PICTURES if name != "generate"])
def test_a_missing_picture_among_others_is_refused(ofa: OFA, images: list[Any], name: str) -> None:
    with pytest.raises(OFAError, match=r"^an image is a path, .*, not NoneType$"):
        call(ofa, CASES[name], [images[0], None, images[2]])


@pytest.mark.parametrize("name", CASES)
def test_empty_lists_are_refused(ofa: OFA, name: str) -> None:
    case = CASES[name]
    nothing = {what: [] for what in case.each}
    given = {"image": []} if case.image else {}
    with pytest.raises(OFAError, match=r"^an empty list was given"):
        getattr(ofa, case.method)(**given, **nothing, **case.same)


OF_EACH = [(name, what) for name, case in CASES.items() if case.image for what in case.each]


@pytest.mark.parametrize("count", [0, 2, 4])
@pytest.mark.parametrize(("name", "what"), OF_EACH)
def test_lists_of_different_lengths_are_refused(ofa: OFA, images: list[Any], name: str, what: str, count: int) -> None:
    case = CASES[name]
    wrong = (case.each[what] * 2)[:count]
    with pytest.raises(OFAError, match=r"do not pair up|3 images need a list of 3 [a-z ]+, one for each"):
        getattr(ofa, case.method)(image=images, **{**case.each, what: wrong}, **case.same)


@pytest.mark.parametrize(("name", "what"), [(n, w) for n, w in OF_EACH if w in ("box", "dialog", "caption")])
def test_one_box_or_dialog_or_caption_does_not_go_with_many_pictures(
    ofa: OFA, images: list[Any], name: str, what: str
) -> None:
    case = CASES[name]
    one = {"box": (0, 0, 9, 9), "dialog": [("is it?", "no")], "caption": "a dog"}[what]
    with pytest.raises(OFAError, match=f"3 images need a list of 3 {what if what != 'box' else 'boxe'}s, one for each"):
        getattr(ofa, case.method)(image=images, **{**case.each, what: one}, **case.same)
