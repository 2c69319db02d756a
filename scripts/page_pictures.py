"""Take the pictures of the page that stand in the documentation, with the demo model and a Chromium of the system.

``python scripts/page_pictures.py docs/pictures``
"""

from __future__ import annotations

import argparse
import asyncio
import io
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image

import ofa_core
from ofa_core.demo.world import Scene, draw, make_scene
from ofa_core.service.server import listening
from ofa_core.web.start import page_app, write_examples

#: The scene on the pictures, and by how much it is enlarged.
SEED, ENLARGED = 5, 4
#: Milliseconds for an answer.
PATIENCE = 300_000


@contextmanager
def page_of_demo(directory: Path) -> Iterator[str]:
    """The address of a page that serves the demo model."""
    ofa = ofa_core.load("demo")
    app = page_app([("demo", ofa)], write_examples(directory))
    with listening("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def wait_for(page: Any, tab: str, text: str = "done") -> None:
    """Wait until a tab's status holds a text."""
    page.wait_for_function(
        "([id, text]) => document.getElementById(id)?.innerText.includes(text)", arg=[f"{tab}-status", text]
    )


def find(page: Any, scene: Scene) -> None:
    """Find a shape."""
    page.locator("#find-phrase textarea, #find-phrase input").fill(f"the {scene.things[0].name}")
    page.locator("#find-run").click()
    wait_for(page, "find")


def talk(page: Any, scene: Scene) -> None:
    """Let the model find out which shape is meant."""
    page.get_by_role("tab", name="Talk", exact=True).click()
    for said in (f"i want the {scene.things[0].name}.", "the right one."):
        page.locator("#talk-text textarea, #talk-text input").fill(said)
        page.locator("#talk-run").click()
        wait_for(page, "talk", "thinking")
        wait_for(page, "talk", "answered")


def watch(page: Any, scene: Scene) -> None:
    """Let the model play with itself."""
    page.get_by_role("button", name="Mark a region").click()
    corners = ", ".join(f"{value * ENLARGED:.0f}" for value in scene.things[0].box)
    page.locator("#corners textarea, #corners input").fill(corners)
    page.get_by_role("tab", name="Watch", exact=True).click()
    page.locator("#watch-run").click()
    wait_for(page, "watch")


#: Pictures: what is done first, and how the browser is opened.
PICTURES: dict[str, tuple[Callable[[Any, Scene], None], dict[str, Any]]] = {
    "web-find": (find, {"viewport": {"width": 1200, "height": 760}}),
    "web-talk": (talk, {"viewport": {"width": 400, "height": 900}, "is_mobile": True, "has_touch": True}),
    "web-watch": (watch, {"viewport": {"width": 1400, "height": 1000}, "color_scheme": "dark"}),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="where to write them")
    parser.add_argument("names", nargs="*", choices=[*PICTURES, []], help="only these")
    args = parser.parse_args(argv)
    from playwright.sync_api import sync_playwright

    args.out.mkdir(parents=True, exist_ok=True)
    scene = make_scene(SEED, "test")
    with tempfile.TemporaryDirectory() as place, page_of_demo(Path(place)) as address, sync_playwright() as playwright:
        file = Path(place) / "scene.png"
        small = draw(scene)
        small.resize((small.width * ENLARGED, small.height * ENLARGED)).save(file)
        chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        with playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]) as browser:
            for name in args.names or PICTURES:
                act, options = PICTURES[name]
                page = browser.new_context(**options).new_page()
                page.set_default_timeout(PATIENCE)
                page.goto(address)
                page.locator("#picture input[type=file]").set_input_files(file)
                wait_for(page, "picture", "pixels")
                act(page, scene)
                shot = Image.open(io.BytesIO(page.screenshot(full_page=True)))
                shot.save(args.out / f"{name}.webp", quality=82)
    return 0


if __name__ == "__main__":
    sys.exit(main())
