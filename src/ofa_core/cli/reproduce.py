"""The command ``ofa-core reproduce``: a released checkpoint's score beside the published one."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from ..bench.metrics import Score
from ..checkpoint.names import find_released
from ..checkpoint.released import Released, nearest_names
from ..errors import OFAError
from ..utils.printable import printable, printable_json
from . import bench
from .score import summary_lines

#: fairseq's task -> the benchmark that scores it as its figures were published.
BENCHMARKS = {"refcoco": "refcoco_grounding", "snli_ve": "snli_ve"}


@dataclass(frozen=True)
class Comparison:
    """A score beside the published one, all in percent."""

    name: str
    split: str
    score: float
    #: The 95% interval of the score.
    low: float
    high: float
    published: float
    #: The figure that users found for the very file that was released, where it is another one.
    of_file: float | None
    samples: int

    @property
    def agrees(self) -> bool:
        """True if a figure lies within the interval."""
        return any(self.low <= figure <= self.high for figure in (self.published, self.of_file) if figure is not None)

    def lines(self) -> list[str]:
        """The comparison for people."""
        file = f" (of the released file: {self.of_file:.2f})" if self.of_file is not None else ""
        verdict = "agrees: a published figure lies" if self.agrees else "differs: no published figure lies"
        return [
            f"{self.name}, {self.split}, {self.samples:,} samples",
            f"  ours       {self.score:.2f}, 95% interval {self.low:.2f} to {self.high:.2f}",
            f"  published  {self.published:.2f}{file}",
            f"  {verdict} within the interval; the difference is {self.score - self.published:+.2f}",
        ]


def reproduce_command(args: argparse.Namespace) -> int:
    """Run the benchmark of a released checkpoint in the published setting, and compare."""
    entry = _with_figures(args.name)
    split = _split(entry, args.figure, [Path(value.partition("=")[2] or value).name for value in args.data])
    args.tasks, args.model = [BENCHMARKS[entry.trained_for]], args.model or args.name
    for outcome in bench.run_tasks(args):
        summary = outcome.summary
        found = compare(entry, split, summary.headline, summary.samples)
        if args.json:
            print(printable_json(json.dumps(asdict(found) | {"agrees": found.agrees})))
        else:
            print("\n".join(map(printable, [str(outcome.path), *summary_lines(summary), *found.lines()])), flush=True)
    return 0


def compare(entry: Released, split: str, score: Score, samples: int) -> Comparison:
    """A score, a share of the samples, beside the figure of a split."""
    value, low, high = (100 * number for number in (score.value, score.low, score.high))
    published, of_file = entry.figures[split], entry.of_file.get(split)
    return Comparison(entry.name, split, value, low, high, published, of_file, samples)


def _with_figures(name: str) -> Released:
    entry = find_released(name)
    if entry is None:
        raise OFAError(f"{name} is no released checkpoint; nearest: {', '.join(nearest_names(name))}")
    if entry.trained_for not in BENCHMARKS:
        able = " and ".join(BENCHMARKS)
        raise OFAError(f"{name} was trained for {entry.task}, which no benchmark here scores as published; {able} are")
    if not entry.figures:
        raise OFAError(f"no figures of {name} were published by split")
    return entry


def _split(entry: Released, given: str | None, files: list[str]) -> str:
    """The split that was given, or the one that stands as a word in the data's name."""
    words = {word.lower() for file in files for word in re.split(r"[^A-Za-z0-9]+", file)}
    found = [split for split in entry.figures if (split == given if given else split.lower() in words)]
    if len(found) != 1:
        splits = ", ".join(entry.figures)
        raise OFAError(f"figures of {entry.name} were published for {splits}: pass one with --figure")
    return found[0]
