from __future__ import annotations

from typing import Any

import pytest
import torch
from reference import SCORE_TOLERANCE, lively_ofa, picture, scripted

from ofa_core import OFA, ImageTransform, OFAError, TaskSettings

BOS, PAD, EOS, UNK = range(4)


def source_of(ofa: OFA, text: str) -> list[int]:
    return [BOS, *ofa.tokenizer.encode(text), EOS]


@pytest.mark.parametrize(
    ("text", "caption", "asked"),
    [
        ("a man is outside", None, ' does the image describe " a man is outside "?'),
        ("A half-open  DOOR.", None, ' does the image describe " a half open door. "?'),
        ("a <person> {caption}", None, ' does the image describe " a person {caption} "?'),
        (
            "a man",
            "A dog/cat",
            ' can image and text1 " a dog cat " imply text2 " a man "?',
        ),
        ("a <bin_3>", "{hypothesis}", ' can image and text1 " {hypothesis} " imply text2 " a <bin_3> "?'),
    ],
)
def test_a_text_is_asked_about_as_in_training(
    ofa: OFA, monkeypatch: pytest.MonkeyPatch, text: str, caption: str | None, asked: str
) -> None:
    calls = scripted(monkeypatch)
    ofa.entails(picture(0), text, caption)
    assert calls[0].sources == [source_of(ofa, asked)]
    assert calls[0].candidates == [ofa.tokenizer.encode(answer) for answer in (" yes", " no", " maybe")]


def test_every_text_has_its_own_caption(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = scripted(monkeypatch)
    ofa.entails(picture(0), ["a", "b"], ["c", "d"])
    texts = [' can image and text1 " c " imply text2 " a "?', ' can image and text1 " d " imply text2 " b "?']
    assert calls[0].sources == [source_of(ofa, text) for text in texts]


@pytest.mark.parametrize(
    ("given", "trained_with", "kind"),
    [(None, None, "prev_output"), (None, "none", "none"), ("src", "none", "src"), ("none", None, "none")],
)
def test_the_decoder_prompt_is_the_given_one_or_the_checkpoints_or_the_tasks(
    monkeypatch: pytest.MonkeyPatch, given: Any, trained_with: Any, kind: str
) -> None:
    task = TaskSettings(image_size=64, max_image_size=64, code_dict_size=0, prompt_type=trained_with)
    calls = scripted(monkeypatch)
    lively_ofa(task=task).entails(picture(0), "a man", decoder_prompt=given)
    assert calls[0].decoder_prompt == kind


def test_probabilities_are_a_softmax_over_yes_no_and_maybe_behind_the_source(ofa: OFA) -> None:
    source = source_of(ofa, ' does the image describe " a man "?')
    ids = [ofa.tokenizer.encode(answer) for answer in (" yes", " no", " maybe")]
    assert [len(answer) for answer in ids] == [1, 1, 1]
    with torch.inference_mode():
        memory = ofa.model.encode(torch.tensor([source]), ImageTransform(64)(picture(0))[None])
        logits = ofa.model.decode(memory, torch.tensor([source[:-1]]))[0, -1]
    expected = logits[[answer[0] for answer in ids]].softmax(0).tolist()
    found = ofa.entails(picture(0), "a man")
    assert list(found.probabilities) == ["yes", "no", "maybe"]
    assert list(found.probabilities.values()) == pytest.approx(expected, abs=SCORE_TOLERANCE)
    assert found.probabilities[found.answer] == found.score == max(found.probabilities.values())
    assert found.alternatives == ()


def test_an_answer_depends_on_picture_text_and_caption(ofa: OFA) -> None:
    found = [
        *ofa.entails([picture(0), picture(1)], "a man"),
        ofa.entails(picture(0), "a dog"),
        *ofa.entails(picture(0), ["a man", "a man"], ["a dog", "a cat"]),
    ]
    assert len({round(one.probabilities["yes"], 6) for one in found}) == len(found)


@pytest.mark.parametrize("which", ["hypothesis", "caption"])
def test_a_text_that_is_too_long_is_cut_with_a_warning(ofa: OFA, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    calls = scripted(monkeypatch)
    long, cut = "a " * 200, " ".join(["a"] * 128)
    given, asked = (("b", long), (cut, "b")) if which == "caption" else ((long, "b"), ("b", cut))
    with pytest.warns(UserWarning, match=f"^a {which} of 200 words was cut to 128$"):
        ofa.entails(picture(0), *given)
    text = f' can image and text1 " {asked[0]} " imply text2 " {asked[1]} "?'
    assert calls[0].sources == [source_of(ofa, text)]


@pytest.mark.parametrize(
    ("text", "caption", "options", "message"),
    [
        ("", None, {}, "^the hypothesis is empty: ''$"),
        ("...", None, {}, r"^the hypothesis is empty: '\.\.\.'$"),
        ("a", "", {}, "^the caption is empty: ''$"),
        ("a", 7, {}, "^the caption must be a string, not int$"),
        (7, None, {}, "^a text must be a string, not int$"),
        (["a", "b"], ["c"], {}, "need a list of 2 captions, one for each"),
        (["a", "b"], "c", {}, "need a list of 2 captions, one for each"),
        ("a", None, {"decoder_prompt": "target"}, "^decoder_prompt is .*, not 'target'$"),
    ],
    ids=["empty", "points", "no_caption", "caption_number", "number", "captions", "one_caption", "decoder_prompt"],
)
def test_input_that_makes_no_sense_is_refused(ofa: OFA, text: Any, caption: Any, options: Any, message: str) -> None:
    with pytest.raises(OFAError, match=message):
        ofa.entails(picture(0), text, caption, **options)
