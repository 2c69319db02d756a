"""Every task of the original, to the id: what its datasets feed a model is what our lessons and heads feed it.

The table of what differs on purpose is :func:`refusal` and the reasons beside the comparisons.
"""

from __future__ import annotations

import base64
import gzip
import io
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from reference import CHECKPOINTS, SHARED, golden, quick_config, scripted

from ofa_core import OFAError, TaskSettings, Tokenizer
from ofa_core.checkpoint.model_dir import empty_model
from ofa_core.data.examples import Example
from ofa_core.data.formats import parse_columns
from ofa_core.data.readers import COLUMNS
from ofa_core.data.records import Format, Record
from ofa_core.heads import caption, classification, entailment, glue, grounding, ocr, vqa
from ofa_core.heads import text as text_heads
from ofa_core.heads.box_codec import BoxCodec
from ofa_core.heads.pipeline import Pipeline
from ofa_core.heads.tasks import GLUE, PRETRAINING, SUMMARY_NOISE, TASKS, fine_tuned_settings
from ofa_core.text.vocabulary import PAD
from ofa_core.training import pretraining
from ofa_core.training.collate import answer_mask, collate
from ofa_core.training.lessons import Row, closed_set
from ofa_core.training.sources import LESSONS
from ofa_core.vision.crops import object_crop, short_sides
from ofa_core.vision.transform import ImageTransform

pytestmark = pytest.mark.reference

Entry = dict[str, Any]
ENTRIES: list[Entry] = golden("prompts.json")


def named(*prefixes: str) -> list[Any]:
    """Entries whose task begins with one of ``prefixes``, as test parameters."""
    chosen = [entry for entry in ENTRIES if entry["task"].startswith(prefixes)]
    return [pytest.param(entry, id=f"{entry['task']}-{entry['n']}") for entry in chosen]


def exactly(*tasks: str) -> list[Any]:
    return [pytest.param(e, id=f"{e['task']}-{e['n']}") for e in ENTRIES if e["task"] in tasks]


# What the models of the entries are


@cache
def tokenizer(kind: str, code_dict_size: int = 8192, num_bins: int = 1000) -> Tokenizer:
    return Tokenizer.from_dir(_vocabulary(kind), code_dict_size=code_dict_size, num_bins=num_bins)


@cache
def _vocabulary(kind: str) -> Path:
    if kind == "gpt2":
        directory = Path(os.environ.get("OFA_BPE_DIR", SHARED / "bpe"))
        if not directory.is_dir():
            pytest.skip(f"the official vocabulary files are not in {directory}; set $OFA_BPE_DIR")
        return directory
    places = [root / "peers" / "ofa_cn_vocabulary" for root in (CHECKPOINTS, SHARED / "golden" / "checkpoints")]
    packed = next((place for place in places if place.is_dir()), None)
    if packed is None:
        pytest.skip(f"the Chinese vocabulary files are not in {places[-1]}")
    made = Path(tempfile.mkdtemp())
    for name in ("dict.txt", "vocab.txt"):
        (made / name).write_bytes(gzip.decompress((packed / f"{name}.gz").read_bytes()))
    return made


#: Settings of the original's datasets, and ours.
SETTINGS = {
    "patch_image_size": "image_size",
    "max_image_size": "max_image_size",
    "num_bins": "num_bins",
    "code_dict_size": "code_dict_size",
    "prompt_type": "prompt_type",
    "add_object": "add_object",
    "imagenet_default_mean_and_std": "imagenet_normalization",
    "max_src_length": "max_source_tokens",
    "max_tgt_length": "max_target_tokens",
    "max_object_length": "max_objects",
}


def pipeline_of(name: str, settings: Mapping[str, Any], kind: str) -> Pipeline:
    """The pipeline of a model that the original trained with these settings."""
    told = {ours: settings[theirs] for theirs, ours in SETTINGS.items() if theirs in settings}
    dims = {"code_image_size": settings["code_image_size"]} if "code_image_size" in settings else {}
    return make_pipeline(TaskSettings(**{"name": name, **told}), kind, **dims)


def make_pipeline(task: TaskSettings, kind: str = "gpt2", **dims: Any) -> Pipeline:
    words = tokenizer(kind, task.code_dict_size, task.num_bins)
    config = quick_config(task=task, vocab_size=len(words), **dims)
    return Pipeline(empty_model(config), words, ImageTransform(task.image_size, task.imagenet_normalization))


def fairseq_name(task: str) -> str:
    return PRETRAINING if task.startswith("pretrain_") else task


def pipeline_for(entry: Entry) -> Pipeline:
    return pipeline_of(fairseq_name(entry["task"]), entry["settings"], entry["bpe"])


# Rows and pictures


def picture(width: int, height: int, seed: int) -> Image.Image:
    pixels = np.random.RandomState(seed).randint(0, 256, (7, 9, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)


def encoded(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def judged(fields: Sequence[str]) -> dict[str, str]:
    names = ("text", "label") if len(fields) == 2 else ("text", "text2", "label")
    return dict(zip(names, fields, strict=True))


#: For each task of the original: the format of its rows, and their columns by the names in the references.
Columns = Callable[[Mapping[str, Any]], dict[str, str]]
FORMATS: dict[str, tuple[Format, Columns]] = {
    "refcoco": ("refcoco", lambda row: {"text": row["text"], "region-coord": row["region_coord"]}),
    "caption": ("caption", lambda row: {"text": row["text"]}),
    "vqa_gen": (
        "vqa",
        lambda row: {"text": row["question"], "answer": row["answers"]}
        | ({} if row["objects"] is None else {"objects": row["objects"]}),
    ),
    "snli_ve": (
        "snli_ve",
        lambda row: {"text": row["hypothesis"], "caption": row["caption"], "label": row["label"]},
    ),
    "image_classify": ("image_classify", lambda row: {"label": row["label"]}),
    "image_gen": ("image_gen", lambda row: {"codes": row["codes"] or "", "text": row["text"]}),
    "gigaword": ("gigaword", lambda row: {"text": row["text"], "summary": row["summary"]}),
    "ocr": ("ocr", lambda row: {"text": row["text"]}),
    **{name: (name, lambda row: judged(row["fields"])) for name in GLUE},
    "pretrain_text": ("pretrain_text", lambda row: {"text": row["text"]}),
    "pretrain_image": ("pretrain_image", lambda row: {"codes": row["codes"]}),
    "pretrain_detection": ("pretrain_detection", lambda row: {"label": row["label"]}),
}  # fmt: skip
ABOUT_PICTURE = ("pretrain_caption", "pretrain_matching", "pretrain_qa", "pretrain_visual", "pretrain_region")
PRETRAIN_COLUMNS = ("caption", "question", "refs", "objects", "dataset", "type")


def record_of(entry: Entry) -> Record:
    """The record of an entry, through the parser of its format."""
    row = entry["row"]
    if entry["task"].startswith(ABOUT_PICTURE):
        format: Format = "pretrain"
        columns = {name: row[name] for name in PRETRAIN_COLUMNS}
    else:
        format, read = FORMATS[entry["task"]]
        columns = read(row)
    if "uniq-id" in COLUMNS[format]:
        columns["uniq-id"] = "1"
    if "picture" in row:
        columns["image"] = encoded(picture(*row["picture"]))
    (record,) = parse_columns(format, columns, "data:1")
    return record


def row_of(entry: Entry) -> Row:
    shown = picture(*entry["row"]["picture"]) if "picture" in entry["row"] else None
    return Row(record_of(entry), Random(entry["n"]), shown)


# What is refused on purpose: there, the original asks about nothing, or learns to say nothing


def refusal(entry: Entry) -> str | None:
    """The reason why a row is refused that the original takes."""
    row, task = entry["row"], entry["task"]
    spec = TASKS[{"vqa_gen": "vqa"}.get(task, task)] if task in TAUGHT else TASKS["pretrain_caption"]
    texts = [row[name] for name in ("hypothesis", "question") if row.get(name)]
    if task in ("refcoco", "gigaword", "ocr", "pretrain_text"):
        texts.append(row["text"])
    texts += row.get("fields", [])[:-1]
    if task == "snli_ve" and entry["settings"]["add_caption"]:
        texts.append(row["caption"])
    if row.get("type") in ("caption", "visual_grounding"):
        texts.append(row["caption"])
    if any(not spec.rule(text, None).strip() for text in texts) or not row.get("text", "text").strip():
        return "a text that is empty says nothing about what is asked"
    if task == "image_gen" and row["codes"] is None:
        return "without codes there is nothing to learn; a model that draws pictures needs no row"
    return None


def teach(entry: Entry) -> Example:
    """The example that our lesson makes of an entry."""
    pipeline, row, task = pipeline_for(entry), row_of(entry), entry["task"]
    name = {"refcoco": "refcoco_grounding", "vqa_gen": "vqa"}.get(task, task)
    if task == "snli_ve" and not entry["settings"]["add_caption"]:
        name = "snli_ve_without_caption"
    (example,) = LESSONS[name].teach(pipeline, row)
    if task == "image_classify":
        return replace(example, answers=closed_set(pipeline, entry["row"]["classes"]))
    if task == "vqa_gen" and entry["settings"]["constrained"]:
        return replace(example, answers=closed_set(pipeline, answers_of_vqa()))
    if task == "caption" and (entry["split"] == "test" or entry["settings"]["scst"]):
        return replace(example, target=caption.reference_ids(pipeline, entry["row"]["text"]))
    return example


@cache
def answers_of_vqa() -> tuple[str, ...]:
    (entry,) = [entry for entry in ENTRIES if entry["task"] == "vqa_gen:answers"]
    return tuple(entry["answers"])


def decoder_input(example: Example) -> list[int]:
    said = example.said or example.target
    return [*example.prompt, *said[:-1]]


def padded_target(example: Example) -> list[int]:
    return [PAD] * (len(example.prompt) - 1) + list(example.target)


def need_zhconv(entry: Entry) -> None:
    """Skip where Chinese writing is to be simplified and the package for it is not there."""
    if entry["task"] == "ocr" and any("\u3400" <= letter <= "\u9fff" for letter in entry["row"]["text"]):
        pytest.importorskip("zhconv", reason="zhconv is not installed: pip install zhconv")


TAUGHT = ("refcoco", "caption", "vqa_gen", "snli_ve", "image_classify", "image_gen", "gigaword", "ocr", *GLUE)


@pytest.mark.parametrize("entry", exactly(*TAUGHT))
def test_a_row_teaches_what_it_teaches_in_the_original(entry: Entry) -> None:
    need_zhconv(entry)
    if refusal(entry):
        with pytest.raises(OFAError):
            teach(entry)
        return
    example = teach(entry)
    assert list(example.source) == entry["source_ids"]
    assert padded_target(example) == entry["target_ids"]
    if not (entry["task"] == "gigaword" and entry["settings"]["noise_ratio"]):  # what is read wrong is drawn
        clean = replace(example, said=None) if entry["task"] == "gigaword" else example
        assert decoder_input(clean) == entry["prev_output_ids"]
    if "decoder_prompt" in entry:
        assert list(example.prompt) == entry["decoder_prompt"]
    if "conf" in entry:
        assert [example.weight] == pytest.approx(entry["conf"])
    if "code_mask" in entry:
        assert example.codes == entry["code_mask"]


@pytest.mark.parametrize("entry", [p for p in exactly(*TAUGHT) if p.values[0].get("constraint")])
def test_a_tree_of_answers_allows_what_it_allows_in_the_original(entry: Entry) -> None:
    if refusal(entry):
        pytest.skip("the row is refused")
    example = teach(entry)
    words = pipeline_for(entry).tokenizer
    (group,) = collate([replace(example, image=None)], words, ImageTransform(64)).groups
    (mask,) = answer_mask(group, len(words))
    allowed = [row.nonzero()[:, 0].tolist() for row in mask]
    expected = entry["constraint"]
    if entry["task"] in GLUE:  # the one position behind the prompt
        assert allowed[:-1] == [[]] * (len(allowed) - 1)
        assert allowed[-1] == expected
    else:
        assert allowed == expected


@pytest.mark.parametrize("entry", [p for p in exactly(*TAUGHT) if "patch_shape" in p.values[0]])
def test_pixels_are_the_originals(entry: Entry) -> None:
    if refusal(entry):
        pytest.skip("the row is refused")
    need_zhconv(entry)
    pipeline = pipeline_for(entry)
    example = teach(entry)
    assert (example.image is not None) == entry["patch_mask"]
    image = example.image
    if entry["task"] == "image_classify" and not entry["random"]:  # in evaluation nothing is drawn
        image = picture(*entry["row"]["picture"])
    pixels = pipeline.transform(image)  # type: ignore[arg-type]
    assert list(pixels.shape) == entry["patch_shape"]
    if "patch_mean" in entry and not entry.get("random"):
        assert pixels.mean((1, 2)).tolist() == pytest.approx(entry["patch_mean"], abs=0.01)


# What heads feed the model


def ask(entry: Entry, pipeline: Pipeline) -> None:
    """Ask the head of an entry's task."""
    row = entry["row"]
    shown = [picture(*row["picture"])] if "picture" in row else []
    task = entry["task"]
    if task == "refcoco":
        grounding.ground(pipeline, shown, [row["text"]])
    elif task == "caption":
        caption.caption(pipeline, shown)
    elif task == "vqa_gen":
        objects = None if row["objects"] is None or not entry["settings"]["add_object"] else row["objects"].split("&&")
        vqa.answer(pipeline, shown, [row["question"]], objects=None if objects is None else [objects])
    elif task == "snli_ve":
        captions = [row["caption"]] if entry["settings"]["add_caption"] else None
        entailment.entails(pipeline, shown, [row["hypothesis"]], captions)
    elif task == "image_classify":
        classification.classify(pipeline, shown, row["classes"])
    elif task == "gigaword":
        text_heads.summarize(pipeline, [row["text"]])
    elif task == "ocr":
        ocr.read(pipeline, shown)
    else:
        first, *second = row["fields"][:-1]
        glue.judge(pipeline, task, [first], [second[0] if second else None])


ASKED = [task for task in TAUGHT if task != "image_gen"]


@pytest.mark.filterwarnings("ignore:.*was cut to", "ignore:this model was trained with the names")
@pytest.mark.parametrize("entry", exactly(*ASKED))
def test_a_head_feeds_the_model_what_the_original_does(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = pipeline_for(entry)
    calls = scripted(monkeypatch)
    if refusal(entry) and entry["task"] not in ("caption", "image_classify", "ocr"):  # which ask without a text
        with pytest.raises(OFAError):
            ask(entry, pipeline)
        return
    ask(entry, pipeline)
    (call,) = calls
    assert [list(source) for source in call.sources] == [entry["source_ids"]]
    if call.candidates is not None:
        kind = entry["settings"].get("prompt_type", "none")
        assert call.decoder_prompt == kind
    elif call.prefixes is not None:
        assert call.prefixes == [entry["decoder_prompt"][1:]]


# Batches


def batch_entries(entry: Entry) -> list[Entry]:
    """The entries of a batch: the first ``of_last`` of the run of equal settings that stands before it."""
    place = next(at for at, other in enumerate(ENTRIES) if other is entry)
    last = ENTRIES[place - 1]
    run = []
    for other in reversed(ENTRIES[:place]):
        if any(other.get(name) != last.get(name) for name in ("task", "split", "bpe", "settings")):
            break
        run.insert(0, other)
    return run[: entry["of_last"]]


@pytest.mark.parametrize("entry", [p for p in named(*TAUGHT) if p.values[0]["task"].endswith(":collater")])
def test_a_batch_is_put_together_as_the_originals_collater_does(entry: Entry) -> None:
    expected, entries = entry["batch"], batch_entries(entry)
    if any(map(refusal, entries)):
        pytest.skip("a row is refused")
    examples = [teach(one) for one in entries]
    words = pipeline_for(entries[0]).tokenizer
    small = ImageTransform(64)
    batch = collate(examples, words, small)
    (group,) = batch.groups
    order = [group.tokens.tolist().index(source) for source in expected["src_tokens"]]  # ours are sorted by length
    if len(set(order)) < len(order):  # captions: all sources are equal
        order = [group.target.tolist().index(target) for target in expected["target"]]
    assert group.tokens[order].tolist() == expected["src_tokens"]
    assert group.target[order].tolist() == expected["target"]
    assert group.prefix[order].tolist() == expected["prev_output_tokens"]
    assert (group.pictures[order] >= 0).tolist() == expected["patch_masks"]
    assert group.tokens[order].ne(PAD).sum(1).tolist() == expected["src_lengths"]
    assert (len(order), int(group.target.ne(PAD).sum())) == (expected["nsentences"], expected["ntokens"])
    if "conf" in expected:
        assert group.weights[order].tolist() == pytest.approx(expected["conf"])
    if "constraint_allowed_counts" in expected:
        assert answer_mask(group, len(words))[order].sum(-1).tolist() == expected["constraint_allowed_counts"]
    if "decoder_prompts" in expected:
        assert [list(example.prompt) for example in examples] == expected["decoder_prompts"]
    if "prefix_tokens" in expected:
        prefixes = words.pad([example.prompt[1:] for example in examples])
        assert prefixes.tolist() == expected["prefix_tokens"]


# Pre-training


def pretrained_examples(entry: Entry) -> Example:
    """The example of an entry about a picture, with what the original drew for it."""
    pipeline, record = pipeline_for(entry), record_of(entry)
    pixels = ImageTransform(entry["settings"]["patch_image_size"])(picture(*entry["row"]["picture"]))
    task = entry["task"]
    if task == "pretrain_caption":
        return pretraining.caption_example(pipeline, record, pixels)
    if task == "pretrain_qa":
        return pretraining.question_example(pipeline, record, pixels)
    assert task == "pretrain_matching"
    return drawn_match(entry, pipeline, record, pixels)


def drawn_match(entry: Entry, pipeline: Pipeline, record: Record, pixels: torch.Tensor) -> Example:
    """Of all that can be drawn, what was."""
    negatives = negatives_of(entry)
    found: dict[tuple[int, ...], Example] = {}
    for seed in range(400):
        random = Random(seed)
        right = random.random() > 0.5
        if record.kind == "qa":
            text = record.answer if right else negatives.answer(record.answer, record.agreement, random)
            example = pretraining.answer_example(pipeline, record, text, right, pixels)
        else:
            text = record.text if right else negatives.caption(record.text, record.objects, random)
            example = pretraining.matching_example(pipeline, text, right, pixels)
        found[tuple(example.source)] = example
    assert len(found) > 2, "right and wrong ones"
    return found[tuple(entry["source_ids"])]


def negatives_of(entry: Entry) -> pretraining.Negatives:
    told = entry["row"]["negatives"]
    return pretraining.Negatives(told["captions"], told["objects"], told["type2ans"])


@pytest.mark.parametrize("entry", exactly("pretrain_caption", "pretrain_qa", "pretrain_matching"))
@pytest.mark.filterwarnings("ignore:.*was cut to")
def test_pretraining_with_pictures_and_texts(entry: Entry) -> None:
    if refusal(entry):
        with pytest.raises(OFAError):
            record_of(entry)
        return
    example = pretrained_examples(entry)
    assert list(example.source) == entry["source_ids"]
    assert padded_target(example) == entry["target_ids"]
    assert decoder_input(example) == entry["prev_output_ids"]
    assert list(example.prompt) == entry["decoder_prompt"]
    assert [example.weight] == pytest.approx(entry["conf"])
    assert list(example.image.shape) == entry["patch_shape"]  # type: ignore[union-attr]


@pytest.mark.parametrize("entry", exactly("pretrain_visual_grounding", "pretrain_region_caption"))
@pytest.mark.filterwarnings("ignore:.*was cut to")
def test_pretraining_with_regions(entry: Entry) -> None:
    """The crop is drawn: the reference's bins are those of one of the sizes from which it is."""
    pipeline, record = pipeline_for(entry), record_of(entry)
    side = entry["settings"]["patch_image_size"]
    if refusal(entry):
        pytest.skip("the row is refused")
    wanted = int(entry["task"] == "pretrain_region_caption")
    found = []
    for short in short_sides(side):
        square, box = object_crop(picture(*entry["row"]["picture"]), record.box, side, short)
        pixels = ImageTransform(side)(square)
        example = pretraining.region_examples(pipeline, record.text, box, pixels)[wanted]
        found.append((list(example.source), padded_target(example), decoder_input(example)))
        assert list(pixels.shape) == entry["patch_shape"]
    assert (entry["source_ids"], entry["target_ids"], entry["prev_output_ids"]) in found


@pytest.mark.parametrize("entry", exactly("pretrain_text"))
def test_pretraining_with_texts(entry: Entry) -> None:
    """The masks are drawn; but for them the source is the prompt around the text."""
    pipeline, record = pipeline_for(entry), record_of(entry)
    example = pretraining.text_example(pipeline, record.text, Random(0))
    assert padded_target(example) == entry["target_ids"]
    assert decoder_input(example) == entry["prev_output_ids"]
    assert [example.weight] == entry["conf"]
    assert example.image is None
    assert example.codes == entry["code_mask"]
    mask = pipeline.tokenizer.vocabulary.mask
    whole = entry["target_ids"][:-1]
    assert is_gapped(masked_part(entry["source_ids"], pipeline), whole, mask)
    for seed in range(20):
        source = list(pretraining.text_example(pipeline, record.text, Random(seed)).source)
        assert is_gapped(masked_part(source, pipeline), whole, mask)


def masked_part(source: list[int], pipeline: Pipeline) -> list[int]:
    before, behind = map(pipeline.tokenizer.encode, TASKS["text_infilling"].prompts["gpt2"].split(" {text}"))
    assert source[1 : 1 + len(before)] == before
    assert source[-1 - len(behind) : -1] == behind
    return source[1 + len(before) : -1 - len(behind)]


def pieces(ids: Sequence[int], mask: int) -> list[list[int]]:
    """The runs of text between masks."""
    runs: list[list[int]] = [[]]
    for token in ids:
        if token == mask:
            runs.append([])
        else:
            runs[-1].append(token)
    return runs


def is_gapped(masked: Sequence[int], whole: Sequence[int], mask: int) -> bool:
    """Tell whether a text is another one with gaps."""
    first, *rest = pieces(masked, mask)
    if list(whole[: len(first)]) != first:
        return False
    place = len(first)
    for run in rest:
        starts = [at for at in range(place, len(whole) - len(run) + 1) if list(whole[at : at + len(run)]) == run]
        if not starts:
            return False
        place = starts[0] + len(run)
    return bool(rest)


@pytest.mark.parametrize("entry", exactly("pretrain_image"))
def test_pretraining_with_pictures(entry: Entry) -> None:
    """The entry does not say which of the drawn pictures it is about; its pixels tell."""
    means = []
    for seed in range(10):
        row = row_of(entry | {"row": entry["row"] | {"picture": [256, 256, seed]}})
        (example,) = LESSONS["pretrain_image"].teach(pipeline_for(entry), row)
        means.append(example.image.mean((1, 2)).tolist())  # type: ignore[union-attr]
    assert any(mean == pytest.approx(entry["patch_mean"], abs=0.0001) for mean in means)
    assert list(example.source) == entry["source_ids"]
    assert padded_target(example) == entry["target_ids"]
    assert decoder_input(example) == entry["prev_output_ids"]
    assert [example.weight] == entry["conf"]
    assert example.codes == entry["code_mask"]
    assert isinstance(example.image, torch.Tensor)
    assert list(example.image.shape) == entry["patch_shape"]
    assert bool((example.image[:, 64:192, 64:192] == 0).all()) == entry["middle_is_zero"]


@pytest.mark.parametrize("entry", exactly("pretrain_detection"))
def test_pretraining_with_objects(entry: Entry) -> None:
    """The crop is drawn, and with it the bins and which objects are on it; all else is equal."""
    pipeline = pipeline_for(entry)
    lesson, row = LESSONS["pretrain_detection"], row_of(entry)
    bins = pipeline.tokenizer.vocabulary.bin_of

    def words(ids: Sequence[int]) -> list[int]:
        return [-1 if bins(token) is not None else token for token in ids]

    found = []
    for seed in range(60):
        for example in lesson.teach(pipeline, replace(row, random=Random(seed))):
            assert list(example.source) == entry["source_ids"]
            assert [example.weight] == entry["conf"]
            assert list(example.image.shape) == entry["patch_shape"]  # type: ignore[union-attr]
            found.append((words(padded_target(example)), words(decoder_input(example))))
            numbers = [number for number in map(bins, example.target) if number is not None]
            crop, over = 2 * entry["settings"]["code_image_size"], entry["settings"]["max_image_size"]
            assert max(numbers) <= round(crop / over * 999), "of the crop, over the largest picture"
    assert (words(entry["target_ids"]), words(entry["prev_output_ids"])) in found


# Answers, boxes, texts and searches


@pytest.mark.parametrize("entry", exactly("vqa_gen:answers"))
def test_answers_have_the_originals_ids(entry: Entry) -> None:
    pipeline = make_pipeline(TaskSettings(name="vqa_gen"))
    assert pipeline.candidate_ids(entry["answers"]) == entry["ids"]


@pytest.mark.parametrize("entry", exactly("refcoco:boxes"))
def test_bins_are_computed_in_float32(entry: Entry) -> None:
    for case in entry["boxes"]:
        codec = BoxCodec("refcoco", image_size=case["image_size"], max_image_size=case["max_image_size"])
        assert codec.encode(case["box"], tuple(case["size"])) == case["bins"], case


@pytest.mark.parametrize("entry", exactly("bert:texts"))
def test_raw_prompts_of_a_chinese_vocabulary(entry: Entry) -> None:
    words = tokenizer("bert")
    for text, ids, decoded in zip(entry["texts"], entry["ids"], entry["decoded"], strict=True):
        assert words.encode_typed(text) == ids, text
        # on purpose: Chinese characters are joined, and no space stands before a full stop and the like
        assert words.decode(ids).replace(" ", "") == decoded.replace(" ", ""), text


#: The fields of a search: the original's names, ours, and the value of what a script does not name.
SEARCH: dict[str, tuple[str, Any]] = {
    "num_beams": ("num_beams", 5),
    "max_len_b": ("max_new_tokens", 200),
    "max_len_a": ("max_new_tokens_per_source_token", 0),
    "min_len": ("min_new_tokens", 1),
    "no_repeat_ngram_size": ("no_repeat_ngram_size", 0),
    "lenpen": ("length_penalty", 1.0),
    "temperature": ("temperature", 1.0),
    "zero_shot": ("constrain_after_softmax", False),
}
#: The task of each script, and what of a script is no field of a search.
SCRIPT_TASKS = {"vqa_gen": "vqa", "glue": "cola"}
OTHERWISE = {"candidates", "weights", "constraint", "answers", "unnormalized", "sampling_topk", "constraint_range"}


def script_state(name: str) -> Pipeline:
    """The model that a script is for: fine-tuned for its task unless it is a zero-shot one."""
    task, _, variant = name.partition(":")
    spec = TASKS[SCRIPT_TASKS.get(task, task)]
    pretrained = TaskSettings(name=PRETRAINING, image_size=384, max_image_size=512)
    settings = pretrained if variant == "zero-shot" else fine_tuned_settings(spec.name, pretrained)
    dims = {"embed_dim": 1280, "num_heads": 16} if variant == "huge" else {}
    return make_pipeline(settings, "bert" if variant == "cn" else "gpt2", **dims)


def scripts() -> list[Any]:
    return [
        pytest.param(script, id=script["name"])
        for entry in ENTRIES
        if entry["task"] == "search"
        for script in entry["scripts"]
    ]


@pytest.mark.parametrize("script", scripts())
def test_searches_and_settings_are_those_of_the_originals_scripts(script: dict[str, Any]) -> None:
    name, search, data = script["name"], script["search"], script["data"]
    task = name.partition(":")[0]
    spec = TASKS[SCRIPT_TASKS.get(task, task)]
    if name == "snli_ve":
        spec = TASKS["snli_ve_caption"]
    pipeline = script_state(name)
    options, settings = pipeline.options(spec), pipeline.settings(spec)
    assert set(search) <= {*SEARCH, *OTHERWISE}
    if "candidates" not in search and not options.do_sample:
        for theirs, (ours, usual) in SEARCH.items():
            assert getattr(options, ours) == search.get(theirs, usual), theirs
        assert options.normalize_scores != search.get("unnormalized", False)
    if options.do_sample:
        assert (options.num_return_sequences, options.top_k) == (search["num_beams"], search["sampling_topk"])
        assert options.max_new_tokens == options.min_new_tokens == search["max_len_b"] == search["min_len"]
        vocabulary = pipeline.tokenizer.vocabulary
        assert [vocabulary.code_start, vocabulary.code_end] == search["constraint_range"]
    if isinstance(search.get("answers"), list):
        assert set(spec.answers) == set(search["answers"])
    for theirs, ours in SETTINGS.items():
        if theirs in data:
            told = getattr(settings, ours)
            assert (told or spec.decoder_prompt if theirs == "prompt_type" else told) == data[theirs], theirs
    if "patch_image_size" in data:
        assert pipeline.for_task(spec).transform.size == data["patch_image_size"]
    if "noise_ratio" in data:
        assert data["noise_ratio"] == SUMMARY_NOISE


def test_every_entry_is_compared() -> None:
    """Nothing in the file is left out, whatever tasks it holds."""
    known = {
        *TAUGHT, *(f"{task}:collater" for task in TAUGHT), "vqa_gen:answers", "refcoco:boxes", "bert:texts", "search",
        "pretrain_caption", "pretrain_qa", "pretrain_matching", "pretrain_visual_grounding", "pretrain_region_caption",
        "pretrain_text", "pretrain_image", "pretrain_detection",
    }  # fmt: skip
    assert {entry["task"] for entry in ENTRIES} <= known
