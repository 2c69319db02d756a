"""Sources of examples: a table of what can be learned, and what each row of a dataset teaches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from ..data.examples import Example, region_target, text_target
from ..data.records import Format, Record
from ..data.rows import ShuffledRecords
from ..demo.lessons import Lessons
from ..errors import OFAError
from ..generation.scoring import decoder_prompt_ids
from ..heads import caption, grounding, oracle, questioner, vqa
from ..heads.pipeline import Pipeline
from ..text.dialog import Style
from .batches import Source
from .settings import DataSettings

#: A function from a row with its picture to the examples that it gives.
Teach = Callable[[Pipeline, Record, Image.Image], list[Example]]


def _said(pipeline: Pipeline, turn: str) -> list[int]:
    """A target: a turn of a dialog, lower-cased as in the published fine-tunes."""
    return text_target(pipeline, turn.strip().lower())


def _plain(pipeline: Pipeline, text: str) -> list[int]:
    """A target: a caption without punctuation, cut to as many words as the model was trained with."""
    words = caption.without_punctuation(text).split()
    return text_target(pipeline, " ".join(words[: pipeline.model.config.task.max_target_tokens]))


def _phrase(pipeline: Pipeline, record: Record, image: Image.Image) -> list[Example]:
    (source,) = grounding.caption_sources(pipeline, [record.text])
    return [Example(source, region_target(pipeline, grounding.refcoco_codec(pipeline), record.box, image.size), image)]


def _region_caption(pipeline: Pipeline, record: Record, image: Image.Image) -> list[Example]:
    (source,) = caption.region_sources(pipeline, [image.size], [record.box])
    return [Example(source, _plain(pipeline, record.text), image)]


def _caption(pipeline: Pipeline, record: Record, image: Image.Image) -> list[Example]:
    (source,) = caption.caption_sources(pipeline, 1)
    return [Example(source, _plain(pipeline, record.text), image)]


def _answer(pipeline: Pipeline, record: Record, image: Image.Image) -> list[Example]:
    objects = record.objects if pipeline.model.config.task.add_object else ()
    (source,) = vqa.question_sources(pipeline, [record.text], [objects])
    prompt = decoder_prompt_ids(source, pipeline.decoder_prompt(None, vqa.DECODER_PROMPT))
    return [Example(source, text_target(pipeline, record.answer), image, prompt, record.agreement)]


def _dialog(style: Style, pipeline: Pipeline, record: Record, image: Image.Image) -> list[Example]:
    (source,) = grounding.dialog_sources(pipeline, [record.turns], style)
    target = region_target(pipeline, grounding.invig_codec(pipeline), record.box, image.size, questioner.REGION)
    return [Example(source, target, image)]


def _answers(style: Style, first: int, pipeline: Pipeline, record: Record, image: Image.Image) -> list[Example]:
    """Every answer of a dialog, whose first question is turn ``first``; before an InViG dialog's, its query."""
    examples = []
    if first and record.turns:
        (source,) = oracle.query_sources(pipeline, [image.size], [record.box])
        examples.append(Example(source, _said(pipeline, record.turns[0]), image))
    for at in range(first, len(record.turns) - 1, 2):
        before, question, answer = record.turns[:at], record.turns[at], record.turns[at + 1]
        (source,) = oracle.oracle_sources(pipeline, [image.size], [record.box], [before], [question], style)
        examples.append(Example(source, _said(pipeline, answer), image))
    return examples


def _questions(style: Style, first: int, pipeline: Pipeline, record: Record, image: Image.Image) -> list[Example]:
    """Every question of a dialog, with what was said before it."""
    at = range(first, len(record.turns), 2)
    sources = questioner.question_sources(pipeline, [record.turns[:place] for place in at], style)
    return [
        Example(source, _said(pipeline, record.turns[place]), image) for place, source in zip(at, sources, strict=True)
    ]


def _agent(pipeline: Pipeline, record: Record, image: Image.Image) -> list[Example]:
    """Every turn of an agent that may guess: it asks on, and after the last answer says the region."""
    asked = range(1, len(record.turns), 2)
    answered = record.turns[: len(record.turns) - (len(record.turns) + 1) % 2]
    sources = questioner.agent_sources(pipeline, [*(record.turns[:at] for at in asked), answered])
    targets = [_said(pipeline, f"{questioner.NOT_YET} {record.turns[at]}") for at in asked]
    codec = grounding.invig_codec(pipeline)
    targets.append(region_target(pipeline, codec, record.box, image.size, f"{questioner.SURE} {questioner.REGION}"))
    return [Example(source, target, image) for source, target in zip(sources, targets, strict=True)]


@dataclass(frozen=True)
class Lesson:
    """A format and what its rows teach."""

    format: Format
    teach: Teach


#: Tasks that can be learned from dataset files, by their names in settings.
LESSONS: dict[str, Lesson] = {
    "refcoco_grounding": Lesson("refcoco", _phrase),
    "refcoco_caption": Lesson("refcoco", _region_caption),
    "caption": Lesson("caption", _caption),
    "vqa": Lesson("vqa", _answer),
    "guesswhat_grounding": Lesson("guesswhat", partial(_dialog, "guesswhat")),
    "guesswhat_oracle": Lesson("guesswhat", partial(_answers, "guesswhat", 0)),
    "guesswhat_question": Lesson("guesswhat", partial(_questions, "guesswhat", 0)),
    "invig_grounding": Lesson("invig", partial(_dialog, "invig")),
    "invig_oracle": Lesson("invig", partial(_answers, "invig", 1)),
    "invig_question": Lesson("invig", partial(_questions, "invig", 1)),
    "invig_agent": Lesson("invig", _agent),
}
#: The drawn world, which needs no files.
SHAPES = "shapes"


@dataclass(frozen=True)
class FileSource:
    """Examples from the rows of a file."""

    pipeline: Pipeline
    rows: ShuffledRecords
    teach: Teach

    def examples(self, index: int) -> list[Example]:
        """Examples of row ``index``."""
        return self.teach(self.pipeline, *self.rows.row(index))

    def take_failures(self) -> list[str]:
        """Errors of the rows whose places others took since this was last asked."""
        return self.rows.take_failures()


def make_source(data: DataSettings, pipeline: Pipeline, seed: int) -> Source:
    """The source of one table of the settings; ``pipeline``'s model may be without weights.

    Raises:
        OFAError: there is no such task, or its settings or rows are wrong.
    """
    lesson, path = lesson_of(data)
    if lesson is None or path is None:
        return _shapes(data, pipeline, seed)
    rows = ShuffledRecords(
        lesson.format,
        path,
        data.images,
        columns=data.columns,
        skip_bad=data.skip_bad,
        seed=seed,
        allow_outside=data.allow_outside,
    )
    return FileSource(pipeline, rows, lesson.teach)


def lesson_of(data: DataSettings) -> tuple[Lesson | None, Path | None]:
    """The format and the meaning of a table's rows, and their file; neither for the drawn world.

    Raises:
        OFAError: there is no such task, or its settings are wrong.
    """
    if data.task == SHAPES:
        return None, None
    if data.task not in LESSONS:
        raise OFAError(f"there is no training task {data.task!r}; there are {', '.join([SHAPES, *LESSONS])}")
    if data.path is None or data.options:
        raise OFAError(f"the training task {data.task!r} needs a path and has no options")
    return LESSONS[data.task], data.path


def _shapes(data: DataSettings, pipeline: Pipeline, seed: int) -> Source:
    """Scenes of the drawn world; ``options`` are those of :class:`~ofa_core.demo.lessons.Lessons`."""
    if data.path is not None:
        raise OFAError(f"the training task {SHAPES!r} draws its pictures and takes no path")
    if "emphasis" in data.options:
        raise OFAError(f"the options of the task {SHAPES!r}: emphasis is called loss_weights now")
    try:
        return Lessons(pipeline, **({"seed": seed} | data.options))
    except TypeError as error:
        raise OFAError(f"the options of the task {SHAPES!r} are wrong: {error}") from None
