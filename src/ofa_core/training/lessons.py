"""Lessons: what the rows of each kind of dataset teach, and the table of them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from random import Random

from PIL import Image

from ..data.examples import Example, region_target, text_target
from ..data.records import BadRow, Format, Record
from ..errors import OFAError
from ..generation.scoring import decoder_prompt_ids
from ..generation.trie import Trie
from ..heads import (
    caption,
    classification,
    detection,
    entailment,
    glue,
    grounding,
    image_generation,
    matching,
    ocr,
    oracle,
    questioner,
    vqa,
)
from ..heads import text as text_heads
from ..heads.custom import custom_source, custom_target
from ..heads.pipeline import Pipeline
from ..heads.regions import NO_REGION
from ..heads.targets import target_ids
from ..heads.tasks import GLUE, SUMMARY_NOISE, TASKS, TaskSpec
from ..text.dialog import Style
from ..text.normalize import SEVERAL
from ..text.vocabulary import EOS
from ..vision.augment import augmented, random_crop
from ..vision.padded import padded
from .setting_tables import CUSTOM, REFERENCES


@dataclass(frozen=True)
class Row:
    """A row of a dataset with its picture, and what draws where something of it is drawn."""

    record: Record
    random: Random
    picture: Image.Image | None = None

    @property
    def image(self) -> Image.Image:
        """The picture.

        Raises:
            OFAError: the row is of text alone.
        """
        if self.picture is None:
            raise OFAError(f"{self.record.place}: the row has no picture, and this lesson needs one")
        return self.picture

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture in pixels."""
        return self.image.size


#: A function from a row to the examples that it gives.
Teach = Callable[[Pipeline, Row], list[Example]]


@dataclass(frozen=True)
class Lesson:
    """A format and what its rows teach."""

    format: Format
    teach: Teach
    #: The task whose picture side counts; None: the model's own.
    spec: TaskSpec | None = None
    #: True if a picture is cut, moved or changed by chance, so that it is another one in every epoch.
    draws_picture: bool = False


def _prompt(pipeline: Pipeline, spec: TaskSpec, source: Sequence[int]) -> list[int]:
    return decoder_prompt_ids(source, pipeline.decoder_prompt(spec))


def _said(pipeline: Pipeline, turn: str) -> list[int]:
    """A target: a turn of a dialog, lower-cased as in the published fine-tunes."""
    return text_target(pipeline, turn.strip().lower())


def _phrase(pipeline: Pipeline, row: Row) -> list[Example]:
    (source,) = grounding.caption_sources(pipeline, [row.record.text])
    return [
        Example(source, region_target(pipeline, grounding.refcoco_codec(pipeline), row.record.box, row.size), row.image)
    ]


def _phrases(pipeline: Pipeline, row: Row) -> list[Example]:
    """All boxes that a phrase means, one after the other, or the text that it means nothing in the picture."""
    (source,) = grounding.caption_sources(pipeline, [row.record.text])
    if not row.record.boxes:
        return [Example(source, text_target(pipeline, NO_REGION), row.image)]
    codec = grounding.refcoco_codec(pipeline)
    bins = [number for box in row.record.boxes for number in codec.encode(box, row.size)]
    return [Example(source, [*pipeline.tokenizer.vocabulary.bins_to_ids(bins), EOS], row.image)]


def _things(pipeline: Pipeline, row: Row) -> list[Example]:
    """Everything in the whole picture, each with its box and its name, in the row's order.

    Of more things than the model can say the first are learned, without the end behind them.
    """
    pipeline = detection.listing_pipeline(pipeline)
    (source,) = detection.listing_sources(pipeline, 1)
    codec, longest = grounding.refcoco_codec(pipeline), pipeline.model.config.max_target_positions
    target: list[int] = []
    for box, name in row.record.things:
        bins = pipeline.tokenizer.vocabulary.bins_to_ids(codec.encode(box, row.size))
        thing = [*bins, *pipeline.tokenizer.encode(f" {name}")]
        if len(target) + len(thing) > longest - 1:
            break
        target += thing
    else:
        target.append(EOS)
    return [Example(source, target, pipeline.transform(row.image) if pipeline.other_side else row.image)]


def _region_caption(pipeline: Pipeline, row: Row) -> list[Example]:
    (source,) = caption.region_sources(pipeline, [row.size], [row.record.box])
    return [Example(source, target_ids(pipeline, caption.REGION_SPEC, row.record.text), row.image)]


def _caption(spec: TaskSpec, pipeline: Pipeline, row: Row) -> list[Example]:
    (source,) = caption.caption_sources(pipeline, 1)
    return [Example(source, target_ids(pipeline, spec, row.record.text), row.image)]


def _caption_references(pipeline: Pipeline, row: Row) -> list[Example]:
    """All captions of a picture as one target, against which others are scored."""
    (source,) = caption.caption_sources(pipeline, 1)
    references = row.record.references or (row.record.text,)
    return [Example(source, caption.reference_ids(pipeline, SEVERAL.join(references)), row.image)]


def _answer(pipeline: Pipeline, row: Row) -> list[Example]:
    objects = row.record.objects if pipeline.settings(vqa.SPEC).add_object else None
    (source,) = vqa.question_sources(pipeline, [row.record.text], [objects])
    target = target_ids(pipeline, vqa.SPEC, row.record.answer)
    return [Example(source, target, row.image, _prompt(pipeline, vqa.SPEC, source), row.record.agreement)]


def _dialog(style: Style, pipeline: Pipeline, row: Row) -> list[Example]:
    (source,) = grounding.dialog_sources(pipeline, [row.record.turns], style)
    target = region_target(pipeline, grounding.invig_codec(pipeline), row.record.box, row.size, questioner.REGION)
    return [Example(source, target, row.image)]


def _answers(style: Style, first: int, pipeline: Pipeline, row: Row) -> list[Example]:
    """Every answer of a dialog, whose first question is turn ``first``; before an InViG dialog's, its query."""
    examples = []
    if first and row.record.turns:
        (source,) = oracle.query_sources(pipeline, [row.size], [row.record.box])
        examples.append(Example(source, _said(pipeline, row.record.turns[0]), row.image))
    for at in range(first, len(row.record.turns) - 1, 2):
        before, question, answer = row.record.turns[:at], row.record.turns[at], row.record.turns[at + 1]
        (source,) = oracle.oracle_sources(pipeline, [row.size], [row.record.box], [before], [question], style)
        examples.append(Example(source, _said(pipeline, answer), row.image))
    return examples


def _questions(style: Style, first: int, pipeline: Pipeline, row: Row) -> list[Example]:
    """Every question of a dialog, with what was said before it."""
    at = range(first, len(row.record.turns), 2)
    sources = questioner.question_sources(pipeline, [row.record.turns[:place] for place in at], style)
    return [
        Example(source, _said(pipeline, row.record.turns[place]), row.image)
        for place, source in zip(at, sources, strict=True)
    ]


def _agent(pipeline: Pipeline, row: Row) -> list[Example]:
    """Every turn of an agent that may guess: it asks on, and after the last answer says the region."""
    asked = range(1, len(row.record.turns), 2)
    answered = row.record.turns[: len(row.record.turns) - (len(row.record.turns) + 1) % 2]
    sources = questioner.agent_sources(pipeline, [*(row.record.turns[:at] for at in asked), answered])
    targets = [_said(pipeline, f"{questioner.NOT_YET} {row.record.turns[at]}") for at in asked]
    codec = grounding.invig_codec(pipeline)
    targets.append(region_target(pipeline, codec, row.record.box, row.size, f"{questioner.SURE} {questioner.REGION}"))
    return [Example(source, target, row.image) for source, target in zip(sources, targets, strict=True)]


# One of a set of answers


@lru_cache(maxsize=32)
def _closed(answers: tuple[tuple[int, ...], ...]) -> Trie:
    return Trie(answers)


def closed_set(pipeline: Pipeline, answers: Sequence[str]) -> Trie:
    """The tree of a set of answers, which examples share."""
    return _closed(tuple(tuple(ids) for ids in pipeline.candidate_ids(answers)))


def _labelled(spec: TaskSpec, record: Record) -> str:
    try:
        return spec.answer_of(record.answer)
    except OFAError as error:
        raise BadRow(record.place, str(error)) from None


def _closed_example(
    pipeline: Pipeline, spec: TaskSpec, source: list[int], row: Row, image: Image.Image | None
) -> Example:
    target = text_target(pipeline, _labelled(spec, row.record))
    answers = closed_set(pipeline, spec.answers)
    return Example(source, target, image, _prompt(pipeline, spec, source), answers=answers)


def _entailment(pipeline: Pipeline, row: Row) -> list[Example]:
    (source,) = entailment.entailment_sources(pipeline, [row.record.text], [row.record.text2])
    return [_closed_example(pipeline, entailment.CAPTION_SPEC, source, row, row.image)]


def _entailment_alone(pipeline: Pipeline, row: Row) -> list[Example]:
    (source,) = entailment.entailment_sources(pipeline, [row.record.text])
    return [_closed_example(pipeline, entailment.SPEC, source, row, row.image)]


def _class(pipeline: Pipeline, row: Row) -> list[Example]:
    """A piece of the picture, changed a little, and the name of its class."""
    (source,) = classification.class_sources(pipeline, 1)
    target = target_ids(pipeline, classification.SPEC, row.record.answer)
    image = augmented(random_crop(row.image, row.random), row.random)
    return [Example(source, target, image, _prompt(pipeline, classification.SPEC, source))]


def _judgement(spec: TaskSpec, pipeline: Pipeline, row: Row) -> list[Example]:
    """One token behind the prompt, and nothing behind it."""
    (source,) = glue.glue_sources(pipeline, spec.name, [row.record.text], [row.record.text2 or None])
    example = _closed_example(pipeline, spec, source, row, None)
    return [replace(example, target=example.target[:-1])]


def _match(pipeline: Pipeline, row: Row) -> list[Example]:
    (source,) = matching.text_sources(pipeline, [row.record.text])
    return [_closed_example(pipeline, matching.TEXT_SPEC, source, row, row.image)]


def _answer_match(pipeline: Pipeline, row: Row) -> list[Example]:
    (source,) = matching.answer_sources(pipeline, [row.record.text], [row.record.text2])
    return [_closed_example(pipeline, matching.ANSWER_SPEC, source, row, row.image)]


# Texts, and writing


def _summary(pipeline: Pipeline, row: Row) -> list[Example]:
    """The decoder reads a share of the summary wrong, so that it does not rely on its own words."""
    (source,) = text_heads.summary_sources(pipeline, [row.record.text])
    target = target_ids(pipeline, text_heads.SUMMARY_SPEC, row.record.text2)
    return [Example(source, target, said=noisy(pipeline, target, row.random))]


def noisy(pipeline: Pipeline, target: Sequence[int], random: Random, share: float = SUMMARY_NOISE) -> list[int]:
    """A target in which a share of the tokens is replaced by any words of the vocabulary."""
    words = range(4, pipeline.tokenizer.vocabulary.mask)
    return [random.choice(words) if random.random() < share else token for token in target]


def _writing(document: bool, pipeline: Pipeline, row: Row) -> list[Example]:
    (source,) = ocr.ocr_sources(pipeline, 1)
    square = padded(row.image, pipeline.transform.size, document=document, random=row.random)
    return [Example(source, target_ids(pipeline, ocr.SPEC, row.record.text), square)]


def _own(pipeline: Pipeline, row: Row) -> list[Example]:
    """The source and the target that the templates of the settings make of the row."""
    record, size = row.record, None if row.picture is None else row.size
    source = custom_source(pipeline, record.source, record.box, size)
    return [Example(source, custom_target(pipeline, record.target, record.box, size), row.picture)]


def _drawing(pipeline: Pipeline, row: Row) -> list[Example]:
    """The codes of a picture for its caption."""
    spec = image_generation.SPEC
    text = spec.rule(row.record.text, pipeline.settings(spec).max_source_tokens)
    return [Example(image_generation.image_source(pipeline, text), code_target(pipeline, row.record), codes=True)]


def code_target(pipeline: Pipeline, record: Record) -> list[int]:
    """The ids of a record's image codes, and ``</s>``.

    Raises:
        BadRow: the model has no such code.
    """
    vocabulary = pipeline.tokenizer.vocabulary
    if max(record.codes) >= vocabulary.code_dict_size:
        known = vocabulary.code_dict_size
        raise BadRow(record.place, f"codes: {max(record.codes)} is none of the model's {known} codes")
    return [*(vocabulary.code_start + code for code in record.codes), vocabulary.eos]


#: Tasks that can be learned from dataset files, by their names in settings.
LESSONS: dict[str, Lesson] = {
    "refcoco_grounding": Lesson("refcoco", _phrase, grounding.SPEC),
    "refcoco_caption": Lesson("refcoco", _region_caption, caption.REGION_SPEC),
    "grefcoco": Lesson("grefcoco", _phrases, grounding.SPEC),
    "ref_l4": Lesson("ref_l4", _phrase, grounding.SPEC),
    "detection": Lesson("pretrain_detection", _things),
    "caption": Lesson("caption", partial(_caption, caption.SPEC), caption.SPEC),
    "caption_with_punctuation": Lesson("caption", partial(_caption, caption.WRITTEN_SPEC), caption.SPEC),
    REFERENCES: Lesson("caption", _caption_references, caption.SPEC),
    "vqa": Lesson("vqa", _answer, vqa.SPEC),
    "snli_ve": Lesson("snli_ve", _entailment, entailment.CAPTION_SPEC),
    "snli_ve_without_caption": Lesson("snli_ve", _entailment_alone, entailment.SPEC),
    "image_classify": Lesson("image_classify", _class, classification.SPEC, draws_picture=True),
    "image_gen": Lesson("image_gen", _drawing, image_generation.SPEC),
    "ocr": Lesson("ocr", partial(_writing, False), ocr.SPEC, draws_picture=True),
    "ocr_document": Lesson("ocr", partial(_writing, True), ocr.SPEC, draws_picture=True),
    "gigaword": Lesson("gigaword", _summary, text_heads.SUMMARY_SPEC),
    **{name: Lesson(name, partial(_judgement, TASKS[name]), TASKS[name]) for name in GLUE},
    CUSTOM: Lesson("custom", _own),
    "image_text_matching": Lesson("matching", _match, matching.TEXT_SPEC),
    "answer_matching": Lesson("answer_matching", _answer_match, matching.ANSWER_SPEC),
    "guesswhat_grounding": Lesson("guesswhat", partial(_dialog, "guesswhat")),
    "guesswhat_oracle": Lesson("guesswhat", partial(_answers, "guesswhat", 0)),
    "guesswhat_question": Lesson("guesswhat", partial(_questions, "guesswhat", 0)),
    "invig_grounding": Lesson("invig", partial(_dialog, "invig")),
    "invig_oracle": Lesson("invig", partial(_answers, "invig", 1)),
    "invig_question": Lesson("invig", partial(_questions, "invig", 1)),
    "invig_agent": Lesson("invig", _agent),
}
