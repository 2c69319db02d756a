"""Samples, which a benchmark makes of rows of data, the models that answer, and the rows of a results file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..api import OFA
from ..data.records import Record
from ..errors import OFAError
from ..generation import GenerationOptions
from ..generation.options import SearchOptions
from ..heads.box_codec import BoxCodec
from ..heads.grounding import NO_GROUNDING, Grounding, Sureness, invig_codec, refcoco_codec
from ..heads.listing import CORNERS
from ..heads.pipeline import EncodedImage, Pipeline, PreparedImage
from ..heads.questioner import REGION
from ..heads.results import Answer
from ..utils.input_files import read_text_file
from .metrics import scored_iou
from .results import NO_PICTURE, Row


@dataclass(frozen=True)
class Sample:
    """One thing to ask a model."""

    #: The record's id, or ``<record id>/<question number>`` where a record has several samples.
    id: str
    record: Record
    #: The turns before, the oracle's question last.
    turns: tuple[str, ...] = ()
    #: The answer that would be right, where a text is due.
    target: str = ""
    #: Its place among all samples of the data, from 0.
    index: int = 0


@dataclass(frozen=True)
class Models:
    """The players: the agent looks for the region, the oracle knows it. They may be one and the same."""

    agent: OFA
    oracle: OFA


@dataclass(frozen=True)
class AnswerList:
    """The only answers, or names of classes, that there are."""

    #: The file that holds them; "": they are those of the data.
    path: str
    texts: tuple[str, ...]


def read_answers(path: Path) -> AnswerList:
    """The answers of a text file, one a line.

    Raises:
        OFAError: it cannot be read, holds none, or one twice.
    """
    lines = [line.strip() for line in read_text_file(path).splitlines()]
    texts = [line for line in lines if line]
    if not texts:
        raise OFAError(f"{path} holds no answers; it should hold one a line")
    if twice := [text for text, count in Counter(texts).items() if count > 1]:
        raise OFAError(f"{path} holds {twice[0]!r} twice; each answer should be there once")
    return AnswerList(str(path), tuple(texts))


@dataclass(frozen=True)
class Settings:
    """Settings that change the answers, and so stand in the header of a results file."""

    batch_size: int = 16
    #: Samples of each task; None: all.
    limit: int | None = None
    #: The protocol of games, see :mod:`~ofa_core.bench.self_play`.
    protocol: str = "open"
    #: Beams of every search; None: each head's own.
    num_beams: int | None = None
    #: No head says more tokens than this, but for a phrase's box, which is always four; None: each head's own limit.
    max_new_tokens: int | None = None
    #: Ask the oracle of games each question about every object, see :mod:`~ofa_core.bench.information`.
    information_gain: bool = False
    #: The answers that there are: None where any text may be one.
    answers: AnswerList | None = None
    #: Give each of ``answers`` its probability, instead of searching among them.
    score_answers: bool = False
    #: Tell with each box how sure it is; a model that was calibrated does in any case.
    confidence: bool = False
    #: The ambiguity in bits above which the agent of an open game asks, and up to which it guesses; None: it decides.
    ask_above: float | None = None

    def told(self) -> dict[str, Any]:
        """The settings as a header has them: of answers where they come from, and nothing that was not asked for."""
        told: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "answers"}
        later = {
            "confidence": False,
            "ask_above": None,
        }  # headers of runs from before there were such settings lack them
        told = {name: value for name, value in told.items() if name not in later or value != later[name]}
        if self.answers is None or not self.answers.path:
            del told["score_answers"]
            return told
        return told | {"answers": self.answers.path}

    def sureness(self, pipeline: Pipeline) -> Sureness | None:
        """The question for how sure boxes are, where it is asked; the boxes themselves stay the most likely ones."""
        asked = self.confidence or pipeline.model.config.task.calibration is not None
        return Sureness("argmax") if asked else None

    def options(self, usual: GenerationOptions) -> GenerationOptions:
        """A head's ``usual`` options with what was asked for."""
        changes: SearchOptions = {}
        if self.num_beams is not None:
            changes["num_beams"] = self.num_beams
        if self.max_new_tokens is not None:
            changes["max_new_tokens"] = max(min(usual.max_new_tokens, self.max_new_tokens), usual.min_new_tokens)
        return usual.updated(**changes)


#: A picture as samples have it.
SampleImage = EncodedImage | PreparedImage


def present(pictures: Sequence[SampleImage | None]) -> list[SampleImage]:
    """The pictures of samples that all have one."""
    return [picture for picture in pictures if picture is not None]


def region_text(codec: BoxCodec, sample: Sample, size: tuple[int, int]) -> str:
    """The sample's box as a model is trained to say it, on a picture of ``size`` (width, height)."""
    bins = codec.encode(sample.record.box, size)
    symbols = " ".join(f"<bin_{number}>" for number in bins)
    return f"{REGION} {symbols}" if codec.convention == "invig" else symbols


def region_row(
    sample: Sample,
    picture: SampleImage,
    pipeline: Pipeline,
    source: Sequence[int],
    found: Grounding | None,
    *,
    refcoco: bool = False,
    **played: Any,
) -> Row:
    """The row of a sample that a box was due for; ``found`` is None where the model never came to name one."""
    codec = refcoco_codec(pipeline) if refcoco else invig_codec(pipeline)
    box, size = sample.record.box, picture.size
    grounding = NO_GROUNDING if found is None else found
    bins = grounding.bins and grounding.bins[:CORNERS]  # the first region of several
    said_box = codec.decode(bins, size)  # to the last bit what published scorers decode
    said = {
        "target": region_text(codec, sample, size),
        "output": grounding.text,
        "box": box,
        "found": said_box,
        "iou": scored_iou(box, said_box, size, codec.convention, codec.num_bins),
        "score": grounding.score,
        "confidence": grounding.confidence,
        "present": grounding.present,
        "text": sample.record.text,
        "turns": sample.turns,
    }
    return text_row(sample, picture, pipeline, source, **(said | played))


def answer_row(sample: Sample, picture: SampleImage, pipeline: Pipeline, source: Sequence[int], answer: Answer) -> Row:
    """The row of a sample that a text was due for."""
    said = answer_fields(answer)
    return text_row(
        sample, picture, pipeline, source, target=sample.target, box=sample.record.box, turns=sample.turns, **said
    )


def text_rows(
    pipeline: Pipeline,
    pictures: Sequence[SampleImage | None],
    samples: Sequence[Sample],
    sources: Sequence[Sequence[int]],
    said: Iterable[Mapping[str, Any]],
) -> list[Row]:
    """The rows of a batch, one :func:`text_row` a sample; the sample's own target is due where ``said`` tells none."""
    batch = zip(samples, pictures, sources, said, strict=True)
    return [
        text_row(sample, picture, pipeline, source, **({"target": sample.target} | dict(told)))
        for sample, picture, source, told in batch
    ]


def answer_fields(answer: Answer) -> dict[str, Any]:
    """The fields of a row that an answer fills: the text, its score and the probabilities of all answers."""
    return {"output": answer.answer, "score": answer.score, "probabilities": dict(answer.probabilities)}


def text_row(
    sample: Sample, picture: SampleImage | None, pipeline: Pipeline, source: Sequence[int], **said: Any
) -> Row:
    """The row of a sample with or without a picture; ``said`` is what was due and what the model made of it."""
    return Row(
        index=sample.index,
        id=sample.id,
        row=sample.record.row,
        image=sample.record.image,
        size=NO_PICTURE if picture is None else picture.size,
        category=sample.record.category,
        split=sample.record.split,
        kept=dict(sample.record.kept),
        clipped=sample.record.clipped,
        source=pipeline.source_text(source),
        **said,
    )
