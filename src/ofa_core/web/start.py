"""The start of the page from the command line."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # which gradio reads when it is imported

import gradio as gr
from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .. import api
from ..checkpoint.names import DEMO, DRAWING_DEMO
from ..demo.world import draw, make_scene
from ..errors import OFAError
from ..service.server import is_local, run
from ..utils.printable import printable
from .page import Page, look

#: Scenes of the demo's world that the page offers as examples: other ones than the demo model learned from.
_EXAMPLES = (3, 5, 8, 12)
#: Times by which they are drawn larger.
_ENLARGED = 4
#: Limits for the browser: it asks this server alone, and tells no other where it came from.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; connect-src 'self' data: blob:; "
        "object-src 'none'; base-uri 'self'; form-action 'self'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
#: The largest file that is taken.
_MAX_FILE = "40mb"


def web(model: str, args: argparse.Namespace) -> int:
    """Load the models and serve the page until a signal ends it.

    Args:
        model: a path or a name.
        args: what the command line said.

    Returns:
        The exit code.

    Raises:
        OFAError: a model cannot be loaded, or nothing can listen at the address.
    """
    if not is_local(args.host):
        print(printable(f"ofa-core: warning: anybody who reaches {args.host} may use the page"), file=sys.stderr)
    names = list(dict.fromkeys([model, *args.compare]))
    models = [(name, _loaded(name, args, adapter=args.adapter if name == model else None)) for name in names]
    painter = _painter(models, args)
    with tempfile.TemporaryDirectory(prefix="ofa_core_page_") as place:
        os.environ.setdefault("GRADIO_TEMP_DIR", place)  # what is uploaded goes when the page does
        run(page_app(models, write_examples(Path(place)), painter), args.host, args.port)
    return 0


def _loaded(name: str, args: argparse.Namespace, adapter: Path | None) -> api.OFA:
    return api.load(name, adapter=adapter, device=args.device, dtype=args.dtype, warm_up=True)


def _painter(models: Sequence[tuple[str, api.OFA]], args: argparse.Namespace) -> tuple[str, api.OFA] | None:
    """The model that draws: the one that was named, else the first that can, else the demo's where the demo answers.

    Raises:
        OFAError: the one that was named cannot.
    """
    if args.draw is not None:
        painter = dict(models).get(args.draw) or _loaded(args.draw, args, adapter=None)
        if not painter.draws:
            raise OFAError(f"{args.draw} has no network of image codes, so it draws no pictures")
        return args.draw, painter
    able = [(name, ofa) for name, ofa in models if ofa.draws]
    if able:
        return able[0]
    return (DRAWING_DEMO, _loaded(DRAWING_DEMO, args, adapter=None)) if models[0][0] == DEMO else None


def write_examples(directory: Path) -> list[Path]:
    """Draw pictures to begin with into a directory."""
    paths = []
    for seed in _EXAMPLES:
        picture = draw(make_scene(seed, "test"))
        paths.append(directory / f"example-{seed}.png")
        picture.resize((picture.width * _ENLARGED, picture.height * _ENLARGED)).save(paths[-1])
    return paths


def page_app(
    models: Sequence[tuple[str, api.OFA]], examples: Sequence[Path], painter: tuple[str, api.OFA] | None = None
) -> FastAPI:
    """Make the page's application, for any ASGI server.

    Args:
        models: the models with their names; the first one answers, all of them can be compared.
        examples: files of pictures to begin with.
        painter: the model that draws pictures of texts, with its name; None: there is none.

    Returns:
        The application.
    """
    app = FastAPI(openapi_url=None)
    app.add_middleware(OwnServerAlone)
    blocks = Page(models, examples, painter).blocks().queue(max_size=64)
    return gr.mount_gradio_app(
        app,
        blocks,
        "/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        max_file_size=_MAX_FILE,
        allowed_paths=[],
        **look(),
    )


class OwnServerAlone:
    """Forbids the browser to ask any other server, whatever the page's parts would like to fetch."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, with headers that say so."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, sending)
