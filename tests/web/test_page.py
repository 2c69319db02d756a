"""The page in a real browser: every tab, with a mouse, with a keyboard, on a phone, and with a broken picture."""

from __future__ import annotations

import asyncio
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the extra web is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")

import torch
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

import ofa_core
from ofa_core.demo.world import Scene, draw, make_scene
from ofa_core.service.server import listening
from ofa_core.vision.boxes import box_iou
from ofa_core.web.start import page_app, write_examples

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here")

TABS = ("Find", "Talk", "Ask", "Describe", "Detect", "Imagine", "Watch", "Compare")
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
#: Milliseconds for what a model has to answer, on a machine that is busy.
PATIENCE = 240_000
#: Milliseconds for what the page alone has to do.
PROMPT = 30_000
#: Times by which the drawn picture is enlarged, as the page's own examples are.
ENLARGED = 4


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of the demo model, which is there twice, on a free port."""
    ofa, painter = ofa_core.load("demo"), ("demo-pictures", ofa_core.load("demo-pictures"))
    app = page_app([("demo", ofa), ("demo again", ofa)], write_examples(tmp_path_factory.mktemp("examples")), painter)
    with listening("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=5))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(60)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--use-fake-device-for-media-stream"]
        with playwright.chromium.launch(executable_path=CHROMIUM, args=options) as browser:
            yield browser


@pytest.fixture(scope="module")
def context_of(browser: Browser) -> Callable[..., BrowserContext]:
    """What gives the context of some options: one for all tests, so that the page's files are loaded once."""
    return cache(lambda **options: browser.new_context(**dict(options, viewport=dict(options["viewport"]))))


@pytest.fixture
def open_page(context_of: Callable[..., BrowserContext], address: str) -> Iterator[Callable[..., Page]]:
    """What opens the page; behind the test, it asked no other server, and no program of it broke."""
    asked: list[str] = []
    broken: list[str] = []
    pages: list[Page] = []

    def opened(viewport: Mapping[str, int] = DESK, **options: Any) -> Page:
        page = context_of(viewport=tuple(viewport.items()), **options).new_page()
        pages.append(page)
        page.set_default_timeout(PROMPT)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.goto(address, timeout=PATIENCE)
        shown(page)
        return page

    yield opened
    for page in pages:
        page.close()
    own = (f"{address}/", "data:", "blob:")
    assert [url for url in asked if not url.startswith(own)] == []
    assert len(asked) > 5
    assert broken == []


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene(5, "test")


@pytest.fixture(scope="module")
def file(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    picture = draw(scene)
    path = tmp_path_factory.mktemp("pictures") / "scene.png"
    picture.resize((picture.width * ENLARGED, picture.height * ENLARGED)).save(path)
    return path


def shown(page: Page) -> None:
    """Wait until a page that was opened can be used.

    Not until nothing more is loaded: the page keeps a connection open, over which it learns that the server ended.
    """
    expect(page.get_by_role("tab", name="Find")).to_be_visible(timeout=PATIENCE)
    expect(page.locator("#find-run")).to_be_visible(timeout=PATIENCE)
    expect(page.locator("#picture-status")).to_contain_text("no picture yet", timeout=PATIENCE)


def upload(page: Page, path: Path) -> None:
    page.locator("#picture input[type=file]").set_input_files(path)


def ready(page: Page, file: Path) -> None:
    upload(page, file)
    expect(page.locator("#picture-status")).to_contain_text("pixels", timeout=PATIENCE)


def choose(page: Page, tab: str) -> None:
    """Open a tab, and wait until its button is there to be pressed."""
    page.get_by_role("tab", name=tab, exact=True).click()
    expect(page.get_by_role("tab", name=tab, exact=True)).to_have_attribute("aria-selected", "true")
    expect(page.locator(f"#{tab.lower()}-run")).to_be_visible()


def run(page: Page, tab: str, ending: str = "done") -> str:
    """Press a tab's button, and wait until its status tells the end; the text of its result."""
    page.locator(f"#{tab.lower()}-run").click()
    expect(page.locator(f"#{tab.lower()}-status")).to_contain_text(ending, timeout=PATIENCE)
    return page.locator(f"#{tab.lower()}-result").inner_text()


def unique(scene: Scene) -> Any:
    """A shape of which there is no second one like it."""
    names = [thing.name for thing in scene.things]
    return next(thing for thing in scene.things if names.count(thing.name) == 1)


def boxes(text: str) -> list[tuple[float, ...]]:
    return [tuple(map(float, match)) for match in re.findall(r"box (\d+), (\d+), (\d+), (\d+)", text)]


def overlap(box: tuple[float, ...], thing: Any) -> float:
    return float(box_iou(torch.tensor(box), torch.tensor(thing.box) * ENLARGED))


def corners(page: Page, text: str) -> None:
    """Type the corners of a region; again where the entry, which has just unfolded, was not yet the page's own."""
    entry = page.locator("#corners textarea, #corners input")
    page.get_by_role("button", name="Mark a region").click()
    expect(entry).to_be_visible()
    for _ in range(10):
        entry.fill(text)
        page.wait_for_timeout(500)
        if entry.input_value() == text:
            break
    expect(entry).to_have_value(text)


def mark(page: Page, box: tuple[float, ...]) -> None:
    """Type the corners of a thing, and wait until the region is drawn."""
    corners(page, ", ".join(f"{value * ENLARGED:.0f}" for value in box))
    expect(page.locator("#marking .ofa-mark")).to_have_attribute("style", re.compile("left:"), timeout=PATIENCE)


def test_a_box_is_found_where_the_thing_is(open_page: Any, file: Path, scene: Scene) -> None:
    page = open_page()
    ready(page, file)
    thing = unique(scene)
    page.locator("#find-phrase textarea, #find-phrase input").fill(f"the {thing.name}")
    text = run(page, "Find")
    assert "confidence" in text
    assert overlap(boxes(text)[0], thing) > 0.5
    assert page.locator("#find-result img").count() == 2  # the box, and where the model looked
    assert all(page.locator("#find-result img").nth(place).get_attribute("alt") for place in range(2))


def test_a_keyboard_is_enough(open_page: Any, scene: Scene) -> None:
    page = open_page()
    move_to(page, "document.activeElement.classList.contains('gallery-item')")
    page.keyboard.press("Enter")  # an example
    expect(page.locator("#picture-status")).to_contain_text("pixels", timeout=PATIENCE)
    move_to(page, "document.activeElement.closest('#find-phrase') !== null")
    page.keyboard.type(f"the {unique(scene).name}")
    page.keyboard.press("Enter")
    expect(page.locator("#find-status")).to_contain_text("done", timeout=PATIENCE)
    move_to(page, "document.activeElement.innerText === 'Ask'", key="Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#ask-run")).to_be_visible()


def move_to(page: Page, reached: str, key: str = "Tab") -> None:
    """Press Tab until something has the focus."""
    for _ in range(60):
        page.keyboard.press(key)
        if page.evaluate(reached):
            return
    raise AssertionError(f"Tab never leads to {reached}")


def test_every_tab_answers(open_page: Any, file: Path, scene: Scene) -> None:
    page = open_page()
    ready(page, file)
    thing = unique(scene)
    mark(page, thing.box)
    choose(page, "Ask")
    page.locator("#ask-question textarea, #ask-question input").fill(f"what color is the {thing.kind}?")
    page.locator("#ask-candidates textarea, #ask-candidates input").fill("red, green, blue")
    text = run(page, "Ask")
    assert all(name in text for name in ("red", "green", "blue"))
    choose(page, "Describe")
    assert "the region:" in run(page, "Describe")
    choose(page, "Detect")
    found = boxes(run(page, "Detect"))
    assert max(overlap(box, thing) for box in found) > 0.5
    choose(page, "Compare")
    page.locator("#compare-text textarea, #compare-text input").fill(f"the {thing.name}")
    first, second = boxes(run(page, "Compare", "done with both"))[:2]
    assert first == second  # one model, twice
    assert page.locator("#compare-result section").count() == 2


def test_pictures_of_a_text_are_drawn(open_page: Any) -> None:
    """Without a picture to begin with."""
    page = open_page()
    choose(page, "Imagine")
    page.locator("#imagine-run").click()
    expect(page.locator("#imagine-status [role=alert]")).to_contain_text("there is no text yet", timeout=PATIENCE)
    page.locator("#imagine-text textarea, #imagine-text input").fill("a red circle")
    assert run(page, "Imagine").count("a red circle: score") == 4
    assert page.locator("#imagine-result img").count() == 4


def test_two_models_play(open_page: Any, file: Path, scene: Scene) -> None:
    page = open_page()
    ready(page, file)
    choose(page, "Watch")
    page.locator("#watch-run").click()
    expect(page.locator("#watch-status")).to_contain_text("no region is marked yet")
    mark(page, unique(scene).box)
    text = run(page, "Watch")
    assert "IoU" in text or "no region" in text
    assert page.locator("#watch-result li").count() >= 2
    assert page.locator("#watch-result img").count() == 1


def test_a_person_talks_in_either_role(open_page: Any, file: Path, scene: Scene) -> None:
    page = open_page()
    ready(page, file)
    choose(page, "Talk")
    entry = page.locator("#talk-text textarea, #talk-text input")
    entry.fill(f"the {unique(scene).name}")
    entry.press("Enter")
    expect(page.locator("#talk-status")).to_contain_text("answered", timeout=PATIENCE)
    assert page.locator("#talk-result li").count() == 2
    expect(entry).to_have_value("")
    page.locator("#talk-undo").click()
    expect(page.locator("#talk-status")).to_contain_text("taken back")
    assert page.locator("#talk-result li").count() == 0
    page.get_by_role("button", name="Mark a region").click()
    box = dragged(page, unique(scene))
    assert overlap(box, unique(scene)) > 0.9
    page.locator("#talk-role").get_by_text("I find what the model knows").click()
    page.locator("#talk-start").click()
    expect(page.locator("#talk-status")).to_contain_text("the model began", timeout=PATIENCE)
    assert page.locator("#talk-result li").count() == 1
    entry.fill(f"is it {unique(scene).colour}?")
    page.locator("#talk-run").click()
    expect(page.locator("#talk-status")).to_contain_text("answered", timeout=PATIENCE)
    assert page.locator("#talk-result li").count() == 3


def dragged(page: Page, thing: Any) -> tuple[float, ...]:
    """Drag over a thing with the mouse; the corners that the page then tells."""
    picture = page.locator("#marking img")
    picture.scroll_into_view_if_needed()
    frame = picture.bounding_box()
    assert frame is not None
    factor = frame["width"] / float(picture.get_attribute("data-width") or 0) * ENLARGED
    x0, y0, x1, y1 = thing.box
    page.mouse.move(frame["x"] + x0 * factor, frame["y"] + y0 * factor)
    page.mouse.down()
    page.mouse.move(frame["x"] + x1 * factor, frame["y"] + y1 * factor, steps=5)
    page.mouse.up()
    entry = page.locator("#corners textarea, #corners input")
    expect(entry).not_to_have_value("", timeout=PATIENCE)
    return tuple(map(float, entry.input_value().split(",")))


def test_errors_are_told_in_words(open_page: Any, tmp_path: Path, file: Path) -> None:
    page = open_page()
    page.locator("#find-run").click()
    expect(page.locator("#find-status [role=alert]")).to_contain_text("there is no picture yet", timeout=PATIENCE)
    (tmp_path / "broken.png").write_bytes(file.read_bytes()[:200])
    upload(page, tmp_path / "broken.png")
    expect(page.locator("#picture-status [role=alert]")).to_contain_text("cannot be read", timeout=PATIENCE)
    page.locator("#find-phrase textarea, #find-phrase input").fill("the dog")
    page.locator("#find-run").click()
    expect(page.locator("#find-status [role=alert]")).to_contain_text("cannot be read", timeout=PATIENCE)
    page.reload()
    shown(page)
    ready(page, file)
    page.locator("#find-run").click()
    expect(page.locator("#find-status [role=alert]")).to_contain_text("there is no phrase yet", timeout=PATIENCE)
    corners(page, "1, 2, 3")
    choose(page, "Describe")
    page.locator("#describe-run").click()
    expect(page.locator("#describe-status [role=alert]")).to_contain_text("four numbers", timeout=PATIENCE)


def test_a_phone_shows_all_of_it(open_page: Any, file: Path, scene: Scene) -> None:
    page = open_page(viewport=PHONE, has_touch=True, is_mobile=True)
    ready(page, file)
    page.locator("#find-phrase textarea, #find-phrase input").fill(f"the {unique(scene).name}")
    run(page, "Find")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE["width"], "it is to be scrolled sideways"
    for element in page.locator("#find-result img").all():
        frame = element.bounding_box()
        assert frame is not None
        assert frame["x"] >= 0
        assert frame["x"] + frame["width"] <= PHONE["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_system_s_colours_are_taken(open_page: Any, scheme: Any) -> None:
    page = open_page(color_scheme=scheme)
    colour = "getComputedStyle(document.body).backgroundColor"
    page.wait_for_function(f"{colour} !== 'rgba(0, 0, 0, 0)'")  # transparent: the style sheets are being loaded
    brightness = sum(map(int, re.findall(r"\d+", page.evaluate(colour))[:3])) / 3
    assert (brightness < 90) == (scheme == "dark")


@pytest.mark.parametrize("width", [390, 1200])
def test_the_tabs_are_those_that_are_promised(open_page: Any, width: int) -> None:
    page = open_page(viewport={"width": width, "height": 900})
    for tab in TABS:
        choose(page, tab)
        assert page.get_by_role("tab").all_inner_texts() == list(TABS)
        expect(page.get_by_role("tab", name=tab, exact=True)).to_have_attribute("aria-selected", "true")
        expect(page.locator(f"#{tab.lower()}-run")).to_be_visible()
