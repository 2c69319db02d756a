"""How arguments pair up: the functions, and every method of OFA with one picture, with many and with wrong ones."""

from __future__ import annotations

import inspect
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import assert_same, lively_ofa, picture

from ofa_core import OFA, OFAError
from ofa_core.config import ClassificationHeadConfig
from ofa_core.heads.arguments import as_list, image_list, listed, one_per_image, pair_up, unwrap

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


@pytest.mark.parametrize(
    "values",
    [
        ["a", "b"],
        ("a", "b"),
        iter(["a", "b"]),
        {"a": 1, "b": 2}.keys(),
        np.array(["a", "b"]),
        np.array(["a", "b"], dtype=object),
        type("Series", (), {"__iter__": lambda self: iter(["a", "b"])})(),
    ],
    ids=["list", "tuple", "generator", "keys", "array", "object array", "series"],
)
def test_anything_that_gives_things_is_many(values: Any) -> None:
    assert listed(values) == ["a", "b"]


@pytest.mark.parametrize("value", ["ab", b"ab", {"a": 1}, 7, None, 1.5, np.array("ab")], ids=repr)
def test_one_thing_is_one(value: object) -> None:
    assert listed(value) is None


def test_a_set_is_refused() -> None:
    for use in (listed, image_list):
        with pytest.raises(OFAError, match=r"^a set of 2 has no order; it should be a list$"):
            use({"a", "b"})


def test_a_table_is_refused() -> None:
    table = type("DataFrame", (), {"columns": ["image"], "__iter__": lambda self: iter(["image"])})()
    for use in (listed, image_list):
        with pytest.raises(OFAError, match=r"^a DataFrame is a table; it should be one of its columns$"):
            use(table)


@pytest.mark.parametrize(
    ("images", "count"),
    [
        (np.zeros((2, 9, 9, 3)), 2),
        (torch.zeros(1, 3, 9, 9), 1),
        (np.array(["a.png", "b.png"]), 2),
        (map(str, range(3)), 3),
        (np.zeros((9, 9, 3)), None),
        (np.zeros((9, 9)), None),
        (torch.zeros(3, 9, 9), None),
        (io.BytesIO(b"lines\nof a file"), None),
        (b"ab", None),
        (bytearray(b"ab"), None),
        ({"bytes": b"", "path": None}, None),
        (Path("a"), None),
    ],
    ids=range(12),
)
def test_an_array_of_one_picture_is_one_and_a_batch_is_many(images: Any, count: int | None) -> None:
    found = image_list(images)
    assert (None if found is None else len(found)) == count


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
    "ground sure": Case("ground", {"text": TEXTS}, {"num_beams": 2, "bins_only": True, "decode": "mbr", "all": True}),
    "ground_caption": Case("ground_caption", {"text": TEXTS}, {"confidence": True}, searches=False),
    "explain": Case("explain", {"text": TEXTS}, searches=False),
    "explain answer": Case(
        "explain", {"text": TEXTS, "answer": TEXTS[::-1]}, {"gradients": True, "prompt": "what is {caption}?"},
        searches=False,
    ),
    "detect": Case("detect", {}, {"categories": ["dog", "cars"], "style": "tio", "num_beams": 2, "max_new_tokens": 8}),
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
    "agent_turn ambiguity": Case("agent_turn", {"dialog": TURNS}, {"ambiguity": True, **SHORT}),
    "agent_turn decided": Case("agent_turn", {"dialog": TURNS}, {"ask_above": 1.0, **SHORT}),
    "caption": Case("caption", {}, SHORT),
    "describe_region": Case("describe_region", {"box": BOXES}, SHORT),
    "answer": Case("answer", {"question": TEXTS}, LONG),
    "answer objects": Case("answer", {"question": TEXTS, "objects": [["car"], None, ["dog", "cat"]]}, LONG),
    "answer box": Case("answer", {"question": TEXTS, "box": BOXES}, LONG),
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
    "is_present": Case("is_present", {"text": TEXTS}, searches=False),
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


#: Methods that take no list, and those that need a network of image codes: see test_image_generation.py.
OF_NO_LIST = {
    "to",
    "refresh",
    "warm_up",
    "chat",
    "save",
    "push_to_hub",
    "imagine",
    "infill",
    "encode_image",
    "decode_codes",
}


def test_every_method_is_tested_here() -> None:
    public = {name for name, _ in inspect.getmembers(OFA, inspect.isfunction) if not name.startswith("_")}
    assert {case.method for case in CASES.values()} == public - OF_NO_LIST


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


# Lists of any kind


@pytest.mark.parametrize("name", CASES)
def test_iterators_give_the_answers_of_lists(ofa: OFA, images: list[Any], name: str) -> None:
    case = CASES[name]
    expected = call(ofa, case, images)
    arguments: dict[str, Any] = {what: iter(values) for what, values in case.each.items()}
    given = {"image": (image for image in images)} if case.image else {}
    found = getattr(ofa, case.method)(**given, **arguments, **case.same)
    assert isinstance(found, Iterator)
    found = list(found)
    if name == "look":  # a picture of a generator is not kept
        found, expected = [one.features for one in found], [one.features for one in expected]
    assert_same(found, expected)


def test_an_iterator_is_read_a_batch_ahead(ofa: OFA, images: list[Any]) -> None:
    read = []

    def pictures() -> Iterator[Any]:
        for number in range(10_000):
            read.append(number)
            yield images[number % len(images)]

    found = ofa.ground(pictures(), "a dog", batch_size=2, num_beams=1)
    assert read == []
    first, second, third = (next(found) for _ in range(3))
    assert read == [0, 1, 2, 3]
    expected = ofa.ground(images, "a dog", num_beams=1)
    assert_same([first, second, third], expected)


def test_lists_and_iterators_go_along(ofa: OFA, images: list[Any]) -> None:
    expected = ofa.ground(images, TEXTS, num_beams=1)
    assert_same(list(ofa.ground(iter(images), TEXTS, batch_size=2, num_beams=1)), expected)
    assert_same(list(ofa.ground(images, iter(TEXTS), batch_size=2, num_beams=1)), expected)
    assert_same(list(ofa.ground(images[0], iter(TEXTS), num_beams=1)), ofa.ground(images[0], TEXTS, num_beams=1))
    with pytest.raises(OFAError, match=r"^text ended after 2 samples, and image goes on: they do not pair up$"):
        list(ofa.ground(iter(images), TEXTS[:2], num_beams=1))
    with pytest.raises(OFAError, match=r"^an empty iterator was given: at least one sample is needed$"):
        list(ofa.ground(iter([]), "a dog"))
    with pytest.raises(OFAError, match=r"^batch_size must be at least 1, not 0$"):
        ofa.ground(iter(images), "a dog", batch_size=0)


def test_an_open_file_is_a_picture(ofa: OFA) -> None:
    file = io.BytesIO()
    picture(1).save(file, "PNG")
    assert_same(ofa.caption(file, **SHORT), ofa.caption(picture(1), **SHORT))


def test_an_iterator_goes_on_behind_what_is_skipped(
    ofa: OFA, images: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = [images[0], b"no picture", images[1], b"none", images[2]]
    with pytest.warns(UserWarning, match="was skipped") as told:
        found = list(ofa.ground(iter(mixed), "a dog", batch_size=2, num_beams=1, on_error="skip", progress=True))
    assert [one is None for one in found] == [False, True, False, True, False]
    assert [str(one.message)[:20] for one in told if "skipped" in str(one.message)] == [
        "sample 1 was skipped",
        "sample 3 was skipped",
    ]
    assert "5sample" in capsys.readouterr().err.replace(" ", "")
    with (
        pytest.warns(UserWarning, match="was skipped"),
        pytest.raises(OFAError, match=r"^none of 3 samples could be answered: "),
    ):
        list(ofa.ground(iter([b"none"] * 3), "a dog", batch_size=2, on_error="skip"))


def test_arrays_hold_texts_answers_and_boxes(ofa: OFA, images: list[Any]) -> None:
    texts, answers, boxes = np.array(TEXTS), np.array(LABELS), np.array(BOXES)
    assert_same(ofa.ground(images, texts, num_beams=2), ofa.ground(images, TEXTS, num_beams=2))
    assert_same(ofa.classify(images, answers), ofa.classify(images, LABELS))
    assert_same(
        ofa.describe_region(images, torch.from_numpy(boxes), **SHORT), ofa.describe_region(images, BOXES, **SHORT)
    )
    assert_same(ofa.describe_region(images[0], boxes[0], **SHORT), ofa.describe_region(images[0], BOXES[0], **SHORT))


# Long lists


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].method != "look"])
def test_what_cannot_be_answered_is_skipped_where_that_is_asked(
    ofa: OFA, images: list[Any], name: str, tmp_path: Path
) -> None:
    case = CASES[name]
    damaged = tmp_path / "damaged.png"
    images[1].save(damaged)
    damaged.write_bytes(damaged.read_bytes()[:400])
    expected = call(ofa, case, images)
    for bad in ("nowhere.png", damaged) if case.image else ():
        with pytest.warns(UserWarning, match=r"^sample 1 was skipped: image .*(nowhere|damaged)\.png"):
            found = call(ofa, case, [images[0], bad, images[2]], batch_size=2, on_error="skip")
        assert found[1] is None
        assert_same([found[0], found[2]], [expected[0], expected[2]])
    if "text" in case.each:
        texts = {**case.each, "text": [case.each["text"][0], " ", case.each["text"][2]]}
        given = {"image": images} if case.image else {}
        with pytest.warns(UserWarning, match="^sample 1 was skipped: "):
            found = getattr(ofa, case.method)(**given, **texts, **case.same, on_error="skip")
        assert found[1] is None
        assert_same(found[0], expected[0])
    assert_same(call(ofa, case, images, batch_size=2, on_error="skip"), expected)


def test_one_picture_may_be_skipped_too(ofa: OFA) -> None:
    with pytest.warns(UserWarning, match="nowhere"):
        assert ofa.caption("nowhere.png", on_error="skip") is None


def test_if_all_fail_for_one_reason_it_is_an_error(ofa: OFA, images: list[Any]) -> None:
    with (
        pytest.warns(UserWarning, match="skipped"),
        pytest.raises(
            OFAError, match=r"^none of 3 samples could be answered: this model|^none of 3 samples .*: there is no"
        ),
    ):
        ofa.head_probabilities("nothing", TEXTS, images, on_error="skip")


def test_another_way_with_errors_is_refused(ofa: OFA, images: list[Any]) -> None:
    with pytest.raises(OFAError, match=r"^on_error is 'raise' or 'skip', not 'ignore'$"):
        ofa.caption(images, on_error="ignore")  # type: ignore[call-overload]


def test_pictures_are_read_when_their_turn_comes(
    ofa: OFA, images: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(6)]
    for path in paths:
        images[0].save(path)
    events: list[str] = []
    read, encode = ofa.pipeline.transform.open, ofa.model.encode
    monkeypatch.setattr(ofa.pipeline.transform, "open", lambda image: (events.append("read"), read(image))[1])
    monkeypatch.setattr(ofa.model, "encode", lambda *args, **more: (events.append("run"), encode(*args, **more))[1])
    ofa.caption(paths, batch_size=2, **SHORT)
    assert events.count("read") == 6
    runs = [place for place, event in enumerate(events) if event == "run"]
    assert len(runs) == 3
    for done, place in enumerate(runs):  # a batch is there before it runs, and at most the next one beside it
        assert 2 * (done + 1) <= events[:place].count("read") <= 2 * (done + 2)


def test_a_picture_is_read_once_though_its_size_is_needed(
    ofa: OFA, images: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images[0].save(tmp_path / "a.png")
    reads: list[Any] = []
    read = ofa.pipeline.transform.open
    monkeypatch.setattr(ofa.pipeline.transform, "open", lambda image: (reads.append(image), read(image))[1])
    assert ofa.ground(tmp_path / "a.png", "it", bins_only=True, num_beams=2).box is not None
    ofa.describe_region(tmp_path / "a.png", (1, 2, 30, 40), **SHORT)
    assert len(reads) == 2


def test_a_bar_tells_how_far_a_call_has_come(ofa: OFA, images: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    ofa.caption(images, **SHORT)
    assert capsys.readouterr().err == ""
    for on_error in ("raise", "skip"):
        ofa.caption(images, progress=True, on_error=on_error, **SHORT)  # type: ignore[call-overload]
        shown = capsys.readouterr().err
        assert "answered" in shown
        assert "3/3" in shown
