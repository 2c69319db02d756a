"""Results show themselves, and do not change: pictures, JSON, COCO rows, hashes, pickles."""

from __future__ import annotations

import base64
import copy
import dataclasses
import io
import json
import pickle
import re
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reference import lively_ofa, synth

from ofa_core import OFA, Answer, Detection, Detections, Grounding, Match, OFAError, TaskSettings, Text
from ofa_core.heads.showing import Pictured, Probabilities, Result, cropped

TASK = TaskSettings(image_size=64, max_image_size=64, code_dict_size=0, prompt_type="none")
OFA_MODEL = lively_ofa(task=TASK)
BOX = (10.0, 12.5, 40.0, 50.0)
FOUND = Grounding(box=BOX, score=0.5, token_scores=(0.5,), bins=(1, 2, 3, 4), text="<bin_1>")
NOTHING = Grounding(box=None, score=0.5, token_scores=(0.5,), bins=None, text="none", present=0.1)
SEVERAL = Detections(
    (Detection(BOX, "red circle", 0.9, (1, 2, 3, 4), ()), Detection((0.0, 0.0, 5.0, 5.0), "ring", 0.4, (), ())), "said"
)
RESULTS: dict[str, Pictured] = {
    "box": FOUND,
    "no box": NOTHING,
    "several": SEVERAL,
    "text": Text("a dog"),
    "answer": Answer("yes", 0.75, {"yes": 0.75, "no": 0.25}),
    "match": Match("no", 0.9, {"yes": 0.1, "no": 0.9}),
}


class Held:
    """A picture that is read again."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image


def picture(width: int = 120, height: int = 100) -> Image.Image:
    return Image.fromarray(synth.synth_image(height, width, 3))


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_compared_hashed_copied_and_pickled_by_their_values(name: str) -> None:
    result = RESULTS[name]
    again = pickle.loads(pickle.dumps(result))
    assert again == result
    assert hash(again) == hash(result)
    assert result.about(Held(picture()), "asked") == result
    assert copy.copy(result) is copy.deepcopy(result) is result
    assert len({result, again}) == 1


@pytest.mark.parametrize("name", RESULTS)
def test_results_do_not_change(name: str) -> None:
    result = RESULTS[name]
    for field in dataclasses.fields(result):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result, field.name, None)
    if isinstance(result, Answer):
        with pytest.raises(TypeError):
            result.probabilities["yes"] = 1.0  # type: ignore[index]


@pytest.mark.parametrize("name", RESULTS)
def test_json_holds_every_field_and_no_picture(name: str) -> None:
    result = RESULTS[name].about(Held(picture()), "asked")
    told = json.loads(result.to_json())
    assert told == json.loads(json.dumps(result.to_dict()))
    assert told.keys() == {f.name for f in dataclasses.fields(result)} - {"picture", "asked"}


def test_json_of_boxes_and_of_results_within_results() -> None:
    assert FOUND.to_dict()["box"] == list(BOX)
    assert SEVERAL.to_dict()["regions"][0] == {
        "box": list(BOX), "label": "red circle", "score": 0.9, "bins": [1, 2, 3, 4], "token_scores": [],
    }  # fmt: skip
    assert RESULTS["answer"].to_dict()["probabilities"] == {"yes": 0.75, "no": 0.25}
    assert Text("a", float("nan")).to_dict()["score"] is None


def test_probabilities_are_a_mapping_in_their_order() -> None:
    given = {"b": 0.25, "a": 0.75}
    frozen = Probabilities(given)
    assert frozen == given
    assert list(frozen) == ["b", "a"]
    assert repr(frozen) == repr(given)
    given["a"] = 0.0
    assert frozen["a"] == 0.75


def test_the_drawn_picture_has_its_boxes_and_its_size() -> None:
    before = picture()
    drawn = FOUND.draw(before)
    assert drawn.size == before.size
    differs = (np.asarray(drawn) != np.asarray(before)).any(-1)
    assert differs[14, 15:35].all()
    assert not differs[20:45, 15:35].any()
    assert np.array_equal(np.asarray(NOTHING.draw(before)), np.asarray(before))
    assert FOUND.draw(before, scale=3).size == (360, 300)


def test_a_result_without_its_picture_asks_for_it() -> None:
    for ask in (FOUND.draw, FOUND.crop):
        with pytest.raises(OFAError, match=r"^this result does not hold its picture: pass it as image$"):
            ask()


def test_the_crop_is_the_part_in_the_box() -> None:
    image = picture()
    crop = FOUND.crop(image)
    assert crop is not None
    assert np.array_equal(np.asarray(crop), np.asarray(image)[12:50, 10:40])
    wider = FOUND.crop(image, margin=10.0)
    assert wider is not None
    assert wider.size == image.size
    assert NOTHING.crop(image) is None
    assert cropped(image, (119.9, 99.9, 130.0, 130.0)).size == (1, 1)


def test_coco_rows() -> None:
    assert FOUND.to_coco(7) == [{"image_id": 7, "category_id": 1, "bbox": [10.0, 12.5, 30.0, 37.5], "score": 0.5}]
    assert [row["category_id"] for row in SEVERAL.to_coco("a", {"red circle": 3, "ring": 9})] == [3, 9]
    assert NOTHING.to_coco(7) == []
    with pytest.raises(OFAError, match="category_id has no number for the label 'ring'"):
        SEVERAL.to_coco(1, {"red circle": 3})


def test_supervision_detections() -> None:
    pytest.importorskip("supervision", reason="supervision is not installed")
    found: Any = SEVERAL.to_supervision()
    assert found.xyxy.tolist() == [list(BOX), [0.0, 0.0, 5.0, 5.0]]
    assert found.confidence.tolist() == pytest.approx([0.9, 0.4])
    assert list(found.data["class_name"]) == ["red circle", "ring"]
    assert len(NOTHING.to_supervision()) == 0


def test_without_supervision_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(OFAError, match="pip install supervision"):
        SEVERAL.to_supervision()


def shown_picture(page: str) -> Image.Image:
    data = re.search(r"data:image/jpeg;base64,([^\"]+)", page)
    assert data
    return Image.open(io.BytesIO(base64.b64decode(data[1])))


@pytest.mark.parametrize(("size", "longer"), [((120, 100), 480), ((2000, 1000), 800), ((600, 500), 600)])
def test_notebooks_show_the_picture_at_a_size_to_look_at(size: tuple[int, int], longer: int) -> None:
    result = FOUND.about(Held(picture(*size)), "the <b>dog</b> & me")
    page = result._repr_html_()
    assert max(shown_picture(page).size) == longer
    assert "the &lt;b&gt;dog&lt;/b&gt; &amp; me" in page
    assert "<b>" not in page
    assert "(10, 12, 40, 50)" in page
    png = result._repr_png_()
    assert png is not None
    assert max(Image.open(io.BytesIO(png)).size) == longer


@pytest.mark.parametrize("name", RESULTS)
def test_without_a_picture_the_values_are_shown_all_the_same(name: str) -> None:
    page = RESULTS[name]._repr_html_()
    assert "<img" not in page
    assert "<td" in page
    assert RESULTS[name]._repr_png_() is None


def test_a_picture_that_has_gone_is_not_shown(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    found = OFA_MODEL.ground(tmp_path / "a.png", "a dog", max_new_tokens=4)
    (tmp_path / "a.png").unlink()
    assert "<img" not in found._repr_html_()


def calls(ofa: OFA, image: Any) -> dict[str, Any]:
    return {
        "ground": ofa.ground(image, "a dog", max_new_tokens=4),
        "detect": ofa.detect(image, max_new_tokens=8),
        "ground_caption": ofa.ground_caption(image, "a dog"),
        "oracle": ofa.oracle(image, BOX, [], "is it red?"),
        "ask": ofa.ask(image, ["is it red?", "no"], max_new_tokens=4),
        "agent_turn": ofa.agent_turn(image, ["the dog"], max_new_tokens=4),
        "caption": ofa.caption(image, max_new_tokens=4),
        "answer": ofa.answer(image, "is it red?", candidates=["yes", "no"]),
        "is_present": ofa.is_present(image, "a dog"),
        "generate": ofa.generate("what is it?", image, max_new_tokens=4),
    }


@pytest.mark.filterwarnings("ignore:this model was trained")
def test_every_method_gives_results_that_hold_their_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture().save(path)
    for name, result in calls(OFA_MODEL, path).items():
        assert isinstance(result, Result), name
        assert result.draw().size == (120, 100), name
        assert "<img" in result._repr_html_(), name
        assert hash(result) == hash(pickle.loads(pickle.dumps(result))), name
        assert pickle.loads(pickle.dumps(result)).draw().size == (120, 100), name
    assert OFA_MODEL.oracle(path, BOX, [], "is it red?").draw() != picture(), "the region that was asked about"
    assert OFA_MODEL.ground(path, "a dog", max_new_tokens=4).asked == "a dog"


def test_a_list_gives_each_result_its_own_picture_and_pixels_are_not_pickled() -> None:
    first, second = picture(60, 50), picture(30, 80)
    results = OFA_MODEL.ground([first, second], ["a dog", "a cat"], max_new_tokens=4)
    assert [result.draw().size for result in results] == [(60, 50), (30, 80)]
    assert [result.asked for result in results] == ["a dog", "a cat"]
    again = pickle.loads(pickle.dumps(results))
    assert again == results
    with pytest.raises(OFAError, match="does not hold its picture"):
        again[0].draw()


def test_the_pictures_of_a_generator_are_not_held() -> None:
    alive = []

    def pictures() -> Any:
        for _ in range(3):
            image = picture()
            alive.append(weakref.ref(image))
            yield image

    results = list(OFA_MODEL.ground(pictures(), "a dog", max_new_tokens=4))
    assert len(results) == 3
    assert all(one() is None for one in alive)
    assert "<img" not in results[0]._repr_html_()


def test_text_alone_has_no_picture() -> None:
    found = OFA_MODEL.generate("what is it?", max_new_tokens=4)
    assert found.picture is None
    assert "what is it?" in found._repr_html_()


def test_conversations_show_their_picture_and_what_was_said() -> None:
    chat = OFA_MODEL.chat(picture(), max_new_tokens=6)
    assert "<img" in chat._repr_html_()
    turn = chat.say("the <red> one")
    assert "the &lt;red&gt; one" in chat._repr_html_()
    assert "<img" in turn._repr_html_()
    assert turn.asked == "the <red> one"
