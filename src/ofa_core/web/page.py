"""The page: one picture, and a tab for each thing that can be asked about it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from .. import api
from ..errors import OFAError
from ..heads.chat_styles import CHAT_STYLES
from ..vision.boxes import Box
from ..vision.images import open_image
from . import games, markup, region, work

#: Events that ask a model wait for each other: a model answers one at a time.
_MODEL: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "show_progress": "hidden"}
_AGENT, _ORACLE = "the model finds what I mean", "I find what the model knows (mark a region first)"
#: Tasks in which two models can be compared.
_COMPARED = ("Find", "Ask", "Describe", "Detect")
#: Pictures that are drawn at once at most.
_MOST_DRAWN = 8
_CSS = Path(__file__).with_name("page.css")

Steps = Iterator[Any]


class Page:
    """The page's parts, and what happens when they are used.

    Args:
        models: the models with their names; the first one answers, all of them can be compared.
        examples: files of pictures to begin with.
        painter: the model that draws pictures of texts, with its name; None: there is none.
    """

    def __init__(
        self,
        models: Sequence[tuple[str, api.OFA]],
        examples: Sequence[Path],
        painter: tuple[str, api.OFA] | None = None,
    ) -> None:
        self._models, self._examples, self._painter = list(models), examples, painter
        self._names = [name for name, _ in models]
        self._ofa = models[0][1]

    def blocks(self) -> gr.Blocks:
        """Build it."""
        with gr.Blocks(title="ofa_core", analytics_enabled=False) as blocks:
            others = f" The others are {', '.join(self._names[1:])}." if self._names[1:] else ""
            gr.Markdown(f"# ofa_core\nAsk **{self._names[0]}** about a picture.{others}")
            with gr.Row():
                with gr.Column(scale=1, min_width=300):
                    self._build_picture()
                with gr.Column(scale=2, min_width=300), gr.Tabs(overflow_behavior="wrap"):
                    self._build_find()
                    self._build_talk()
                    self._build_ask()
                    self._build_describe()
                    self._build_detect()
                    self._build_imagine()
                    self._build_watch()
                    self._build_compare()
        return blocks

    # Parts

    def _build_picture(self) -> None:
        self._picture = gr.Image(
            type="filepath",
            image_mode=None,
            sources=["upload", "webcam", "clipboard"],
            label="Picture",
            height=260,
            elem_id="picture",
        )
        self._picture.preprocess = lambda payload: payload and payload.path  # it is opened where errors are told
        gr.Examples([[str(path)] for path in self._examples], [self._picture], label="or take one of these")
        self._picture_told = gr.HTML(markup.status("no picture yet"), elem_id="picture-status")
        with gr.Accordion("Mark a region", open=False, elem_id="region"):
            self._marking = gr.HTML("", js_on_load=region.DRAGGING, elem_id="marking")
            self._region = gr.Textbox(
                label="Region: x0, y0, x1, y1 in pixels",
                placeholder="drag over the picture, or type",
                elem_id="corners",
            )
        self._picture.change(self._looked, [self._picture], [self._picture_told, self._marking, self._region])
        self._marking.submit(_dragged, None, [self._region])
        self._region.change(self._marked, [self._picture, self._region], [self._marking], show_progress="hidden")

    def _tab(self, name: str, run: Any, inputs: Sequence[Any], button: str, enters: Sequence[Any] = ()) -> None:
        """A button below a tab's inputs, a line that tells what is being done, and the result."""
        key = name.lower()
        pressed = gr.Button(button, variant="primary", elem_id=f"{key}-run")
        told = gr.HTML(markup.status(""), elem_id=f"{key}-status")
        shown = gr.HTML("", elem_id=f"{key}-result")
        triggers = [pressed.click, *(box.submit for box in enters)]
        gr.on(triggers, _told(run), [self._picture, *inputs], [told, shown], api_name=key, **_MODEL)

    def _build_find(self) -> None:
        with gr.Tab("Find"):
            phrase = gr.Textbox(label="Phrase", placeholder="the red circle", elem_id="find-phrase")
            self._tab("Find", self._find, [phrase], "Find", [phrase])

    def _build_ask(self) -> None:
        with gr.Tab("Ask"):
            question = gr.Textbox(label="Question", placeholder="what color is the circle?", elem_id="ask-question")
            candidates = gr.Textbox(
                label="Candidates, separated by commas (none: any answer)",
                placeholder="red, green",
                elem_id="ask-candidates",
            )
            self._tab("Ask", self._ask, [self._region, question, candidates], "Ask", [question, candidates])

    def _build_describe(self) -> None:
        with gr.Tab("Describe"):
            gr.Markdown("Describes the picture, and the region that is marked.")
            self._tab("Describe", self._describe, [self._region], "Describe")

    def _build_detect(self) -> None:
        with gr.Tab("Detect"):
            names = gr.Textbox(label="Names of things, separated by commas (none: everything)", elem_id="detect-names")
            self._tab("Detect", self._detect, [names], "Detect", [names])

    def _build_imagine(self) -> None:
        with gr.Tab("Imagine"):
            if self._painter is None:
                gr.Markdown("Start with `ofa-core web --model NAME --draw OTHER`, a model that draws pictures.")
            else:
                gr.Markdown(f"**{self._painter[0]}** draws pictures of a text, the best first.")
            text = gr.Textbox(label="Text", placeholder="a red circle and a blue square", elem_id="imagine-text")
            count = gr.Slider(1, _MOST_DRAWN, value=4, step=1, label="Pictures", elem_id="imagine-count")
            self._tab("Imagine", self._imagine, [text, count], "Draw", [text])

    def _build_watch(self) -> None:
        with gr.Tab("Watch"):
            gr.Markdown("Two models play: the oracle knows the region that is marked, the agent asks and finds it.")
            agent = gr.Dropdown(self._names, value=self._names[0], label="Agent", elem_id="watch-agent")
            oracle = gr.Dropdown(self._names, value=self._names[-1], label="Oracle", elem_id="watch-oracle")
            game = gr.Radio(list(games.GAMES), value=next(iter(games.GAMES)), label="Game", elem_id="watch-game")
            self._tab("Watch", self._watch, [self._region, agent, oracle, game], "Play")

    def _build_compare(self) -> None:
        with gr.Tab("Compare"):
            if len(self._names) < 2:
                gr.Markdown("Start with `ofa-core web --model NAME --compare OTHER` to see two models side by side.")
            first = gr.Dropdown(self._names, value=self._names[0], label="Left", elem_id="compare-left")
            second = gr.Dropdown(self._names, value=self._names[-1], label="Right", elem_id="compare-right")
            what = gr.Radio(_COMPARED, value=_COMPARED[0], label="Compare in", elem_id="compare-what")
            text = gr.Textbox(label="Phrase, question or names", elem_id="compare-text")
            self._tab("Compare", self._compare, [self._region, first, second, what, text], "Compare", [text])

    def _build_talk(self) -> None:
        with gr.Tab("Talk"):
            role = gr.Radio([_AGENT, _ORACLE], value=_AGENT, label="Who finds what", elem_id="talk-role")
            style = gr.Dropdown(
                list(CHAT_STYLES), value=CHAT_STYLES[0], label="Kind of conversation", elem_id="talk-style"
            )
            shown = gr.HTML("", elem_id="talk-result")
            told = gr.HTML(markup.status(""), elem_id="talk-status")
            text = gr.Textbox(label="You say", placeholder="I want the red one", elem_id="talk-text")
            with gr.Row():
                send = gr.Button("Say", variant="primary", elem_id="talk-run")
                begin = gr.Button("Start", elem_id="talk-start")
                undo = gr.Button("Take back", elem_id="talk-undo")
            talk = gr.State(None)  # within the tab: beside the tabs, it would count as one of them
        seen = [self._picture, self._region, role, style]
        outputs = [told, shown, talk, text]
        gr.on([send.click, text.submit], _told(self._say), [*seen, talk, text], outputs, api_name="talk", **_MODEL)
        begin.click(_told(self._start), seen, outputs, api_name=False, **_MODEL)
        undo.click(_told(_taken_back), [talk], outputs, api_name=False, **_MODEL)
        gr.on([part.change for part in (self._picture, role, style)], _forgotten, None, outputs, show_progress="hidden")

    # What happens

    def _looked(self, path: str | None) -> tuple[str, str, str]:
        """Tell what picture there is now, and let a region be marked on it."""
        if path is None:
            return markup.status("no picture yet"), "", ""
        try:
            picture = opened(path)
        except OFAError as error:
            return markup.status(str(error), is_error=True), "", ""
        told = f"the picture has {picture.width} × {picture.height} pixels"
        return markup.status(told), region.marking(picture, None), ""

    def _marked(self, path: str | None, corners: str) -> Any:
        try:
            picture = opened(path)
            return region.marking(picture, region.parsed_region(corners, picture))
        except OFAError:  # it is still being typed; who uses it is told
            return gr.skip()

    def _find(self, path: str | None, phrase: str) -> Steps:
        return work.find(self._ofa, opened(path), phrase)

    def _ask(self, path: str | None, corners: str, question: str, candidates: str) -> Steps:
        picture, box = self._opened(path, corners)
        return work.ask(self._ofa, picture, question, candidates, box)

    def _describe(self, path: str | None, corners: str) -> Steps:
        return work.describe(self._ofa, *self._opened(path, corners))

    def _detect(self, path: str | None, names: str) -> Steps:
        return work.detect(self._ofa, opened(path), names)

    def _imagine(self, _: str | None, text: str, count: float) -> Steps:
        if self._painter is None:
            raise OFAError("no model that draws was named: ofa-core web --draw NAME")
        return work.imagine(self._painter[1], text, int(count))

    def _watch(self, path: str | None, corners: str, agent: str, oracle: str, game: str) -> Steps:
        return games.watch(self._named(agent), self._named(oracle), *self._opened(path, corners), game)

    def _compare(self, path: str | None, corners: str, first: str, second: str, what: str, text: str) -> Steps:
        picture, box = self._opened(path, corners)
        asked: dict[str, work.Compared] = {
            "Find": lambda ofa, seen: work.find(ofa, seen, text),
            "Ask": lambda ofa, seen: work.ask(ofa, seen, text, None, box),
            "Describe": lambda ofa, seen: work.describe(ofa, seen, box),
            "Detect": lambda ofa, seen: work.detect(ofa, seen, text),
        }
        models = [(name, self._named(name)) for name in (first, second)]
        return work.compare(models, picture, asked[what])

    def _start(self, path: str | None, corners: str, role: str, style: Any) -> Steps:
        yield "a conversation begins …", "", None, gr.skip()
        talk = self._begun(path, corners, role, style)
        told = "the model began; ask it" if talk.turns else "say what you mean"
        yield told, talk.shown(), talk, gr.skip()

    def _say(self, path: str | None, corners: str, role: str, style: Any, talk: Any, text: str) -> Steps:
        if talk is None:
            yield "a conversation begins …", "", None, gr.skip()
            talk = self._begun(path, corners, role, style)
        work.required(text, "text")
        for told, shown in games.say(talk, text):
            yield told, shown, talk, ""

    def _begun(self, path: str | None, corners: str, role: str, style: Any) -> games.Talk:
        picture, box = self._opened(path, corners)
        if role == _ORACLE and box is None:
            raise OFAError("no region is marked yet, which the model would know: open 'Mark a region'")
        return games.begin(self._ofa, picture, style, box if role == _ORACLE else None)

    def _opened(self, path: str | None, corners: str) -> tuple[Image.Image, Box | None]:
        picture = opened(path)
        return picture, region.parsed_region(corners, picture)

    def _named(self, name: str) -> api.OFA:
        return dict(self._models)[name]


def opened(path: str | None) -> Image.Image:
    """The picture.

    Raises:
        OFAError: there is none, or it cannot be read.
    """
    if path is None:
        raise OFAError("there is no picture yet: drop one, or take one of the examples")
    return open_image(Path(path), name="the picture")


def _dragged(event: gr.EventData) -> str:
    x0, y0, x1, y1 = map(float, event.box)
    return region.region_text((x0, y0, x1, y1))


def _forgotten() -> tuple[str, str, None, Any]:
    """A conversation about another picture, or in another role, is a new one."""
    return markup.status(""), "", None, gr.skip()


def _taken_back(talk: Any) -> Steps:
    if talk is None:
        raise OFAError("nothing was said yet: there is nothing to take back")
    yield games.take_back(talk), talk.shown(), talk, gr.skip()


def _told(run: Callable[..., Steps]) -> Callable[..., Steps]:
    """Work whose first output is a status line, in which errors are told in words; what is there stays."""

    def telling(*inputs: Any) -> Steps:
        step: Sequence[Any] = ("", gr.skip())
        try:
            for step in run(*inputs):
                yield markup.status(step[0]), *step[1:]
        except OFAError as error:
            yield markup.status(str(error), is_error=True), *_kept(run)
        except Exception as error:
            traceback.print_exception(error, file=sys.stderr)
            yield markup.status(f"this failed: {type(error).__name__}: {error}", is_error=True), *_kept(run)

    return telling


def _kept(run: Callable[..., Steps]) -> list[Any]:
    """The outputs behind the status line, left as they are."""
    conversation = run.__name__ in ("_say", "_start", "_taken_back")
    return [gr.skip()] * (3 if conversation else 1)


def look() -> dict[str, Any]:
    """The page's looks: the system's own fonts, so that nothing is asked of another server."""
    theme = gr.themes.Soft(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    return {"theme": theme, "css": _CSS.read_text(encoding="utf-8")}
