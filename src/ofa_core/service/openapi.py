"""Parts of the OpenAPI page: requests as JSON or as a form, and the errors that there may be."""

from __future__ import annotations

from typing import Any

from .answers import ErrorAnswer
from .reading import FORM, JSON
from .requests import EXAMPLE_PICTURE, SearchRequest

#: Statuses with which a request is refused, and when.
STATUSES = {
    400: "The body is no JSON, or a form that cannot be read",
    408: "The request did not arrive in time",
    413: "The request or its picture is too large",
    415: "The body is neither JSON nor a form",
    422: "A field is missing, unknown or wrong, or the picture cannot be read",
    429: "Too many requests are under way",
    500: "The model failed",
    504: "There was no answer in time",
}
_WITH_KEY = {401: "The key is missing or wrong"}


def responses(*, with_key: bool) -> dict[int | str, dict[str, Any]]:
    """All refusals, as a route documents them."""
    statuses = STATUSES | (_WITH_KEY if with_key else {})
    return {status: {"model": ErrorAnswer, "description": text} for status, text in sorted(statuses.items())}


def request_body(model: type[SearchRequest]) -> dict[str, Any]:
    """The body of a request, as a route documents it."""
    schema = _inlined(model.model_json_schema())
    example = {name: field["examples"][0] for name, field in schema["properties"].items() if "examples" in field}
    if "image" in schema["properties"]:
        example.setdefault("image", EXAMPLE_PICTURE)
    content = {JSON: {"schema": schema, "example": example}, FORM: {"schema": _as_form(schema)}}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema that refers to nothing; those of requests define nothing by itself."""
    return {name: value for name, value in schema.items() if name != "$defs"}


def _as_form(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a form: the picture as a file."""
    properties = dict(schema["properties"])
    if "image" in properties:
        properties["image"] = {"type": "string", "format": "binary", "description": "the picture's file"}
    return schema | {"properties": properties}
