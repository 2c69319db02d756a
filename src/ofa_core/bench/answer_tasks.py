"""Benchmarks of captions, of answers to questions about pictures, and of the classes of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from ..data.records import BadRow, Record
from ..errors import OFAError
from ..heads import caption, classification, vqa
from ..heads.pipeline import Pipeline
from ..heads.results import Answer
from ..text.normalize import SEVERAL
from .published_scores import ChoiceSamples
from .results import Row
from .samples import Models, Sample, SampleImage, Settings, answer_fields, present, text_rows
from .scorers.vqa import FEWEST_PEOPLE

# Captions


def whole_pictures(records: Iterable[Record]) -> Iterator[Record]:
    """One record a picture, with all its captions, of rows that follow each other.

    Raises:
        OFAError: a picture comes again behind others, so that its captions would be compared in parts.
    """
    seen: set[str] = set()
    for _, some in groupby(records, key=_picture_of):
        first, *others = some
        if first.image and first.inline is None:
            if first.image in seen:
                raise OFAError(
                    f"{first.place}: the picture {first.image} has captions in rows that do not follow each other: "
                    "sort the rows by their pictures"
                )
            seen.add(first.image)
        told = (first,) if first.row_id else (first, *others)
        several = tuple(text for record in told for text in _captions_of(record))
        yield replace(first, id=first.row_id or first.id, references=several)


def _captions_of(record: Record) -> Sequence[str]:
    """The captions that a record tells; OFA's files have several in one column."""
    return record.references or [text.strip() for text in record.text.split(SEVERAL) if text.strip()]


def _picture_of(record: Record) -> tuple[object, ...]:
    """The thing that records of one picture have in common."""
    return (record.row,) if record.row_id else (record.image, record.inline)


def caption_samples(record: Record) -> list[Sample]:
    """The picture."""
    if not record.references:
        raise BadRow(record.place, "text: nothing is left of it to compare with")
    return [Sample(record.id, record, target=record.references[0])]


def write_captions(
    models: Models, pictures: Sequence[SampleImage | None], samples: Sequence[Sample], settings: Settings
) -> list[Row]:
    """A caption of each picture, as the model wrote it."""
    pipeline = models.agent.pipeline.for_task(caption.SPEC)
    options = settings.options(pipeline.options(caption.SPEC))
    found = caption.caption(pipeline, present(pictures), options, batch_size=len(samples))
    sources = caption.caption_sources(pipeline, len(samples))
    said = (
        {"output": text.text, "score": text.score, "references": sample.record.references}
        for sample, text in zip(samples, found, strict=True)
    )
    return text_rows(pipeline, pictures, samples, sources, said)


# Questions


def question_samples(record: Record) -> list[Sample]:
    """The question.

    Raises:
        BadRow: so few people answered it that no answer could be right.
    """
    if 0 < len(record.references) < FEWEST_PEOPLE:
        raise BadRow(
            record.place,
            f"answers: there are {len(record.references)}; one that is right, or those of at least {FEWEST_PEOPLE} "
            "people (ten in VQA), should be there",
        )
    return [Sample(record.id, record, target=record.answer)]


def answer_questions(
    models: Models, pictures: Sequence[SampleImage | None], samples: Sequence[Sample], settings: Settings
) -> list[Row]:
    """An answer to each question: any, or one of a list, searched for or scored."""
    pipeline = models.agent.pipeline.for_task(vqa.SPEC)
    questions = [sample.record.text for sample in samples]
    with_objects = pipeline.settings(vqa.SPEC).add_object
    objects = [sample.record.objects if with_objects else None for sample in samples]
    found = vqa.answer(
        pipeline,
        present(pictures),
        questions,
        None if settings.answers is None else settings.answers.texts,
        settings.options(pipeline.options(vqa.SPEC)),
        method="score" if settings.score_answers else "beam",
        objects=objects,
        batch_size=len(samples),
    )
    sources = vqa.question_sources(pipeline, questions, objects)
    said = (
        _likeliest(answer)
        | {
            "references": sample.record.references,
            "weights": {text: weight for weight, text in sample.record.weighed},
        }
        for sample, answer in zip(samples, found, strict=True)
    )
    return text_rows(pipeline, pictures, samples, sources, said)


# Classes


def class_samples(record: Record) -> list[Sample]:
    """The picture and the name of its class."""
    return [Sample(record.id, record, target=record.answer)]


def classify(
    models: Models, pictures: Sequence[SampleImage | None], samples: Sequence[Sample], settings: Settings
) -> list[Row]:
    """The likeliest classes of each picture, among all of the list."""
    pipeline: Pipeline = models.agent.pipeline.for_task(classification.SPEC)
    labels = settings.answers.texts if settings.answers else sorted({sample.target for sample in samples})
    found = classification.classify(pipeline, present(pictures), labels, batch_size=len(samples))
    sources = classification.class_sources(pipeline, len(samples))
    return text_rows(pipeline, pictures, samples, sources, map(_likeliest, found))


def _likeliest(answer: Answer) -> dict[str, Any]:
    """The fields of an answer, with the likeliest of a list in their order: a row holds no thousand of them."""
    return answer_fields(answer) | {"probabilities": dict(answer.top(max(ChoiceSamples.RANKS)))}
