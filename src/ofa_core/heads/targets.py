"""Targets: the tokens that models learn to say for a task, from the texts of a dataset."""

from __future__ import annotations

from ..text.vocabulary import EOS
from .pipeline import Pipeline
from .tasks import TaskSpec


def target_text(pipeline: Pipeline, spec: TaskSpec, text: str, *, whole: bool = False) -> str:
    """A text in the form that a model learns to say; ``whole`` without the cut that training makes."""
    target = spec.target_for(pipeline.tokenizer.kind)
    size = None if whole or target.size is None or target.unit == "tokens" else target_size(pipeline, spec)
    return target.form.format(target.rule(text, size))


def target_ids(pipeline: Pipeline, spec: TaskSpec, text: str, *, whole: bool = False) -> list[int]:
    """The ids of a text that a model learns to say, up to and with ``</s>``; ``whole`` as for :func:`target_text`."""
    ids = pipeline.tokenizer.encode(target_text(pipeline, spec, text, whole=whole))
    cut = spec.target_for(pipeline.tokenizer.kind)
    if cut.unit == "tokens" and not whole:
        ids = ids[: target_size(pipeline, spec)]
    return [*ids, EOS]


def target_size(pipeline: Pipeline, spec: TaskSpec) -> int:
    """The number of words, characters or tokens that a target is cut to."""
    return pipeline.settings(spec).max_target_tokens
