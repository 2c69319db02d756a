from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from bench import made
from bench.made import header
from PIL import Image

from ofa_core.bench.games import game_lines
from ofa_core.bench.metrics import Score
from ofa_core.bench.plots import Bar, bars
from ofa_core.bench.report import MOST_CATEGORIES, write_report
from ofa_core.bench.summary import TASK_SCORES, summarize

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]


def page(path: Path, task: str = "guesswhat_grounding", count: int = 40, **changes: object) -> str:
    of, rows = header(task, **changes), made.rows(count, task)
    write_report(path, of, summarize(of, rows, bad_rows=2, seconds=8.0), iter(rows), made.picture)
    return path.read_text(encoding="utf-8")


class Reader(HTMLParser):
    """The elements and the text of a page; fails on elements that are not closed in order."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.text += data


@pytest.mark.parametrize("task", TASK_SCORES)
def test_every_task_has_a_page_that_is_well_formed(tmp_path: Path, task: str) -> None:
    text = page(tmp_path / "page.html", task)
    read = Reader(text)
    assert read.open == []
    counts = Counter(tag for tag, _ in read.elements)
    assert counts["article"] == 3 * 12
    assert counts["img"] == 3 * 12
    identifiers = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert identifiers == ["best", "worst", "random"]
    assert "$" not in text


def test_a_page_asks_for_nothing_outside_itself(tmp_path: Path) -> None:
    text = page(tmp_path / "page.html")
    read = Reader(text)
    addresses = [a[name] or "" for _, a in read.elements for name in ("src", "href", "srcset", "action") if name in a]
    assert {address.split(",")[0].partition("#")[0] for address in addresses} == {"data:image/jpeg;base64", ""}
    assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r"base64,[^\"]*", "", text))
    policy = next(a["content"] for tag, a in read.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in str(policy)


def test_scores_and_intervals_are_on_the_page(tmp_path: Path) -> None:
    text = Reader(page(tmp_path / "page.html")).text
    found = summarize(header(), made.rows(40))
    for name, score in found.scores.items():
        assert name in text
        if name != "mean_iou":
            assert f"{100 * score.value:.1f}%" in text
            assert f"{100 * score.low:.1f} – {100 * score.high:.1f}" in text
    headline = found.headline
    assert f"95% interval {100 * headline.low:.1f} to {100 * headline.high:.1f}" in text
    for told in ("40 samples", "2 bad rows left out", "5.0 samples/s", "ab" * 32, "batch_size", "2.8", "12:30:05"):
        assert told in text


def test_plots_show_what_was_scored(tmp_path: Path) -> None:
    text = page(tmp_path / "page.html")
    found = summarize(header(), made.rows(40))
    for threshold, score in found.accuracy_by_threshold.items():
        told = f"IoU {threshold:.1f}: {100 * score.value:.1f}% ({100 * score.low:.1f} to {100 * score.high:.1f})"
        assert f"<title>{told}</title>" in text
    heights = [float(y) for y in re.findall(r'<circle class="dot" cx="[\d.]+" cy="([\d.]+)"', text)]
    values = [score.value for score in found.accuracy_by_threshold.values()]
    assert heights == sorted(heights)  # accuracy falls, so points go down the page
    span = (heights[-1] - heights[0]) / (values[0] - values[-1])
    assert [heights[0] + span * (values[0] - v) for v in values] == pytest.approx(heights, abs=0.2)
    for size, group in found.by_size.items():
        assert f"<title>{size}: {100 * group.score.value:.1f}% (" in text
    widths = [float(w) for w in re.findall(r'<rect class="bar" [^>]*width="([\d.]+)"', text)]
    full = float(re.findall(r'<rect class="track" [^>]*width="([\d.]+)"', text)[0])
    groups = [*found.by_size.values(), *found.by_category.values()]
    assert [w / full for w in widths] == pytest.approx([g.score.value for g in groups], abs=0.002)


def test_stated_confidences_have_a_reliability_diagram(tmp_path: Path) -> None:
    of = header("refcoco_grounding")
    rows = [
        row.model_copy(update={"confidence": None if at == 0 else 0.05 + 0.9 * (at % 5) / 4})
        for at, row in enumerate(made.rows(40, "refcoco_grounding"))
    ]
    summary = summarize(of, rows)
    write_report(tmp_path / "page.html", of, summary, iter(rows), made.picture)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Reliability of confidence" in text
    assert "confidence ECE" in text
    (plot,) = re.findall(r'<svg class="plot"[^>]*aria-label="reliability of confidence">.*?</svg>', text)
    assert plot.count("<circle") == len(summary.reliability["confidence"]) == 5
    for one in summary.reliability["confidence"]:
        assert f"stated {100 * one.confidence:.1f}%, true {100 * one.accuracy:.1f}% of {one.samples}" in plot
    assert sum(one.samples for one in summary.reliability["confidence"]) == 39
    assert 'class="ideal"' in plot
    assert "Reliability" not in page(tmp_path / "other.html")


def test_an_oracle_has_its_confusion_matrix_instead_of_boxes(tmp_path: Path) -> None:
    text = page(tmp_path / "page.html", "guesswhat_oracle")
    assert 'class="confusion"' in text
    assert "IoU threshold" not in text
    assert "the region asked about" in text
    assert 'class="confusion"' not in page(tmp_path / "b.html")


def test_the_head_tells_date_data_and_settings(tmp_path: Path) -> None:
    head = Reader(page(tmp_path / "page.html").partition("<h2>")[0] + "</main></body></html>").text
    for told in ("2025-03-01 12:30:05", "data/guesswhat.valid.jsonl.gz", "batch_size 16", "protocol open"):
        assert told in head
    assert "limit" not in head  # none was set


def test_games_tell_what_questions_were_worth(tmp_path: Path) -> None:
    text = page(tmp_path / "page.html", "invig_grounding_end2end")
    found = summarize(header("invig_grounding_end2end"), made.rows(40, "invig_grounding_end2end")).games
    assert found is not None
    for name, value in game_lines(found).items():
        assert f'<th scope="row">{name}</th><td class="value">{value}</td>' in text
    for number, part in found.by_questions.items():
        title = f"{number} question{'s' * (number != 1)}: {100 * part.success_rate.value:.1f}% ("
        assert f"<title>{title}" in text
    assert "Success by length" not in page(tmp_path / "b.html")


def test_bars_of_plain_numbers_are_as_long_as_they_are_large() -> None:
    rows = [Bar(name, Score(value=v, low=v, high=2 * v), 3) for name, v in (("a", 4.0), ("b", 2.0))]
    drawn = bars("t", rows, shares=False)
    widths = [float(w) for w in re.findall(r'<rect class="bar" [^>]*width="([\d.]+)"', drawn)]
    full = float(re.findall(r'<rect class="track" [^>]*width="([\d.]+)"', drawn)[0])
    assert [w / full for w in widths] == pytest.approx([0.5, 0.25], abs=1e-3)
    assert re.findall(r'class="number"[^>]*>([\d.]+)<', drawn) == ["4.000", "2.000"]


def test_of_many_categories_the_most_frequent_have_bars(tmp_path: Path) -> None:
    rows = [r.model_copy(update={"category": f"kind {r.index % 30:02}"}) for r in made.rows(120)]
    write_report(tmp_path / "p.html", header(), summarize(header(), rows), rows, made.picture)
    text = (tmp_path / "p.html").read_text()
    assert f"the {MOST_CATEGORIES} most frequent of 30" in text
    assert len(re.findall(r'<text class="name"[^>]*>kind', text)) == MOST_CATEGORIES


def test_names_are_text_on_the_page(tmp_path: Path) -> None:
    text = page(tmp_path / "p.html", model="<b>$x", comment="<i>&", settings={"<u>": "<s>"})
    assert not re.search("<(b>[$]|i>|u>|s>)", text)
    assert "<h1>&lt;b&gt;$x</h1>" in text
    assert "setting &lt;u&gt;" in text


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    assert page(tmp_path / "a.html") == page(tmp_path / "b.html")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "b.html"]


# In a browser

Browse = Callable[..., str]


@pytest.fixture
def browse(tmp_path: Path) -> Iterator[Browse]:
    """Opens a page in Chromium and returns what it prints."""
    if not CHROMIUM:
        pytest.skip("no Chromium is installed")
    with tempfile.TemporaryDirectory() as profile:

        def opened(address: str, *options: str) -> str:
            command = [CHROMIUM, *QUIET, f"--user-data-dir={profile}", *options, address]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
            return done.stdout

        yield opened


def chosen_panels(dom: str) -> list[str]:
    return [
        str(attributes["id"])
        for tag, attributes in Reader(dom).elements
        if tag == "section" and "chosen" in str(attributes.get("class")).split()
    ]


def chosen_tabs(dom: str) -> list[str]:
    return [
        str(attributes["href"])
        for tag, attributes in Reader(dom).elements
        if tag == "a" and attributes.get("aria-selected") == "true"
    ]


@pytest.mark.parametrize(
    ("fragment", "panel"), [("", "best"), ("#worst", "worst"), ("#random", "random"), ("#nonsense", "best")]
)
def test_the_address_says_which_samples_a_browser_shows(
    tmp_path: Path, browse: Browse, fragment: str, panel: str
) -> None:
    page(tmp_path / "page.html")
    dom = browse(f"file://{tmp_path / 'page.html'}{fragment}", "--dump-dom")
    assert chosen_panels(dom) == [panel]
    assert chosen_tabs(dom) == [f"#{panel}"]


def test_a_click_on_a_tab_shows_its_samples(tmp_path: Path, browse: Browse) -> None:
    text = page(tmp_path / "page.html")
    click = "<script>document.querySelector('.tabs a[href=\"#random\"]').click()</script></body>"
    (tmp_path / "clicked.html").write_text(text.replace("</body>", click), encoding="utf-8")
    dom = browse(f"file://{tmp_path / 'clicked.html'}", "--dump-dom")
    assert chosen_panels(dom) == ["random"]
    assert chosen_tabs(dom) == ["#random"]


def screenshot(browse: Browse, page: Path, *options: str) -> np.ndarray:
    target = page.with_suffix(".png")
    browse(f"file://{page}", f"--screenshot={target}", "--window-size=1240,2600", *options)
    return np.asarray(Image.open(target).convert("RGB")).astype(int)


MEASURED = {
    "numbers on bars": """[...document.querySelectorAll(".plot g")].filter((row) => {
        const texts = [...row.querySelectorAll(".number, .tick")].map((text) => text.getBBox());
        const drawn = [...row.querySelectorAll("rect, path")].map((shape) => shape.getBBox());
        const [number, count] = texts;
        return drawn.some((box) => box.x + box.width > number.x) || number.x + number.width > count.x
            || count.x + count.width > 480;
    }).length""",
    "rows": "document.querySelectorAll('.plot g').length",
    "too wide": "document.documentElement.scrollWidth - innerWidth",
}


@pytest.mark.parametrize("width", [500, 1240])
def test_numbers_stand_beside_their_bars_and_nothing_is_wider_than_the_page(
    tmp_path: Path, browse: Browse, width: int
) -> None:
    many = [made.row(i, category=f"{'W' * 30} {i % 9}", iou=float(i % 9 < 7), box=(0, 0, 300, 200)) for i in range(90)]
    counted = summarize(header(data="d" * 300), many)
    groups = {name: group.model_copy(update={"samples": 1_234_567}) for name, group in counted.by_category.items()}
    counted = counted.model_copy(update={"by_category": groups})
    write_report(tmp_path / "p.html", header(data="d" * 300), counted, many, made.picture)
    told = ", ".join(f'"{name}": {code}' for name, code in MEASURED.items())
    script = f"<script>document.title = JSON.stringify({{{told}}})</script></body>"
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    (tmp_path / "measured.html").write_text(text.replace("</body>", script), encoding="utf-8")
    dom = browse(f"file://{tmp_path / 'measured.html'}", "--dump-dom", f"--window-size={width},900")
    found = json.loads(re.findall("<title>(.*?)</title>", dom)[0])
    assert found == {"numbers on bars": 0, "rows": 10, "too wide": 0}


@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_paints_scores_plots_and_pictures_in_both_schemes(tmp_path: Path, browse: Browse, dark: bool) -> None:
    page(tmp_path / "page.html")
    scheme = "--blink-settings=preferredColorScheme=" + ("0" if dark else "1")
    pixels = screenshot(browse, tmp_path / "page.html", scheme)
    assert pixels.shape == (2600, 1240, 3)
    background = pixels[5, 5]
    assert (background.max() < 60) if dark else (background.min() > 220)
    different = np.abs(pixels - background).max(axis=2) > 40
    assert different[:120].sum() > 2000  # name and headline
    assert different[150:800].mean() > 0.02  # scores and plots
    shapes = [(220, 20, 60), (65, 105, 225), (218, 165, 32)]  # the colours that the pictures are drawn with
    painted = [(np.abs(pixels[800:] - np.array(color)).max(axis=2) < 25).sum() for color in shapes]
    assert sum(count > 1000 for count in painted) >= 2
    for color in ((18, 196, 139), (255, 122, 26)):  # target and found
        assert (np.abs(pixels[800:] - np.array(color)).max(axis=2) < 40).sum() > 300


def test_without_scripts_every_sample_is_there(tmp_path: Path, browse: Browse) -> None:
    text = page(tmp_path / "page.html")
    plain = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    path = tmp_path / "plain.html"
    measure = (
        "<script>document.title = [...document.querySelectorAll('.gallery')].map((g) => g.offsetHeight > 500)</script>"
    )
    path.write_text(plain.replace("</body>", f"{measure}</body>"), encoding="utf-8")
    dom = browse(f"file://{path}", "--dump-dom")
    assert "<title>true,true,true</title>" in dom
    path.write_text(text.replace("</body>", f"{measure}</body>"), encoding="utf-8")
    assert "<title>true,false,false</title>" in browse(f"file://{path}", "--dump-dom")
