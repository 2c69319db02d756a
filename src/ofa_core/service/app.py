"""The application: its addresses, who may call them, and the way of a request to the model and back."""

from __future__ import annotations

import asyncio
import hmac
import math
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi_swagger import patch_fastapi
from starlette.exceptions import HTTPException

from .. import api
from ..errors import OFAError
from ..heads.pipeline import PreparedImage
from ..version import __version__
from .answers import CommonAnswer, ErrorAnswer, Health
from .batching import Batcher
from .metrics import Metrics
from .openapi import request_body, responses
from .reading import FORM, Refused, checked, fields_of, prepared, read_body
from .settings import ServiceSettings
from .tasks import TASKS, Answerer, Sample, ServedTask

#: Threads that decode pictures.
_DECODERS = 2
#: The status of an answer that nobody waits for any more.
_GONE = 499


class Service:
    """A model behind a queue.

    Args:
        ofa: the model.
        name: what it is called.
        settings: the limits.
    """

    def __init__(self, ofa: api.OFA, name: str, settings: ServiceSettings) -> None:
        self.ofa, self.name, self.settings = ofa, name, settings
        self.metrics = Metrics()
        self.answerer = Answerer(ofa)
        self.under_way = 0
        #: Seconds that a request took lately, from the model's beginning with its batch, by itself.
        self._seconds_each = 0.1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer requests in the block, and finish those that came before its end."""
        self.batcher = Batcher(self._computed, self.settings.batch_size, self.settings.batch_wait)
        self._decoders = ThreadPoolExecutor(_DECODERS, thread_name_prefix="pictures")
        self.metrics.under_way.set_function(lambda: self.under_way)
        self.metrics.waiting.set_function(lambda: len(self.batcher))
        await asyncio.to_thread(self.answerer.warm_up)
        self.batcher.start()
        try:
            yield
        finally:
            await self.batcher.close()
            self._decoders.shutdown()

    def _computed(self, key: Hashable, samples: Sequence[Sample]) -> Sequence[CommonAnswer | Exception]:
        """Answers of a batch, in the thread of the model."""
        began = time.perf_counter()
        found = self.answerer(key, samples)
        seconds = time.perf_counter() - began
        self._seconds_each += 0.2 * (seconds / len(samples) - self._seconds_each)
        task = samples[0].task.name
        self.metrics.batch_sizes.labels(task).observe(len(samples))
        self.metrics.batch_seconds.labels(task).observe(seconds)
        return found

    async def respond(self, task: ServedTask, request: Request) -> Response:
        """The response to a request, whatever it is."""
        began = time.perf_counter()
        try:
            response = await self._admitted(task, request)
        except Refused as refused:
            response = refusal(refused)
        except Exception as error:  # a fault of the service itself
            response = refusal(failed(error))
        self.metrics.requests.labels(task.name, str(response.status_code)).inc()
        self.metrics.seconds.labels(task.name).observe(time.perf_counter() - began)
        return response

    async def _admitted(self, task: ServedTask, request: Request) -> Response:
        self.check_key(request)
        if self.under_way >= self.settings.queue_size:
            wait = max(1, math.ceil(self._seconds_each * self.under_way))
            raise Refused(429, f"{self.under_way} requests are under way; try again later", {"Retry-After": str(wait)})
        self.under_way += 1
        try:
            return await self._within_time(task, request)
        finally:
            self.under_way -= 1

    async def _within_time(self, task: ServedTask, request: Request) -> Response:
        """The answer, unless it takes too long or nobody waits for it any more."""
        body = await read_body(request, self.settings.max_bytes, self.settings.read_timeout)
        answering = asyncio.ensure_future(self._answer(task, body, request))
        leaving = asyncio.ensure_future(_disconnected(request))
        both = {answering, leaving}
        try:
            done, _ = await asyncio.wait(both, timeout=self.settings.timeout, return_when=asyncio.FIRST_COMPLETED)
            if answering in done:
                return answering.result()
            if leaving in done:
                return Response(status_code=_GONE)
            raise Refused(504, f"there was no answer within {self.settings.timeout:g} s")
        finally:
            for each in both:
                each.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*both, return_exceptions=True)

    async def _answer(self, task: ServedTask, body: bytes, request: Request) -> Response:
        fields = await fields_of(body, request.headers)
        form = request.headers.get("content-type", "").lower().startswith(FORM)
        asked: Any = checked(task.request, fields, form=form)
        picture = None
        if asked.image is not None:
            picture = await self._picture(task, asked.image)
            asked = asked.model_copy(update={"image": b""})  # the file is held once
        try:
            answer: CommonAnswer = await self.batcher.submit(task.key(asked), Sample(task, asked, picture))
        except OFAError as error:
            raise Refused(422, str(error)) from None
        except Exception as error:
            raise failed(error) from None
        return Response(answer.model_dump_json(), media_type="application/json")

    async def _picture(self, task: ServedTask, picture: bytes) -> PreparedImage:
        pipeline = self.ofa.pipeline if task.spec is None else self.ofa.pipeline.for_task(task.spec)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._decoders, prepared, pipeline, picture, self.settings.max_pixels)

    def check_key(self, request: Request) -> None:
        """Let only those pass who know the key.

        Raises:
            Refused: it is missing or another.
        """
        if self.settings.key is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = request.headers.get("x-api-key", "")
        if not hmac.compare_digest(given.strip().encode(), self.settings.key.encode()):
            reason = "the key is missing or wrong; it should stand in 'Authorization: Bearer KEY'"
            raise Refused(401, reason, {"WWW-Authenticate": "Bearer"})


async def _disconnected(request: Request) -> None:
    """Wait until the caller is gone; its body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def failed(error: Exception) -> Refused:
    """The refusal of what failed for no fault of the request; the cause goes to stderr."""
    traceback.print_exception(error, file=sys.stderr)
    return Refused(500, f"this failed: {type(error).__name__}")


def refusal(refused: Refused) -> Response:
    """The response to what is refused."""
    body = ErrorAnswer(error=refused.reason).model_dump_json()
    return Response(body, refused.status, refused.headers, "application/json")


def create_app(ofa: api.OFA, name: str = "", settings: ServiceSettings | None = None) -> FastAPI:
    """Make the service's application, for any ASGI server.

    Args:
        ofa: the model.
        name: what it is called in ``/health``.
        settings: the limits.

    Returns:
        The application; the model answers in a thread of its own, so that one application is served by one process.
    """
    service = Service(ofa, name, settings or ServiceSettings())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="ofa_core",
        version=__version__,
        description="Questions about pictures; boxes are x0, y0, x1, y1 in pixels of the picture that was sent.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    patch_fastapi(app)
    for task in TASKS.values():
        app.add_api_route(
            f"/v1/{task.name}",
            _endpoint(service, task),
            methods=["POST"],
            name=task.name,
            summary=task.summary,
            description=task.request.__doc__,
            response_model=task.answer,
            responses=responses(with_key=service.settings.key is not None),
            openapi_extra=request_body(task.request),
        )
    _add_state(app, service)
    _add_errors(app)
    return app


def _endpoint(service: Service, task: ServedTask) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await service.respond(task, request)

    return endpoint


def _add_state(app: FastAPI, service: Service) -> None:
    """Add what tells about the service itself."""

    async def health() -> Health:
        return Health(status="ok", model=service.name, version=__version__, under_way=service.under_way)

    async def metrics(request: Request) -> Response:
        service.check_key(request)
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    app.add_api_route("/health", health, methods=["GET"], summary="Whether it answers")
    app.add_api_route(
        "/metrics",
        metrics,
        methods=["GET"],
        summary="Numbers for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )


def _add_errors(app: FastAPI) -> None:
    """Give every error one form: ``{"error": "one line"}``."""

    async def refused(_: Request, error: Exception) -> Response:
        return refusal(error if isinstance(error, Refused) else Refused(500, f"{type(error).__name__}"))

    async def of_server(_: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        reasons = {404: "there is nothing at this address; /docs lists what there is", 405: "another method is meant"}
        headers = getattr(error, "headers", None)
        return refusal(Refused(status, reasons.get(status, str(getattr(error, "detail", error))), headers))

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(HTTPException, of_server)
