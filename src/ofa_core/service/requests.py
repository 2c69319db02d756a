"""Requests of the service as people write them: JSON or a form, each field of one type and within limits."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from ..heads.chat_styles import ChatStyle
from ..heads.confidence import Decode
from ..heads.oracle import ANSWERS
from ..text.dialog import Style

#: A red square on white, as an example that every request can be tried with.
EXAMPLE_PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAAL0lEQVR42mP4T2PAMGrBqAVD2IKzysokoVELRi0YtWDUglELhqcF"
    "o1XmqAUjyAIA50AKl2vm+BkAAAAASUVORK5CYII="
)


def decoded_picture(value: Any) -> Any:
    """The bytes of a picture: of a form's file as they are, of a text from base64, behind ``data:...,`` or without."""
    if not isinstance(value, str):
        return value
    text = value.partition(",")[2] if value[:5].lower() == "data:" else value
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a picture is the base64 text of its file, and this is none") from None


PictureBytes = Annotated[
    bytes,
    BeforeValidator(decoded_picture),
    Field(min_length=1, description="the picture's file: in JSON as base64, in a form as a file"),
    WithJsonSchema(
        {
            "type": "string",
            "minLength": 1,
            "contentEncoding": "base64",
            "description": "the picture's file: in JSON as base64 (a data URI will do), in a form as a file",
            "examples": [EXAMPLE_PICTURE],
        }
    ),
]
Phrase = Annotated[str, Field(min_length=1, max_length=4000)]
ShortText = Annotated[str, Field(min_length=1, max_length=500)]
Box = Annotated[list[float], Field(min_length=4, max_length=4, description="x0, y0, x1, y1 in pixels of the picture")]
Rounds = Annotated[
    list[Annotated[list[Annotated[str, Field(max_length=2000)]], Field(min_length=2, max_length=2)]],
    Field(max_length=100),
]


class SearchRequest(BaseModel):
    """Changes to the search for a text; what is not given is the model's own."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    num_beams: int | None = Field(None, ge=1, le=10)
    max_new_tokens: int | None = Field(None, ge=1, le=256)
    length_penalty: float | None = Field(None, ge=-10, le=10)
    no_repeat_ngram_size: int | None = Field(None, ge=0, le=20)


class PictureRequest(SearchRequest):
    """A question about a picture."""

    image: PictureBytes


class GroundRequest(PictureRequest):
    """A phrase, of which the box is wanted."""

    text: Phrase = Field(examples=["the red square"])
    bins_only: bool = False
    threshold: float = Field(0.0, ge=0, le=1)
    confidence: bool | None = None
    decode: Decode | None = None
    all: bool = False


class DetectRequest(PictureRequest):
    """Names of things, of which all boxes are wanted; none for everything."""

    categories: list[ShortText] | None = Field(None, min_length=1, max_length=50)
    threshold: float = Field(0.0, ge=0, le=1)


class CaptionRequest(PictureRequest):
    """A picture that is to be described."""


class AnswerRequest(PictureRequest):
    """A question, with the answers that are allowed or without, about the whole picture or about a region."""

    question: Phrase = Field(examples=["what color is the square?"])
    candidates: list[ShortText] | None = Field(None, min_length=1, max_length=1000)
    box: Box | None = None


class OracleRequest(PictureRequest):
    """A question about a region, behind a dialog."""

    box: Box = Field(examples=[[8, 8, 24, 24]])
    question: Phrase = Field(examples=["is it red?"])
    dialog: Rounds = Field(default_factory=list, description="pairs of a question and its answer")
    style: Style = "guesswhat"
    answers: list[ShortText] = Field(list(ANSWERS), min_length=1, max_length=100)


class ChatRequest(PictureRequest):
    """The next turn of a conversation, of which the caller holds the history.

    With ``box`` the model is the oracle, who knows the region and answers; without, the agent, who finds it.
    """

    text: Annotated[str, Field(max_length=4000)] = Field("", examples=["the red one"])
    history: Rounds = Field(default_factory=list, description="what the last answer gave as its history")
    style: ChatStyle = "invig"
    box: Box | None = None
    opening: Annotated[str, Field(max_length=2000)] = Field(
        "", description="what the last answer gave as its opening, where the model is the oracle"
    )


class GenerateRequest(SearchRequest):
    """A text that the model reads as it is, with a picture or without."""

    image: PictureBytes | None = None
    text: Phrase = Field(examples=[" what does the image describe?"])
    symbols: bool = True
