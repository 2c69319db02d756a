from __future__ import annotations

from typing import Any

import pytest
import synth
import torch
from reference import (
    SCORE_TOLERANCE,
    TOLERANCE,
    assert_same,
    golden,
    golden_arrays,
    lively_ofa,
    picture,
    reference_model,
    scripted,
)

from ofa_core import OFA, ImageTransform, OFAError, TaskSettings, Tokenizer
from ofa_core.config import ClassificationHeadConfig
from ofa_core.heads import classification
from ofa_core.heads.pipeline import Pipeline
from ofa_core.text import small_vocabulary_dir

BOS, PAD, EOS, UNK = range(4)
HEADS = {
    "snli": ClassificationHeadConfig(num_classes=3, inner_dim=16),
    "sst": ClassificationHeadConfig(num_classes=2),
}
PROMPT_TYPES = ["none", "src", "prev_output"]


@pytest.fixture(scope="module")
def ofa() -> OFA:
    return lively_ofa(classification_heads=HEADS)


def with_prompt_type(prompt_type: Any) -> OFA:
    task = TaskSettings(image_size=64, max_image_size=64, code_dict_size=0, prompt_type=prompt_type)
    return lively_ofa(task=task, classification_heads=HEADS)


# By the names of the classes


def test_pictures_are_asked_about_as_in_training(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = scripted(monkeypatch)
    ofa.classify([picture(0), picture(1)], ["cat", "tabby cat"])
    (call,) = calls
    assert call.sources == [[BOS, *ofa.tokenizer.encode(" what does the image describe?"), EOS]] * 2
    assert call.candidates == [ofa.tokenizer.encode(" cat"), ofa.tokenizer.encode(" tabby cat")]
    assert call.decoder_prompt == "none"


def test_a_checkpoint_trained_with_a_decoder_prompt_is_given_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = scripted(monkeypatch)
    with_prompt_type("prev_output").classify(picture(0), ["cat", "dog"])
    assert calls[0].decoder_prompt == "prev_output"


def test_probabilities_are_products_of_softmaxes_over_what_the_labels_allow(ofa: OFA) -> None:
    tokenizer = ofa.tokenizer
    labels = ["not red", "not on", "red"]
    (not_, red), (same, on), (alone,) = (tokenizer.encode(f" {label}") for label in labels)
    assert (not_, red) == (same, alone)
    source = torch.tensor([[BOS, *tokenizer.encode(" what does the image describe?"), EOS]])
    with torch.inference_mode():
        memory = ofa.model.encode(source, ImageTransform(64)(picture(0))[None])
        first, second = ofa.model.decode(memory, torch.tensor([[BOS, not_]]))[0]
    p_not, p_alone = first[[not_, red]].softmax(0).tolist()
    p_red, p_on = second[[red, on]].softmax(0).tolist()
    found = ofa.classify(picture(0), labels)
    assert list(found.probabilities) == labels
    expected = [p_not * p_red, p_not * p_on, p_alone]
    assert list(found.probabilities.values()) == pytest.approx(expected, abs=SCORE_TOLERANCE)


def test_a_thousand_labels_of_several_tokens(ofa: OFA) -> None:
    things = ["cat", "dog", "red car", "man", "tree"]
    labels = [f"{things[number % 5]} number {number}" for number in range(1000)]
    assert min(len(ofa.tokenizer.encode(f" {label}")) for label in labels) > 2
    first, second = ofa.classify([picture(0), picture(1)], labels)
    assert list(first.probabilities) == labels
    assert sum(first.probabilities.values()) == pytest.approx(1, abs=1e-4)
    assert first.score == max(first.probabilities.values()) == first.probabilities[first.answer]
    ranked = first.top(1000)
    assert [label for label, _ in first.top(3)] == [label for label, _ in ranked[:3]]
    assert [p for _, p in ranked] == sorted(first.probabilities.values(), reverse=True)
    assert len(first.top()) == 5
    assert ranked[0] == (first.answer, first.score)
    assert first.probabilities != second.probabilities
    backwards = ofa.classify(picture(0), labels[::-1])
    assert list(backwards.probabilities) == labels[::-1]
    assert_same({label: backwards.probabilities[label] for label in labels}, dict(first.probabilities))


def test_one_label_is_certain(ofa: OFA) -> None:
    found = ofa.classify(picture(0), ["cat"])
    assert (found.answer, found.score) == ("cat", pytest.approx(1))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "the list of answers is empty"),
        (["cat", " "], "answer 1 is ' '"),
        (["cat", "dog", "cat"], "answer 'cat' occurs twice, at 0 and 2"),
        (["cat", 7], "answer 1 is 7"),
        ("cat", "a list"),
    ],
    ids=repr,
)
def test_labels_that_make_no_sense_are_refused(ofa: OFA, labels: Any, message: str) -> None:
    with pytest.raises(OFAError, match=message):
        ofa.classify(picture(0), labels)


# By a head of the checkpoint


@pytest.mark.reference
def test_a_head_gives_the_probabilities_of_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reference ids and pictures go in; the tokenizer and the decoder prompt, which the reference has not, do not."""
    case, arrays = golden("forward_nano_head.json"), golden_arrays("forward_nano_head.npz")
    spec = case["meta"]["image"]
    assert all(case["meta"]["patch_masks"])
    tokenizer = Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=0)
    pipeline = Pipeline(reference_model(case), tokenizer, ImageTransform(spec["height"]))
    sources, targets = (
        [[token for token in row if token != PAD] for row in arrays[name].tolist()]
        for name in ("src_tokens", "prev_output_tokens")
    )
    monkeypatch.setattr(Pipeline, "encode", lambda self, text: sources[int(text)])
    by_source = {tuple(source): target for source, target in zip(sources, targets, strict=True)}
    monkeypatch.setattr(classification, "decoder_prompt_ids", lambda source, kind: by_source[tuple(source)])
    images = [synth.synth_image(spec["height"], spec["width"], seed) for seed in spec["seeds"]]
    expected = arrays["class_logits"].softmax(-1)
    for batch_size in (1, 2, 16):
        name = case["meta"]["head"]["name"]
        found = classification.head_probabilities(pipeline, name, ["0", "1", "2"], images, batch_size=batch_size)
        torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=TOLERANCE[torch.float32])
    assert float((expected[0] - expected[1]).abs().max()) > 0.01


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("with_picture", [True, False], ids=["picture", "text"])
@pytest.mark.parametrize("kind", PROMPT_TYPES)
def test_a_head_reads_the_last_position_of_the_decoder_prompt(
    ofa: OFA, head: str, with_picture: bool, kind: Any
) -> None:
    text = " is this good?"
    source = [BOS, *ofa.tokenizer.encode(text), EOS]
    prefix = {"none": [BOS], "src": source, "prev_output": source[:-1]}[kind]
    with torch.inference_mode():
        pixels = ImageTransform(64)(picture(0))[None] if with_picture else None
        states = ofa.model.decode_states(ofa.model.encode(torch.tensor([source]), pixels), torch.tensor([prefix]))
        expected = ofa.model.classification_heads[head](states[:, -1])[0].softmax(-1).tolist()
    found = ofa.head_probabilities(head, text, picture(0) if with_picture else None, decoder_prompt=kind)
    assert len(found) == HEADS[head].num_classes
    assert found == pytest.approx(expected, abs=SCORE_TOLERANCE)
    assert sum(found) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", PROMPT_TYPES)
def test_texts_of_different_lengths_do_not_disturb_one_another(ofa: OFA, kind: Any) -> None:
    texts = [" good", " is the man on the left or on the right of the car?", " is it?"]
    found = ofa.head_probabilities("snli", texts, decoder_prompt=kind)
    alone = [ofa.head_probabilities("snli", text, decoder_prompt=kind) for text in texts]
    assert_same(found, alone)
    assert len({round(one[0], 5) for one in found}) == 3


@pytest.mark.parametrize(("trained_with", "kind"), [(None, "none"), ("src", "src"), ("prev_output", "prev_output")])
def test_a_head_starts_from_what_the_checkpoint_was_trained_with(trained_with: Any, kind: Any) -> None:
    ofa = with_prompt_type(trained_with)
    found = ofa.head_probabilities("snli", " good")
    assert_same(found, ofa.head_probabilities("snli", " good", decoder_prompt=kind))
    others = [ofa.head_probabilities("snli", " good", decoder_prompt=other) for other in set(PROMPT_TYPES) - {kind}]
    assert all(abs(other[0] - found[0]) > 1e-5 for other in others)


@pytest.mark.parametrize(
    ("head", "text", "options", "message"),
    [
        ("mnli", " good", {}, "this model has no classification head 'mnli'; it has snli, sst"),
        ("snli", "", {}, "text .*empty"),
        ("snli", [" good", "  "], {}, "text .*empty"),
        ("snli", 7, {}, "a text must be a string, not int"),
        ("snli", " good", {"decoder_prompt": "target"}, "^decoder_prompt is .*, not 'target'$"),
        ("snli", " good", {"batch_size": 0}, "batch_size must be at least 1, not 0"),
    ],
    ids=["head", "empty", "one_empty", "number", "decoder_prompt", "batch_size"],
)
def test_input_that_makes_no_sense_is_refused(ofa: OFA, head: str, text: Any, options: Any, message: str) -> None:
    with pytest.raises(OFAError, match=message):
        ofa.head_probabilities(head, text, **options)
