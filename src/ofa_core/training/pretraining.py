"""The lessons of pre-training: captions, questions, boxes and matching; texts, pictures and what is in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from PIL import Image
from torch import Tensor

from ..data.examples import Example, text_target
from ..data.records import Record
from ..errors import OFAError
from ..generation.scoring import decoder_prompt_ids
from ..heads import caption, grounding, infilling, matching
from ..heads.box_codec import BoxCodec
from ..heads.image_generation import without_middle
from ..heads.masking import mask_spans
from ..heads.pipeline import Pipeline, fill_prompt, normalize_text
from ..heads.targets import target_ids
from ..heads.tasks import CC12M_IGNORED, TASKS
from ..text.vocabulary import EOS, PAD
from ..vision.augment import augmented
from ..vision.boxes import Box
from ..vision.crops import center_crop, jittered_crop, object_crop, short_sides
from ..vision.transform import ImageTransform
from .lessons import Lesson, Row, code_target

CAPTION, QUESTION = TASKS["pretrain_caption"], TASKS["pretrain_qa"]
#: The data set whose captions have a name at their start, which is not learned.
CC12M = "cc12m"


@dataclass(frozen=True)
class Negatives:
    """Wrong captions, objects and answers, of which matching draws; in files as the original has them."""

    captions: Sequence[str] = ()
    objects: Sequence[str] = ()
    #: Answers by kind of question; ``other`` is there where a kind is not known.
    answers: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def from_dir(cls, directory: Path) -> Negatives:
        """Read ``all_captions.txt``, ``object.txt`` and ``type2ans.json``.

        Raises:
            OFAError: one is missing or not what it should be.
        """
        try:
            captions, objects = (
                [line for line in (directory / name).read_text(encoding="utf-8").splitlines() if line.strip()]
                for name in ("all_captions.txt", "object.txt")
            )
            answers = json.loads((directory / "type2ans.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OFAError(f"{directory} should hold all_captions.txt, object.txt and type2ans.json: {error}") from None
        if not isinstance(answers, dict) or not all(isinstance(found, list) for found in answers.values()):
            raise OFAError(f"{directory / 'type2ans.json'} should map kinds of question to lists of answers")
        return cls(captions, objects, answers)

    def caption(self, text: str, objects: Sequence[str] | None, random: Random) -> str:
        """A wrong caption: another one, or this one with another object in it."""
        named = [name for name in objects or () if name.strip() and name in text]
        if named and len(self.objects) > 1 and random.random() > 0.6:
            name = random.choice(named)
            return text.replace(name, self._other(self.objects, name, random))
        return self._other(self.captions, text, random)

    def answer(self, text: str, agreement: float, random: Random) -> str:
        """A wrong answer: of the same kind the more often the surer the right one is, else any other one."""
        kinds = [kind for kind, answers in self.answers.items() if text in answers]
        drawn = random.random()
        if not kinds or agreement <= drawn + 0.1:
            return self._other(self.answers.get("other", ()), text, random)
        if kinds[0] == "how many" and text.isdigit() and drawn > 0.5:
            return str(int(text) + random.choice((-1, 1)) if int(text) else 1)
        return self._other(self.answers[kinds[0]], text, random)

    @staticmethod
    def _other(among: Sequence[str], than: str, random: Random) -> str:
        others = [one for one in among if one != than]
        if not others:
            raise OFAError(f"there is nothing to draw in place of {than!r}: the negatives hold too little")
        return random.choice(others)


def _pixels(image: Image.Image, side: int, pipeline: Pipeline) -> Tensor:
    """The pixels of a picture at another side than the model's own, [3, side, side]."""
    return ImageTransform(side, pipeline.model.config.task.imagenet_normalization)(image)


# A picture and a text


def _about_picture(negatives: Negatives | None, pipeline: Pipeline, row: Row) -> list[Example]:
    """Two things about one picture, by the kind of row."""
    return _KINDS[row.record.kind](negatives, pipeline, row)


def _drawn_pixels(pipeline: Pipeline, row: Row) -> Tensor:
    """The middle of a picture, of a size and with changes that are drawn, [3, side, side]."""
    side = pipeline.transform.size
    square = center_crop(row.image, side, row.random.choice(short_sides(side)))
    return _pixels(augmented(square, row.random), side, pipeline)


def _caption(negatives: Negatives | None, pipeline: Pipeline, row: Row) -> list[Example]:
    pixels = _drawn_pixels(pipeline, row)
    examples = [caption_example(pipeline, row.record, pixels)]
    if negatives is not None:
        wrong = negatives.caption(row.record.text, row.record.objects, row.random)
        right = row.random.random() > 0.5
        examples.append(matching_example(pipeline, row.record.text if right else wrong, right, pixels))
    return examples


def caption_example(pipeline: Pipeline, record: Record, pixels: Tensor) -> Example:
    """A caption of a picture; of cc12m's, whose start is a name, the first tokens are not learned."""
    source = pipeline.encode(pipeline.prompt(CAPTION, None))
    target = target_ids(pipeline, CAPTION, record.text)
    if record.dataset != CC12M:
        return Example(source, target, pixels)
    ignored = min(CC12M_IGNORED, len(target) - 1)
    return Example(source, [PAD] * ignored + target[ignored:], pixels, said=target)


def matching_example(pipeline: Pipeline, text: str, right: bool, pixels: Tensor) -> Example:
    """The decision that a text describes the picture, or not."""
    (source,) = matching.text_sources(pipeline, [text])
    return Example(source, text_target(pipeline, "yes" if right else "no"), pixels)


def _question(negatives: Negatives | None, pipeline: Pipeline, row: Row) -> list[Example]:
    pixels = _drawn_pixels(pipeline, row)
    record = row.record
    examples = [question_example(pipeline, record, pixels)]
    if negatives is not None:
        wrong = negatives.answer(record.answer, record.agreement, row.random)
        right = row.random.random() > 0.5
        examples.append(answer_example(pipeline, record, record.answer if right else wrong, right, pixels))
    return examples


def question_example(pipeline: Pipeline, record: Record, pixels: Tensor) -> Example:
    """A question, to which no question mark is added, and its answer as it is written."""
    words = pipeline.settings(QUESTION).max_source_tokens
    question = normalize_text(record.text, QUESTION.rule, words, "question")
    source = pipeline.encode(fill_prompt(pipeline.prompt(QUESTION, None), question=question))
    return Example(source, target_ids(pipeline, QUESTION, record.answer), pixels, weight=record.agreement)


def answer_example(pipeline: Pipeline, record: Record, answer: str, right: bool, pixels: Tensor) -> Example:
    """The decision that an answer to the record's question is right, or not."""
    (source,) = matching.answer_sources(pipeline, [record.text], [answer])
    return Example(source, text_target(pipeline, "yes" if right else "no"), pixels, weight=record.agreement)


def _region(negatives: Negatives | None, pipeline: Pipeline, row: Row) -> list[Example]:
    side = pipeline.transform.size
    square, box = object_crop(row.image, row.record.box, side, row.random.choice(short_sides(side)))
    return region_examples(pipeline, row.record.text, box, _pixels(square, side, pipeline))


def region_examples(pipeline: Pipeline, text: str, box: Box, pixels: Tensor) -> list[Example]:
    """The box of a phrase, and the phrase of a box, which is on the picture as the model takes it."""
    bins = _bins(pipeline, box, pipeline.transform.size)
    (source,) = grounding.caption_sources(pipeline, [text])
    region = [*pipeline.encode(pipeline.prompt(caption.REGION_SPEC, None))[:-1], *bins, EOS]
    return [
        Example(source, [*bins, EOS], pixels),
        Example(region, target_ids(pipeline, caption.REGION_SPEC, text), pixels),
    ]


def _bins(pipeline: Pipeline, box: Box, side: int) -> list[int]:
    """The ids of a box on a picture of ``side`` pixels a side, as the model takes it."""
    task = pipeline.model.config.task
    codec = BoxCodec("refcoco", num_bins=task.num_bins, image_size=side, max_image_size=task.max_image_size)
    return pipeline.tokenizer.vocabulary.bins_to_ids(codec.encode(box, (side, side)))


_KINDS: Mapping[str, Callable[[Negatives | None, Pipeline, Row], list[Example]]] = {
    "caption": _caption,
    "qa": _question,
    "visual_grounding": _region,
}


# Texts alone, and pictures alone


def _text(_: Negatives | None, pipeline: Pipeline, row: Row) -> list[Example]:
    """The text without gaps, twice with other ones."""
    return [text_example(pipeline, row.record.text, row.random) for _ in range(2)]


def text_example(pipeline: Pipeline, text: str, random: Random) -> Example:
    """A text with spans of words hidden, and the whole text."""
    ids = infilling.kept_ids(pipeline.tokenizer.encode(infilling.plain_text(text)))
    source = infilling.infilling_source(pipeline, mask_spans(pipeline.tokenizer, ids, random))
    return Example(source, [*ids, EOS], weight=infilling.SPEC.weight)


def _pure_side(pipeline: Pipeline) -> int:
    """The side of a picture alone, in pixels: codes describe the middle, which is half as wide."""
    return 2 * pipeline.model.config.code_image_size


def _middle(_: Negatives | None, pipeline: Pipeline, row: Row) -> list[Example]:
    """The codes of a picture's middle, which is black."""
    spec = TASKS["image_infilling"]
    pixels = without_middle(_pixels(row.image, _pure_side(pipeline), pipeline))
    source = pipeline.encode(pipeline.prompt(spec, None))
    return [Example(source, code_target(pipeline, row.record), pixels, weight=spec.weight, codes=True)]


def _objects(negatives: Negatives | None, pipeline: Pipeline, row: Row) -> list[Example]:
    """Everything on a piece of the picture, each with its box and its name; nothing where nothing is on it."""
    spec = TASKS["detection"]
    boxes = [box for box, _ in row.record.things]
    side = _pure_side(pipeline)
    square, found = jittered_crop(row.image, boxes, side, row.random)
    target: list[int] = []
    for box, (_, name) in zip(found, row.record.things, strict=True):
        if box is not None:
            target += [*_bins(pipeline, box, side), *pipeline.tokenizer.encode(f" {name}")]
    if not target:
        return []
    source = pipeline.encode(pipeline.prompt(spec, None))
    pixels = _pixels(square, side, pipeline)
    prompt = decoder_prompt_ids(source, "none")
    return [Example(source, [*target, EOS], pixels, prompt, spec.weight)]


def pretraining_lessons(negatives: Negatives | None = None) -> dict[str, Lesson]:
    """The lessons by name; without ``negatives`` nothing is matched."""
    return {
        "pretrain": Lesson("pretrain", partial(_about_picture, negatives), draws_picture=True),
        "pretrain_text": Lesson("pretrain_text", partial(_text, negatives)),
        "pretrain_image": Lesson("pretrain_image", partial(_middle, negatives)),
        "pretrain_detection": Lesson("pretrain_detection", partial(_objects, negatives), draws_picture=True),
    }
