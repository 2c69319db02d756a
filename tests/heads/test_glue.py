from __future__ import annotations

from typing import Any

import pytest
import torch
from reference import SCORE_TOLERANCE, lively_ofa, picture, scripted

from ofa_core import OFA, Match, OFAError, TaskSettings

BOS, PAD, EOS, UNK = range(4)


def source_of(ofa: OFA, text: str) -> list[int]:
    return [BOS, *ofa.tokenizer.encode(text), EOS]


@pytest.mark.parametrize(
    ("task", "texts", "asked", "answers"),
    [
        ("cola", ("A  Dog-like",), ' is the text " a dog-like " grammatically correct?', ["yes", "no"]),
        ("mnli", ("A/b", "C"), ' can text1 " a/b " imply text2 " c "?', ["maybe", "yes", "no"]),
        ("qnli", ("Who?", "He."), ' does " he. " contain the answer to question " who? "?', ["yes", "no"]),
        ("sst2", ("Great",), ' is the sentiment of text " great " positive or negative?', ["positive", "negative"]),
    ],
)
def test_a_judgement_is_asked_for_as_in_training(
    ofa: OFA, monkeypatch: pytest.MonkeyPatch, task: str, texts: tuple[str, ...], asked: str, answers: list[str]
) -> None:
    calls = scripted(monkeypatch)
    ofa.judge(task, *texts)
    (call,) = calls
    assert call.sources == [source_of(ofa, asked)]
    assert call.pictures == [None]
    assert call.decoder_prompt == "src"
    assert sorted(map(tuple, call.candidates or ())) == sorted(tuple(ofa.tokenizer.encode(f" {a}")) for a in answers)


def test_the_answer_stands_at_the_last_place_of_the_prompt(ofa: OFA) -> None:
    source = source_of(ofa, ' is the text " a dog " grammatically correct?')
    ids = [ofa.tokenizer.encode(answer)[0] for answer in (" yes", " no")]
    with torch.inference_mode():
        memory = ofa.model.encode(torch.tensor([source]))
        logits = ofa.model.decode(memory, torch.tensor([source]))[0, -1]
    expected = logits[ids].softmax(0).tolist()
    found = ofa.judge("cola", "a dog")
    assert [found.probabilities[name] for name in ("yes", "no")] == pytest.approx(expected, abs=SCORE_TOLERANCE)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("glue", "a"), "there is no task 'glue'; there are cola"),
        (("cola", "a", "b"), "the task cola judges one text"),
        (("mnli", "a"), "the task mnli judges two texts"),
        (("cola", " "), "the text to judge is empty"),
        (("mnli", "a", ""), "the second text to judge is empty"),
        (("mnli", ["a", "b"], ["c"]), "2 texts need a list of 2 other texts, one for each"),
        (("mnli", ["a"], "c"), "1 texts need a list of 1 other texts"),
        (("mnli", "a", 7), "a text must be a string, not int"),
    ],
)
def test_what_makes_no_sense_is_refused(ofa: OFA, given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(OFAError, match=message):
        ofa.judge(*given)


# Matching


def test_a_match_is_asked_for_as_in_pretraining(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = scripted(monkeypatch)
    found = ofa.matches(picture(0), "A half-open  DOOR.")
    ofa.is_answer(picture(0), "What COLOR-is it?", "Dark red")
    assert [call.sources[0] for call in calls] == [
        source_of(ofa, ' does the image describe " a half open door. "?'),
        source_of(ofa, ' what is the answer to question " what color is it? ". is " Dark red "?'),
    ]
    assert [call.decoder_prompt for call in calls] == ["none", "none"]
    assert isinstance(found, Match)
    assert found.yes == found.probabilities["yes"] == 0.5


def test_a_match_depends_on_picture_and_text(ofa: OFA) -> None:
    found = [*ofa.matches([picture(0), picture(1)], "a dog"), ofa.matches(picture(0), "a cat")]
    asked = [ofa.is_answer(picture(0), "what?", answer) for answer in ("red", "blue")]
    assert len({round(one.yes, 6) for one in (*found, *asked)}) == 5
    for one in found:
        assert sum(one.probabilities.values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("answer", ["", " ", "...", 7])
def test_an_answer_that_is_none_is_refused(ofa: OFA, answer: Any) -> None:
    with pytest.raises(OFAError, match="the answer"):
        ofa.is_answer(picture(0), "what?", answer)


# Infilling


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("The quick <mask> jumps.", [" the quick", " jumps."]),
        ("<mask> dog", ["", " dog"]),
        (" A <mask>, then <mask>", [" a", ", then", ""]),
    ],
)
def test_a_text_with_gaps_is_read_as_in_pretraining(
    ofa: OFA, monkeypatch: pytest.MonkeyPatch, text: str, parts: list[str]
) -> None:
    calls = scripted(monkeypatch, [*ofa.tokenizer.encode(" the dog"), EOS])
    found = ofa.complete(text)
    encode, mask = ofa.tokenizer.encode, ofa.tokenizer.vocabulary.mask
    inside = encode(parts[0]) if parts[0] else []
    for part in parts[1:]:
        inside += [mask, *encode(part)]
    before, behind = encode(' what is the complete text of "'), encode(' "?')
    assert calls[0].sources == [[BOS, *before, *inside, *behind, EOS]]
    assert calls[0].pictures == [None]
    assert found.text == "the dog"


def test_a_long_text_with_gaps_keeps_its_last_tokens(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = scripted(monkeypatch, [EOS])
    with pytest.warns(UserWarning, match="^a text to complete of 301 tokens was cut to 256$"):
        ofa.complete("a " * 300 + "<mask>")
    assert ofa.tokenizer.vocabulary.mask in calls[0].sources[0]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a dog", {}, "nothing is missing in the text to complete: 'a dog' holds no <mask>"),
        (" ", {}, "the text to complete is ' '"),
        ("a <mask>", {"prompt": "complete"}, "cannot be filled in: it should hold {text} once"),
    ],
)
def test_a_text_that_cannot_be_completed_is_refused(ofa: OFA, text: str, options: Any, message: str) -> None:
    with pytest.raises(OFAError, match=message):
        ofa.complete(text, **options)


def test_the_checkpoints_own_prompt_counts_for_its_own_task(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = scripted(monkeypatch)
    for name in ("cola", "mnli"):
        task = TaskSettings(name=name, image_size=64, max_image_size=64, code_dict_size=0, prompt_type="none")
        lively_ofa(task=task).judge("cola", "a dog")
    assert [call.decoder_prompt for call in calls] == ["none", "src"]
