"""The calibration of a model's confidence: how its boxes turned out on data, and the lines fitted to that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch

from ..checkpoint.digests import renew_digest
from ..checkpoint.model_dir import CONFIG_FILE, load_config
from ..config import Calibration
from ..data.loading import DataFiles, batched
from ..errors import OFAError
from ..heads.confidence import Decode, along, confidence_of, fit_monotone
from ..heads.grounding import SPEC, Grounding, Sureness, ground
from ..heads.pipeline import Picture, Pipeline
from ..utils.atomic_write import atomic_write_text
from ..vision.boxes import Box, box_iou
from .reliability import auroc, calibration_error

#: A box is right if it overlaps the right one by this much.
RIGHT_IOU = 0.5
#: The share of things that are there which may go without a box.
LOST_SHARE = 0.003
#: Samples that a line is fitted to at least.
LEAST_SAMPLES = 50


@dataclass
class Outcomes:
    """Outcomes of boxes, one number a sample in each list."""

    #: The IoU to expect of each box under the model's distribution; 0 where it gave none.
    expected: list[float] = field(default_factory=list)
    #: The IoU with the right box, 0 where nothing is right.
    overlaps: list[float] = field(default_factory=list)
    #: True where what the phrase describes is in the picture.
    there: list[bool] = field(default_factory=list)
    #: The evidence in the model's distribution of its being there, whether or not it gave a box.
    evidence: list[float] = field(default_factory=list)

    def add(self, found: Grounding, right: Sequence[Box]) -> None:
        """Add a sample: ``right`` are the boxes it may have, none where it is about nothing."""
        self.expected.append(found.confidence or 0.0)
        self.there.append(bool(right))
        self.evidence.append(found.present or 0.0)
        box = found.box
        ious = [float(box_iou(torch.tensor(box), torch.tensor(one))) for one in right] if box is not None else []
        self.overlaps.append(max(ious, default=0.0))


def outcomes(
    pipeline: Pipeline,
    pictures: Sequence[Picture],
    phrases: Sequence[str],
    right: Sequence[Sequence[Box]],
    decode: Decode = "mbr",
    batch_size: int = 16,
) -> Outcomes:
    """Ground phrases without any calibration, and compare with the right boxes.

    Args:
        pipeline: the model.
        pictures: one for each phrase.
        phrases: the phrases.
        right: the right boxes of each phrase in pixels, none where it is about nothing.
        decode: the way to choose the box.
        batch_size: samples computed at once.

    Returns:
        The outcomes in the order of the samples.
    """
    sureness = Sureness(decode, calibrated=False)
    found = Outcomes()
    for one, boxes in zip(
        ground(pipeline, pictures, phrases, sureness=sureness, batch_size=batch_size), right, strict=True
    ):
        found.add(one, boxes)
    return found


def fit(found: Outcomes) -> Calibration:
    """Fit a calibration to outcomes; presence only where some phrases are about nothing.

    Raises:
        OFAError: there are too few samples.
    """
    if len(found.expected) < LEAST_SAMPLES:
        raise OFAError(f"{len(found.expected)} samples are too few for a calibration; at least {LEAST_SAMPLES} are")
    overlap = fit_monotone(found.expected, [float(iou >= RIGHT_IOU) for iou in found.overlaps])
    if all(found.there) or not any(found.there):
        return Calibration(overlap=overlap)
    present = fit_monotone(found.evidence, list(map(float, found.there)))
    sure = sorted(along(present, value) for value, there in zip(found.evidence, found.there, strict=True) if there)
    least = min(0.5, sure[int(LOST_SHARE * len(sure))])
    return Calibration(overlap=overlap, present=present, least_present=least)


@dataclass(frozen=True)
class Quality:
    """The quality of a model's confidence, on samples that it was not fitted to."""

    accuracy: float
    #: Acc@0.9 of the same boxes.
    accuracy_at_90: float
    #: Expected calibration error of the confidence.
    error: float
    #: AUROC of present against absent phrases; None where all are of one kind.
    presence_auroc: float | None


def quality(found: Outcomes, calibration: Calibration | None) -> Quality:
    """Measure the confidence of outcomes as a calibration makes it."""
    there = [iou for iou, one in zip(found.overlaps, found.there, strict=True) if one]
    right = [iou >= RIGHT_IOU for iou in found.overlaps]
    sure = [confidence_of(value, calibration) for value in found.expected]
    return Quality(
        accuracy=sum(iou >= RIGHT_IOU for iou in there) / max(1, len(there)),
        accuracy_at_90=sum(iou >= 0.9 for iou in there) / max(1, len(there)),
        error=calibration_error(sure, right),
        presence_auroc=auroc(found.evidence, found.there),
    )


def outcomes_of_data(
    pipeline: Pipeline, data: DataFiles, several: bool, limit: int | None = None, batch_size: int = 16
) -> Outcomes:
    """The outcomes on rows of phrases.

    Args:
        pipeline: the model.
        data: the rows and their pictures.
        several: whether rows are gRefCOCO's, with any number of boxes, or RefCOCO's, with one.
        limit: the first rows only.
        batch_size: samples computed at once.

    Returns:
        The outcomes of all rows.

    Raises:
        OFAError: a row or a picture cannot be used.
    """
    whole = Outcomes()
    pipeline = pipeline.for_task(SPEC)
    with data.open_images() as images:
        records = islice(data.records("grefcoco" if several else "refcoco"), limit)
        for batch in batched(records, batch_size):
            pictures = [images.load(record) for record in batch]
            fitted = [record.fit_to(picture.size) for record, picture in zip(batch, pictures, strict=True)]
            right = [record.boxes if several else (record.box,) for record in fitted]
            part = outcomes(pipeline, pictures, [record.text for record in fitted], right, batch_size=batch_size)
            for own, more in zip(_lists(whole), _lists(part), strict=True):
                own += more
    return whole


def _lists(found: Outcomes) -> Iterable[list[float] | list[bool]]:
    return found.expected, found.overlaps, found.there, found.evidence


def store(directory: Path, calibration: Calibration) -> None:
    """Write a calibration into a model directory, in place of an earlier one.

    Raises:
        CheckpointError: it is no model directory, or it is damaged.
    """
    config = load_config(directory)
    task = config.task.model_copy(update={"calibration": calibration})
    path = directory / CONFIG_FILE
    atomic_write_text(path, config.model_copy(update={"task": task}).model_dump_json(indent=2) + "\n")
    renew_digest(path)
