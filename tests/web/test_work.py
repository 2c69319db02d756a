"""Work of the tabs without a browser: each step tells something, and the last one holds the model's answer."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from PIL import Image
from reference import lively_ofa
from reference import picture as noise

from ofa_core import OFA, GenerationOptions, OFAError, TaskSettings, Tokenizer
from ofa_core.text import small_vocabulary_dir
from ofa_core.vision.drawing import COLORS
from ofa_core.vision.vqgan import VQGAN, VQGANConfig
from ofa_core.web import games, markup, work
from ofa_core.web.region import marking, parsed_region, region_text

BOX = (10.0, 12.0, 60.0, 50.0)


@pytest.fixture(scope="module")
def ofa() -> OFA:
    return lively_ofa()


def drawing_ofa() -> OFA:
    """A model that draws pictures of 32 pixels, with random weights."""
    tokenizer = Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=32)
    task = TaskSettings(image_size=64, max_image_size=64, code_dict_size=32)
    plain = lively_ofa(tokenizer=tokenizer, code_image_size=32, task=task)
    torch.manual_seed(0)
    config = VQGANConfig(32, (1, 1, 1, 1), 0, (), latent_channels=8, code_dim=8, num_codes=32)
    return OFA(plain.model, plain.tokenizer, vqgan=VQGAN(config).eval().requires_grad_(False))


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return noise(1, 70, 90)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of a few tokens, whatever the weights would say."""
    monkeypatch.setattr(GenerationOptions, "max_length", lambda *_: 6)


def last(steps: work.Steps) -> tuple[str, str]:
    """The last step, behind others that told something, too."""
    found = list(steps)
    assert len(found) > 1
    assert all(told for told, _ in found)
    assert found[-1][0].startswith("done")
    return found[-1]


def test_find_shows_the_model_s_box(ofa: OFA, image: Image.Image) -> None:
    found = ofa.ground(image, "the dog", confidence=True)
    told, shown = last(work.find(ofa, image, " the dog "))
    if found.box is None:
        assert "no box" in told
    else:
        assert markup.box_text(found.box) in shown
        assert shown.count("<img") == 2


def test_ask_shows_the_probability_of_each_candidate(ofa: OFA, image: Image.Image) -> None:
    found = ofa.answer(image, "what is it?", candidates=["dog", "cat"])
    _, shown = last(work.ask(ofa, image, "what is it?", "dog,\n cat", None))
    for name, share in found.probabilities.items():
        assert re.search(rf"{name}</th>.*{share:.1%}", shown)
    free = ofa.answer(image, "what is it?").answer
    assert markup.escape(free or "(no answer)") in last(work.ask(ofa, image, "what is it?", "", None))[1]


def test_a_region_is_described_beside_the_picture(ofa: OFA, image: Image.Image) -> None:
    assert "the region:" not in last(work.describe(ofa, image, None))[1]
    assert "the region:" in last(work.describe(ofa, image, BOX))[1]


def test_detect_lists_what_it_draws(ofa: OFA, image: Image.Image) -> None:
    found = ofa.detect(image)
    assert last(work.detect(ofa, image, ""))[1].count("box ") == len(found)


def test_two_models_stand_beside_each_other(ofa: OFA, image: Image.Image) -> None:
    other = lively_ofa(seed=1)
    models = [("one", ofa), ("two", other)]
    _, shown = last(work.compare(models, image, lambda model, seen: work.describe(model, seen, None)))
    one, two = (markup.escape(model.caption(image).text) for _, model in models)
    first, second = re.findall("<section>(.*?)</section>", shown, re.DOTALL)
    assert one in first
    assert two in second


@pytest.mark.parametrize("game", games.GAMES)
def test_a_game_goes_on_turn_by_turn(ofa: OFA, image: Image.Image, game: str) -> None:
    steps = list(games.watch(ofa, lively_ofa(seed=2), image, BOX, game))
    turns = [shown.count("<li") for _, shown in steps]
    assert turns == sorted(turns)
    assert turns[-1] >= 2
    assert "names no region" in steps[-1][0] or "IoU" in steps[-1][0]


def test_a_conversation_is_the_model_s_own_and_can_be_taken_back(ofa: OFA, image: Image.Image) -> None:
    talk = games.begin(ofa, image, "invig", None)
    chat = ofa.chat(image)
    for said in ("the dog", "the left one"):
        steps = list(games.say(talk, said))
        assert markup.escape(chat.say(said).text or "this one") in steps[-1][1]
    assert len(talk.turns) == 4
    games.take_back(talk)
    chat.undo()
    assert len(talk.turns) == 2
    assert talk.chat.history == chat.history


def test_an_oracle_opens_the_conversation(ofa: OFA, image: Image.Image) -> None:
    talk = games.begin(ofa, image, "invig", BOX)
    opening = ofa.chat(image).as_oracle(BOX).opening
    assert [text for _, text, _ in talk.turns] == ([opening] if opening else [])


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (lambda ofa, image: work.find(ofa, image, " "), "no phrase yet"),
        (lambda ofa, image: work.ask(ofa, image, None, None, None), "no question yet"),
        (lambda ofa, image: work.ask(ofa, image, "what?", "a, a", None), "twice"),
        (lambda ofa, image: games.watch(ofa, ofa, image, None, "x"), "no region is marked"),
        (lambda ofa, image: games.watch(ofa, ofa, image, BOX, "x"), "a game is"),
    ],
)
def test_what_is_missing_is_told(ofa: OFA, image: Image.Image, start: Any, reason: str) -> None:
    with pytest.raises(OFAError, match=reason):
        list(start(ofa, image))


# What is shown


def test_no_text_of_a_model_or_a_person_becomes_html() -> None:
    hostile = "<script>alert('x')</script>\"&"
    pictures = Image.new("RGB", (4, 4))
    for html in (
        markup.result(hostile, hostile),
        markup.figure(pictures, hostile),
        markup.probabilities({hostile: 0.5}),
        markup.conversation([(hostile, hostile, "")]),
        markup.status(hostile),
    ):
        assert "<script" not in html
        assert "'x'" not in html


@pytest.mark.parametrize("size", [(30, 20), (3000, 2000), (20, 4000)])
def test_boxes_lie_in_the_picture_as_it_is_shown(size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, "white")
    width, height = size
    shown = markup.with_boxes(picture, [((width / 4, height / 4, width * 3 / 4, height * 3 / 4), "")])
    assert max(shown.size) == min(max(size), markup.LONGEST)
    red = shown.convert("RGB").load()
    assert red is not None
    coloured = [(x, y) for x in range(shown.width) for y in range(shown.height) if red[x, y] == COLORS[0]]
    left, right = min(x for x, _ in coloured) / shown.width, max(x for x, _ in coloured) / shown.width
    assert left == pytest.approx(0.25, abs=0.06)
    assert right == pytest.approx(0.75, abs=0.06)


@pytest.mark.parametrize("text", ["1 2 3", "1,2,3,x", "5,5,5,9", "0,0,91,9", "-1,0,9,9", "nan,0,9,9", "9,9,1,1"])
def test_what_is_no_region_is_refused(image: Image.Image, text: str) -> None:
    with pytest.raises(OFAError, match="region"):
        parsed_region(text, image)


def test_a_region_is_read_as_it_is_written(image: Image.Image) -> None:
    assert parsed_region(region_text(BOX), image) == BOX
    assert parsed_region("  ", image) is None
    assert "left:11.11%;top:17.14%" in marking(image, BOX)


def test_imagine_shows_pictures_as_they_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # a picture has the length that it has
    painter = drawing_ofa()
    steps = list(work.imagine(painter, " a dog ", 2))
    grown = [shown for told, shown in steps if "rows of pixels" in told]
    assert len(grown) == painter.config.code_image_size // painter.vqgan.config.code_size
    assert all(shown.count("<img") == 2 for shown in grown)
    _, shown = last(iter(steps))
    assert shown.count("<img") == 2
    assert shown.count("a dog: score") == 4  # below each picture, and for those who do not see it


def test_a_model_that_cannot_draw_says_so(ofa: OFA) -> None:
    with pytest.raises(OFAError, match="no network of image codes"):
        list(work.imagine(ofa, "a dog", 1))


def test_what_is_drawn_is_shown_large() -> None:
    assert markup.enlarged(noise(1, 64, 64)).size == (256, 256)
    assert markup.enlarged(noise(1, 30, 300)).size == (300, 30)
