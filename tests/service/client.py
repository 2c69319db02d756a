"""A service in this process, asked as its callers ask it, over a socket or without one."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from PIL import Image

from ofa_core import OFA
from ofa_core.service.app import create_app
from ofa_core.service.server import listening
from ofa_core.service.settings import ServiceSettings

#: A short answer, which is quick with any weights.
SHORT = {"max_new_tokens": 6, "num_beams": 2}
#: Fields of a request to each task, without the picture.
FIELDS: dict[str, dict[str, Any]] = {
    "ground": {"text": "the red square"},
    "detect": {},
    "caption": {},
    "answer": {"question": "what color is it?", "candidates": ["red", "green"]},
    "oracle": {"box": [3, 4, 40, 50], "question": "is it red?", "dialog": [["is it a dog?", "no"]]},
    "chat": {"text": "the red one"},
    "generate": {"text": " what does the image describe?"},
}
FIELDS = {task: fields | SHORT for task, fields in FIELDS.items()}


def encoded(picture: Image.Image, form: str = "PNG") -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    picture.save(file, form)
    return file.getvalue()


def as_text(file: bytes) -> str:
    return base64.b64encode(file).decode()


@contextmanager
def served(ofa: OFA, **settings: Any) -> Iterator[httpx.Client]:
    """A client of a service that listens on a free port, and has ended behind the block."""
    with listening("127.0.0.1", 0) as listener:
        app = create_app(ofa, "small", ServiceSettings(**settings))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=30))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=0)
        with httpx.Client(base_url=address, timeout=120, limits=limits, trust_env=False) as client:
            try:
                yield client
            finally:
                server.should_exit = True
                thread.join(60)
    assert not thread.is_alive(), "the service did not end"


def ask(client: httpx.Client, task: str, file: bytes | None, **fields: Any) -> dict[str, Any]:
    """The answer to a request that should be answered."""
    body = {"image": as_text(file)} if file is not None else {}
    response = client.post(f"/v1/{task}", json=body | fields)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = json.loads(response.text)
    return answer


def refused(response: httpx.Response, status: int) -> str:
    """The reason of a refusal: one line of JSON."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    (error,) = json.loads(response.text).items()
    assert error[0] == "error"
    assert "\n" not in error[1]
    assert error[1]
    return str(error[1])
