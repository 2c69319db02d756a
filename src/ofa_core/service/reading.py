"""Requests read from the network, within limits: what is too large is refused before it is held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from ..errors import OFAError, first_problem, shortened
from ..heads.pipeline import Pipeline, PreparedImage
from ..utils.input_files import parse_json
from ..utils.printable import printable
from ..vision.images import TooManyPixelsError, image_size

T = TypeVar("T", bound=BaseModel)

#: Media types of bodies.
JSON, FORM = "application/json", "multipart/form-data"
#: Parts of a form, at most; no request has as many fields.
_MAX_PARTS = 50


class Refused(Exception):  # noqa: N818  # it is no error of the service
    """A request that is not answered, with the HTTP status and the reason in one line.

    Args:
        status: the status.
        reason: what is wrong with the request, and what would be right.
        headers: headers of the answer.
    """

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = printable(shortened(reason, 1000))
        self.headers = dict(headers or {})


async def read_body(request: Request, most: int, seconds: float) -> bytes:
    """The body of a request.

    Args:
        request: the request.
        most: bytes that it may have.
        seconds: time in which it must have come.

    Raises:
        Refused: it is too large, does not come, or its sender is gone.
    """
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > most:
        raise Refused(413, f"the request has {int(told):,} bytes; at most {most:,} are taken", {"Connection": "close"})
    try:
        return await asyncio.wait_for(_read(request, most), seconds)
    except asyncio.TimeoutError:
        raise Refused(408, f"the request did not arrive within {seconds:g} s", {"Connection": "close"}) from None
    except ClientDisconnect:
        raise Refused(400, "the request was cut off") from None


async def _read(request: Request, most: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise Refused(413, f"the request has more than {most:,} bytes, which is the limit", {"Connection": "close"})
        parts.append(part)
    return b"".join(parts)


async def fields_of(body: bytes, headers: Headers) -> dict[str, Any]:
    """The fields of a body of JSON, or of a form, whose fields that are no texts are JSON.

    Raises:
        Refused: it is neither, or damaged.
    """
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media == JSON:
        return _fields_of_json(body)
    if media == FORM:
        return await _fields_of_form(body, headers)
    raise Refused(415, f"the request is of type {shortened(media, 80) or 'none'}; it should be {JSON} or {FORM}")


def _fields_of_json(body: bytes) -> dict[str, Any]:
    try:
        fields = parse_json(body)
    except (ValueError, UnicodeDecodeError) as error:
        raise Refused(400, f"the request is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise Refused(422, f"the request is a {type(fields).__name__}; it should be a JSON object")
    return fields


async def _fields_of_form(body: bytes, headers: Headers) -> dict[str, Any]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    fields: dict[str, Any] = {}
    try:
        form = await MultiPartParser(
            headers, stream(), max_files=_MAX_PARTS, max_fields=_MAX_PARTS, max_part_size=len(body) + 1
        ).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise Refused(400, f"the request is no form that can be read: {getattr(error, 'message', error)}") from None
    try:
        for name, value in form.multi_items():
            if name in fields:
                raise Refused(422, f"{name}: it stands in the form twice")
            fields[name] = await value.read() if isinstance(value, UploadFile) else value
    finally:
        await form.close()
    return fields


def checked(model: type[T], fields: dict[str, Any], *, form: bool) -> T:
    """The fields as a request.

    Args:
        model: the type of the request.
        fields: its fields.
        form: True if they come from a form, in which what is no text is written as JSON.

    Raises:
        Refused: a field is missing, unknown, of another type, or beyond its limits.
    """
    if form:
        fields = {name: _of_form(model, name, value) for name, value in fields.items()}
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise Refused(422, first_problem(error, "the request")) from None


def _of_form(model: type[BaseModel], name: str, value: Any) -> Any:
    """A field of a form: a text or a file as it is, anything else as the JSON that it is written in."""
    field = model.model_fields.get(name)
    if field is None or not isinstance(value, str) or isinstance(field.get_default(call_default_factory=True), str):
        return value
    if field.is_required() and field.annotation is str:
        return value
    if name == "image":
        raise Refused(422, "image: in a form it is a file, with a filename in its Content-Disposition")
    try:
        return parse_json(value)
    except ValueError:
        return value  # such as a style by its name; what is none is told by the validation


def prepared(pipeline: Pipeline, picture: bytes, most: int) -> PreparedImage:
    """A picture as the model takes it.

    Args:
        pipeline: the model.
        picture: the picture's file.
        most: pixels that it may have.

    Raises:
        Refused: it cannot be read, or has too many pixels.
    """
    try:
        width, height = image_size(picture)
        if width * height > most:
            raise Refused(413, f"the image is {width} × {height} pixels; at most {most:,} pixels are taken")
        return pipeline.prepare(picture)
    except TooManyPixelsError as error:
        raise Refused(413, str(error)) from None
    except OFAError as error:
        raise Refused(422, str(error)) from None
