"""The parsers of the commands that serve a model: ``serve`` to programs, ``web`` to people."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...errors import OFAError
from ..options import add_model, count, named_model, positive

#: Ports that are listened on where none is named.
SERVICE_PORT, PAGE_PORT = 8000, 7860


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``serve`` and ``web``."""
    serve = commands.add_parser(
        "serve",
        help="answer programs over HTTP, many requests at once (extra web)",
        examples=("ofa-core serve --model demo --port 8000",),
    )
    add_model(serve)
    _add_address(serve, SERVICE_PORT)
    serve.add_argument("--batch-size", type=positive, default=16, metavar="N", help="requests computed at once (16)")
    serve.add_argument("--batch-wait", type=float, default=10.0, metavar="MS", help="wait for others so long (10)")
    serve.add_argument("--queue", type=positive, default=128, metavar="N", help="requests under way, or else 429 (128)")
    serve.add_argument("--max-megabytes", type=positive, default=20, metavar="N", help="of a request, or else 413 (20)")
    serve.add_argument("--max-megapixels", type=positive, default=40, metavar="N", help="of a picture (40)")
    serve.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds for an answer, or 504 (60)")
    serve.set_defaults(command=_serve)

    web = commands.add_parser(
        "web",
        help="a page to try models on, in a browser (extra web)",
        examples=("ofa-core web --model demo", "ofa-core web --model DIR --compare demo --port 7861"),
    )
    add_model(web)
    _add_address(web, PAGE_PORT)
    web.add_argument("--compare", nargs="+", default=[], metavar="MODEL", help="more models, for Compare and Watch")
    web.add_argument(
        "--draw", metavar="MODEL", help="the model that draws (one of those above that can; demo-pictures beside demo)"
    )
    web.set_defaults(command=_web)


def _add_address(parser: argparse.ArgumentParser, port: int) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (127.0.0.1: this machine alone)")
    parser.add_argument("--port", type=count, default=port, help=f"the port to listen on ({port}); 0: any that is free")


def _serve(args: argparse.Namespace) -> int:
    with _needing_extra():
        from ...service.start import serve
    return serve(named_model(args), args)


def _web(args: argparse.Namespace) -> int:
    with _needing_extra():
        from ...web.start import web
    return web(named_model(args), args)


@contextmanager
def _needing_extra() -> Iterator[None]:
    """Tell what is to be installed where an import in the block does not find it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("ofa_core"):
            raise
        raise OFAError(f"{error.name} is not installed; the extra web has it: pip install '.[web]'") from None
