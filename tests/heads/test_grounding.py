from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synth
import torch
from PIL import Image
from reference import SCORE_TOLERANCE, small_config
from torch import Tensor

import ofa_core
from ofa_core import OFA, Grounding, Hypothesis, OFAError, OFAModel, TaskSettings, Tokenizer
from ofa_core.heads import pipeline as pipeline_module
from ofa_core.heads.grounding import invig_codec, refcoco_codec
from ofa_core.text import small_vocabulary_dir
from ofa_core.vision.transform import ImageLike, open_image

BOS, PAD, EOS, UNK = range(4)


@pytest.fixture(scope="module")
def ofa(small_directory: Path) -> OFA:
    return ofa_core.load(small_directory)


def picture(seed: int, height: int = 60, width: int = 90) -> Image.Image:
    return Image.fromarray(synth.synth_image(height, width, seed))


def steered(ofa: OFA, token: int) -> OFA:
    """A copy whose model wants to say ``token`` wherever it may."""
    model = OFAModel(ofa.model.config).eval()
    model.load_state_dict(ofa.model.state_dict())
    model.requires_grad_(False)
    embedding = model.token_embedding.weight[token]
    model.decoder.final_norm.bias.copy_(50 * embedding / embedding.norm() ** 2)
    return OFA(model, ofa.tokenizer)


def answering(monkeypatch: pytest.MonkeyPatch, *answers: Sequence[int], scores: Sequence[float] | None = None) -> None:
    """Let every search find ``answers`` (token ids), the best first."""
    beams = [Hypothesis(list(a), -float(i), list(scores or [-0.1] * len(a))) for i, a in enumerate(answers)]
    monkeypatch.setattr(pipeline_module, "generate", lambda model, tokens, *rest, **more: [beams] * len(tokens))


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The source tokens of each batch that is searched from here on."""
    batches: list[Tensor] = []
    generate: Callable[..., Any] = pipeline_module.generate

    def spy(model: OFAModel, tokens: Tensor, *rest: Any, **more: Any) -> Any:
        batches.append(tokens.clone())
        return generate(model, tokens, *rest, **more)

    monkeypatch.setattr(pipeline_module, "generate", spy)
    return batches


def assert_same(found: Grounding, expected: Grounding) -> None:
    assert (found.bins, found.text) == (expected.bins, expected.text)
    assert found.box == (None if expected.box is None else pytest.approx(expected.box))
    assert found.score == pytest.approx(expected.score, abs=SCORE_TOLERANCE * expected.score)
    assert found.token_scores == pytest.approx(expected.token_scores, rel=SCORE_TOLERANCE)
    assert len(found.alternatives) == len(expected.alternatives)
    for left, right in zip(found.alternatives, expected.alternatives, strict=True):
        assert_same(left, right)


# What is asked


@pytest.mark.parametrize(
    ("caption", "asked"),
    [
        ("the man in white", ' which region does the text " the man in white " describe?'),
        ("The MAN", ' which region does the text " the man " describe?'),
        ("...the dog", ' which region does the text " the dog " describe?'),
        ("half-open  door/window", ' which region does the text " half open door window " describe?'),
        ("a <person>", ' which region does the text " a person " describe?'),
        ('{caption} "a" {0}', ' which region does the text " {caption} "a" {0} " describe?'),
        ("who <bin_3> </s>", ' which region does the text " who <bin_3> < s> " describe?'),
        ("a " * 200, f' which region does the text " {" ".join("a" * 128)} " describe?'),
    ],
    ids=["plain", "lower_case", "leading_points", "hyphens", "person", "braces", "symbols", "long"],
)
def test_the_source_is_the_prompt_of_the_task(ofa: OFA, sources: list[Tensor], caption: str, asked: str) -> None:
    ofa.ground(picture(0), caption, num_beams=1)
    (batch,) = sources
    assert batch.tolist() == [[BOS, *ofa.tokenizer.encode(asked), EOS]]
    assert ofa.tokenizer.decode(batch[0]) == asked


def test_symbols_typed_by_a_user_are_plain_text(ofa: OFA, sources: list[Tensor]) -> None:
    ofa.ground(picture(0), "the <bin_3> and <mask>", num_beams=1)
    vocabulary = ofa.tokenizer.vocabulary
    inside = sources[0][0, 1:-1].tolist()
    assert not [token for token in inside if token >= vocabulary.mask or token < 4]
    assert " <bin_3> and <mask> " in ofa.tokenizer.decode(inside)


def test_a_model_sees_the_picture_in_its_own_size(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    features = ofa.pipeline.model.image_features
    monkeypatch.setattr(ofa.pipeline.model, "image_features", lambda pixels: (seen.append(pixels), features(pixels))[1])
    ofa.ground(Image.new("RGB", (31, 200), (255, 0, 51)), "red", num_beams=1)
    assert seen[0].shape == (1, 3, 64, 64)
    torch.testing.assert_close(seen[0][0, :, 5, 5], torch.tensor([1.0, -1.0, -0.6]))


# What comes back


def bin_ids(ofa: OFA, *bins: int) -> list[int]:
    return ofa.tokenizer.vocabulary.bins_to_ids(bins)


def test_four_bins_are_a_box_in_pixels_of_the_original(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, [*bin_ids(ofa, 0, 333, 666, 999), EOS])
    wide, tall = ofa.ground([picture(0, 40, 120), picture(1, 300, 90)], "it")
    assert wide.box == pytest.approx((0, 40 / 3, 80, 40), abs=1e-3)
    assert tall.box == pytest.approx((0, 100, 60, 300), abs=1e-3)
    assert wide.bins == tall.bins == (0, 333, 666, 999)
    assert wide.text == "<bin_0> <bin_333> <bin_666> <bin_999>"


@pytest.mark.parametrize(("image_size", "max_image_size", "part"), [(64, 128, 2.0), (64, 64, 1.0)])
def test_bins_count_the_side_that_the_checkpoint_was_trained_with(
    image_size: int, max_image_size: int, part: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = TaskSettings(image_size=image_size, max_image_size=max_image_size, code_dict_size=0)
    tokenizer = Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=0)
    other = OFA(OFAModel(small_config(task=task)).eval(), tokenizer)
    answering(monkeypatch, [*bin_ids(other, 0, 0, 333, int(999 / part)), EOS])
    found = other.ground(picture(0, 40, 120), "it")
    assert found.box == pytest.approx((0, 0, 40 * part, 40), abs=0.05)


@pytest.mark.parametrize(
    "ask", [lambda ofa: ofa.ground(picture(0), "it"), lambda ofa: ofa.describe_region(picture(0), [0, 0, 9, 9])]
)
def test_boxes_beyond_the_last_bin_are_refused(ask: Callable[[OFA], object]) -> None:
    task = TaskSettings(image_size=64, max_image_size=32, code_dict_size=0)
    other = OFA(OFAModel(small_config(task=task)).eval(), Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=0))
    with pytest.raises(OFAError, match=r"^image_size 64 is more than max_image_size 32, .*: set max_image_size=64 too"):
        ask(other)
    assert other.caption(picture(0), max_new_tokens=2).text is not None
    assert other.ground_dialog(picture(0), ["it"], max_new_tokens=2).score > 0  # fractions of the sides


@pytest.mark.parametrize("bins", [(9, 9, 5, 99), (9, 99, 99, 9), (9, 9, 9, 99), (0, 0, 1, 1)])
def test_bins_that_enclose_nothing_are_no_box(ofa: OFA, bins: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, [*bin_ids(ofa, *bins), EOS])
    found = ofa.ground(picture(0), "it")
    assert found.box is None
    assert found.bins == bins


def test_every_box_is_within_its_picture_and_good_for_every_method(ofa: OFA) -> None:
    """Bin 999 is 218.00002 pixels of a picture of 218 × 240 in the original's order of operations."""
    codec = refcoco_codec(ofa.pipeline)
    outside = 0
    for width in range(200, 260):
        size = (width, 240)
        box = codec.decode_within([100, 100, 999, 999], size)
        exact = codec.decode([100, 100, 999, 999], size)
        assert box is not None
        assert exact is not None
        outside += exact[2] > width
        assert box[2:] == pytest.approx(size, abs=1e-3)
        assert codec.encode(box, size) == [100, 100, 999, 999]
        assert invig_codec(ofa.pipeline).encode(box, size)
    assert outside > 0


WORD = 10

NO_BOX = {
    "words": lambda ofa: [WORD, WORD + 1, EOS],
    "nothing": lambda ofa: [EOS],
    "three_bins": lambda ofa: [*bin_ids(ofa, 1, 2, 3), EOS],
    "five_bins": lambda ofa: [*bin_ids(ofa, 1, 2, 3, 4, 5), EOS],
    "bins_and_a_word": lambda ofa: [*bin_ids(ofa, 1, 2, 3, 4), WORD, EOS],
    "a_word_and_bins": lambda ofa: [WORD, *bin_ids(ofa, 1, 2, 3, 4), EOS],
    "unknown_inside": lambda ofa: [*bin_ids(ofa, 1, 2), UNK, *bin_ids(ofa, 3, 4), EOS],
}


@pytest.mark.parametrize("name", NO_BOX)
def test_an_answer_that_is_not_four_bins_has_no_box(ofa: OFA, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = NO_BOX[name](ofa)
    answering(monkeypatch, answer, [*bin_ids(ofa, 100, 200, 300, 400), EOS])
    found = ofa.ground(picture(0), "it")
    assert found.box is None
    assert found.text == ofa.tokenizer.decode(answer).strip()
    assert found.alternatives[0].box is not None


def test_a_model_that_answers_in_words_gets_no_box(ofa: OFA) -> None:
    found = steered(ofa, WORD).ground(picture(0), "it", no_repeat_ngram_size=0)
    assert found.text == ofa.tokenizer.decode([WORD] * 4).strip()
    assert (found.box, found.bins) == (None, None)
    assert min(found.token_scores[:4]) > 0.9  # the </s> that is forced behind them is improbable


def test_a_search_that_finds_nothing_is_no_box_and_no_confidence(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch)
    found = ofa.ground([picture(0)] * 2, "it")
    assert found == [Grounding(box=None, score=0.0, token_scores=(), bins=None, text="")] * 2


@pytest.mark.parametrize("wish", [None, WORD, UNK, BOS, EOS, PAD], ids=str)
def test_bins_only_always_gives_a_box(ofa: OFA, wish: int | None) -> None:
    """Whatever a model would rather say: the special tokens are ruled out too."""
    asked = ofa if wish is None else steered(ofa, wish)
    found = asked.ground([picture(0), picture(1)], "it", bins_only=True)
    for one in found:
        for answer in (one, *one.alternatives):
            assert answer.bins is not None
            assert len(answer.bins) == 4
            assert answer.box is not None


def test_a_score_is_the_mean_probability_of_the_tokens(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    log_probs = [-0.5, -1.0, -0.25, -2.0, -0.125]
    answering(monkeypatch, [*bin_ids(ofa, 1, 2, 3, 4), EOS], scores=log_probs)
    found = ofa.ground(picture(0), "it")
    assert found.score == pytest.approx(math.exp(sum(log_probs) / 5))
    assert found.token_scores == pytest.approx([math.exp(value) for value in log_probs])


def test_a_score_depends_on_the_picture_and_on_the_text(ofa: OFA) -> None:
    found = [
        *ofa.ground([picture(0), picture(1), picture(2)], "it"),
        *ofa.ground(picture(0), ["the man in white", "a dog on the left"]),
        *ofa.ground([picture(0), picture(1)], "it", bins_only=True),
    ]
    scores = [one.score for one in found]
    assert all(0 < score < 1 for score in scores)
    assert len({round(math.log(score), 6) for score in scores}) == len(scores)


def test_the_other_beams_are_alternatives_best_first(ofa: OFA) -> None:
    found = ofa.ground(picture(0), "it", bins_only=True)
    assert len(found.alternatives) == 4
    answers = [found, *found.alternatives]
    assert len({one.bins for one in answers}) == 5
    assert [one.score for one in answers] == sorted((one.score for one in answers), reverse=True)
    assert all(one.alternatives == () for one in found.alternatives)
    fewer = ofa.ground(picture(0), "it", bins_only=True, num_return_sequences=2)
    assert fewer.bins == found.bins
    assert len(fewer.alternatives) == 1
    assert ofa.ground(picture(0), "it", num_beams=1).alternatives == ()


# One or many


def kinds(directory: Path) -> list[ImageLike]:
    """Pictures of every kind and of different sizes."""
    path = directory / "picture.png"
    picture(4, 33, 70).save(path)
    array = synth.synth_image(50, 41, 5)
    tensor = torch.from_numpy(synth.synth_image(64, 64, 6)).permute(2, 0, 1)
    return [
        path, str(path), picture(1, 80, 20), picture(2).convert("L"), array, tensor, tensor.float() / 255
    ]  # fmt: skip


TEXTS = ["a dog", "the man in the white shirt on the left side of the tall one", "it", "red", "b", "c c", "d d d"]


def test_a_list_equals_its_items_one_by_one(ofa: OFA, tmp_path: Path) -> None:
    images = kinds(tmp_path)
    together = ofa.ground(images, TEXTS, bins_only=True)
    assert len(together) == len(images)
    for found, image, text in zip(together, images, TEXTS, strict=True):
        assert_same(found, ofa.ground(image, text, bins_only=True))


def test_the_kind_of_input_makes_no_difference(ofa: OFA, tmp_path: Path) -> None:
    array = synth.synth_image(50, 41, 5)
    path = tmp_path / "picture.png"
    Image.fromarray(array).save(path)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    same: list[ImageLike] = [Image.fromarray(array), path, str(path), array, tensor, tensor.float() / 255]
    first, *others = ofa.ground(same, "it", bins_only=True)
    for other in others:
        assert_same(other, first)


def test_one_text_goes_with_every_picture_and_one_picture_with_every_text(ofa: OFA) -> None:
    images, texts = [picture(0), picture(1, 30, 70)], ["a dog", "it"]
    for found, image in zip(ofa.ground(images, texts[0]), images, strict=True):
        assert_same(found, ofa.ground(image, texts[0]))
    for found, text in zip(ofa.ground(images[1], texts), texts, strict=True):
        assert_same(found, ofa.ground(images[1], text))


def test_a_result_is_a_list_where_an_argument_was(ofa: OFA) -> None:
    assert isinstance(ofa.ground(picture(0), "it", num_beams=1), Grounding)
    for image, text in (([picture(0)], "it"), (picture(0), ["it"]), ([picture(0)], ["it"]), ((picture(0),), ("it",))):
        found = ofa.ground(image, text, num_beams=1)  # type: ignore[call-overload]
        assert isinstance(found, list)
        assert len(found) == 1


@pytest.mark.parametrize(("batch_size", "batches"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (16, [5])])
def test_the_batch_size_changes_nothing(ofa: OFA, sources: list[Tensor], batch_size: int, batches: list[int]) -> None:
    images = [picture(seed, 20 + 9 * seed, 50) for seed in range(5)]
    expected = ofa.ground(images, TEXTS[:5], bins_only=True)
    sources.clear()
    found = ofa.ground(images, TEXTS[:5], bins_only=True, batch_size=batch_size)
    assert [len(batch) for batch in sources] == batches
    for left, right in zip(found, expected, strict=True):
        assert_same(left, right)


# How sure, and what else


@pytest.mark.parametrize(
    ("threshold", "has_box"), [(0.0, True), (0.4, True), (0.5, True), (0.501, False), (0.9, False), (1.1, False)]
)
def test_a_box_below_the_threshold_is_not_returned(
    ofa: OFA, monkeypatch: pytest.MonkeyPatch, threshold: float, has_box: bool
) -> None:
    answering(monkeypatch, [*bin_ids(ofa, 0, 0, 500, 500), EOS], scores=[math.log(0.5)] * 4 + [math.log(0.501)])
    for found in (
        ofa.ground(picture(0), "it", threshold=threshold),
        ofa.ground_dialog(picture(0), ["it"], threshold=threshold),
    ):
        assert (found.box is not None) is has_box
        assert found.bins == (0, 0, 500, 500)
        assert found.score == pytest.approx(0.5, abs=1e-3)


ONE, TWO, THREE = (0, 0, 500, 500), (0, 0, 500, 999), (500, 500, 999, 999)
NEAR_ONE, NEAR_TWO = (0, 0, 500, 480), (10, 0, 500, 999)  # IoU of 0.96 and 0.98 with them
FAR_FROM_ONE = (0, 0, 500, 440)  # IoU 0.88


@pytest.mark.parametrize(
    ("beams", "kept"),
    [
        ([ONE, TWO, THREE], [TWO, THREE]),
        ([ONE, NEAR_ONE, TWO], [TWO]),
        ([ONE, FAR_FROM_ONE, TWO], [FAR_FROM_ONE, TWO]),
        ([TWO, ONE, NEAR_ONE, NEAR_TWO, THREE], [ONE, THREE]),
        ([NEAR_ONE, ONE, ONE], []),
        ([ONE, (1, 2, 3), TWO, (1, 2, 3, 4, 5)], [TWO]),
        ([(1, 2, 3), ONE, NEAR_ONE, TWO], [ONE, TWO]),
        ([ONE], []),
    ],
)
def test_alternatives_are_boxes_that_differ_from_every_better_one(
    ofa: OFA, monkeypatch: pytest.MonkeyPatch, beams: list[tuple[int, ...]], kept: list[tuple[int, ...]]
) -> None:
    answering(monkeypatch, *([*bin_ids(ofa, *numbers), EOS] for numbers in beams))
    for found in (ofa.ground(picture(0), "it"), ofa.ground_dialog(picture(0), ["it"])):
        assert found.bins == beams[0]
        assert (found.box is not None) == (len(beams[0]) == 4)
        assert [one.bins for one in found.alternatives] == kept
        assert all(one.box is not None and one.alternatives == () for one in found.alternatives)


def test_alternatives_remain_where_the_best_box_is_not_sure_enough(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, *([*bin_ids(ofa, *numbers), EOS] for numbers in (ONE, NEAR_ONE, TWO)))
    found = ofa.ground(picture(0), "it", threshold=0.99)
    assert found.box is None
    assert [one.bins for one in found.alternatives] == [TWO]


# A look in place of a picture


@pytest.mark.parametrize("bins_only", [False, True])
def test_a_look_gives_the_same_box_as_its_picture(ofa: OFA, tmp_path: Path, bins_only: bool) -> None:
    images = kinds(tmp_path)
    looks = ofa.look(images)
    assert [look.size for look in looks] == [one.size for one in map(open_image, images)]
    found = ofa.ground(looks, TEXTS, bins_only=bins_only)
    for one, other in zip(found, ofa.ground(images, TEXTS, bins_only=bins_only), strict=True):
        assert_same(one, other)
    assert_same(ofa.ground(looks[2], TEXTS[2], bins_only=bins_only), found[2])


# Dialogs


@pytest.mark.parametrize(
    ("style", "dialog", "asked"),
    [
        (
            "guesswhat",
            [("Is it a  dog?", "No"), ("red?", "yes")],
            " \n#instruction: which region does the context describe?\n"
            '#context: "agent: is it a dog? human: no agent: red? human: yes"',
        ),
        (
            "invig",
            ["The cup", ("which?", "left")],
            " \n#instruction: which region does the context describe?\n"
            '#context: "human: the cup agent: which? human: left"',
        ),
    ],
    ids=["guesswhat", "invig"],
)
def test_a_dialog_is_asked_about_with_its_speakers(
    ofa: OFA, sources: list[Tensor], style: Any, dialog: Any, asked: str
) -> None:
    ofa.ground_dialog(picture(0), dialog, style=style, num_beams=1, max_new_tokens=2)
    assert sources[0].tolist() == [[BOS, *ofa.tokenizer.encode(asked), EOS]]


@pytest.mark.parametrize("before", ["", " region:", " sure. region:"])
def test_the_bins_of_a_dialog_are_thousandths_of_the_picture(
    ofa: OFA, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    answering(monkeypatch, [*ofa.tokenizer.encode(before), *bin_ids(ofa, 0, 250, 500, 999), EOS])
    wide, tall = ofa.ground_dialog([picture(0, 40, 120), picture(1, 300, 90)], [["it"], ["it"]])
    assert wide.box == pytest.approx((0.12, 10, 60, 39.96))  # 0 and 0.999 of a side are 0.001 and 0.999
    assert tall.box == pytest.approx((0.09, 75, 45, 299.7))
    assert wide.bins == (0, 250, 500, 999)
    assert wide.text == f"{before} <bin_0> <bin_250> <bin_500> <bin_999>".strip()


@pytest.mark.parametrize("numbers", [(), (1, 2, 3), (1, 2, 3, 4, 5), (1, 2, 3, 4) * 2], ids=len)
def test_other_than_four_bins_are_no_box_of_a_dialog(
    ofa: OFA, monkeypatch: pytest.MonkeyPatch, numbers: tuple[int, ...]
) -> None:
    answering(monkeypatch, [*ofa.tokenizer.encode(" region:"), *bin_ids(ofa, *numbers), EOS])
    assert ofa.ground_dialog(picture(0), ["it"]).box is None


@pytest.mark.parametrize(
    ("dialog", "options", "message"),
    [
        ([], {}, "^the dialog is empty: there is nothing to ground$"),
        ("is it red? yes", {}, "^a dialog is a list of turns"),
        ([("a", "b", "c")], {}, "^dialog entry 0 has 3 parts"),
        ([("a", "")], {}, "^dialog entry 0 holds ''"),
        (["it"], {"style": "chess"}, "'guesswhat', 'invig' or 'invig_dev', not 'chess'"),
    ],
    ids=["empty", "text", "triple", "empty_turn", "style"],
)
def test_a_dialog_that_makes_no_sense_is_refused(ofa: OFA, dialog: Any, options: Any, message: str) -> None:
    with pytest.raises(OFAError, match=message):
        ofa.ground_dialog(picture(0), dialog, **options)


# Errors


ERRORS: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "empty_text": (None, "", {}, "the text to ground is empty: ''"),
    "spaces": (None, "   ", {}, "the text to ground is empty"),
    "punctuation": (None, "...", {}, r"the text to ground is empty: '\.\.\.'"),
    "more_punctuation": (None, "?!;:", {}, "the text to ground is empty"),
    "one_empty_of_two": (None, ["a dog", "!"], {}, "the text to ground is empty: '!'"),
    "number": (None, 7, {}, "a text must be a string, not int"),
    "bytes": (None, b"a dog", {}, "a text must be a string, not bytes"),
    "none": (None, None, {}, "a text must be a string, not NoneType"),
    "none_in_a_list": (None, ["a dog", None], {}, "a text must be a string, not NoneType"),
    "two_images_three_texts": (["", ""], ["a", "b", "c"], {}, "2 images and 3 texts do not pair up"),
    "no_images": ([], "it", {}, "an empty list was given"),
    "no_texts": (None, [], {}, "an empty list was given"),
    "neither": ([], [], {}, "an empty list was given"),
    "unknown_option": (None, "it", {"beam": 3}, "beam: there is no such setting"),
    "bad_option": (None, "it", {"temperature": 0}, "temperature: "),
    "no_such_file": ("nowhere/picture.png", "it", {}, r"image nowhere.picture\.png does not exist"),
    "not_a_picture": (Path(__file__), "it", {}, r"image .*test_grounding\.py cannot be read: it is not a picture"),
    "a_directory": (Path(__file__).parent, "it", {}, "is a directory"),
    "no_image": (3, "it", {}, "an image is a path, a PIL image, an array or a tensor, not int"),
    "two_channels": (np.zeros((9, 9, 2), np.uint8), "it", {}, r"with 1, 3 or 4 channels, not \[9, 9, 2\]"),
    "bright_tensor": (torch.full((3, 9, 9), 255.0), "it", {}, r"must lie in 0\.\.1, not 255\.\.255"),
    "batch_size": (None, "it", {"batch_size": 0}, "batch_size must be at least 1, not 0"),
    "negative_batch_size": (None, "it", {"batch_size": -2}, "batch_size must be at least 1, not -2"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_input_that_makes_no_sense_is_refused(ofa: OFA, name: str) -> None:
    image, text, options, message = ERRORS[name]
    with pytest.raises(OFAError, match=message):
        ofa.ground(picture(0) if image is None else image, text, **options)


def test_a_broken_picture_is_found_before_any_work(ofa: OFA, sources: list[Tensor]) -> None:
    with pytest.raises(OFAError, match="does not exist"):
        ofa.ground([picture(0), picture(1), "nowhere.png"], "it", batch_size=1)
    assert sources == []
