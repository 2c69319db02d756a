"""The benchmarks' tasks: what each makes of a row of data, and how the models answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

from ..api import OFA
from ..data.loading import DataFiles
from ..data.records import BadRow, Format, Record
from ..heads import caption, classification, detection, vqa
from ..heads.grounding import DIALOG_OPTIONS, SPEC, Grounding, caption_sources, dialog_sources, ground, ground_dialog
from ..heads.oracle import oracle, oracle_sources
from ..heads.pipeline import Pipeline
from ..heads.tasks import TaskSpec
from ..text import pre_caption
from ..text.dialog import Style
from .answer_tasks import (
    answer_questions,
    caption_samples,
    class_samples,
    classify,
    question_samples,
    whole_pictures,
    write_captions,
)
from .box_tasks import everything, find_everything, ground_any
from .custom_task import own_samples, say
from .question_tasks import human_questions, weigh_questions
from .results import Row
from .samples import Models, Sample, SampleImage, Settings, answer_row, region_row
from .self_play import play
from .text_tasks import TEXT_TASKS

#: A function from the samples of one batch to a row for each, in their order.
Answer = Callable[[Models, Sequence[Any], Sequence[Sample], Settings], list[Row]]


@dataclass(frozen=True)
class Task:
    """A benchmark: which data it reads, what it asks and how it is answered."""

    name: str
    format: Format
    #: The samples of a record; a BadRow where it holds nothing to ask.
    samples: Callable[[Record], list[Sample]]
    #: The rows of a batch of samples, whose pictures come in the same order.
    answer: Answer
    #: Protocols of its games, the usual one first; empty where nothing is played.
    protocols: tuple[str, ...] = ()
    #: Puts records that one sample is made of together; None: each stands alone.
    joined: Callable[[Iterable[Record]], Iterator[Record]] | None = None
    #: True if its answers may be those of a list.
    takes_answers: bool = False
    #: True if its answers are those that occur in the data, where there is no list.
    answers_in_data: bool = False
    #: True if its rows may tell how sure a box is.
    tells_confidence: bool = False
    #: The original's task, whose picture side counts; None: the model's own.
    spec: TaskSpec | None = None

    def pipeline(self, ofa: OFA) -> Pipeline:
        """The pipeline that takes pictures as this task does."""
        return ofa.pipeline if self.spec is None else ofa.pipeline.for_task(self.spec)


def read_samples(
    task: Task, data: DataFiles, limit: int | None = None, on_bad: Callable[[BadRow], None] | None = None
) -> Iterator[Sample]:
    """The first ``limit`` samples of the rows that can be used, numbered from 0.

    Raises:
        OFAError: at once: there is no such file, or it is of another kind.
        BadRow: while reading, without ``on_bad``: a row cannot be used.
    """
    return islice(_numbered(task, data.records(task.format, on_bad), on_bad), limit)


def _numbered(task: Task, records: Iterable[Record], on_bad: Callable[[BadRow], None] | None) -> Iterator[Sample]:
    index = 0
    for record in records if task.joined is None else task.joined(records):
        try:
            samples = task.samples(record)
        except BadRow as bad:
            if on_bad is None:
                raise
            on_bad(bad)
            continue
        for sample in samples:
            yield replace(sample, index=index)
            index += 1


# What is asked about a record


def _phrase(record: Record) -> list[Sample]:
    """The record's phrase."""
    if not pre_caption(record.text, None):
        raise BadRow(record.place, f"text: nothing is left of {record.text!r} to look for")
    return [Sample(record.id, record)]


def _dialog(record: Record) -> list[Sample]:
    """The record's whole dialog."""
    return [Sample(record.id, record, record.turns)]


def _game(record: Record) -> list[Sample]:
    """The record's region, which the models talk about themselves."""
    return [Sample(record.id, record)]


def _questions(record: Record, first: int) -> list[Sample]:
    """A sample for each question of a dialog, the first of which is turn ``first``, with what was said before it."""
    asked = range(first, len(record.turns) - 1, 2)
    return [
        Sample(f"{record.id}/{number}", record, record.turns[: turn + 1], record.turns[turn + 1])
        for number, turn in enumerate(asked, 1)
    ]


def _guesswhat_questions(record: Record) -> list[Sample]:
    return _questions(record, first=0)


def _invig_questions(record: Record) -> list[Sample]:
    return _questions(record, first=1)  # behind the query


# How it is answered


def _ground_phrases(
    models: Models, pictures: Sequence[SampleImage], samples: Sequence[Sample], settings: Settings
) -> list[Row]:
    pipeline = models.agent.pipeline.for_task(SPEC)
    phrases = [sample.record.text for sample in samples]
    options, sureness = settings.options(pipeline.options(SPEC)), settings.sureness(pipeline)
    found = ground(pipeline, pictures, phrases, options, sureness=sureness, batch_size=len(samples))
    sources = caption_sources(pipeline, phrases)
    return _region_rows(pipeline, pictures, samples, sources, found, refcoco=True)


def _ground_dialogs(
    style: Style, models: Models, pictures: Sequence[SampleImage], samples: Sequence[Sample], settings: Settings
) -> list[Row]:
    pipeline = models.agent.pipeline
    dialogs = [sample.turns for sample in samples]
    options, sureness = settings.options(DIALOG_OPTIONS), settings.sureness(pipeline)
    found = ground_dialog(pipeline, pictures, dialogs, style, options, sureness=sureness, batch_size=len(samples))
    return _region_rows(pipeline, pictures, samples, dialog_sources(pipeline, dialogs, style), found)


def _answer_questions(
    style: Style, models: Models, pictures: Sequence[SampleImage], samples: Sequence[Sample], settings: Settings
) -> list[Row]:
    pipeline = models.agent.pipeline
    asked = (
        [sample.record.box for sample in samples],
        [sample.turns[:-1] for sample in samples],
        [sample.turns[-1] for sample in samples],
        style,
    )
    options = settings.options(DIALOG_OPTIONS)
    found = oracle(pipeline, pictures, *asked, options=options, batch_size=len(samples))
    sources = oracle_sources(pipeline, [picture.size for picture in pictures], *asked)
    return [
        answer_row(sample, picture, pipeline, source, answer)
        for sample, picture, source, answer in zip(samples, pictures, sources, found, strict=True)
    ]


def _region_rows(
    pipeline: Pipeline,
    pictures: Sequence[SampleImage],
    samples: Sequence[Sample],
    sources: Sequence[Sequence[int]],
    found: Sequence[Grounding],
    *,
    refcoco: bool = False,
) -> list[Row]:
    return [
        region_row(sample, picture, pipeline, source, grounding, refcoco=refcoco)
        for sample, picture, source, grounding in zip(samples, pictures, sources, found, strict=True)
    ]


#: Every task by its name.
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("refcoco_grounding", "refcoco", _phrase, _ground_phrases, tells_confidence=True, spec=SPEC),
        Task("guesswhat_grounding", "guesswhat", _dialog, partial(_ground_dialogs, "guesswhat"), tells_confidence=True),
        Task("guesswhat_oracle", "guesswhat", _guesswhat_questions, partial(_answer_questions, "guesswhat")),
        Task("invig_grounding", "invig", _dialog, partial(_ground_dialogs, "invig"), tells_confidence=True),
        Task("invig_oracle", "invig", _invig_questions, partial(_answer_questions, "invig")),
        Task("guesswhat_grounding_end2end", "guesswhat", _game, play, ("open", "closed")),
        Task("invig_grounding_end2end", "invig", _game, play, ("open",)),
        Task("grefcoco", "grefcoco", _phrase, ground_any, tells_confidence=True, spec=SPEC),
        Task("ref_l4", "ref_l4", _phrase, _ground_phrases, tells_confidence=True, spec=SPEC),
        Task("detection", "pretrain_detection", everything, find_everything, spec=detection.SPEC),
        Task("caption", "caption", caption_samples, write_captions, joined=whole_pictures, spec=caption.SPEC),
        Task("vqa", "vqa", question_samples, answer_questions, takes_answers=True, spec=vqa.SPEC),
        Task(
            "classification",
            "image_classify",
            class_samples,
            classify,
            takes_answers=True,
            answers_in_data=True,
            spec=classification.SPEC,
        ),
        Task("guesswhat_question", "guesswhat", partial(human_questions, 0), partial(weigh_questions, "guesswhat")),
        Task("invig_question", "invig", partial(human_questions, 1), partial(weigh_questions, "invig")),
        Task("custom", "custom", own_samples, say),
        *(Task(name, text.format, text.samples, text.answer, spec=text.spec) for name, text in TEXT_TASKS.items()),
    )
}
