"""The benchmark of a task of one's own: texts that rows and templates tell, compared with what the model says."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.records import Record
from ..heads.custom import OPTIONS, custom_source, piece_ids
from ..heads.results import to_text
from .results import Row
from .samples import Models, Sample, SampleImage, Settings, text_rows


def own_samples(record: Record) -> list[Sample]:
    """The record's source."""
    return [Sample(record.id, record)]


def say(
    models: Models, pictures: Sequence[SampleImage | None], samples: Sequence[Sample], settings: Settings
) -> list[Row]:
    """The model's answer to each source, in which boxes stand as symbols, ``<bin_1>``."""
    pipeline = models.agent.pipeline
    sizes = [None if picture is None else picture.size for picture in pictures]
    records = [sample.record for sample in samples]
    sources = [
        custom_source(pipeline, record.source, record.box, size) for record, size in zip(records, sizes, strict=True)
    ]
    found = pipeline.run(pictures, sources, settings.options(OPTIONS), batch_size=len(samples))
    told = []
    for record, size, beams in zip(records, sizes, found, strict=True):
        said = to_text(pipeline.tokenizer, beams)
        due = pipeline.tokenizer.decode(piece_ids(pipeline, record.target, record.box, size)).strip()
        told.append({"target": due, "output": said.text, "score": said.score})
    return text_rows(pipeline, pictures, samples, sources, told)
