"""The leaderboard: one row a model, one column a task, rebuilt from the summaries of all runs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ..utils.atomic_write import atomic_write_text
from ..utils.printable import printable
from .summary import LESS_IS_BETTER, TASK_SCORES, Summary, format_score, read_summary

LEADERBOARD_FILE = "leaderboard.md"
#: Characters that Markdown takes for markup wherever they stand.
_MARKUP = re.compile(r"[\\`*\[\]|~]")


def update_leaderboard(out: Path) -> Path:
    """Rebuild ``<out>/leaderboard.md`` from the latest summary of each model, comment and task under ``out``.

    Raises:
        OFAError: a summary is broken.
    """
    latest: dict[tuple[str, str], dict[str, Summary]] = {}
    for path in sorted(out.glob("*/*/*.json")):
        summary = read_summary(path)
        if summary is None or summary.task not in TASK_SCORES:
            continue
        row = latest.setdefault((Path(summary.model).name, summary.comment), {})
        row[summary.task] = summary  # names are in the order in which runs were begun, whatever the clock said
    target = out / LEADERBOARD_FILE
    atomic_write_text(target, _markdown(latest))
    return target


def _markdown(rows: dict[tuple[str, str], dict[str, Summary]]) -> str:
    tasks = [task for task in TASK_SCORES if any(task in row for row in rows.values())]
    best = {
        task: _best(row[task] for row in rows.values() if task in row)  # what looks equal is equally bold
        for task in tasks
    }
    lines = ["# Leaderboard", ""]
    if not tasks:
        return "\n".join([*lines, "No run has finished yet.", ""])
    lines += [_line("model", *tasks), _line(*["---"] * (len(tasks) + 1))]
    for (model, comment), row in sorted(rows.items()):
        name = model if comment in ("", model) else f"{model} ({comment})"
        cells = [_cell(row[task], shown_value(row[task]) == best[task]) if task in row else "" for task in tasks]
        lines.append(_line(_escaped(name), *cells))
    lines += [
        "",
        "With 95% bootstrap intervals, in per cent but for perplexity; the best of each task in bold. Scores:",
    ]
    lines += [f"- {task}: {TASK_SCORES[task].headline}" for task in tasks]
    lines += ["", _line("task", "model", "samples", "bad rows", "started", "sha256"), _line(*["---"] * 6)]
    for task in tasks:
        for (model, comment), row in sorted(rows.items()):
            if task in row:
                run = row[task]
                name = model if comment in ("", model) else f"{model} ({comment})"
                sha = run.model_sha256[:12]
                cells = [task, name, f"{run.samples:,}", f"{run.bad_rows:,}", run.started, sha]
                lines.append(_line(*map(_escaped, cells)))
    return "\n".join([*lines, ""])


def _best(summaries: Iterable[Summary]) -> float:
    """The best value that the table shows of a task."""
    found = list(summaries)
    better = min if found[0].headline.name in LESS_IS_BETTER else max
    return better(map(shown_value, found))


def shown_value(summary: Summary) -> float:
    """The headline as the table prints it."""
    return float(format_score(summary.headline.name, summary.headline.value))


def _cell(summary: Summary, best: bool) -> str:
    name, value, low, high = (getattr(summary.headline, field) for field in ("name", "value", "low", "high"))
    mark = "**" if best else ""
    return f"{mark}{format_score(name, value)}{mark} ({format_score(name, low)}–{format_score(name, high)})"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """``text`` as Markdown shows it letter by letter: no markup, no code, no HTML, no line or cell of its own."""
    return _MARKUP.sub(r"\\\g<0>", printable(text)).replace("&", "&amp;").replace("<", "&lt;")
