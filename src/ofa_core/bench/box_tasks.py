"""Benchmarks whose answers are any number of boxes: gRefCOCO's phrases, and everything in a picture."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.records import Record
from ..generation import GenerationOptions
from ..heads import detection, grounding
from ..heads.any_boxes import names_any_number
from ..heads.listing import CORNERS
from ..heads.pipeline import Pipeline
from ..heads.regions import NO_REGION, regions_said
from ..heads.results import Detection, confidence
from .results import Detected, Row, Target
from .samples import Models, Sample, SampleImage, Settings, present, text_row


def everything(record: Record) -> list[Sample]:
    """The whole picture."""
    names = ", ".join(name for _, name in record.things)
    return [Sample(record.id, record, target=names)]


def ground_any(
    models: Models, pictures: Sequence[SampleImage | None], samples: Sequence[Sample], settings: Settings
) -> list[Row]:
    """All boxes that the model says for each phrase: one, unless it was trained, or is allowed, to say others."""
    pipeline = models.agent.pipeline.for_task(grounding.SPEC)
    phrases = [sample.record.text for sample in samples]
    task = pipeline.model.config.task
    sureness = settings.sureness(pipeline)
    any_number = names_any_number(task)
    if any_number:  # what it tells of presence is a score
        sureness = sureness or grounding.Sureness("argmax")
    sources, codec = grounding.caption_sources(pipeline, phrases), grounding.refcoco_codec(pipeline)
    rules, options = grounding.rules_for(pipeline, _options(pipeline, settings))
    opened = pipeline.open(present(pictures))
    searched = grounding.search(pipeline, opened, sources, options, rules, sureness, len(samples))
    rows = []
    for sample, picture, source, (beams, draws) in zip(samples, present(pictures), sources, searched, strict=True):
        tokens, scores = detection.best_of(beams)
        one = grounding.to_sure_grounding(pipeline, codec, (beams, draws), picture.size, 0.0, sureness, any_number)
        regions = regions_said(pipeline.tokenizer, codec, tokens, scores, picture.size)
        if grounding.is_held_back(one.present, task.calibration):
            regions = []
        targets = tuple(Target(box=box) for box in sample.record.boxes)
        bins = [number for box in sample.record.boxes for number in codec.encode(box, picture.size)]
        due = " ".join(f"<bin_{number}>" for number in bins) or NO_REGION
        row = _row(sample, picture, pipeline, source, regions, output=one.text, targets=targets, target=due)
        told = {"score": confidence(scores), "confidence": one.confidence, "present": one.present}
        rows.append(row.model_copy(update=told))
    return rows


def _options(pipeline: Pipeline, settings: Settings) -> GenerationOptions:
    """The search for one box; where more tokens than its four were asked for, for any number of boxes."""
    usual = pipeline.options(grounding.SPEC)
    asked = settings.max_new_tokens or CORNERS
    return settings.options(usual.updated(max_new_tokens=asked, min_new_tokens=1) if asked > CORNERS else usual)


def find_everything(
    models: Models, pictures: Sequence[SampleImage | None], samples: Sequence[Sample], settings: Settings
) -> list[Row]:
    """Everything that the model says is in each picture."""
    pipeline = models.agent.pipeline
    options = settings.options(pipeline.options(detection.SPEC))
    found = detection.detect(pipeline, present(pictures), options=options, batch_size=len(samples))
    sources = detection.listing_sources(pipeline, len(samples))
    return [
        _row(
            sample,
            picture,
            pipeline,
            source,
            answer,
            output=answer.text,
            targets=_things(sample.record),
            target=sample.target,
        )
        for sample, picture, source, answer in zip(samples, present(pictures), sources, found, strict=True)
    ]


def _things(record: Record) -> tuple[Target, ...]:
    areas = record.areas or (None,) * len(record.things)
    single = [Target(box=box, label=name, area=area) for (box, name), area in zip(record.things, areas, strict=True)]
    return (*single, *(Target(box=box, label=name, area=area, crowd=True) for box, name, area in record.crowds))


def _row(
    sample: Sample,
    picture: SampleImage,
    pipeline: Pipeline,
    source: Sequence[int],
    regions: Sequence[Detection],
    *,
    output: str,
    targets: tuple[Target, ...],
    target: str,
) -> Row:
    detected = tuple(Detected(box=one.box, label=one.label, score=one.score) for one in regions)
    return text_row(
        sample,
        picture,
        pipeline,
        source,
        target=target,
        output=output,
        score=max((one.score for one in regions), default=0.0),
        targets=targets,
        detected=detected,
    )
