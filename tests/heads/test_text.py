from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from reference import assert_same, picture, scripted

from ofa_core import OFA, OFAError, Text, Tokenizer
from ofa_core.heads.caption import REGION_SPEC
from ofa_core.heads.grounding import refcoco_codec
from ofa_core.text import small_vocabulary_dir

BOS, PAD, EOS, UNK = range(4)
SHORT = {"num_beams": 2, "max_new_tokens": 4}


@pytest.fixture
def stem_runs(ofa: OFA) -> Iterator[list[int]]:
    """How many pictures each call of the image stem sees from here on."""
    counts: list[int] = []
    handle = ofa.pipeline.model.encoder.image_stem.register_forward_hook(
        lambda stem, inputs, out: counts.append(len(inputs[0]))
    )
    yield counts
    handle.remove()


def source_of(ofa: OFA, text: str) -> list[int]:
    return [BOS, *ofa.tokenizer.encode(text), EOS]


# Summaries


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("the man is here .", ' what is the summary of article " the man is here . "?'),
        ("The  half-open/closed DOOR", ' what is the summary of article " the half open closed door "?'),
        ("a <unk> and a <person>", ' what is the summary of article " a unk and a person "?'),
        ("it is {text} <bin_3>", ' what is the summary of article " it is {text} <bin_3> "?'),
    ],
)
def test_a_summary_is_asked_for_as_in_training(
    ofa: OFA, monkeypatch: pytest.MonkeyPatch, text: str, asked: str
) -> None:
    calls = scripted(monkeypatch, [EOS])
    ofa.summarize(text)
    (call,) = calls
    assert call.sources == [source_of(ofa, asked)]
    assert list(call.pictures) == [None]
    assert call.options is not None
    changed = {"num_beams": 6, "max_new_tokens": 32, "length_penalty": 0.7, "no_repeat_ngram_size": 3}
    assert call.options.model_dump(exclude_defaults=True) == changed


def test_a_long_text_is_cut_to_512_words_and_with_its_prompt_to_512_tokens(
    ofa: OFA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the end of the prompt is lost, as in training."""
    calls = scripted(monkeypatch, [EOS])
    with (
        pytest.warns(UserWarning, match="^a text to summarize of 600 words was cut to 512$"),
        pytest.warns(UserWarning, match="^a text to summarize of 520 tokens was cut to 512$"),
    ):
        ofa.summarize("a " * 600)
    asked = source_of(ofa, ' what is the summary of article "' + " a" * 512 + ' "?')
    assert calls[0].sources == [[*asked[:513], EOS]]


def test_a_summary_is_the_best_beam(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, *([*ofa.tokenizer.encode(text), EOS] for text in (" a red car", " a car")))
    found = ofa.summarize("the car is red")
    assert type(found) is Text
    assert (found.text, found.alternatives, found.score) == ("a red car", ("a car",), pytest.approx(math.exp(-0.1)))


def test_summaries_of_different_texts_differ(ofa: OFA) -> None:
    found = ofa.summarize(["the car is red", "a man is on the left"], **SHORT)
    assert isinstance(found, list)
    assert found[0].score != pytest.approx(found[1].score, abs=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "^the text to summarize is empty: ''$"),
        ("...", r"^the text to summarize is empty: '\.\.\.'$"),
        (["a", " "], "^the text to summarize is empty: ' '$"),
        (7, "^a text must be a string, not int$"),
        (None, "^a text must be a string, not NoneType$"),
        ([], "^an empty list was given"),
    ],
    ids=repr,
)
def test_nothing_to_summarize_is_refused(ofa: OFA, text: Any, message: str) -> None:
    with pytest.raises(OFAError, match=message):
        ofa.summarize(text)


# Anything


@pytest.mark.parametrize("text", [" What IS it?", "no space", " a  half-open {x} (<bin_3>)", "  "[:1] + "\nit"])
def test_a_text_is_taken_as_it_is(ofa: OFA, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    calls = scripted(monkeypatch, [*ofa.tokenizer.encode(" a car"), EOS])
    found = ofa.generate(text, num_beams=3, temperature=0.5)
    assert calls[0].sources == [source_of(ofa, text)]
    assert max(calls[0].sources[0]) < ofa.tokenizer.vocabulary.mask
    assert list(calls[0].pictures) == [None]
    assert calls[0].options is not None
    assert calls[0].options.model_dump(exclude_defaults=True) == {"num_beams": 3, "temperature": 0.5}
    assert found.text == "a car"


def test_a_picture_makes_a_difference(ofa: OFA) -> None:
    text = " what is it?"
    found = [
        ofa.generate(text, **SHORT),
        ofa.generate(text, picture(0), **SHORT),
        ofa.generate(text, picture(1), **SHORT),
    ]
    assert len({round(one.score, 5) for one in found}) == 3


def test_one_text_goes_with_every_picture_and_one_picture_with_every_text(
    ofa: OFA, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = scripted(monkeypatch, [EOS])
    assert len(ofa.generate(" a", [picture(0), picture(1)])) == 2
    assert len(ofa.generate([" a", " b"], picture(0))) == 2
    assert len(ofa.generate([" a", " b"])) == 2
    a, b = source_of(ofa, " a"), source_of(ofa, " b")
    assert [call.sources for call in calls] == [[a, a], [a, b], [a, b]]
    assert [[one is None for one in call.pictures] for call in calls] == [[False] * 2, [False] * 2, [True] * 2]


def test_pictures_may_be_missing_from_a_list(ofa: OFA, stem_runs: list[int]) -> None:
    texts = [" a", " what is it?", " is it on the left or on the right?", " b"]
    images = [None, picture(0), None, picture(1)]
    found = ofa.generate(texts, images, **SHORT)
    assert stem_runs == [2]
    alone = [ofa.generate(text, image, **SHORT) for text, image in zip(texts, images, strict=True)]
    assert_same(found, alone)
    assert found[0].score != pytest.approx(ofa.generate(texts[0], picture(0), **SHORT).score, abs=1e-5)
    assert_same(ofa.generate(texts, [None] * 4, **SHORT), ofa.generate(texts, **SHORT))


def test_sampling_is_possible(ofa: OFA) -> None:
    found = ofa.generate(" a", do_sample=True, num_return_sequences=3, max_new_tokens=4)
    assert len(found.alternatives) == 2


@pytest.mark.parametrize(
    ("text", "image", "message"),
    [
        ("", None, "the text is ''; it should be a string that is not empty"),
        (" \n", None, r"the text is ' \\n'"),
        ([" a", ""], None, "the text is ''"),
        (7, None, "a text must be a string, not int"),
        (" a", [], "an empty list was given"),
        ([], None, "an empty list was given"),
        ([" a", " b"], [None] * 3, "3 images and 2 texts do not pair up"),
        (" a", ["nowhere.png"], "image nowhere.png does not exist"),
    ],
    ids=repr,
)
def test_input_that_makes_no_sense_is_refused(ofa: OFA, text: Any, image: Any, message: str) -> None:
    with pytest.raises(OFAError, match=message):
        ofa.generate(text, image, **SHORT)


# Symbols in raw prompts


def test_symbols_that_stand_alone_are_read_as_the_original_reads_its_prompts(
    ofa: OFA, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = scripted(monkeypatch, [EOS])
    box, size = (10, 12, 40, 30), (90, 60)
    ofa.describe_region(picture(0, *size[::-1]), box)
    bins = refcoco_codec(ofa.pipeline).encode(box, size)
    prompt = REGION_SPEC.prompt("gpt2")
    for space in (" ", "  ", "\n"):
        ofa.generate(prompt + "".join(f"{space}<bin_{number}>" for number in bins), picture(0))
    assert all(call.sources == calls[0].sources for call in calls)
    assert calls[0].sources[0][-5:-1] == ofa.tokenizer.vocabulary.bins_to_ids(bins)


def test_text_behind_a_symbol_keeps_its_space(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = scripted(monkeypatch, [EOS])
    ofa.generate(" a <bin_3> b <bin_9> c")
    a, b, c = (ofa.tokenizer.encode(text) for text in (" a", " b", " c"))
    third, ninth = ofa.tokenizer.vocabulary.bins_to_ids([3, 9])
    assert calls[0].sources == [[BOS, *a, third, *b, ninth, *c, EOS]]


def test_codes_are_symbols_where_the_vocabulary_has_them() -> None:
    tokenizer = Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=8)
    code = tokenizer.vocabulary.id_of("<code_7>")
    assert tokenizer.encode_prompt("<code_7> a <code_8>") == [code, *tokenizer.encode(" a <code_8>")]


@pytest.mark.parametrize(
    "text", [" a<bin_3>", " <bin_3>.", " (<bin_3>)", " <bin_1000>", " <bin_-1>", " <mask>", " </s>"]
)
def test_what_is_no_whole_word_or_no_symbol_is_text(ofa: OFA, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    calls = scripted(monkeypatch, [EOS])
    ofa.generate(text)
    assert calls[0].sources == [source_of(ofa, text)]


def test_symbols_can_be_turned_off(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = scripted(monkeypatch, [EOS])
    ofa.generate(" region: <bin_3>", symbols=False)
    assert calls[0].sources == [source_of(ofa, " region: <bin_3>")]


@pytest.mark.parametrize(
    "ask",
    [
        lambda ofa, text: ofa.ground(picture(0), text),
        lambda ofa, text: ofa.answer(picture(0), text),
        lambda ofa, text: ofa.entails(picture(0), text),
        lambda ofa, text: ofa.ground_dialog(picture(0), [text]),
        lambda ofa, text: ofa.summarize(text),
    ],
    ids=["ground", "answer", "entails", "ground_dialog", "summarize"],
)
def test_what_a_person_types_is_never_a_symbol(
    ofa: OFA, monkeypatch: pytest.MonkeyPatch, ask: Callable[[OFA, str], object]
) -> None:
    calls = scripted(monkeypatch, [EOS])
    ask(ofa, "it is <bin_3>")
    assert ofa.tokenizer.vocabulary.id_of("<bin_3>") not in calls[0].sources[0]
