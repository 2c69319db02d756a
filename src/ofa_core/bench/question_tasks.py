"""Benchmarks of a questioner: how likely the questions are to a model that people asked."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.examples import text_target
from ..data.records import Record
from ..heads.likelihood import token_log_probs
from ..heads.questioner import question_sources
from ..heads.results import confidence
from ..text.dialog import Style
from .results import Row
from .samples import Models, Sample, SampleImage, Settings, present, text_rows


def human_questions(first: int, record: Record) -> list[Sample]:
    """A sample for each question of a dialog, the first of which is turn ``first``, with what was said before it."""
    asked = range(first, len(record.turns), 2)
    return [
        Sample(f"{record.id}/{number}", record, record.turns[:turn], record.turns[turn])
        for number, turn in enumerate(asked, 1)
    ]


def weigh_questions(
    style: Style,
    models: Models,
    pictures: Sequence[SampleImage | None],
    samples: Sequence[Sample],
    settings: Settings,
) -> list[Row]:
    """The probability of each question's tokens, in lower case as models learn them; nothing is said."""
    pipeline = models.agent.pipeline
    sources = question_sources(pipeline, [sample.turns for sample in samples], style)
    targets = [text_target(pipeline, sample.target.strip().lower()) for sample in samples]
    opened = pipeline.open(present(pictures))
    found = token_log_probs(pipeline, opened, sources, targets, batch_size=len(samples))
    said = (
        {
            "output": "",
            "box": sample.record.box,
            "score": confidence(log_probs),
            "turns": sample.turns,
            "log_probs": tuple(log_probs),
        }
        for sample, log_probs in zip(samples, found, strict=True)
    )
    return text_rows(pipeline, pictures, samples, sources, said)
