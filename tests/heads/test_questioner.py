from __future__ import annotations

from typing import Any

import pytest
from reference import assert_same, picture, scripted

from ofa_core import OFA, AgentTurn, Grounding, Hypothesis, OFAError
from ofa_core.bench.samples import Settings
from ofa_core.heads import box_draws, questioner
from ofa_core.heads.pipeline import Pipeline

BOS, PAD, EOS, UNK = range(4)


def bins(ofa: OFA, *numbers: int) -> list[int]:
    return [len(ofa.tokenizer) - 1000 + number for number in numbers]


def said(ofa: OFA, text: str, *numbers: int) -> list[int]:
    """An answer of the model: a text and some bins behind it."""
    return [*ofa.tokenizer.encode(text), *bins(ofa, *numbers), EOS]


def source_of(ofa: OFA, text: str) -> list[int]:
    return [BOS, *ofa.tokenizer.encode(text), EOS]


# Asking


@pytest.mark.parametrize(
    ("style", "dialog", "asked"),
    [
        (
            "guesswhat",
            [("Is it a dog?", "no")],
            " \n#instruction: ask a close-ended question to guess what i want.\n"
            '#context: "agent: is it a dog? human: no"',
        ),
        ("guesswhat", [], ' \n#instruction: ask a close-ended question to guess what i want.\n#context: ""'),
        (
            "invig",
            ["the cup", "which?", "left"],
            " \n#instruction: ask a question to guess what i want.\n"
            '#context: "human: the cup agent: which? human: left"',
        ),
    ],
    ids=["guesswhat", "guesswhat_first", "invig"],
)
def test_the_next_question(ofa: OFA, monkeypatch: pytest.MonkeyPatch, style: Any, dialog: Any, asked: str) -> None:
    calls = scripted(monkeypatch, said(ofa, " is it red?"), said(ofa, " is it blue?"))
    found = ofa.ask(picture(0), dialog, style=style)
    assert calls[0].sources == [source_of(ofa, asked)]
    assert calls[0].options is not None
    assert calls[0].options.model_dump(exclude_defaults=True) == {"max_new_tokens": 1024}
    assert (found.text, found.alternatives) == ("is it red?", ("is it blue?",))


def test_an_unknown_style_is_refused(ofa: OFA) -> None:
    with pytest.raises(OFAError, match="'guesswhat', 'invig' or 'invig_dev', not 'chess'"):
        ofa.ask(picture(0), [], style="chess")  # type: ignore[call-overload]


# An agent that may guess


def test_an_agent_is_asked_whether_it_can_specify_the_region(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = scripted(monkeypatch, said(ofa, " not yet. is it red?"))
    ofa.agent_turn(picture(0), ["The cup", "which?", "left"], num_beams=3)
    text = (
        " \n#instruction: can you specify which region the context describes?\n"
        '#context: "human: the cup agent: which? human: left"'
    )
    assert calls[0].sources == [source_of(ofa, text)]
    assert calls[0].options is not None
    assert calls[0].options.num_beams == 3


@pytest.mark.parametrize(
    ("text", "question"),
    [
        (" not yet. is it red?", "is it red?"),
        (" not yet.", ""),
        (" is it red?", "is it red?"),
        (" not yet", "not yet"),
        (" is it red, not yet. blue?", "is it red, not yet. blue?"),
        (" not yet. not yet. is it red?", "not yet. is it red?"),
        (" which region is it?", "which region is it?"),
        ("", ""),
    ],
)
def test_what_names_no_region_is_a_question_without_its_mark(
    ofa: OFA, monkeypatch: pytest.MonkeyPatch, text: str, question: str
) -> None:
    scripted(monkeypatch, said(ofa, text))
    assert ofa.agent_turn(picture(0), ["it"]) == AgentTurn(question, None, text.strip())


def test_a_region_is_a_grounding_in_thousandths_and_no_question(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, said(ofa, " sure. region:", 0, 250, 500, 999), said(ofa, " sure. region:", 500, 0, 750, 500))
    turn = ofa.agent_turn(picture(0, height=200, width=400), ["it"])
    assert turn.question is None
    assert turn.text == "sure. region: <bin_0> <bin_250> <bin_500> <bin_999>"
    assert isinstance(turn.grounding, Grounding)
    assert turn.grounding.box == pytest.approx((0.4, 50, 200, 199.8))  # bin / 1000 within 0.001 and 0.999
    assert turn.grounding.bins == (0, 250, 500, 999)
    assert turn.grounding.alternatives[0].box == pytest.approx((200, 0.2, 300, 100))


@pytest.mark.parametrize("numbers", [(), (1, 2, 3), (1, 2, 3, 4, 5), (1, 2, 3, 4) * 2], ids=len)
def test_a_region_of_other_than_four_bins_is_no_box(
    ofa: OFA, monkeypatch: pytest.MonkeyPatch, numbers: tuple[int, ...]
) -> None:
    scripted(monkeypatch, said(ofa, " sure. region:", *numbers))
    turn = ofa.agent_turn(picture(0), ["it"])
    assert turn.question is None
    assert turn.grounding is not None
    assert turn.grounding.box is None


def test_bins_without_the_mark_of_a_region_are_no_guess(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, said(ofa, " is it", 1, 2, 3, 4))
    turn = ofa.agent_turn(picture(0), ["it"])
    assert (turn.question, turn.grounding) == ("is it <bin_1> <bin_2> <bin_3> <bin_4>", None)


def test_every_picture_of_a_list_has_a_turn_of_its_own_size(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, said(ofa, " sure. region:", 100, 100, 500, 500))
    found = ofa.agent_turn([picture(0, 100, 200), picture(1, 300, 50)], [["a"], ["b"]])
    boxes = [turn.grounding.box for turn in found if turn.grounding is not None]
    assert_same(boxes, [(20.0, 10.0, 100.0, 50.0), (5.0, 30.0, 25.0, 150.0)])


def test_a_search_that_finds_nothing_asks_nothing(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch)
    assert ofa.agent_turn([picture(0)], [["it"]]) == [AgentTurn("", None, "")]


# Turns that ambiguity decides

GUESS, QUESTION = " sure. region:", " not yet. which one is it?"


def test_the_look_for_ambiguity_says_no_more_than_the_turn(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    longest: list[int] = []
    search = box_draws.search_and_draw

    def watched(*arguments: Any, **more: Any) -> Any:
        longest.append(arguments[3].max_new_tokens)
        return search(*arguments, **more)

    monkeypatch.setattr(questioner, "search_and_draw", watched)
    turn = ofa.agent_turn(picture(0), ["it"], ambiguity=True, max_new_tokens=6)
    assert longest == [6]
    assert turn.ambiguity is not None
    assert turn.ambiguity >= 0


def deciding(monkeypatch: pytest.MonkeyPatch, ofa: OFA, turn: str, bits: float, question: str = "is it red?") -> None:
    """Let the agent say ``turn``, a dialog mean ``bits``, and the model ask ``question`` or find bins 100 to 500."""
    said_of = {
        "can you specify": said(ofa, turn, *((1, 2, 30, 40) if "region" in turn else ())),
        "ask a question": said(ofa, f" {question}"),
        "which region": said(ofa, " region:", 100, 100, 500, 500),
    }

    def run(self: Pipeline, pictures: Any, sources: Any, options: Any, *_: Any, **__: Any) -> list[list[Hypothesis]]:
        texts = [self.source_text(source) for source in sources]
        answers = [next(tokens for words, tokens in said_of.items() if words in text) for text in texts]
        return [[Hypothesis(tokens, -0.1, [-0.1] * len(tokens))] for tokens in answers]

    monkeypatch.setattr(Pipeline, "run", run)
    monkeypatch.setattr(questioner, "ambiguities", lambda pipeline, pictures, dialogs, *limits: [bits] * len(dialogs))


@pytest.mark.parametrize(
    ("turn", "bits", "question", "bins_said"),
    [
        (GUESS, 0.9, "is it red?", None),  # guessed at what is ambiguous
        (GUESS, 0.2, None, (1, 2, 30, 40)),
        (QUESTION, 0.9, "which one is it?", None),
        (QUESTION, 0.2, None, (100, 100, 500, 500)),  # asked for nothing
        (QUESTION, 0.5, None, (100, 100, 500, 500)),
    ],
)
def test_ambiguity_decides_whether_it_asks(
    ofa: OFA, monkeypatch: pytest.MonkeyPatch, turn: str, bits: float, question: str | None, bins_said: Any
) -> None:
    deciding(monkeypatch, ofa, turn, bits)
    (found,) = ofa.agent_turn([picture(0)], [["the cup"]], ask_above=0.5)
    assert (found.question, found.ambiguity) == (question, bits)
    assert (found.grounding and found.grounding.bins) == bins_said
    assert (found.question is None) != (found.grounding is None)
    chat = ofa.chat(picture(0), ask_above=0.5)
    reply = chat.say("the cup")
    assert (reply.done, reply.ambiguity) == (question is None, bits)
    assert reply.text == (question or "sure.")
    assert (reply.regions[0].bins if reply.regions else None) == bins_said


def test_a_question_is_not_asked_twice(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    deciding(monkeypatch, ofa, GUESS, 2.0)
    (found,) = ofa.agent_turn([picture(0)], [["the cup", "is it red?", "no"]], ask_above=0.5)
    assert found.grounding is not None


@pytest.mark.parametrize("bits", [-1.0, float("nan")])
def test_bits_are_not_negative(ofa: OFA, bits: float) -> None:
    message = f"^ask_above is a number of bits, 0 or more, not {bits}$"
    with pytest.raises(OFAError, match=message):
        ofa.agent_turn(picture(0), ["it"], ask_above=bits)
    with pytest.raises(OFAError, match=message):
        ofa.chat(picture(0), ask_above=bits)


def test_other_styles_have_rules_of_their_own(ofa: OFA) -> None:
    with pytest.raises(
        OFAError, match=r"^ask_above is for style invig; in tio other rules tell whether the model asks$"
    ):
        ofa.chat(picture(0), style="tio", ask_above=0.5)


def test_settings_that_were_not_asked_for_are_not_told() -> None:
    assert not {"confidence", "ask_above"} & Settings().told().keys()
    assert Settings(confidence=True, ask_above=0.0).told()["ask_above"] == 0.0
