"""One results file as one HTML page that needs nothing else: scores, plots, and samples to look through."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from pathlib import Path
from string import Template
from typing import get_args

from ..utils.atomic_write import atomic_write_text
from .baselines import baseline_lines
from .gallery import LoadImage, card, choose_samples
from .games import game_lines
from .metrics import Score
from .plots import Bar, bars, reliability_plot, threshold_plot
from .results import Header, Row
from .summary import PLAIN_NUMBERS, TASK_SCORES, WITH_BOXES, Group, Kind, Summary, format_score

#: The page, with places for what is told; its style and its script stand in it.
PAGE = Path(__file__).with_name("report.html")

#: Categories that have a bar.
MOST_CATEGORIES = 12

#: Notes on reliability diagrams, by what their probabilities are about.
RELIABILITY = {
    "confidence": "per cent of boxes with an IoU of 0.5, by how sure the model is; on the dashed line they are equal",
    "presence": "per cent of phrases of what is there, by how sure the model is; on the dashed line they are equal",
}

#: The gallery's parts and their titles.
PANELS = {"best": "Best", "worst": "Worst", "random": "Random"}
#: Descriptions of them, where boxes are looked for and where answers are given.
_BOXES = {
    "best": "the highest IoU, of equal ones the most confident",
    "worst": "the lowest IoU, of equal ones the most confident",
    "random": "drawn at random, in the order of the data",
}
_ANSWERS = _BOXES | {
    "best": "right answers, the most confident first",
    "worst": "wrong answers, the most confident first",
}
_MEANINGS: dict[Kind, dict[str, str]] = {kind: _BOXES if kind in WITH_BOXES else _ANSWERS for kind in get_args(Kind)}


def write_report(
    path: Path,
    header: Header,
    summary: Summary,
    rows: Iterable[Row],
    load_image: LoadImage,
    *,
    seed: int = 0,
    count: int = 12,
) -> None:
    """Write the page of a run to ``path``, whole or not at all.

    The rows are read once; ``load_image`` gives a row's picture, of any size, or None (it may raise ``OFAError``: the
    card then has no picture). ``count`` samples are shown of the best, the worst, and at random by ``seed``.
    """
    panels = [
        _panel(name, some, header, load_image) for name, some in choose_samples(header, rows, count, seed).items()
    ]
    page = Template(PAGE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{summary.task}: {Path(summary.model).name}"),
        task=escape(summary.task),
        model=escape(Path(summary.model).name or summary.model),
        facts=_list(_facts(summary)),
        circumstances=_list(_circumstances(header)),
        headline=_headline(summary),
        scores=_scores(summary),
        plots="".join([*_plots(summary), *_games(summary)]),
        tabs="".join(f'<a href="#{name}" role="tab">{title}</a>' for name, title in PANELS.items()),
        legend="".join(f'<span class="is-{kind}">{meaning}</span>' for kind, meaning in _legend(header.task).items()),
        panels="".join(panels),
        run=_run(header, summary),
    )
    atomic_write_text(path, page)


def _legend(task: str) -> dict[str, str]:
    """Meanings of the boxes on the pictures."""
    if TASK_SCORES[task].has_boxes:
        return {"target": "target", "found": "found by the model"}
    return {"target": "the region asked about"} if TASK_SCORES[task].kind == "oracle" else {}


def _facts(summary: Summary) -> list[str]:
    """The size of a run, and the models behind it."""
    facts = [f"{summary.samples:,} samples", f"comment {summary.comment}"]
    if summary.oracle:
        facts.append(f"oracle {Path(summary.oracle).name}")
    if summary.bad_rows:
        facts.append(f"{summary.bad_rows:,} bad rows left out")
    if summary.clipped_boxes:
        facts.append(f"{summary.clipped_boxes:,} boxes clipped to their pictures")
    facts += [f"published {line}" for line in baseline_lines(summary)]
    if summary.samples_per_second:
        facts.append(f"{summary.samples_per_second:.1f} samples/s")
    return facts


def _circumstances(header: Header) -> list[str]:
    """Date, data file and settings of a run; older files tell none."""
    told = [header.started.replace("T", " "), header.data]
    told += [f"{name} {value}" for name, value in header.settings.items() if value is not None]
    return list(filter(None, told))


def _list(facts: list[str]) -> str:
    return "".join(f"<li>{escape(fact)}</li>" for fact in facts)


def _headline(summary: Summary) -> str:
    name, value, low, high = (getattr(summary.headline, field) for field in ("name", "value", "low", "high"))
    unit = "" if name in PLAIN_NUMBERS else "<small>%</small>"
    return (
        f'<p class="big">{format_score(name, value)}{unit}</p>'
        f"<p>{escape(name)}<br>95% interval {format_score(name, low)} to {format_score(name, high)}</p>"
    )


def _scores(summary: Summary) -> str:
    """A row for each score, its interval drawn where it is a share."""
    lines = []
    for name, score in summary.scores.items():
        mark = ' class="headline"' if name == summary.headline.name else ""
        unit = "" if name in PLAIN_NUMBERS else "%"
        value, low, high = (format_score(name, number) for number in (score.value, score.low, score.high))
        lines.append(
            f'<tr{mark}><th scope="row">{escape(name)}</th><td class="value">{value}{unit}</td>'
            f"<td>{low} – {high}</td><td>{_range(name, score)}</td></tr>"
        )
    return "".join(lines)


def _range(name: str, score: Score) -> str:
    if (name in PLAIN_NUMBERS and name != "mean_iou") or score.high > 1:
        return ""
    left, width = 100 * score.low, max(100 * (score.high - score.low), 0.5)
    return (
        f'<span class="range"><i style="left:{left:.2f}%;width:{width:.2f}%"></i>'
        f'<b style="left:{100 * score.value:.2f}%"></b></span>'
    )


def _plots(summary: Summary) -> list[str]:
    plots = []
    name = summary.headline.name
    if accuracies := summary.accuracy_by_threshold:
        plots.append(_figure("Accuracy by IoU threshold", "per cent of the samples", threshold_plot(accuracies)))
    for about, bins in summary.reliability.items():
        drawn = reliability_plot(f"reliability of {about}", bins)
        plots.append(_figure(f"Reliability of {about}", RELIABILITY[about], drawn))
    if summary.by_split:
        plots.append(_figure(f"{name} by split", "parts of the data", _group_bars("by split", name, summary.by_split)))
    if summary.by_size:
        limits = "area of the target below 32², below 96² pixels, larger"
        plots.append(_figure(f"{name} by size", limits, _group_bars("by size", name, summary.by_size)))
    if summary.by_category:
        more = len(summary.by_category) - MOST_CATEGORIES
        note = f"the {MOST_CATEGORIES} most frequent of {len(summary.by_category)}" if more > 0 else "all of them"
        drawn = _group_bars("by category", name, summary.by_category)
        plots.append(_figure(f"{name} by category", note, drawn))
    if summary.confusion:
        plots.append(_figure("Answers", "rows: right to say; columns: said", _confusion(summary.confusion)))
    return plots


def _games(summary: Summary) -> list[str]:
    """Of self-play: what questions were worth, and success by their number."""
    games = summary.games
    if games is None:
        return []
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="value">{escape(value)}</td></tr>'
        for name, value in game_lines(games).items()
    )
    asked = f"bits are those of {games.measured_questions:,} questions" if games.information_gain else "95% intervals"
    rows = [Bar(_asked(number), part.success_rate, part.games) for number, part in games.by_questions.items()]
    return [
        _figure("Questions", asked, f'<table class="scores">{lines}</table>'),
        _figure("Success by length", "games by how many questions were asked", bars("success by length", rows)),
    ]


def _asked(number: int) -> str:
    return "1 question" if number == 1 else f"{number} questions"


def _group_bars(title: str, score: str, groups: dict[str, Group]) -> str:
    rows = [Bar(name, group.score, group.samples) for name, group in groups.items()]
    return bars(title, rows[:MOST_CATEGORIES], shares=score not in PLAIN_NUMBERS)


def _figure(title: str, note: str, drawn: str) -> str:
    heading = f"<figcaption><h3>{escape(title)}</h3><p>{escape(note)}</p></figcaption>"
    return f'<figure class="panel-plot">{heading}{drawn}</figure>'


def _confusion(confusion: dict[str, dict[str, int]]) -> str:
    head = "".join(f'<th scope="col">{escape(label)}</th>' for label in confusion)
    lines = []
    for target, counts in confusion.items():
        whole = sum(counts.values()) or 1
        cells = "".join(
            f'<td class="{"same" if output == target else "other"}" style="--share:{100 * count / whole:.1f}%">'
            f"{count:,}<small>{100 * count / whole:.0f}%</small></td>"
            for output, count in counts.items()
        )
        lines.append(f'<tr><th scope="row">{escape(target)}</th>{cells}</tr>')
    return f'<table class="confusion"><thead><tr><td></td>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def _panel(name: str, rows: list[Row], header: Header, load_image: LoadImage) -> str:
    title, meaning = PANELS[name], _MEANINGS[TASK_SCORES[header.task].kind][name]
    cards = "".join(card(row, header, load_image) for row in rows)
    return (
        f'<section class="gallery" id="{name}" role="tabpanel" aria-label="{title}">'
        f'<h3>{title}</h3><p>{meaning}</p><div class="cards">{cards}</div></section>'
    )


def _run(header: Header, summary: Summary) -> str:
    """Everything that is needed to run it again."""
    convention = TASK_SCORES[header.task].convention
    told = {
        "model": header.model,
        "model sha256": header.model_sha256,
        "oracle": header.oracle,
        "oracle sha256": header.oracle_sha256,
        "data": header.data,
        "started": header.started,
        "seconds": summary.seconds and f"{summary.seconds:,.1f}",
        "boxes compared as": convention,
        **{f"setting {name}": json.dumps(value, ensure_ascii=False) for name, value in header.settings.items()},
        **{f"version of {name}": version for name, version in header.versions.items()},
    }
    return "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>'
        for name, value in told.items()
        if value not in (None, "")
    )
