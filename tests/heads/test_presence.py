"""TiO's question whether something is there, and answers that name several regions."""

from __future__ import annotations

import pytest
import torch
from reference import SCORE_TOLERANCE, lively_ofa, picture, scripted

from ofa_core import OFA, ImageTransform, OFAError
from ofa_core.text.vocabulary import BOS, EOS


@pytest.fixture(scope="module")
def ofa() -> OFA:
    return lively_ofa()


def test_the_probability_is_a_softmax_over_the_first_tokens(ofa: OFA) -> None:
    asked = ' is the object human want in the image? yes or no? #context: "The red <bin_3> dog"'
    source = [BOS, *ofa.tokenizer.encode(asked), EOS]
    with torch.inference_mode():
        memory = ofa.model.encode(torch.tensor([source]), ImageTransform(64)(picture(0))[None])
        logits = ofa.model.decode(memory, torch.tensor([[BOS]]))[0, -1]
    first = [ofa.tokenizer.encode(text)[0] for text in (" yes", " no")]
    expected = float(logits[first].softmax(0)[0])
    found = ofa.is_present(picture(0), "The red <bin_3> dog")
    assert found.yes == pytest.approx(expected, abs=SCORE_TOLERANCE)
    assert found.answer == ("yes" if expected > 0.5 else "no")


def test_a_list_gives_what_single_texts_give(ofa: OFA) -> None:
    texts = ["a dog", "the red cat on the left", "it"]
    found = ofa.is_present(picture(0), texts, batch_size=2)
    alone = [ofa.is_present(picture(0), text).yes for text in texts]
    assert [one.yes for one in found] == pytest.approx(alone, abs=1e-5)
    assert len({round(one, 4) for one in alone}) == 3


def test_an_empty_text_is_refused(ofa: OFA) -> None:
    with pytest.raises(OFAError, match="the text is ' '; it should be a text that is not empty"):
        ofa.is_present(picture(0), " ")


def test_an_answer_of_several_regions_keeps_them_all(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    text = " region: <bin_100> <bin_250> <bin_500> <bin_998>\n region: <bin_1> <bin_1> <bin_500> <bin_500> <bin_7>"
    scripted(monkeypatch, [*ofa.tokenizer.encode(text, symbols=True), EOS])
    found = ofa.ground_dialog(picture(0), ["it"], style="invig")
    assert found.box == pytest.approx((9, 15, 45, 59.88))
    assert [region.bins for region in found.regions] == [(100, 250, 500, 998), (1, 1, 500, 500)]
    assert found
    assert not ofa.ground_dialog(picture(0), ["it"], style="invig", threshold=0.99).regions


def test_no_box_is_false_and_one_box_has_no_list(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [*ofa.tokenizer.encode(" there is no dog."), EOS])
    assert not ofa.ground_dialog(picture(0), ["it"])
    scripted(monkeypatch, [*ofa.tokenizer.encode(" <bin_100> <bin_250> <bin_500> <bin_998>", symbols=True), EOS])
    one = ofa.ground_dialog(picture(0), ["it"])
    assert one
    assert one.regions == ()
