"""Scores of a results file with intervals, by category and by size."""

from __future__ import annotations

import json
from array import array
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, ValidationError

from ..errors import OFAError, first_problem
from ..heads.box_codec import Convention
from ..utils.atomic_write import atomic_write_text
from . import metrics
from .games import Games, GameScores
from .metrics import Score, Table
from .published_scores import (
    CaptionSamples,
    ChoiceSamples,
    DetectionSamples,
    GrefcocoSamples,
    LikelihoodSamples,
    RefL4Samples,
    VqaSamples,
)
from .reliability import ReliabilityBin
from .results import SHARED_FACTS, Header, Row, RunFacts, StrictModel
from .sample_scores import (
    AnswerSamples,
    BoxSamples,
    JudgementSamples,
    OracleSamples,
    ReadingSamples,
    Samples,
    accuracy_name,
)
from .single_json import is_single_text, member

Kind = Literal[
    "grounding",
    "oracle",
    "selfplay",
    "answer",
    "judgement",
    "reading",
    "boxes",
    "caption",
    "vqa",
    "choice",
    "likelihood",
]
#: Kinds of task whose answer is one box.
WITH_BOXES: tuple[Kind, ...] = ("grounding", "selfplay")


@dataclass(frozen=True)
class TaskScores:
    """The scores of a task and the rule for its boxes."""

    kind: Kind
    #: The convention by which its boxes are compared.
    convention: Convention
    #: The score that stands for the task in tables.
    headline: str
    #: The samples that keep of its rows what they are scored by.
    samples: Callable[[], Samples]
    #: The score of one sample by which it is won or lost; "": the headline, where that is a mean.
    by_sample: str = ""
    #: The score that stands for it where the data lack what the headline is made of.
    fallback: str = ""
    #: True if the score so far says something while a run goes on.
    runs: bool = True
    #: True if targets are counted by COCO's sizes.
    by_size: bool = True

    @property
    def has_boxes(self) -> bool:
        """True if the answer is one box."""
        return self.kind in WITH_BOXES

    def headline_among(self, names: Collection[str]) -> str:
        """The headline of data that have these scores."""
        return self.headline if self.headline in names else self.fallback or self.headline

    def sample_score(self, columns: Collection[str]) -> str:
        """The column by which a sample is won or lost."""
        return self.by_sample or self.headline_among(columns)


_HEADLINE = accuracy_name(metrics.HEADLINE_THRESHOLD)


def _grounding(convention: Convention) -> TaskScores:
    return TaskScores("grounding", convention, _HEADLINE, partial(BoxSamples, convention))


def _games() -> TaskScores:
    return TaskScores("selfplay", "invig", "success_rate", partial(BoxSamples, "invig", games=True))


def _judgement(headline: str = "accuracy", positive: str = "yes") -> TaskScores:
    samples = partial(JudgementSamples, positive)
    return TaskScores("judgement", "refcoco", headline, samples, by_sample="accuracy")


def _likelihood() -> TaskScores:
    return TaskScores("likelihood", "invig", "perplexity", LikelihoodSamples, by_sample="token_probability")


_ANSWER = TaskScores("answer", "refcoco", "accuracy", AnswerSamples)
_READING = TaskScores("reading", "refcoco", "characters", ReadingSamples)

TASK_SCORES: dict[str, TaskScores] = {
    "refcoco_grounding": _grounding("refcoco"),
    "grefcoco": TaskScores("boxes", "refcoco", "Pr@(F1=1)", GrefcocoSamples),
    "ref_l4": TaskScores("grounding", "refcoco", "mAcc", RefL4Samples, by_size=False),
    "guesswhat_grounding": _grounding("invig"),
    "guesswhat_oracle": TaskScores("oracle", "invig", "first_letter", OracleSamples),  # as published
    "guesswhat_question": _likelihood(),
    "invig_grounding": _grounding("invig"),
    "invig_oracle": TaskScores("oracle", "invig", "accuracy", OracleSamples),
    "invig_question": _likelihood(),
    "guesswhat_grounding_end2end": _games(),
    "invig_grounding_end2end": _games(),
    "caption": TaskScores("caption", "refcoco", "CIDEr", CaptionSamples, runs=False),
    "vqa": TaskScores("vqa", "refcoco", "accuracy", VqaSamples, fallback="soft_label"),
    "snli_ve": _ANSWER,
    "classification": TaskScores("choice", "refcoco", "top-1", ChoiceSamples),
    "detection": TaskScores("boxes", "refcoco", "AP", DetectionSamples, by_sample="F1@0.5"),
    "image_text_matching": _judgement(),
    "answer_matching": _judgement(),
    "ocr": _READING,
    "text_infilling": _READING,
    "custom": TaskScores("reading", "refcoco", "exact", ReadingSamples),
    "cola": _judgement("matthews"),
    "mnli": _ANSWER,
    "rte": _judgement(),
    "mrpc": _judgement("f1"),
    "qnli": _judgement(),
    "qqp": _judgement("f1"),
    "sst2": _judgement(positive="positive"),
}

#: Scores that are no shares, and so no percentages.
PLAIN_NUMBERS = {"mean_iou", "mean_questions", "perplexity", "bits_per_token"}
#: Scores of which less is better.
LESS_IS_BETTER = {"perplexity", "bits_per_token", "confidence ECE", "presence ECE", "no box, present"}


def task_scores(task: str) -> TaskScores:
    """Return the scores of ``task``.

    Raises:
        OFAError: there is no such task.
    """
    if task not in TASK_SCORES:
        raise OFAError(f"there is no task {task!r}; the tasks are {', '.join(TASK_SCORES)}")
    return TASK_SCORES[task]


class Headline(Score):
    """The score that stands for a task, with its name."""

    name: str


class Group(StrictModel):
    """The samples of one category or size."""

    samples: int
    #: The task's headline score of them.
    score: Score
    mean_iou: Score | None = None


class Summary(RunFacts):
    """The scores of one results file."""

    format: Literal["ofa_core.bench.summary/1"] = "ofa_core.bench.summary/1"
    samples: int
    #: Rows of the data that could not be used.
    bad_rows: int = 0
    #: Samples whose box in the data reached a little over the picture's edge, and was clipped to it.
    clipped_boxes: int = 0
    headline: Headline
    #: Every score of the task, by name; all but :data:`PLAIN_NUMBERS` are shares.
    scores: dict[str, Score]
    #: By the part of the data set, where rows or files tell several.
    by_split: dict[str, Group] = Field(default_factory=dict)
    #: By category, the most frequent first; empty where rows name none.
    by_category: dict[str, Group] = Field(default_factory=dict)
    #: ``small``, ``medium`` and ``large`` targets; empty where sizes are not known.
    by_size: dict[str, Group] = Field(default_factory=dict)
    #: Of oracles: how often each right answer (first key) was answered how.
    confusion: dict[str, dict[str, int]] = Field(default_factory=dict)
    #: Of probabilities that the model stated, by what they are about: bins of a reliability diagram.
    reliability: dict[str, list[ReliabilityBin]] = Field(default_factory=dict)
    #: Of self-play: what the questions were worth.
    games: GameScores | None = None
    seconds: float | None = None
    samples_per_second: float | None = None

    @property
    def accuracy_by_threshold(self) -> dict[float, Score]:
        """Accuracy above each IoU of :data:`~.metrics.THRESHOLDS`; empty for oracles."""
        names = {threshold: accuracy_name(threshold) for threshold in metrics.THRESHOLDS}
        return {threshold: self.scores[name] for threshold, name in names.items() if name in self.scores}

    @property
    def mean_iou(self) -> Score | None:
        """Mean IoU, samples without a box counting 0."""
        return self.scores.get("mean_iou")

    @property
    def success_rate(self) -> Score | None:
        """Self-play: the share of games that ended with the right box."""
        return self.scores.get("success_rate")

    @property
    def mean_questions(self) -> Score | None:
        """Self-play: questions asked in a game."""
        return self.scores.get("mean_questions")


class _Grouping:
    """Groups of samples, by the number of each sample."""

    def __init__(self) -> None:
        self._members: dict[str, array[int]] = defaultdict(lambda: array("q"))
        self._count = 0

    def add(self, name: str) -> None:
        self._members[name].append(self._count)
        self._count += 1

    def groups(self, table: Table, headline: str) -> dict[str, Group]:
        names = sorted(self._members, key=lambda name: (-len(self._members[name]), name))
        if names == [""]:
            return {}
        wanted = table.only(headline, "mean_iou")
        groups = {}
        for name in names:
            members = np.array(self._members[name], dtype=np.int64)
            scores = metrics.scores_of(wanted.at(members))
            if headline in scores:
                mean_iou = scores.get("mean_iou")
                groups[name] = Group(samples=len(members), score=scores[headline], mean_iou=mean_iou)
        return {name: group for name, group in groups.items() if name}


def summarize(header: Header, rows: Iterable[Row], *, bad_rows: int = 0, seconds: float | None = None) -> Summary:
    """The scores of ``rows``, which are read once and not kept.

    Raises:
        OFAError: the task is not known, there are no rows, or one lacks what its task is scored by.
    """
    scores = task_scores(header.task)
    samples, categories, sizes, splits = scores.samples(), _Grouping(), _Grouping(), _Grouping()
    confusion: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    games = Games(header) if scores.kind == "selfplay" else None
    labelled, sized = scores.kind == "oracle", scores.by_size and header.format != "lists"
    count = clipped = 0
    for count, row in enumerate(rows, 1):  # noqa: B007
        samples.add(row)
        if games is not None:
            games.add(row)
        clipped += row.clipped
        categories.add(row.category)
        splits.add(row.split)
        sizes.add(metrics.size_class(row.box) if sized and row.box is not None else "")
        if labelled:
            confusion[metrics.answer_label(row.target)][metrics.answer_label(row.output)] += 1
    if not count:
        raise OFAError("there is no sample to score")
    table = samples.table()
    found = metrics.scores_of(table)
    headline = scores.headline_among(found)
    if headline not in found:
        raise OFAError(f"the samples have no {headline}: there is nothing among them that it is a score of")
    return Summary(
        **header.model_dump(include=SHARED_FACTS),
        samples=count,
        bad_rows=bad_rows,
        clipped_boxes=clipped,
        headline=Headline(name=headline, **found[headline].model_dump()),
        scores=found,
        by_split=_several(splits.groups(table, headline)),
        by_category=categories.groups(table, headline),
        by_size=_in_order(sizes.groups(table, headline), metrics.SIZES),
        confusion=_matrix(confusion) if labelled else {},
        reliability={name: one.bins() for name, one in samples.stated().items()},
        games=None if games is None else games.scores(table.columns["success_rate"]),
        seconds=seconds,
        samples_per_second=count / seconds if seconds else None,
    )


def _several(groups: dict[str, Group]) -> dict[str, Group]:
    """Groups that are more than all samples in one."""
    return groups if len(groups) > 1 else {}


def _in_order(groups: dict[str, Group], names: Iterable[str]) -> dict[str, Group]:
    return {name: groups[name] for name in names if name in groups}


def _matrix(counts: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """All labels in all rows, ``other`` only where it occurs."""
    seen = {*counts, *(label for row in counts.values() for label in row)}
    labels = [*metrics.LABELS, *([metrics.OTHER_LABEL] if metrics.OTHER_LABEL in seen else [])]
    return {target: {output: counts.get(target, {}).get(output, 0) for output in labels} for target in labels}


def write_summary(path: Path, summary: Summary) -> Path:
    """Write ``summary`` beside the results file ``path`` (as ``.json``), whole or not at all; returns where."""
    target = path.with_suffix(".json")
    atomic_write_text(target, summary.model_dump_json(indent=2) + "\n")
    return target


def read_summary(path: Path) -> Summary | None:
    """The summary in a file, its own or one with the samples; None where the file is none of ours.

    Raises:
        OFAError: the file is a summary, but a broken one.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = member(path, text, "summary") if is_single_text(text) else json.loads(text)
    except ValueError:
        return None
    if not isinstance(content, dict) or content.get("format") != Summary.model_fields["format"].default:
        return None
    try:
        return Summary.model_validate(content)
    except ValidationError as error:
        raise OFAError(f"{path} is not a whole summary: {first_problem(error)}") from None


def format_score(name: str, value: float) -> str:
    """A score for people, without a unit: shares in per cent."""
    return f"{value:.3f}" if name in PLAIN_NUMBERS else f"{100 * value:.1f}"
