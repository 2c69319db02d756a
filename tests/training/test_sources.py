"""What the rows of each kind of dataset teach is what the heads ask and the published models answered."""

from __future__ import annotations

import base64
import gzip
import io
import json
import multiprocessing
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from PIL import Image
from reference import lively_ofa, scripted
from training.made import TOKENIZER, picture

from ofa_core import OFA, OFAError, TaskSettings, Tokenizer
from ofa_core.data.records import Format
from ofa_core.data.rows import ShuffledRecords
from ofa_core.heads.detection import listing_pipeline
from ofa_core.heads.grounding import invig_codec, refcoco_codec
from ofa_core.heads.listing import listed_regions
from ofa_core.heads.tasks import TASKS
from ofa_core.text import small_vocabulary_dir
from ofa_core.training.batches import Source
from ofa_core.training.collate import answer_mask, collate
from ofa_core.training.losses import LossModule
from ofa_core.training.setting_tables import DataSettings, LossSettings
from ofa_core.training.sources import LESSONS, make_source

BOX = (8.0, 16.0, 40.0, 48.0)
GAME = [("Is it red?", "Yes"), ("is it a dog?", "No")]
TALK = [["", "The Red one."], ["which one?", "the left one."], ["sure?", "yes."]]


def shown() -> bytes:
    buffer = io.BytesIO()
    picture("red").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A row of every format, all about one picture."""
    (tmp_path / "1.png").write_bytes(shown())
    inline = base64.b64encode(shown()).decode()
    game = {
        "id": 1,
        "image": {"id": 1, "file_name": "1.png", "width": 64, "height": 64},
        "objects": [{"id": 5, "category": "dog", "bbox": [8, 16, 32, 32]}],
        "object_id": 5,
        "qas": [{"question": question, "answer": answer} for question, answer in GAME],
        "status": "success",
    }
    dialog = {"id": 2, "image_path": "1.png", "bbox": BOX, "dialog": TALK}
    with gzip.open(tmp_path / "guesswhat.jsonl.gz", "wt") as file:
        file.write(json.dumps(game))
    (tmp_path / "invig.jsonl").write_text(json.dumps(dialog))
    (tmp_path / "refcoco.tsv").write_text(f"3\t1.png\tThe red dog\t8,16,40,48\t{inline}\n")
    (tmp_path / "caption.tsv").write_text("4\t1.png\ta red dog, lying (there).\tdog\t\n")
    (tmp_path / "vqa.tsv").write_text("5\t1.png\tWhat is it\t0.5|!+cat&&0.9|!+dog\tdog&&grass\t\n")
    for format, row in NAMED.items():
        (tmp_path / f"{format}.jsonl").write_text(json.dumps({"image": "1.png"} | row))
    for format, cells in ROWS.items():
        (tmp_path / f"{format}.tsv").write_text("\t".join(cells).format(inline=inline) + "\n")
    return tmp_path


#: A row of each further format.
ROWS: dict[str, tuple[str, ...]] = {
    "snli_ve": ("6", "1.png", "", "A dog/cat", "a Red dog", "neutral"),
    "image_classify": ("{inline}", "7", "red dog"),
    "image_gen": ("8", "5 0 7", "a Red dog"),
    "ocr": ("9", "{inline}", "Some  WORDS"),
    "gigaword": ("The red-dog lies.", "Dog LIES"),
    **dict.fromkeys(("cola", "sst2"), ("A dog", "1")),
    **dict.fromkeys(("mnli", "rte", "mrpc", "qnli", "qqp"), ("A dog", "it is red", "1")),
    "matching": ("10", "1.png", "", "a dog", "yes"),
    "answer_matching": ("11", "1.png", "", "what is it?", "dog", "no"),
    "pretrain": ("12", "{inline}", "A red-dog", "", "", "", "coco", "caption"),
    "pretrain_text": ("The red dog lies on the small green lawn.",),
    "pretrain_image": ("13", "{inline}", "5 0 7"),
    "pretrain_detection": ("14", "{inline}", "8,16,40,48,1,dog&&0,0,64,64,2,lawn, green"),
}


#: A row of each format whose fields have names in every file.
NAMED: dict[str, dict[str, Any]] = {
    "grefcoco": {"text": "The red dogs", "boxes": [BOX, (0, 0, 32, 32)]},
    "ref_l4": {
        "id": 15,
        "caption": "The red dog",
        "bbox": [8, 16, 32, 32],
        "ori_category_id": "o365_3",
        "file_name": "1.png",
    }
    | {"width": 64, "height": 64},
    "conversation": {"dialog": [["is it red", "yes"]], "caption": "a dog"},
    "custom": {"thing": "the dog", "colour": "red"},
}


#: Lessons in which something is drawn, or that no head asks: they are tested by themselves.
DRAWN = (
    *("custom", "image_gen", "pretrain_text", "pretrain_image", "pretrain_detection"),
    *(name for name in LESSONS if name.startswith("tio_")),
)
FILES = {"guesswhat": "guesswhat.jsonl.gz", "invig": "invig.jsonl"} | {name: f"{name}.jsonl" for name in NAMED}
#: Settings that the lesson of a format needs.
NEEDED = {"custom": {"source": "what is {thing}?", "target": "{colour}"}}


def source_of(task: str, data: Path, ofa: OFA) -> Source:
    format = LESSONS[task].format
    path = data / FILES.get(format, f"{format}.tsv")
    settings = DataSettings(task=task, path=path, images=data, **NEEDED.get(format, {}))
    return make_source(settings, ofa.pipeline, seed=1)


def ofa_with(**task: Any) -> OFA:
    settings: dict[str, Any] = {"image_size": 64, "max_image_size": 64, "code_dict_size": 0} | task
    return lively_ofa(task=TaskSettings(**settings))


def region(ofa: OFA) -> str:
    return " ".join(f"<bin_{number}>" for number in invig_codec(ofa.pipeline).encode(BOX, (64, 64)))


TURNS = ["The Red one.", "which one?", "the left one.", "sure?", "yes."]
ASKED: dict[str, Any] = {
    "refcoco_grounding": lambda ofa, image: [ofa.ground(image, "The red dog")],
    "refcoco_caption": lambda ofa, image: [ofa.describe_region(image, BOX)],
    "caption": lambda ofa, image: [ofa.caption(image)],
    "caption_references": lambda ofa, image: [ofa.caption(image)],
    "caption_with_punctuation": lambda ofa, image: [ofa.caption(image)],
    "grefcoco": lambda ofa, image: [ofa.ground(image, "The red dogs")],
    "ref_l4": lambda ofa, image: [ofa.ground(image, "The red dog")],
    "detection": lambda ofa, image: [ofa.detect(image)],
    "vqa": lambda ofa, image: [ofa.answer(image, "What is it")],
    "guesswhat_grounding": lambda ofa, image: [ofa.ground_dialog(image, GAME)],
    "guesswhat_oracle": lambda ofa, image: [
        ofa.oracle(image, BOX, GAME[:0], GAME[0][0]),
        ofa.oracle(image, BOX, GAME[:1], GAME[1][0]),
    ],
    "guesswhat_question": lambda ofa, image: [ofa.ask(image, GAME[:0]), ofa.ask(image, GAME[:1])],
    "invig_grounding": lambda ofa, image: [ofa.ground_dialog(image, TURNS, style="invig")],
    "invig_oracle": lambda ofa, image: [
        ofa.query(image, BOX),
        ofa.oracle(image, BOX, TURNS[:1], TURNS[1], style="invig"),
        ofa.oracle(image, BOX, TURNS[:3], TURNS[3], style="invig"),
    ],
    "invig_question": lambda ofa, image: [
        ofa.ask(image, TURNS[:1], style="invig"),
        ofa.ask(image, TURNS[:3], style="invig"),
    ],
    "invig_agent": lambda ofa, image: [ofa.agent_turn(image, TURNS[:at]) for at in (1, 3, 5)],
    "snli_ve": lambda ofa, image: [ofa.entails(image, "A dog/cat", "a Red dog")],
    "snli_ve_without_caption": lambda ofa, image: [ofa.entails(image, "A dog/cat")],
    "image_classify": lambda ofa, image: [ofa.classify(image, ["red dog", "cat"])],
    "ocr": lambda ofa, image: [ofa.read(image)],
    "ocr_document": lambda ofa, image: [ofa.read(image, document=True)],
    "gigaword": lambda ofa, image: [ofa.summarize("The red-dog lies.")],
    **{name: lambda ofa, image, name=name: [ofa.judge(name, "A dog")] for name in ("cola", "sst2")},
    **{
        name: lambda ofa, image, name=name: [ofa.judge(name, "A dog", "it is red")]
        for name in ("mnli", "rte", "mrpc", "qnli", "qqp")
    },
    "image_text_matching": lambda ofa, image: [ofa.matches(image, "a dog")],
    "answer_matching": lambda ofa, image: [ofa.is_answer(image, "what is it?", "dog")],
    "pretrain": lambda ofa, image: [ofa.caption(image)],
}
ANSWERED: dict[str, list[str]] = {
    "refcoco_caption": [" the red dog"],
    "caption": [" a red dog lying there"],
    "caption_references": [" a red dog lying there"],
    "caption_with_punctuation": [" a red dog, lying (there)."],
    "vqa": [" dog"],
    "guesswhat_grounding": [" region: {region}"],
    "guesswhat_oracle": [" yes", " no"],
    "guesswhat_question": [" is it red?", " is it a dog?"],
    "invig_grounding": [" region: {region}"],
    "invig_oracle": [" the red one.", " the left one.", " yes."],
    "invig_question": [" which one?", " sure?"],
    "invig_agent": [" not yet. which one?", " not yet. sure?", " sure. region: {region}"],
    "snli_ve": [" maybe"],
    "snli_ve_without_caption": [" maybe"],
    "image_classify": [" red dog"],
    "ocr": [" some words"],
    "ocr_document": [" some words"],
    "gigaword": ["dog lies"],
    "image_text_matching": [" yes"],
    "answer_matching": [" no"],
    "pretrain": [" a red dog"],
}
#: Those whose target is one token, with nothing behind it.
JUDGED = {"cola": " yes", "mnli": " yes", "rte": " yes", "mrpc": " yes", "qnli": " yes", "qqp": " yes"} | {
    "sst2": " positive"
}


#: Those whose targets have boxes that are tested by themselves.
BOXES = ("refcoco_grounding", "ref_l4", "grefcoco", "detection")


def test_every_lesson_is_tested() -> None:
    assert ASKED.keys() == LESSONS.keys() - set(DRAWN)
    assert ANSWERED.keys() | JUDGED.keys() == ASKED.keys() - set(BOXES)


@pytest.mark.parametrize("task", ASKED)
def test_sources_are_those_that_the_head_feeds_the_model(
    task: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ofa = ofa_with()
    examples = source_of(task, data, ofa).examples(0)
    asked = scripted(monkeypatch, [10])
    ASKED[task](ofa, picture("red"))
    assert [list(example.source) for example in examples] == [list(one.sources[0]) for one in asked]
    assert len({id(example.image) for example in examples}) == 1


@pytest.mark.parametrize("task", ANSWERED)
def test_targets_are_what_people_said(task: str, data: Path) -> None:
    ofa = ofa_with()
    examples = source_of(task, data, ofa).examples(0)
    ids = [TOKENIZER.encode(text.format(region=region(ofa)), symbols=True, keep_spaces=True) for text in ANSWERED[task]]
    said = [text.replace("{region}", "").strip() for text in ANSWERED[task]]
    for example, words, whole in zip(examples, said, ids, strict=True):
        texts = [token for token in example.target[:-1] if TOKENIZER.vocabulary.bin_of(token) is None]
        assert TOKENIZER.decode(texts).strip() == words
        bins = [token for token in example.target if TOKENIZER.vocabulary.bin_of(token) is not None]
        assert bins == [token for token in whole if TOKENIZER.vocabulary.bin_of(token) is not None]


@pytest.mark.parametrize("task", JUDGED)
def test_a_judgement_is_learned_at_the_last_place_of_the_prompt(task: str, data: Path) -> None:
    """The original's GLUE has one target token and no end behind it."""
    ofa = ofa_with()
    (example,) = source_of(task, data, ofa).examples(0)
    assert list(example.target) == TOKENIZER.encode(JUDGED[task]), "nothing behind it"
    assert list(example.prompt) == list(example.source), "src: the whole of it"
    assert example.image is None
    assert example.answers is not None
    labels = {TOKENIZER.encode(f" {answer}")[0] for answer in TASKS[task].answers}
    assert set(example.answers.allowed([])) == labels


def test_a_label_that_is_none_of_the_tasks_is_named(tmp_path: Path) -> None:
    (tmp_path / "cola.tsv").write_text("a dog\t2\n")
    source = make_source(DataSettings(task="cola", path=tmp_path / "cola.tsv"), ofa_with().pipeline, 1)
    with pytest.raises(OFAError, match=r"cola.tsv:1: the label '2' is none of 1, 0, entailment, not_entailment"):
        source.examples(0)


def test_a_row_that_teaches_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "snli_ve.tsv").write_text("1\t\t" + base64.b64encode(shown()).decode() + "\ta dog\t\tneutral\n")
    source = make_source(DataSettings(task="snli_ve", path=tmp_path / "snli_ve.tsv"), ofa_with().pipeline, 1)
    with pytest.raises(OFAError, match=r"snli_ve\.tsv:1: the caption is empty: ''"):
        source.examples(0)


def test_a_row_is_masked_twice_and_its_whole_text_learned(data: Path) -> None:
    ofa = ofa_with()
    examples = source_of("pretrain_text", data, ofa).examples(0)
    mask = TOKENIZER.vocabulary.mask
    assert len(examples) == 2
    for example in examples:
        assert TOKENIZER.decode(example.target).strip() == "the red dog lies on the small green lawn."
        assert mask in example.source
        assert (example.weight, example.image, example.codes) == (2.0, None, False)
    again = source_of("pretrain_text", data, ofa).examples(0)
    assert [one.source for one in again] == [one.source for one in examples], "drawn by the row"


def coded_ofa(max_image_size: int = 64, image_size: int = 64) -> OFA:
    tokenizer = Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=8)
    task = TaskSettings(image_size=image_size, max_image_size=max_image_size, code_dict_size=8)
    return lively_ofa(tokenizer=tokenizer, task=task)


@pytest.mark.parametrize("task", ["image_gen", "pretrain_image"])
def test_codes_are_learned_at_a_pictures_positions(task: str, data: Path) -> None:
    ofa = coded_ofa()
    (example,) = source_of(task, data, ofa).examples(0)
    start = ofa.tokenizer.vocabulary.code_start
    assert list(example.target) == [start + 5, start, start + 7, ofa.tokenizer.vocabulary.eos]
    assert example.codes
    batch = collate([example], ofa.tokenizer, ofa.pipeline.transform)
    assert batch.groups[0].codes.tolist() == [True]
    loss, _ = LossModule(ofa.model.requires_grad_(True), ofa.tokenizer.vocabulary, LossSettings())(batch)
    assert bool(loss.isfinite())


@pytest.mark.parametrize("format", [name for name in get_args(Format) if name != "asked"])  # which has no answers
def test_rows_of_every_format_can_be_learned_from(format: Format, data: Path) -> None:
    ofa = coded_ofa(max_image_size=512)
    lessons = [name for name, lesson in LESSONS.items() if lesson.format == format]
    assert lessons, "a format without a lesson"
    for name in lessons:
        examples = source_of(name, data, ofa).examples(0)
        if not examples:  # no turn of the speaker whom it is about
            continue
        loss_of = LossModule(ofa.model.requires_grad_(True), ofa.tokenizer.vocabulary, LossSettings())
        loss, counts = loss_of(collate(examples, ofa.tokenizer, ofa.pipeline.transform))
        assert bool(loss.isfinite()), name
        assert float(counts[1]) > 0, name
        gradients = torch.autograd.grad(loss, list(ofa.model.parameters()), allow_unused=True)
        assert any(bool(gradient.ne(0).any()) for gradient in gradients if gradient is not None), name


def test_lessons_whose_pictures_are_others_in_every_epoch_say_so(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((96, 64), 80).convert("RGB").save(buffer, "PNG")
    monkeypatch.setattr(sys.modules[__name__], "shown", buffer.getvalue)
    data: Path = request.getfixturevalue("data")
    Image.effect_noise((64, 64), 80).convert("RGB").save(data / "1.png")  # of the size that rows tell
    ofa = coded_ofa(max_image_size=512, image_size=288)  # in which a document leaves room
    changing = set()
    for name in LESSONS:
        source = source_of(name, data, ofa)
        seen = set()
        for epoch in range(5):  # each of the same row
            for example in source.examples(epoch):
                if example.image is not None:
                    shown = example.image
                    pixels = shown if isinstance(shown, torch.Tensor) else ofa.pipeline.transform(shown)
                    seen.add(pixels.numpy().tobytes())
        if len(seen) > 1:
            changing.add(name)
    assert changing == {name for name, lesson in LESSONS.items() if lesson.draws_picture}


def test_codes_that_the_model_has_not_are_refused(data: Path) -> None:
    with pytest.raises(OFAError, match=r"image_gen\.tsv:1: codes: 7 is none of the model's 0 codes"):
        source_of("image_gen", data, ofa_with()).examples(0)


def test_objects_on_a_piece_of_the_picture_are_learned_with_their_boxes(data: Path) -> None:
    ofa = ofa_with(max_image_size=512)
    (example,) = source_of("pretrain_detection", data, ofa).examples(0)
    bins = TOKENIZER.vocabulary.bin_of
    assert [bins(token) is not None for token in example.target[:4]] == [True] * 4
    words = [token for token in example.target[:-1] if bins(token) is None]
    assert TOKENIZER.decode(words).strip().endswith("lawn, green")
    assert list(example.image.shape) == [3, 256, 256], "twice the side that codes describe"  # type: ignore[union-attr]
    assert example.weight == 2.0


def test_everything_in_the_whole_picture_is_learned(data: Path) -> None:
    ofa = ofa_with()
    (example,) = source_of("detection", data, ofa).examples(0)
    region = refcoco_codec(ofa.pipeline).encode(BOX, (64, 64))
    whole = refcoco_codec(ofa.pipeline).encode((0, 0, 64, 64), (64, 64))
    ids, encode = TOKENIZER.vocabulary.bins_to_ids, TOKENIZER.encode
    assert list(example.target) == [*ids(region), *encode(" dog"), *ids(whole), *encode(" lawn, green"), 2]
    assert example.image is not None
    read = listed_regions(TOKENIZER, refcoco_codec(ofa.pipeline), example.target, [0.0] * 30, (64, 64))
    assert [one.label for one, _ in read] == ["dog", "lawn, green"], "what the head makes of it"
    pretrained = ofa_with(name="unify_task", max_image_size=512)
    (asked,) = source_of("detection", data, pretrained).examples(0)
    side = listing_pipeline(pretrained.pipeline).transform.size
    assert list(asked.image.shape) == [3, side, side]  # type: ignore[union-attr]


def test_of_more_things_than_can_be_said_the_first_are_learned_without_an_end(data: Path) -> None:
    things = {"image": "1.png", "boxes": [BOX] * 300, "label": ["dog"] * 300}
    (data / "many.jsonl").write_text(json.dumps(things))
    ofa = ofa_with()
    (example,) = make_source(
        DataSettings(task="detection", path=data / "many.jsonl", images=data), ofa.pipeline, 1
    ).examples(0)
    each = 4 + len(TOKENIZER.encode(" dog"))
    assert len(example.target) == (ofa.model.config.max_target_positions - 1) // each * each
    assert example.target[-1] != 2


def test_a_phrase_may_mean_several_boxes_or_none(data: Path) -> None:
    ofa = ofa_with()
    (example,) = source_of("grefcoco", data, ofa).examples(0)
    codec, ids = refcoco_codec(ofa.pipeline), TOKENIZER.vocabulary.bins_to_ids
    both = [*codec.encode(BOX, (64, 64)), *codec.encode((0, 0, 32, 32), (64, 64))]
    assert list(example.target) == [*ids(both), 2]
    (data / "grefcoco.jsonl").write_text(json.dumps({"image": "1.png", "text": "The red cat", "boxes": []}))
    (example,) = source_of("grefcoco", data, ofa).examples(0)
    assert TOKENIZER.decode(example.target[:-1]) == " none"
    (row,) = source_of("ref_l4", data, ofa).examples(0)
    (same,) = source_of("refcoco_grounding", data, ofa).examples(0)
    assert (row.source, row.target) == (same.source, same.target)


def test_what_does_not_match_is_drawn_of_the_negatives(data: Path) -> None:
    (data / "all_captions.txt").write_text("two cats\nA red-dog\n")
    (data / "object.txt").write_text("dog\ncat\n")
    (data / "type2ans.json").write_text(json.dumps({"other": ["cup"], "yes/no": ["yes", "no"]}))
    settings = DataSettings(task="pretrain", path=data / "pretrain.tsv", images=data, negatives=data)
    ofa = ofa_with()
    source = make_source(settings, ofa.pipeline, 1)
    asked = set()
    for index in range(40):
        caption, match = source.examples(index)
        assert TOKENIZER.decode(caption.target).strip() == "a red dog"
        said = TOKENIZER.decode(match.target).strip()
        asked.add((TOKENIZER.decode(match.source).strip(), said))
        assert match.image is caption.image
    assert asked == {
        ('does the image describe " a red dog "?', "yes"),
        ('does the image describe " two cats "?', "no"),
    }
    (data / "type2ans.json").write_text("[]")
    with pytest.raises(OFAError, match="should map kinds of question to lists of answers"):
        make_source(settings, ofa.pipeline, 1)
    with pytest.raises(OFAError, match="the training task 'vqa' draws nothing from negatives"):
        make_source(DataSettings(task="vqa", path=data / "vqa.tsv", negatives=data), ofa.pipeline, 1)


def test_a_source_may_have_answers_of_its_own(data: Path) -> None:
    (data / "answers.txt").write_text("dog\ndark dog\ncat\n")
    settings = DataSettings(task="vqa", path=data / "vqa.tsv", images=data, answers=data / "answers.txt")
    ofa = ofa_with()
    (example,) = make_source(settings, ofa.pipeline, 1).examples(0)
    (free,) = source_of("caption", data, ofa).examples(0)
    batch = collate([example, free], TOKENIZER, ofa.pipeline.transform)
    (group,) = batch.groups
    mask = answer_mask(group, len(TOKENIZER))
    closed = group.closed.tolist().index(True)
    first = len(example.prompt) - 1
    assert mask[closed, first].nonzero()[:, 0].tolist() == sorted(
        {TOKENIZER.encode(f" {text}")[0] for text in ("dog", "dark dog", "cat")}
    )
    assert not mask[closed, :first].any()
    assert mask[1 - closed].all()


def test_a_pretrained_model_learns_at_the_side_of_the_zero_shot_script(data: Path) -> None:
    ofa = ofa_with(name="unify_task")
    (example,) = source_of("vqa", data, ofa).examples(0)
    assert list(example.image.shape) == [3, 480, 480]  # type: ignore[union-attr]
    assert list(example.prompt) == [TOKENIZER.vocabulary.bos]
    (kept,) = source_of("caption", data, ofa).examples(0)
    batch = collate([example, kept], TOKENIZER, ofa.pipeline.transform)
    assert [tuple(pixels.shape[1:]) for pixels in batch.pixels] == [(3, 480, 480), (3, 64, 64)]
    assert [int(group.side) for group in batch.groups] == [0, 1]


def test_a_phrase_has_its_box_in_the_originals_convention(data: Path) -> None:
    ofa = ofa_with()
    (example,) = source_of("refcoco_grounding", data, ofa).examples(0)
    bins = [TOKENIZER.vocabulary.bin_of(token) for token in example.target[:-1]]
    assert bins == refcoco_codec(ofa.pipeline).encode(BOX, (64, 64))


def test_a_question_begins_with_the_checkpoints_prompt_and_weighs_as_people_agree(data: Path) -> None:
    (example,) = source_of("vqa", data, ofa_with()).examples(0)
    assert example.prompt == example.source[:-1], "the original's own way: prev_output"
    assert example.weight == 0.9
    (example,) = source_of("vqa", data, ofa_with(prompt_type="none")).examples(0)
    assert list(example.prompt) == [TOKENIZER.vocabulary.bos]


def test_names_of_objects_are_given_to_models_that_know_them(data: Path) -> None:
    with_them = source_of("vqa", data, ofa_with(add_object=True)).examples(0)[0].source
    assert TOKENIZER.decode(with_them).endswith(" object: dog grass")


def test_an_epoch_has_every_row_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    inline = base64.b64encode(shown()).decode()
    lines = [f"{number}\t\tthing {number}\t8,16,40,48\t{inline}" for number in range(20)]
    (tmp_path / "x.tsv").write_text("\n".join(lines))
    rows = ShuffledRecords("refcoco", tmp_path / "x.tsv", None, seed=3)
    epochs = [[rows.row(index)[0].id for index in range(start, start + 20)] for start in (0, 20)]
    assert [sorted(epoch, key=int) for epoch in epochs] == [[str(number) for number in range(20)]] * 2
    assert epochs[0] != epochs[1]
    again = ShuffledRecords("refcoco", tmp_path / "x.tsv", None, seed=3)
    assert again.row(25)[0].id == epochs[1][5], "whatever was read before"
    assert isinstance(again.row(0)[1], Image.Image)


def test_inline_pictures_wait_on_the_disk_in_a_file_without_a_name(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    rows = ShuffledRecords("refcoco", data / "refcoco.tsv", None)
    assert rows._records[0].inline is None
    assert rows._inline.read(*rows._places[0]) == shown()
    assert list((tmp_path / "temporary").iterdir()) == [], "whatever ends the process, nothing is left"


def _send_row(rows: ShuffledRecords, connection: Any) -> None:
    connection.send(rows.row(0)[0].id)


def test_a_process_that_was_not_forked_reads_them_too(data: Path) -> None:
    rows = ShuffledRecords("refcoco", data / "refcoco.tsv", None)
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_send_row, args=(rows, there))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert here.recv() == rows.row(0)[0].id


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "grounding"}, "there is no training task 'grounding'; there are shapes, refcoco_grounding"),
        ({"task": "vqa"}, "the training task 'vqa' needs a path and has no options"),
        ({"task": "vqa", "path": "missing.tsv"}, "data missing.tsv does not exist"),
        ({"task": "shapes", "path": "x.tsv"}, "'shapes' draws its pictures and takes no path"),
        ({"task": "shapes", "options": {"emphasis": {}}}, "emphasis is called loss_weights now"),
        ({"task": "shapes", "options": {"weight": 1}}, "the options of the task 'shapes' are wrong: .*weight"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(OFAError, match=message):
        make_source(DataSettings.model_validate(settings), ofa_with().pipeline, seed=0)


def test_wrong_rows_stop_a_run_or_are_left_out(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = data / "refcoco.tsv"
    path.write_text(path.read_text() + "9\t1.png\tno box\t8,16,4\t\n")
    with pytest.raises(OFAError, match=r"refcoco\.tsv:2: region-coord"):
        ShuffledRecords("refcoco", path, data)
    assert len(ShuffledRecords("refcoco", path, data, skip_bad=True)) == 1
    assert "skipped: " in capsys.readouterr().err
    path.write_text("")
    with pytest.raises(OFAError, match="holds no rows to learn from"):
        ShuffledRecords("refcoco", path, data)


def test_rows_lead_out_of_the_pictures_only_where_that_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "secret.png").write_bytes(shown())
    (tmp_path / "rows.tsv").write_text(f"1\t{tmp_path}/secret.png\ta thing\t1,2,30,40\t\n")
    settings = {"task": "refcoco_grounding", "path": tmp_path / "rows.tsv", "images": tmp_path / "images"}
    source = make_source(DataSettings(**settings), lively_ofa().pipeline, 0)
    with pytest.raises(OFAError, match=r"secret\.png lies outside of .*allow_outside = true"):
        source.examples(0)
    source = make_source(DataSettings(**settings, allow_outside=True), lively_ofa().pipeline, 0)
    assert len(source.examples(0)) == 1


def test_rows_in_memory_teach_what_a_file_of_them_does(tmp_path: Path, ofa: OFA) -> None:
    rows = [{"image": "1.png", "text": f"a red dog {number}", "box": list(BOX)} for number in range(4)]
    (tmp_path / "1.png").write_bytes(shown())
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = DataSettings(task="refcoco_grounding", path=path, images=tmp_path)
    there = make_source(table, ofa.pipeline, 1)
    here = make_source(table.model_copy(update={"path": None}), ofa.pipeline, 1, rows=rows)
    for index in range(6):
        (one,), (other,) = there.examples(index), here.examples(index)
        assert (one.source, one.target) == (other.source, other.target)
