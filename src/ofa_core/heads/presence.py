"""Presence: is what a text describes in the picture at all (TiO's ``bin_check``)."""

from __future__ import annotations

from collections.abc import Sequence

from ..config import TaskSettings
from ..errors import OFAError
from ..text.dialog import cut_source
from ..text.tio import BIN_CHECK
from .any_boxes import TIO
from .matching import Match
from .pipeline import Opened, Picture, Pipeline
from .results import to_answer
from .tasks import KNOWN_NAMES

ANSWERS = ("yes", "no")
#: The name of the task that teaches it.
TASK = "bin_check"


def may_be_asked(task: TaskSettings) -> bool:
    """Tell whether a model with these settings has learned the question, or nothing is known of it."""
    return task.name not in KNOWN_NAMES or task.name == TIO or TASK in task.learned


def is_present(
    pipeline: Pipeline, images: Sequence[Picture], texts: Sequence[str], *, batch_size: int = 16
) -> list[Match]:
    """The decision for each text, that its object is in the picture or not; see :meth:`ofa_core.OFA.is_present`."""
    return decide(pipeline, pipeline.open(images), texts, batch_size)


def decide(pipeline: Pipeline, pictures: Sequence[Opened], texts: Sequence[str], batch_size: int = 16) -> list[Match]:
    """As :func:`is_present`, of pictures that are open already."""
    first = [ids[:1] for ids in pipeline.candidate_ids(ANSWERS)]
    scores = pipeline.score(pictures, presence_sources(pipeline, texts), first, "none", batch_size)
    return [Match(**vars(to_answer(ANSWERS, probabilities))) for probabilities in scores]


def presence_sources(pipeline: Pipeline, texts: Sequence[str]) -> list[list[int]]:
    """The ids, ``<s>`` to ``</s>``, that :func:`is_present` reads for each text, which stays as it is typed."""
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise OFAError(f"the text is {text!r}; it should be a text that is not empty")
    return [cut_source(pipeline.tokenizer.encode(BIN_CHECK.format(text=text))) for text in texts]
