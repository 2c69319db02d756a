"""The commands ``ofa-core score`` and ``ofa-core compare``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..bench.baselines import baseline_lines
from ..bench.compare import Comparison, compare, rows_of
from ..bench.games import game_lines
from ..bench.metrics import Difference, Score
from ..bench.recount import Recount, picture_of
from ..bench.report import write_report
from ..bench.results import Header
from ..bench.sample_scores import accuracy_name
from ..bench.summary import Group, Summary, format_score, summarize
from ..data.images import Images
from ..errors import OFAError
from ..utils.printable import printable, printable_json

#: Scores that are printed besides the headline, those that say most first.
TELLING = ("mean_iou", "mean_questions", "with_box", "accuracy", "f1", accuracy_name(0.7))
FEW = 3


# score


def score_command(args: argparse.Namespace) -> int:
    """Print the scores of ``args.files``; write ``args.report`` too if asked for."""
    if args.report is not None and len(args.files) > 1:
        raise OFAError(f"--report is a page of one results file, not of {len(args.files)}")
    for path in args.files:
        header, summary = _summarized(path, args.task)
        lines = [printable(str(path)), *summary_lines(summary, verbose=args.verbose)]
        print(printable_json(summary.model_dump_json()) if args.json else "\n".join(lines), flush=True)
        if args.report is not None:
            with Images.open(args.images, args.allow_outside) as images:
                _, rows = Recount().read(path, args.task)
                write_report(args.report, header, summary, rows, partial(picture_of, images, header))
    return 0


def _summarized(path: Path, task: str | None) -> tuple[Header, Summary]:
    recount = Recount()
    header, rows = recount.read(path, task)
    try:
        summary = summarize(header, rows)
    except OFAError as error:
        raise OFAError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    if recount.differing:
        told = f"{recount.differing:,} of {summary.samples:,} rows hold another IoU than their boxes have"
        print(printable(f"{path}: {told}; the boxes were scored"), file=sys.stderr)
    return header, summary


def summary_lines(summary: Summary, *, verbose: bool = False) -> list[str]:
    """A summary for people, one fact a line, with nothing in it that a terminal would act on.

    It is the headline and :data:`FEW` scores more; ``verbose``, it is all of them, by group too.
    """
    model = f"{summary.model} with the oracle {summary.oracle}" if summary.oracle else summary.model
    count = f"{summary.samples:,} {'sample' if summary.samples == 1 else 'samples'}"
    bad = f", {summary.bad_rows:,} bad rows" if summary.bad_rows else ""
    clipped = f", {summary.clipped_boxes:,} boxes clipped to their pictures" if summary.clipped_boxes else ""
    lines = [printable(f"{summary.task}, {model}, {count}{bad}{clipped}")]
    shown = list(summary.scores) if verbose else _few(summary)
    width = max(map(len, shown))
    more = "" if verbose or not _has_more(summary, shown) else ", all with --verbose"
    for name in shown:
        mark = f"  <-{more}" if name == summary.headline.name else ""
        lines.append(f"  {name:<{width}}  {_shown(name, summary.scores[name])}{mark}")
    lines += [printable(f"  published: {line}") for line in baseline_lines(summary)]
    return lines + (_further_lines(summary) if verbose else [])


def _few(summary: Summary) -> list[str]:
    """The headline, and behind it the scores that say most besides."""
    others = [name for name in summary.scores if name != summary.headline.name]
    others.sort(key=lambda name: TELLING.index(name) if name in TELLING else len(TELLING))  # stable
    return [summary.headline.name, *others[:FEW]]


def _has_more(summary: Summary, shown: Sequence[str]) -> bool:
    return len(shown) < len(summary.scores) or bool(_further_lines(summary))


def _further_lines(summary: Summary) -> list[str]:
    """Scores by size and category, of games, and answers by what was right."""
    lines = []
    for title, groups in (("split", summary.by_split), ("size", summary.by_size), ("category", summary.by_category)):
        lines += _group_lines(title, summary.headline.name, groups)
    lines += _game_lines(summary)
    if summary.confusion:
        labels = list(summary.confusion)
        lines.append("  answered (columns) where it was right to say (rows)")
        lines.append("  " + " ".join(f"{label:>8}" for label in ["", *labels]))
        lines += [
            "  " + " ".join([f"{target:>8}", *(f"{counts[label]:>8,}" for label in labels)])
            for target, counts in summary.confusion.items()
        ]
    return lines


def _game_lines(summary: Summary) -> list[str]:
    """The worth of questions, and success by their number."""
    if summary.games is None:
        return []
    told, by_length = game_lines(summary.games), summary.games.by_questions
    width, digits = max(map(len, told)), max(len(str(number)) for number in by_length)
    return [
        *(f"  {name:<{width}}  {value}" for name, value in told.items()),
        "  success_rate by questions",
        *(
            f"    {number:>{digits}}  {_shown('success_rate', part.success_rate)}  of {part.games:,}"
            for number, part in by_length.items()
        ),
    ]


def _group_lines(title: str, headline: str, groups: dict[str, Group], most: int = 12) -> list[str]:
    if not groups:
        return []
    shown = [(printable(name), group) for name, group in list(groups.items())[:most]]
    width = max(len(name) for name, _ in shown)
    lines = [f"    {name:<{width}}  {_shown(headline, group.score)}  of {group.samples:,}" for name, group in shown]
    more = [f"    and {len(groups) - most:,} more, which --json tells"] if len(groups) > most else []
    return [f"  {headline} by {title}", *lines, *more]


def _shown(name: str, score: Score) -> str:
    return f"{format_score(name, score.value):>6} ({format_score(name, score.low)} to {format_score(name, score.high)})"


# compare


def compare_command(args: argparse.Namespace) -> int:
    """Print how ``args.second`` differs from ``args.first``."""
    comparison = compare(args.first, args.second, args.task)
    if args.json:
        print(printable_json(comparison.model_dump_json()))
        return 0
    print("\n".join(comparison_lines(comparison)))
    named = {"gained": comparison.gained[: args.show], "lost": comparison.lost[: args.show]}
    ids = {name for names in named.values() for name in names}
    before, after = (rows_of(path, ids, args.task) if ids else {} for path in (args.first, args.second))
    for kind, names in named.items():
        for name in names:
            target, old, new = before[name].target, before[name].output, after[name].output
            print(printable(f"  {kind} {name}: {target!r}; A said {old!r}, B {new!r}"))
    return 0


def comparison_lines(comparison: Comparison) -> list[str]:
    """A comparison for people, without its samples."""
    alone = [(comparison.only_first, "A"), (comparison.only_second, "B")]
    left_out = "".join(f", {count:,} only in {side} left out" for count, side in alone if count)
    width = max(map(len, comparison.differences))
    return [
        printable(f"A: {comparison.first}"),
        printable(f"B: {comparison.second}"),
        f"{comparison.task}, {comparison.samples:,} samples in both{left_out}",
        *(f"  {name:<{width}}  {_difference(name, change)}" for name, change in comparison.differences.items()),
        f"{comparison.headline}: {len(comparison.gained):,} gained, {len(comparison.lost):,} lost; "
        f"{comparison.outputs_changed:,} answers differ",
    ]


def _difference(name: str, change: Difference) -> str:
    value, low, high = (
        f"{'+' if number > 0 else ''}{format_score(name, number)}" for number in (change.value, change.low, change.high)
    )
    verdict = "significant" if change.significant else "not significant"
    return f"{value:>7} ({low} to {high}), p {change.p_value:.3f}, {verdict}"
