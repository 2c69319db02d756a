from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import assert_same, lively_ofa, picture, scripted
from torch import Tensor

from ofa_core import OFA, EncodedImage, GenerationOptions, OFAError, TaskSettings, Tokenizer
from ofa_core.heads.pipeline import Pipeline, normalize_text
from ofa_core.text import pre_caption, pre_question
from ofa_core.vision import transform as transform_module
from ofa_core.vision.transform import ImageTransform, open_image

BOS, PAD, EOS, UNK = range(4)
SHORT = GenerationOptions(num_beams=2, max_new_tokens=4)


@pytest.fixture(scope="module")
def pipeline(ofa: OFA) -> Pipeline:
    return Pipeline(ofa.pipeline.model, ofa.tokenizer, ImageTransform(64))


@pytest.fixture
def stem(ofa: OFA) -> Iterator[list[Tensor]]:
    """The pixels of each call of the image stem from here on."""
    calls: list[Tensor] = []
    handle = ofa.pipeline.model.encoder.image_stem.register_forward_hook(
        lambda module, inputs, output: calls.append(inputs[0])
    )
    yield calls
    handle.remove()


def sizes(calls: list[Tensor]) -> list[int]:
    """How many pictures each call of the stem saw."""
    return [len(pixels) for pixels in calls]


# The stem's work is done once


@pytest.mark.parametrize(
    ("order", "batch_size", "seen"),
    [
        ("A", 16, [1]),
        ("AAAA", 16, [1]),
        ("ABAB", 16, [2]),
        ("AAAAA", 2, [1]),
        ("AAAB", 2, [1, 1]),
        ("ABBA", 2, [1, 1]),
        ("ABBBA", 2, [1, 1]),
        ("ABAB", 1, [1, 1]),
        ("AABBB", 1, [1, 1]),
    ],
)
def test_the_stem_runs_once_for_a_picture_that_occurs_several_times(
    ofa: OFA, stem: list[Tensor], order: str, batch_size: int, seen: list[int]
) -> None:
    pictures = {"A": picture(0), "B": picture(1)}
    texts = [f"thing {number}" for number in range(len(order))]
    found = ofa.ground([pictures[name] for name in order], texts, batch_size=batch_size, num_beams=2)
    assert sizes(stem) == seen
    assert len({one.score for one in found}) == len(order)  # each text had an answer of its own
    for one, name, text in zip(found, order, texts, strict=True):
        assert_same(one, ofa.ground(pictures[name], text, num_beams=2))


def test_many_texts_on_one_picture_run_the_stem_once(ofa: OFA, stem: list[Tensor], tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    picture(0).save(path)
    ofa.ground(path, [f"thing {number}" for number in range(5)], batch_size=2, num_beams=2)
    assert sizes(stem) == [1]


def test_the_stem_does_not_run_for_a_look(ofa: OFA, stem: list[Tensor]) -> None:
    looks = ofa.look([picture(0), picture(1), picture(0)])
    assert sizes(stem) == [3]
    stem.clear()
    ofa.ground([*looks, looks[0]], "it", num_beams=2)
    ofa.caption(looks[1], num_beams=2, max_new_tokens=2)
    assert ofa.look(looks[0]) is looks[0]
    assert stem == []
    ofa.ground([looks[0], picture(2)], "it", num_beams=2)
    assert sizes(stem) == [1]


def test_many_looks_are_made_in_batches_and_once_each(pipeline: Pipeline, stem: list[Tensor]) -> None:
    images = [picture(seed, 20, 20) for seed in range(4)]
    looks = pipeline.look([*images, images[0], images[3]], batch_size=3)
    assert sizes(stem) == [3, 1]
    assert [look.image.tobytes() for look in looks] == [image.tobytes() for image in [*images, images[0], images[3]]]
    assert looks[4].features is looks[0].features


def test_a_look_is_its_own_pictures(ofa: OFA) -> None:
    images = [picture(0), picture(1, 30, 70)]
    for image, look in zip(images, ofa.look(images), strict=True):
        assert isinstance(look, EncodedImage)
        assert look.size == image.size
        expected = ofa.model.image_features(ImageTransform(64)(image)[None])
        assert look.features.grid == (4, 4)
        torch.testing.assert_close(look.features.patches, expected.patches, rtol=0, atol=1e-5)


def test_a_prepared_picture_is_what_it_was_made_of(ofa: OFA, stem: list[Tensor]) -> None:
    image = picture(0)
    prepared = ofa.pipeline.prepare(image)
    assert prepared.size == image.size
    assert_same(ofa.ground([prepared, prepared], "it", num_beams=2), ofa.ground([image, image], "it", num_beams=2))
    assert sizes(stem) == [1, 1]
    assert torch.equal(stem[0], stem[1])
    (look,) = ofa.look([prepared])
    assert look.image.tobytes() == image.tobytes()


def test_what_was_prepared_for_another_transform_is_prepared_anew(ofa: OFA, stem: list[Tensor]) -> None:
    other = Pipeline(ofa.model, ofa.tokenizer, ImageTransform(32, imagenet_normalization=True))
    ofa.ground(other.prepare(picture(0)), "it", num_beams=2)
    assert torch.equal(stem[0], ImageTransform(64)(picture(0))[None])


def test_the_stem_does_not_run_for_text_alone(ofa: OFA, stem: list[Tensor]) -> None:
    ofa.summarize("a text", num_beams=2, max_new_tokens=2)
    assert stem == []


# Batches

SOURCE_TEXTS = [" a dog", " which region does the text describe?", " it", " is it red or blue, left or right?", " a"]


@pytest.fixture
def samples(pipeline: Pipeline) -> tuple[list[Any], list[list[int]]]:
    """Pictures, of which two are missing, and sources of different lengths."""
    pictures = [picture(0), None, picture(1, 30, 70), None, picture(2)]
    return pictures, [pipeline.encode(text) for text in SOURCE_TEXTS]


def searched(pipeline: Pipeline, pictures: Any, sources: Any, batch_size: int) -> Any:
    return pipeline.run(pictures, sources, SHORT, batch_size=batch_size)


def scored(pipeline: Pipeline, pictures: Any, sources: Any, batch_size: int) -> Any:
    candidates = [[10, 11], [10, 12], [13], [14, 15, 16]]
    return pipeline.score(pictures, sources, candidates, "prev_output", batch_size)


def prefixed(pipeline: Pipeline, pictures: Any, sources: Any, batch_size: int) -> Any:
    prefixes = [source[1:-1] for source in sources]
    options = GenerationOptions(num_beams=2, max_new_tokens=4)
    found = pipeline.run(pictures, sources, options, prefixes=prefixes, batch_size=batch_size)
    for beams, prefix in zip(found, prefixes, strict=True):
        assert beams[0].tokens[: len(prefix)] == prefix
    return found


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
@pytest.mark.parametrize("work", [searched, scored, prefixed], ids=lambda work: work.__name__)
def test_a_batch_in_which_some_have_no_picture_equals_its_samples_one_by_one(
    pipeline: Pipeline, samples: tuple[list[Any], list[list[int]]], work: Callable[..., Any], batch_size: int
) -> None:
    pictures, sources = samples
    found = work(pipeline, pictures, sources, batch_size)
    assert len(found) == len(sources)
    for one, image, source in zip(found, pictures, sources, strict=True):
        (alone,) = work(pipeline, [image], [source], 16)
        assert_same(one, alone)
    (other,) = work(pipeline, [picture(7)], [sources[1]], 16)  # a picture would have made a difference
    with pytest.raises(AssertionError):
        assert_same(found[1], other)


def test_pictures_of_all_or_of_none_need_no_mask(
    pipeline: Pipeline, samples: tuple[list[Any], list[list[int]]]
) -> None:
    pictures, sources = samples
    asked = [pictures[0], pictures[2]], [None, None], [pictures[0], None]
    full, none, mixed = (batch for two in asked for _, batch in pipeline.batches(two, sources[:2], 2))
    assert (full.image_mask, none.image_mask, none.images) == (None, None, None)
    assert mixed.image_mask is not None
    assert mixed.image_mask.tolist() == [True, False]


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_size_below_one_is_refused(pipeline: Pipeline, size: int) -> None:
    with pytest.raises(OFAError, match=f"^batch_size must be at least 1, not {size}$"):
        pipeline.run([None], [[BOS, EOS]], SHORT, batch_size=size)


# Looks of other sizes


@pytest.mark.parametrize("batch_size", [1, 16])
def test_looks_of_different_image_sizes_in_one_call_are_refused(ofa: OFA, batch_size: int) -> None:
    task = TaskSettings(image_size=32, max_image_size=32, code_dict_size=0)
    smaller = lively_ofa(task=task).look(picture(0))
    with pytest.raises(OFAError, match=r"looked at with an image size of 32 × 32 pixels, this model takes 64 × 64"):
        ofa.ground([ofa.look(picture(0)), smaller], "it", num_beams=2, batch_size=batch_size)


def test_no_pictures_are_refused(pipeline: Pipeline) -> None:
    for opens in (pipeline.open, pipeline.look):
        with pytest.raises(OFAError, match="there are no images"):
            opens([])


# Closed sets


def test_answers_have_the_leading_space_of_targets(pipeline: Pipeline) -> None:
    found = pipeline.candidate_ids(["yes", "dark green", "Yes"])
    assert found == [pipeline.tokenizer.encode(text) for text in (" yes", " dark green", " Yes")]


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([], "the list of answers is empty"),
        (["yes", ""], "answer 1 is ''; an answer is a text that is not empty"),
        ([" \n", "yes"], r"answer 0 is ' \\n'"),
        (["yes", None], "answer 1 is None"),
        (["yes", 7], "answer 1 is 7"),
        (["yes", "no", "maybe", "no"], "answer 'no' occurs twice, at 1 and 3"),
        ("yes", "a list"),
    ],
    ids=repr,
)
def test_a_closed_set_that_makes_no_sense_is_refused(pipeline: Pipeline, candidates: Any, message: str) -> None:
    with pytest.raises(OFAError, match=message):
        pipeline.candidate_ids(candidates)


# Normalised texts


def test_a_text_is_normalized_and_one_that_fits_is_not_warned_about() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert normalize_text("#The  half-open  Door", pre_caption, 4, "caption") == "the half open door"


def test_a_text_that_is_too_long_is_cut_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="^a question of 5 words was cut to 3$"):
        assert normalize_text("One two/three  four five?", pre_question, 3, "question") == "one two three"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "^the question is empty: ''$"),
        ("  ", "^the question is empty: '  '$"),
        ("?!.", r"^the question is empty: '\?!\.'$"),
        ("--", "^the question is empty: '--'$"),
        (7, "^the question must be a string, not int$"),
        (None, "^the question must be a string, not NoneType$"),
        (b"what", "^the question must be a string, not bytes$"),
    ],
    ids=repr,
)
def test_a_text_of_which_nothing_is_left_is_refused(text: Any, message: str) -> None:
    with pytest.raises(OFAError, match=message):
        normalize_text(text, pre_question, 9, "question")


# Chinese models

CHINESE = '[PAD] [UNK] [CLS] [SEP] [MASK] 这 段 文 字 描 述 的 是 哪 个 区 域 ？ 图 片 了 什 么 内 容 红 猫 " ? a ##b c'


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> OFA:
    directory = tmp_path_factory.mktemp("chinese")
    pieces = CHINESE.split()
    (directory / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), "utf-8")
    (directory / "dict.txt").write_text("".join(f"{piece} 1\n" for piece in pieces), "utf-8")
    return lively_ofa(tokenizer=Tokenizer.from_dir(directory, code_dict_size=0))


def chinese_ids(text: str) -> list[int]:
    """Ids of a text whose characters are all single pieces: dict.txt's lines from 4 on."""
    return [BOS, *(4 + CHINESE.split().index(character) for character in text if character != " "), EOS]


@pytest.mark.parametrize(
    ("ask", "asked"),
    [
        (lambda ofa: ofa.ground(picture(0), "红猫"), '这段文字" 红猫 "描述的是哪个区域？'),
        (lambda ofa: ofa.caption(picture(0)), "图片描述了什么内容?"),
        (lambda ofa: ofa.classify(picture(0), ["猫", "红"]), "图片描述了什么内容?"),
    ],
    ids=["ground", "caption", "classify"],
)
def test_a_chinese_model_is_asked_in_chinese(
    chinese: OFA, monkeypatch: pytest.MonkeyPatch, ask: Callable[[OFA], object], asked: str
) -> None:
    assert chinese.tokenizer.kind == "bert"
    calls = scripted(monkeypatch, [EOS])
    ask(chinese)
    assert calls[0].sources == [chinese_ids(asked)]


#: Tasks that the original asks in English of a Chinese model too.
IN_ENGLISH: dict[str, tuple[Callable[..., Any], str]] = {
    "answer": (lambda ofa, **more: ofa.answer(picture(0), "a", **more), " a?"),
    "entails": (lambda ofa, **more: ofa.entails(picture(0), "a", **more), ' does the image describe " a "?'),
    "entails_caption": (
        lambda ofa, **more: ofa.entails(picture(0), "a", "a", **more),
        ' can image and text1 " a " imply text2 " a "?',
    ),
    "summarize": (lambda ofa, **more: ofa.summarize("a", **more), "a 请用一个句子简单总结上文："),
    "read": (lambda ofa, **more: ofa.read(picture(0), **more), "图片上的文字是什么?"),
}


@pytest.mark.parametrize("name", IN_ENGLISH)
def test_a_chinese_model_is_asked_as_the_original_asks_it(
    chinese: OFA, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    ask, asked = IN_ENGLISH[name]
    calls = scripted(monkeypatch, [EOS])
    ask(chinese)
    assert calls[0].sources == [chinese.pipeline.encode(asked)]
    fields = "{question}" if name == "answer" else "{hypothesis} {caption}" if name == "entails_caption" else ""
    fields = fields or {"entails": "{hypothesis}", "summarize": "{text}"}.get(name, "")
    ask(chinese, prompt=f"红 {fields}")
    assert calls[1].sources[0][:2] == chinese_ids("红")[:2]


def test_a_chinese_model_answers(chinese: OFA) -> None:
    found = chinese.ground(picture(0), "红猫", bins_only=True, num_beams=2)
    assert found.box is not None
    assert sum(chinese.classify(picture(0), ["猫", "红"]).probabilities.values()) == pytest.approx(1)


# Prompts of a user


@pytest.mark.parametrize(
    ("ask", "asked"),
    [
        (lambda ofa: ofa.ground(picture(0), "A dog", prompt=" find {caption}!"), " find a dog!"),
        (lambda ofa: ofa.answer(picture(0), "Why", prompt=" q: {question}"), " q: why?"),
        (lambda ofa: ofa.entails(picture(0), "A b", prompt=" is it {hypothesis}"), " is it a b"),
        (lambda ofa: ofa.entails(picture(0), "a", "B", prompt="{caption}, {hypothesis}"), "b, a"),
        (lambda ofa: ofa.summarize("A b", prompt=" short: {text}"), " short: a b"),
        (lambda ofa: ofa.caption(picture(0), prompt=" what?"), " what?"),
        (lambda ofa: ofa.classify(picture(0), ["a", "b"], prompt=" which?"), " which?"),
    ],
    ids=["ground", "answer", "entails", "entails_caption", "summarize", "caption", "classify"],
)
def test_a_given_prompt_takes_the_place_of_the_tasks_own(
    ofa: OFA, monkeypatch: pytest.MonkeyPatch, ask: Callable[[OFA], object], asked: str
) -> None:
    calls = scripted(monkeypatch, [EOS])
    ask(ofa)
    assert calls[0].sources == [[BOS, *ofa.tokenizer.encode(asked), EOS]]


@pytest.mark.parametrize("prompt", [" find {it}", " find {", " find {0}", " find {caption.x}"])
def test_a_prompt_with_other_fields_is_refused(ofa: OFA, prompt: str) -> None:
    with pytest.raises(OFAError, match="prompt"):
        ofa.ground(picture(0), "a dog", prompt=prompt)


def test_pictures_keep_their_order_and_identity(pipeline: Pipeline) -> None:
    images = [picture(0, 40, 50), picture(1, 60, 70)]
    look = pipeline.look([images[1]])[0]
    opened = pipeline.open([images[0], look, images[1], images[0]])
    assert opened[1] is look
    assert opened[0] is opened[3]
    assert [one.size for one in opened] == [(50, 40), (70, 60), (70, 60), (50, 40)]
    assert opened[0].image == images[0]


def test_a_file_that_occurs_several_times_is_read_once(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "picture.png"
    picture(0).save(path)
    read: list[Any] = []
    monkeypatch.setattr(transform_module, "open_image", lambda image, **_: (read.append(image), open_image(image))[1])
    assert len(pipeline.look([path] * 3)) == 3
    assert read == [path]
    pipeline.look([str(path), str(tmp_path) + "/picture.png"])
    assert len(read) == 2


@pytest.mark.parametrize("prompt", [" where?", "{caption} {question}"])
def test_a_prompt_that_would_ignore_the_text_is_refused(ofa: OFA, prompt: str) -> None:
    with pytest.raises(OFAError, match=r"it should hold \{caption\} and no other field"):
        ofa.ground(picture(0), "a dog", prompt=prompt)
