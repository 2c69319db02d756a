"""Conversations: TiO's recorded sessions word by word, and what a person can do with one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from reference import golden_path, lively_ofa, picture

from ofa_core import OFA, Chat, ChatTurn, Hypothesis, OFAError, Tokenizer
from ofa_core.heads.chat_styles import CHAT_STYLES
from ofa_core.heads.pipeline import EncodedImage, Pipeline
from ofa_core.text.vocabulary import BOS, EOS

SESSIONS: list[dict[str, Any]] = (
    json.loads(golden_path("tio_prompts.json").read_text())["sessions"]
    if golden_path("tio_prompts.json").is_file()
    else []
)
IDS = [f"{number}-{session['class']}" for number, session in enumerate(SESSIONS)]
#: Styles by the classes of the recorded sessions; the demo tells its own.
STYLES = {"ChatTiO": "tio", "ChatTiO with tasks": "tio_tasks"}
DEMO_STYLES = {
    "Freeform": "freeform",
    "Freeform (w/ Grounding)": "freeform_grounding",
    "Questioner/Guesser": "guesser",
}
#: The side to which the demo resizes its pictures, in whose pixels its boxes are.
DEMO_SIDE = 512

Asked = list[list[int]]


@pytest.fixture(scope="module")
def official_ofa(official_bpe: Path) -> OFA:
    return lively_ofa(tokenizer=Tokenizer.from_dir(official_bpe))


@pytest.fixture
def replying(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Asked]:
    """Let the model say given texts, one after the other; returns what it is asked."""

    def begin(*texts: str) -> Asked:
        asked: Asked = []
        left = list(texts)

        def run(self: Pipeline, pictures: Any, sources: Any, options: Any, *_: Any, **__: Any) -> Any:
            assert all(isinstance(one, EncodedImage) for one in pictures)  # the stem ran before
            asked.extend(map(list, sources))
            tokens = [*self.tokenizer.encode(left.pop(0), symbols=True), EOS]
            return [[Hypothesis(tokens, -0.1, [-0.1] * len(tokens))]]

        monkeypatch.setattr(Pipeline, "run", run)
        return asked

    return begin


def style_of(session: dict[str, Any]) -> Any:
    return STYLES.get(session["class"]) or DEMO_STYLES[session["style"]]


def replies_of(session: dict[str, Any]) -> list[str]:
    return [text for step in session["steps"] for text in step["model_replied"]]


def size_of(session: dict[str, Any]) -> tuple[int, int]:
    """Width and height; where a session does not tell, its boxes are on a square."""
    width, height = session.get("image_size", (DEMO_SIDE, DEMO_SIDE))
    return width, height


def answered(chat: Chat, step: dict[str, Any], size: tuple[int, int]) -> ChatTurn:
    """The turn of a recorded step, whose options say who speaks."""
    options = step.get("options", {"task": "q"})
    if options["task"] == "g":
        return chat.ground(step["said"])
    if options["task"] == "a":
        box = [fraction * side for fraction, side in zip(options["bboxes"], size * 2, strict=True)]
        return chat.as_oracle(box).say(step["said"])
    return chat.say(step["said"])


@pytest.mark.reference
@pytest.mark.parametrize("session", SESSIONS, ids=IDS)
def test_sessions_are_tio_s(session: dict[str, Any], official_ofa: OFA, replying: Callable[..., Asked]) -> None:
    encode = official_ofa.tokenizer.encode
    asked = replying(*replies_of(session))
    size = size_of(session)
    chat = official_ofa.chat(Image.new("RGB", size), style=style_of(session))
    for step in session["steps"]:
        asked.clear()
        turn = answered(chat, step, size)
        assert asked == [[BOS, *encode(text, symbols=True), EOS] for text in step["asked_model"]]
        assert list(turn.replies) == step["model_replied"]
        boxes = [region.box for region in turn.regions]
        if "result" in step:  # fractions of the sides, and None where it did not look for any
            assert turn.text == step["result"]["text_response"]
            fractions = [[at / side for at, side in zip(box, size * 2, strict=True)] for box in boxes]
            assert fractions == [pytest.approx(box, abs=1e-9) for box in step["result"]["bboxes"] or []]
            assert turn.done == step["result"]["done"]
        else:
            assert turn.text == step["reply"]
            assert [list(map(math.trunc, box)) for box in boxes] == step["boxes"]
        if "history" in step:
            assert chat.history == [tuple(pair) for pair in step["history"]]


# What a person does with a conversation


@pytest.fixture(scope="module")
def ofa() -> OFA:
    return lively_ofa()


def text_of(ofa: OFA, source: list[int]) -> str:
    return ofa.tokenizer.decode(source)


def test_an_agent_asks_and_then_names_the_region(ofa: OFA, replying: Callable[..., Asked]) -> None:
    asked = replying(" not yet. which one?", " sure. region: <bin_100> <bin_250> <bin_500> <bin_998>")
    chat = ofa.chat(picture(0))
    first = chat.say("The cup")
    assert (first.text, first.regions, first.done, first.box) == ("which one?", (), False, None)
    second = chat.say("the left one")
    assert (second.text, second.done) == ("sure.", True)
    assert second.box == pytest.approx((9, 15, 45, 59.88))
    assert second.regions[0].score == pytest.approx(math.exp(-0.1))
    assert chat.history == [("The cup", "which one?"), ("the left one", "sure.")]
    assert chat.turns == (first, second)
    assert text_of(ofa, asked[1]) == (
        ' \n#instruction: can you specify which region the context describes?\n#context: "human: the cup '
        'agent: which one? human: the left one"'
    )


def test_it_asks_what_agent_turn_asks(ofa: OFA, replying: Callable[..., Asked]) -> None:
    asked = replying(" which one?", " which one?", " which one?")
    chat = ofa.chat(ofa.look(picture(0)))
    chat.say("The  cup")
    chat.say("left")
    ofa.agent_turn(chat.image, ["The  cup", "which one?", "left"])
    assert asked[1] == asked[2]


def test_a_region_without_a_word_goes_on_as_sure(ofa: OFA, replying: Callable[..., Asked]) -> None:
    asked = replying(" region: <bin_100> <bin_250> <bin_500> <bin_998>", " which one?")
    chat = ofa.chat(picture(0))
    assert chat.say("the cup").text == ""
    chat.say("no, the other one")
    assert 'human: the cup agent: sure. human: no, the other one"' in text_of(ofa, asked[1])


def test_the_stem_runs_once(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    real = type(ofa.model).image_features

    def features(self: Any, images: Any) -> Any:
        counted.append(len(images))
        return real(self, images)

    monkeypatch.setattr(type(ofa.model), "image_features", features)
    chat = ofa.chat(picture(0), max_new_tokens=3)
    for text in ("the cup", "left", "yes"):
        chat.say(text)
    chat.ground()
    chat.as_oracle((9, 15, 45, 60)).say("is it red?")
    assert counted == [1]


def test_undo_and_reset(ofa: OFA, replying: Callable[..., Asked]) -> None:
    asked = replying(*[" which one?"] * 5)
    chat = ofa.chat(picture(0))
    chat.say("the cup")
    chat.say("left")
    assert chat.undo() == ("left", "which one?")
    chat.say("right")
    assert 'human: the cup agent: which one? human: right"' in text_of(ofa, asked[-1])
    chat.reset()
    assert chat.history == []
    chat.say("the dog")
    assert '#context: "human: the dog"' in text_of(ofa, asked[-1])
    chat.reset(picture(1, 30, 40))
    assert chat.image.size == (40, 30)
    with pytest.raises(OFAError, match="nothing was said yet: there is nothing to undo"):
        chat.undo()


def test_an_oracle_opens_and_answers(ofa: OFA, replying: Callable[..., Asked]) -> None:
    asked = replying(" the cup", " the left one", " yes")
    chat = ofa.chat(picture(0))
    oracle = chat.as_oracle((9, 15, 45, 60))
    assert (oracle.opening, oracle.box) == ("the cup", (9.0, 15.0, 45.0, 60.0))
    assert oracle.say("which one?").text == "the left one"
    assert oracle.say("sure?").text == "yes"
    assert chat.history == []
    assert text_of(ofa, asked[0]).startswith(' \n#instruction: state your query about the region.\n#context: ""')
    assert text_of(ofa, asked[2]) == (
        ' \n#instruction: answer the question based on the region.\n#context: "human: the cup agent: which one? '
        'human: the left one agent: sure?"\n#region: <bin_100> <bin_250> <bin_500> <bin_998>'
    )
    assert "oracle in style invig, 2 rounds about 90 × 60 pixels" in repr(oracle)


def test_an_oracle_of_tio_answers_every_question_by_itself(ofa: OFA, replying: Callable[..., Asked]) -> None:
    asked = replying(" which cup?", " red", " no")
    chat = ofa.chat(picture(0), style="tio_tasks")
    chat.say("the cup")
    oracle = chat.as_oracle((9, 15, 45, 60))
    assert oracle.opening == ""
    oracle.say("what colour?")
    oracle.say("is it big?")
    assert "what colour" not in text_of(ofa, asked[-1])
    assert "agent: which cup?\n human: is it big?" in text_of(ofa, asked[-1])
    assert oracle.history == [("what colour?", "red"), ("is it big?", "no")]


def test_what_a_person_types_is_no_region(ofa: OFA, replying: Callable[..., Asked]) -> None:
    bins = set(ofa.tokenizer.vocabulary.bins_to_ids(range(1000)))
    for style in CHAT_STYLES:
        asked = replying(*[" region: <bin_7> <bin_7> <bin_9> <bin_9>"] * 4)
        chat = ofa.chat(picture(0), style=style)
        chat.say("the <bin_3> one")
        assert not set(asked[0]) & bins, style
        chat.say("that <bin_4>")
        said = {ofa.tokenizer.vocabulary.bin_of(token) for source in asked for token in source} - {None}
        assert said <= {7, 9}, style


def test_a_long_conversation_loses_its_beginning(ofa: OFA, replying: Callable[..., Asked]) -> None:
    asked = replying(*[" which one?"] * 2)
    chat = ofa.chat(picture(0), style="freeform")
    with pytest.warns(UserWarning, match="was cut to its last 240"):
        chat.say("one " * 400)
    assert len(asked[0]) == 240
    assert (asked[0][0], asked[0][-1]) == (BOS, EOS)


@pytest.mark.parametrize("style", CHAT_STYLES)
def test_a_saved_conversation_goes_on(style: Any, ofa: OFA, tmp_path: Path) -> None:
    chat = ofa.chat(picture(0), style=style, max_new_tokens=6)
    chat.say("the cup")
    chat.say("left <bin_3>")
    chat.save(tmp_path / "chat.json")
    other = ofa.chat(picture(0), max_new_tokens=6).load(tmp_path / "chat.json")
    assert (other.style, other.turns, other.history) == (style, chat.turns, chat.history)
    assert other.say("yes") == chat.say("yes")
    oracle = chat.as_oracle((9, 15, 45, 60))
    oracle.say("is it red?")
    oracle.save(tmp_path / "oracle.json")
    again = ofa.chat(picture(0), max_new_tokens=6).load(tmp_path / "oracle.json")
    assert (again.box, again.opening) == (oracle.box, oracle.opening)
    assert again.say("is it big?") == oracle.say("is it big?")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "no conversation that was saved"),
        ("{}", "no conversation that was saved: format: Field required"),
        ('{"format": "ofa_core chat 2"}', "format"),
    ],
)
def test_a_file_that_is_no_conversation_is_refused(content: str, message: str, ofa: OFA, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    chat = ofa.chat(picture(0))
    with pytest.raises(OFAError, match=message) as caught:
        chat.load(tmp_path / "x.json")
    assert "\n" not in str(caught.value)


def test_a_conversation_about_another_picture_is_refused(ofa: OFA, tmp_path: Path) -> None:
    chat = ofa.chat(picture(0))
    chat.save(tmp_path / "x.json")
    saved = json.loads((tmp_path / "x.json").read_text())
    with pytest.raises(OFAError, match="about a picture of 90 × 60 pixels, this one is 40 × 30"):
        ofa.chat(picture(0, 30, 40)).load(tmp_path / "x.json")
    (tmp_path / "x.json").write_text(json.dumps(saved | {"style": "chess"}))
    with pytest.raises(OFAError, match=r"a style of a conversation is invig, tio, .*, not 'chess'"):
        chat.load(tmp_path / "x.json")


WRONG: dict[str, tuple[Callable[[Chat], object], str]] = {
    "empty": (lambda chat: chat.say("  "), "what is said is '  '; it should be a text that is not empty"),
    "no text": (lambda chat: chat.say(3), "what is said is 3"),  # type: ignore[arg-type]
    "nothing": (lambda chat: chat.ground(), "nothing was said yet"),
    "outside": (lambda chat: chat.as_oracle((9, 15, 95, 60)), "is not 0 <= x0 < x1 <= 90"),
    "three": (lambda chat: chat.as_oracle((9, 15, 95)), "a box is"),
    "oracle": (lambda chat: chat.as_oracle((9, 15, 45, 60)).ground("it"), "there is nothing to find"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use_is_refused(name: str, ofa: OFA) -> None:
    act, message = WRONG[name]
    with pytest.raises(OFAError, match=message):
        act(ofa.chat(picture(0), max_new_tokens=3))


def test_an_unknown_style_is_refused(ofa: OFA) -> None:
    with pytest.raises(OFAError, match="a style of a conversation is invig, tio, "):
        ofa.chat(picture(0), style="chess")  # type: ignore[arg-type]


@pytest.mark.parametrize("style", CHAT_STYLES)
def test_a_conversation_goes_on_elsewhere_as_it_would_have_here(ofa: OFA, style: Any) -> None:
    image = picture(5)
    chat = ofa.chat(image, style=style, max_new_tokens=6)
    chat.say("the dog")
    resumed = ofa.chat(image, style=style, max_new_tokens=6).resume(chat.context)
    assert resumed.say("the left one") == chat.say("the left one")
    assert resumed.context == chat.context
    assert resumed.ground() == chat.ground()
    resumed.undo()
    resumed.undo()
    assert resumed.history == []


@pytest.mark.parametrize("style", CHAT_STYLES)
def test_an_oracle_goes_on_elsewhere_as_it_would_have_here(ofa: OFA, style: Any) -> None:
    image, box = picture(6), (3, 4, 40, 50)
    agent = ofa.chat(image, style=style, max_new_tokens=6)
    agent.say("the dog")
    oracle = agent.as_oracle(box)
    oracle.say("is it red?")
    resumed = ofa.chat(image, style=style, max_new_tokens=6).resume(oracle.context, box=box, opening=oracle.opening)
    assert resumed.say("is it a dog?") == oracle.say("is it a dog?")
    assert (resumed.context, resumed.opening, resumed.box) == (oracle.context, oracle.opening, oracle.box)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"context": ["ab"]}, "round 0 of the history is 'ab'"),
        ({"context": [("a", "b"), ("a", None)]}, "round 1 of the history"),
        ({"context": [], "opening": "the dog"}, "opens no dialog"),
        ({"context": [], "box": (5, 5, 5, 9)}, "box"),
    ],
)
def test_what_cannot_be_gone_on_with_is_refused(ofa: OFA, arguments: Any, reason: str) -> None:
    with pytest.raises(OFAError, match=reason):
        ofa.chat(picture(5)).resume(**arguments)
