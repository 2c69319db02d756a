"""Benchmarks of the original's other tasks: closed answers, writing on pictures, texts with gaps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from ..data.records import BadRow, Format, Record
from ..errors import OFAError
from ..heads import entailment, glue, infilling, matching, ocr
from ..heads.masking import mask_spans
from ..heads.pipeline import Pipeline
from ..heads.results import Answer, Text, to_text
from ..heads.targets import target_text
from ..heads.tasks import GLUE, TASKS, TaskSpec
from .results import Row
from .samples import Models, Sample, SampleImage, Settings, answer_fields, present, text_rows

#: A picture, or None for text alone.
Shown = SampleImage | None


@dataclass(frozen=True)
class TextTask:
    """A benchmark without boxes; see :class:`~.tasks.Task`."""

    format: Format
    samples: Callable[[Record], list[Sample]]
    answer: Callable[[Models, Sequence[Shown], Sequence[Sample], Settings], list[Row]]
    spec: TaskSpec


# Closed answers


def _labelled(spec: TaskSpec, record: Record) -> list[Sample]:
    """The record's texts, and the answer that its label stands for."""
    try:
        return [Sample(record.id, record, target=spec.answer_of(record.answer))]
    except OFAError as error:
        raise BadRow(record.place, f"label: {error}") from None


def _closed_rows(
    pipeline: Pipeline,
    pictures: Sequence[Shown],
    samples: Sequence[Sample],
    sources: Sequence[Sequence[int]],
    found: Sequence[Answer],
) -> list[Row]:
    return text_rows(pipeline, pictures, samples, sources, map(answer_fields, found))


def _entail(models: Models, pictures: Sequence[Shown], samples: Sequence[Sample], settings: Settings) -> list[Row]:
    """With the caption where a record has one, as the fine-tuned models are asked; others are asked without."""
    pipeline = models.agent.pipeline
    strange = entailment.CAPTION_SPEC.is_strange_to(pipeline.model.config.task)
    with_caption = [bool(sample.record.text2.strip()) and not strange for sample in samples]
    rows: list[Row] = []
    for kind in (True, False):
        part = [index for index, has in enumerate(with_caption) if has == kind]
        if part:
            chosen, shown = [samples[index] for index in part], [pictures[index] for index in part]
            texts = [sample.record.text for sample in chosen]
            captions = [sample.record.text2 for sample in chosen] if kind else None
            found = entailment.entails(pipeline, present(shown), texts, captions, batch_size=len(part))
            sources = entailment.entailment_sources(pipeline, texts, captions)
            rows += _closed_rows(pipeline, shown, chosen, sources, found)
    return sorted(rows, key=lambda row: row.index)


def _judge(
    task: str, models: Models, pictures: Sequence[Shown], samples: Sequence[Sample], settings: Settings
) -> list[Row]:
    pipeline = models.agent.pipeline
    texts = [sample.record.text for sample in samples]
    seconds = [sample.record.text2 or None for sample in samples]
    found = glue.judge(pipeline, task, texts, seconds, batch_size=len(samples))
    return _closed_rows(pipeline, pictures, samples, glue.glue_sources(pipeline, task, texts, seconds), found)


def _match(models: Models, pictures: Sequence[Shown], samples: Sequence[Sample], settings: Settings) -> list[Row]:
    pipeline = models.agent.pipeline
    texts = [sample.record.text for sample in samples]
    found = matching.matches(pipeline, present(pictures), texts, batch_size=len(samples))
    return _closed_rows(pipeline, pictures, samples, matching.text_sources(pipeline, texts), found)


def _match_answers(
    models: Models, pictures: Sequence[Shown], samples: Sequence[Sample], settings: Settings
) -> list[Row]:
    pipeline = models.agent.pipeline
    asked = [sample.record.text for sample in samples], [sample.record.text2 for sample in samples]
    found = matching.is_answer(pipeline, present(pictures), *asked, batch_size=len(samples))
    return _closed_rows(pipeline, pictures, samples, matching.answer_sources(pipeline, *asked), found)


# Texts that are compared letter by letter


def _text(record: Record) -> list[Sample]:
    return [Sample(record.id, record)]


def _text_rows(
    pipeline: Pipeline,
    pictures: Sequence[Shown],
    samples: Sequence[Sample],
    sources: Sequence[Sequence[int]],
    said: Sequence[tuple[str, str, Text]],
) -> list[Row]:
    """Rows of what was due, what was said, and the whole of the result."""
    told = ({"target": due, "output": output, "score": text.score} for due, output, text in said)
    return text_rows(pipeline, pictures, samples, sources, told)


def _read(models: Models, pictures: Sequence[Shown], samples: Sequence[Sample], settings: Settings) -> list[Row]:
    """Writing is compared without spaces, as the original's script does."""
    pipeline = models.agent.pipeline
    options = settings.options(pipeline.options(ocr.SPEC))
    found = ocr.read(pipeline, present(pictures), options, batch_size=len(samples))
    due = [ocr.without_spaces(target_text(pipeline, ocr.SPEC, sample.record.text)) for sample in samples]
    said = [(target, reading.without_spaces, reading) for target, reading in zip(due, found, strict=True)]
    return _text_rows(pipeline, pictures, samples, ocr.ocr_sources(pipeline, len(samples)), said)


def _fill_in(models: Models, pictures: Sequence[Shown], samples: Sequence[Sample], settings: Settings) -> list[Row]:
    """The gaps of a text are drawn by its place in the data, so that every run has the same."""
    pipeline = models.agent.pipeline
    encode, decode = pipeline.tokenizer.encode, pipeline.tokenizer.decode
    whole = [infilling.kept_ids(encode(infilling.plain_text(sample.record.text))) for sample in samples]
    masked = [
        mask_spans(pipeline.tokenizer, ids, Random(sample.index)) for ids, sample in zip(whole, samples, strict=True)
    ]
    sources = [infilling.infilling_source(pipeline, ids) for ids in masked]
    options = settings.options(pipeline.options(infilling.SPEC))
    found = pipeline.run([None] * len(sources), sources, options, batch_size=len(samples))
    texts = [to_text(pipeline.tokenizer, beams) for beams in found]
    said = [(decode(ids).strip(), text.text, text) for ids, text in zip(whole, texts, strict=True)]
    return _text_rows(pipeline, pictures, samples, sources, said)


#: The tasks by their names.
TEXT_TASKS: Mapping[str, TextTask] = {
    "snli_ve": TextTask("snli_ve", partial(_labelled, entailment.SPEC), _entail, entailment.SPEC),
    "ocr": TextTask("ocr", _text, _read, ocr.SPEC),
    **{name: TextTask(name, partial(_labelled, TASKS[name]), partial(_judge, name), TASKS[name]) for name in GLUE},
    "image_text_matching": TextTask("matching", partial(_labelled, matching.TEXT_SPEC), _match, matching.TEXT_SPEC),
    "answer_matching": TextTask(
        "answer_matching", partial(_labelled, matching.ANSWER_SPEC), _match_answers, matching.ANSWER_SPEC
    ),
    "text_infilling": TextTask("pretrain_text", _text, _fill_in, infilling.SPEC),
}
