"""Work of the page's tabs, step by step: each step tells what is being done, and shows what there is so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeAlias

from PIL import Image

from .. import api
from ..errors import OFAError
from ..heads.results import Detection
from ..vision.boxes import Box
from . import markup

#: A line that tells what is being done, and HTML of what there is so far.
Step: TypeAlias = "tuple[str, str]"
Steps: TypeAlias = "Iterator[Step]"


def seconds_since(began: float) -> str:
    """The time that something took."""
    return f"{time.perf_counter() - began:.1f} s"


def required(text: str | None, what: str) -> str:
    """A text that somebody typed.

    Raises:
        OFAError: there is none.
    """
    if text is None or not text.strip():
        raise OFAError(f"there is no {what} yet: type one")
    return text.strip()


def listed(text: str | None) -> list[str]:
    """The parts of a text that are separated by commas or lines."""
    parts = (text or "").replace("\n", ",").split(",")
    return [part.strip() for part in parts if part.strip()]


def labelled(regions: Sequence[Detection]) -> list[tuple[Box, str]]:
    """Regions with the labels that are drawn on them."""
    return [(region.box, f"{region.label} {region.score:.2f}".strip()) for region in regions]


def find(ofa: api.OFA, picture: Image.Image, phrase: str | None) -> Steps:
    """The box of a phrase, how sure it is, and where the model looked."""
    text = required(phrase, "phrase")
    began = time.perf_counter()
    yield f"looking for {text!r} …", ""
    seen = ofa.look(picture)
    found = ofa.ground(seen, text, confidence=True)
    sure = "" if found.confidence is None else f", confidence {found.confidence:.2f}"
    if found.box is None:
        shown = markup.result("no box", f"the model said {found.text!r}{sure}")
        yield f"done in {seconds_since(began)}: there is no box", shown
        return
    known = found.score if found.confidence is None else found.confidence
    told = f"{text}: {markup.box_text(found.box)}, score {found.score:.2f}{sure}"
    drawn = markup.figure(markup.with_boxes(picture, [(found.box, f"{text} {known:.2f}")]), told)
    yield f"found in {seconds_since(began)}; computing where the model looked …", markup.figures([drawn])
    heat = markup.within(ofa.explain(seen, text, found.text).draw())
    yield (
        f"done in {seconds_since(began)}",
        markup.figures([drawn, markup.figure(heat, "where the model looked to decide which thing it is")]),
    )


def ask(ofa: api.OFA, picture: Image.Image, question: str | None, candidates: str | None, region: Box | None) -> Steps:
    """The answer to a question, with the probability of each candidate where there are some."""
    text, allowed = required(question, "question"), listed(candidates)
    began = time.perf_counter()
    yield f"answering {text!r} …", ""
    found = ofa.answer(picture, text, candidates=allowed or None, box=region)
    others = [f"other answers: {', '.join(found.alternatives)}"] if found.alternatives else []
    shares = markup.probabilities(found.probabilities) if found.probabilities else ""
    shown = markup.result(found.answer or "(no answer)", f"score {found.score:.2f}", *others) + shares
    yield f"done in {seconds_since(began)}", shown


def describe(ofa: api.OFA, picture: Image.Image, region: Box | None) -> Steps:
    """A caption of the picture, and of the region that was marked."""
    began = time.perf_counter()
    yield "describing the picture …", ""
    seen = ofa.look(picture)
    found = ofa.caption(seen)
    others = [f"other captions: {'; '.join(found.alternatives)}"] if found.alternatives else []
    shown = markup.result(found.text or "(no caption)", f"score {found.score:.2f}", *others)
    if region is not None:
        yield "describing the region …", shown
        inside = ofa.describe_region(seen, region)
        drawn = markup.with_boxes(picture, [(region, inside.text)])
        shown += markup.figures([markup.figure(drawn, f"the region: {inside.text}, score {inside.score:.2f}")])
    yield f"done in {seconds_since(began)}", shown


def detect(ofa: api.OFA, picture: Image.Image, names: str | None) -> Steps:
    """Everything in a picture, or all things of some names."""
    wanted = listed(names)
    began = time.perf_counter()
    yield f"looking for {', '.join(wanted) or 'everything'} …", ""
    found = ofa.detect(picture, wanted or None)
    lines = [f"{one.label or 'thing'}: {markup.box_text(one.box)}, score {one.score:.2f}" for one in found]
    drawn = markup.figure(markup.with_boxes(picture, labelled(found)), f"{len(found)} found")
    shown = markup.figures([drawn]) + markup.result(f"{len(found)} found", *lines)
    yield f"done in {seconds_since(began)}", shown


def imagine(ofa: api.OFA, text: str | None, count: int) -> Steps:
    """Pictures of a text, shown as they grow, row by row of their codes; in the end the best first."""
    words = required(text, "text")
    began = time.perf_counter()
    yield f"drawing {words!r} …", ""
    grown: SimpleQueue[list[Image.Image] | None] = SimpleQueue()
    with ThreadPoolExecutor(1) as pool:
        drawing = pool.submit(ofa.imagine, words, count=count, batch_size=count, on_row=grown.put)
        drawing.add_done_callback(lambda _: grown.put(None))
        while (parts := grown.get()) is not None:
            told = f"drawing {words!r}: {parts[0].height} of {parts[0].width} rows of pixels …"
            yield told, markup.figures(markup.figure(markup.enlarged(part), "") for part in parts)
    found = drawing.result()
    drawn = [markup.figure(markup.enlarged(one.image), f"{words}: score {one.score:.2f}") for one in found]
    yield f"done in {seconds_since(began)}", markup.figures(drawn)


#: A function from a model and a picture to the steps of what is compared.
Compared: TypeAlias = "Callable[[api.OFA, Image.Image], Steps]"


def compare(models: Sequence[tuple[str, api.OFA]], picture: Image.Image, asked: Compared) -> Steps:
    """The same work of two models, side by side, the first one's before the second's."""
    columns = [""] * len(models)
    telling = ""
    for place, (name, ofa) in enumerate(models):
        for telling, shown in asked(ofa, picture):
            columns[place] = markup.status(f"{name}: {telling}") + shown
            yield f"{name}: {telling}", _beside(columns)
    yield "done with both", _beside(columns)


def _beside(columns: Sequence[str]) -> str:
    return f'<div class="ofa-columns">{"".join(f"<section>{column}</section>" for column in columns)}</div>'
