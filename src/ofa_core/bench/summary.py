"""Scores of a results file with intervals, by category and by size."""

from __future__ import annotations

import json
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, ValidationError

from ..errors import OFAError, first_problem
from ..heads.box_codec import Convention
from ..utils.atomic_write import atomic_write_text
from . import metrics
from .games import Games, GameScores
from .metrics import Floats, Score
from .results import SHARED_FACTS, Header, Row, RunFacts, StrictModel
from .single_json import is_single_text, member

Kind = Literal["grounding", "oracle", "selfplay", "answer", "judgement", "reading"]
#: Kinds of task whose answer is a box.
WITH_BOXES: tuple[Kind, ...] = ("grounding", "selfplay")


@dataclass(frozen=True)
class TaskScores:
    """The scores of a task and the rule for its boxes."""

    kind: Kind
    #: The convention by which its boxes are compared.
    convention: Convention
    #: The score that stands for the task in tables.
    headline: str
    #: Of judgements: the answer that counts as positive.
    positive: str = "yes"

    @property
    def has_boxes(self) -> bool:
        """True if the answer is a box."""
        return self.kind in WITH_BOXES


def accuracy_name(threshold: float) -> str:
    """The name of the accuracy at an IoU threshold: ``acc@0.5``."""
    return f"acc@{threshold:.1f}"


_HEADLINE = accuracy_name(metrics.HEADLINE_THRESHOLD)

TASK_SCORES: dict[str, TaskScores] = {
    "refcoco_grounding": TaskScores("grounding", "refcoco", _HEADLINE),
    "guesswhat_grounding": TaskScores("grounding", "invig", _HEADLINE),
    "guesswhat_oracle": TaskScores("oracle", "invig", "first_letter"),  # as published
    "invig_grounding": TaskScores("grounding", "invig", _HEADLINE),
    "invig_oracle": TaskScores("oracle", "invig", "accuracy"),
    "guesswhat_grounding_end2end": TaskScores("selfplay", "invig", "success_rate"),
    "invig_grounding_end2end": TaskScores("selfplay", "invig", "success_rate"),
    "snli_ve": TaskScores("answer", "refcoco", "accuracy"),
    "image_text_matching": TaskScores("judgement", "refcoco", "accuracy"),
    "answer_matching": TaskScores("judgement", "refcoco", "accuracy"),
    "ocr": TaskScores("reading", "refcoco", "characters"),
    "text_infilling": TaskScores("reading", "refcoco", "characters"),
    "cola": TaskScores("judgement", "refcoco", "matthews"),
    "mnli": TaskScores("answer", "refcoco", "accuracy"),
    "rte": TaskScores("judgement", "refcoco", "accuracy"),
    "mrpc": TaskScores("judgement", "refcoco", "f1"),
    "qnli": TaskScores("judgement", "refcoco", "accuracy"),
    "qqp": TaskScores("judgement", "refcoco", "f1"),
    "sst2": TaskScores("judgement", "refcoco", "accuracy", "positive"),
}

#: Scores that are no shares, and so no percentages.
PLAIN_NUMBERS = {"mean_iou", "mean_questions"}


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
    #: Every score of the task, by name; all but ``mean_iou`` and ``mean_questions`` are shares of the samples.
    scores: dict[str, Score]
    #: By category, the most frequent first; empty where rows name none.
    by_category: dict[str, Group] = Field(default_factory=dict)
    #: ``small``, ``medium`` and ``large`` targets; empty where sizes are not known.
    by_size: dict[str, Group] = Field(default_factory=dict)
    #: Of oracles: how often each right answer (first key) was answered how.
    confusion: dict[str, dict[str, int]] = Field(default_factory=dict)
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


#: Numbers that are kept of each row, by the kind of its task.
_NUMBERS: dict[str, Callable[[Row], float]] = {
    "iou": lambda row: _required_iou(row),
    "with_box": lambda row: row.found is not None,
    "accuracy": lambda row: metrics.same_answer(row.target, row.output),
    "first_letter": lambda row: metrics.same_first_letter(row.target, row.output),
    "mean_questions": lambda row: row.questions or 0,
    "characters": lambda row: metrics.character_accuracy(row.target, row.output),
    "exact": lambda row: row.target == row.output,
}
_KEPT: dict[Kind, tuple[str, ...]] = {
    "grounding": ("iou", "with_box"),
    "oracle": ("accuracy", "first_letter"),
    "selfplay": ("iou", "with_box", "mean_questions"),
    "answer": ("accuracy",),
    "judgement": ("accuracy", *metrics.OUTCOMES),
    "reading": ("characters", "exact"),
}


def _required_iou(row: Row) -> float:
    if row.iou is None:
        raise OFAError(f"sample {row.id!r} has no IoU, which its task is scored by")
    return row.iou


class Samples:
    """The few numbers of each row that scores are made of, so that a file of any size can be scored.

    Raises:
        OFAError: from :meth:`add`, a row without what its task is scored by.
    """

    def __init__(self, task: str) -> None:
        self.scores = task_scores(task)
        self._numbers = {name: array("d") for name in _KEPT[self.scores.kind]}

    def add(self, row: Row) -> None:
        """Take in one row."""
        for name, numbers in self._numbers.items():
            numbers.append(self._number(name, row))

    def _number(self, name: str, row: Row) -> float:
        if name in metrics.OUTCOMES:
            return metrics.outcome(row.target, row.output, self.scores.positive) == name
        return _NUMBERS[name](row)

    def columns(self) -> dict[str, Floats]:
        """Every score of the task, sample by sample: arrays [N]."""
        columns = {name: np.array(numbers, dtype=np.float64) for name, numbers in self._numbers.items()}
        if "iou" not in columns:
            return columns
        ious = columns.pop("iou")
        accuracies = {
            accuracy_name(threshold): metrics.hits(ious, threshold, self.scores.convention).astype(np.float64)
            for threshold in metrics.THRESHOLDS
        }
        success = {"success_rate": accuracies[_HEADLINE]} if self.scores.kind == "selfplay" else {}
        return success | accuracies | {"mean_iou": ious} | columns


class _Grouping:
    """Groups of samples, by the number of each sample."""

    def __init__(self) -> None:
        self._members: dict[str, array[int]] = defaultdict(lambda: array("q"))
        self._count = 0

    def add(self, name: str) -> None:
        self._members[name].append(self._count)
        self._count += 1

    def groups(self, columns: dict[str, Floats], headline: str) -> dict[str, Group]:
        names = sorted(self._members, key=lambda name: (-len(self._members[name]), name))
        needed = (*metrics.inputs_of(headline), "mean_iou")
        wanted = {name: columns[name] for name in needed if name in columns}
        groups = {}
        for name in names:
            members = np.array(self._members[name], dtype=np.int64)
            scores = metrics.scores_of({column: values[members] for column, values in wanted.items()})
            groups[name] = Group(samples=len(members), score=scores[headline], mean_iou=scores.get("mean_iou"))
        return groups


def summarize(header: Header, rows: Iterable[Row], *, bad_rows: int = 0, seconds: float | None = None) -> Summary:
    """The scores of ``rows``, which are read once and not kept.

    Raises:
        OFAError: the task is not known, there are no rows, or one lacks what its task is scored by.
    """
    samples, categories, sizes = Samples(header.task), _Grouping(), _Grouping()
    confusion: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    labelled = samples.scores.kind == "oracle"
    games = Games(header) if samples.scores.kind == "selfplay" else None
    count = clipped = 0
    for count, row in enumerate(rows, 1):  # noqa: B007
        samples.add(row)
        if games is not None:
            games.add(row)
        clipped += row.clipped
        categories.add(row.category)
        sizes.add("" if row.box is None or header.format == "lists" else metrics.size_class(row.box))
        if labelled:
            confusion[metrics.answer_label(row.target)][metrics.answer_label(row.output)] += 1
    columns = samples.columns()
    scores = metrics.scores_of(columns)
    headline = samples.scores.headline
    return Summary(
        **header.model_dump(include=SHARED_FACTS),
        samples=count,
        bad_rows=bad_rows,
        clipped_boxes=clipped,
        headline=Headline(name=headline, **scores[headline].model_dump()),
        scores=scores,
        by_category=_named(categories.groups(columns, headline)),
        by_size=_in_order(_named(sizes.groups(columns, headline)), metrics.SIZES),
        confusion=_matrix(confusion) if labelled else {},
        games=None if games is None else games.scores(columns["success_rate"]),
        seconds=seconds,
        samples_per_second=count / seconds if seconds else None,
    )


def _named(groups: dict[str, Group]) -> dict[str, Group]:
    """Without what has no name, and nothing where nothing has one."""
    return {name: group for name, group in groups.items() if name}


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
