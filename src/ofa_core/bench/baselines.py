"""Published scores of other models on the tasks of benchmarks, to be read beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .summary import Summary, format_score


@dataclass(frozen=True)
class Baseline:
    """A published score, as a share of 1."""

    model: str
    value: float
    source: str
    #: The way in which it was measured otherwise; "" where it was not.
    differs: str = ""


_SOURCE = "GuessWhatGame/guesswhat, on the test set"

#: Published scores by the task and the name of the score that is like them.
BASELINES: Mapping[tuple[str, str], Baseline] = {
    ("guesswhat_oracle", "accuracy"): Baseline("GuessWhat?! oracle", 1 - 0.211, _SOURCE, "told the object's class"),
    ("guesswhat_grounding", "acc@0.5"): Baseline(
        "GuessWhat?! guesser", 1 - 0.358, _SOURCE, "chooses among the objects of the picture, whose boxes it is told"
    ),
}


def baseline_lines(summary: Summary) -> list[str]:
    """The published scores beside those of a summary, a line each."""
    found = {name: BASELINES[summary.task, name] for name in summary.scores if (summary.task, name) in BASELINES}
    return [
        f"{name} {format_score(name, one.value)}: {one.model} ({one.source}{'; ' * bool(one.differs)}{one.differs})"
        for name, one in found.items()
    ]
