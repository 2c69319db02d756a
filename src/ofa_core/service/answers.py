"""Answers of the service, as JSON has them: boxes are x0, y0, x1, y1 in pixels of the picture that was sent."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ErrorAnswer(BaseModel):
    """The reason for which a request was not answered, in one line."""

    error: str


class Region(BaseModel):
    """One region of several."""

    model_config = ConfigDict(from_attributes=True)

    box: tuple[float, float, float, float] = Field(description="x0, y0, x1, y1 in pixels of the picture")
    label: str
    score: float


class CommonAnswer(BaseModel):
    """Parts of every answer."""

    model_config = ConfigDict(from_attributes=True)

    warnings: list[str] = Field(default_factory=list, description="what a caller should know about this answer")


class Alternative(BaseModel):
    """A box of another beam."""

    model_config = ConfigDict(from_attributes=True)

    box: tuple[float, float, float, float] | None
    score: float


class GroundAnswer(CommonAnswer):
    """The box of a phrase, or null in its place."""

    box: tuple[float, float, float, float] | None = Field(description="x0, y0, x1, y1 in pixels of the picture")
    score: float
    confidence: float | None
    present: float | None
    text: str
    bins: tuple[int, ...] | None
    token_scores: tuple[float, ...]
    alternatives: list[Alternative]
    regions: list[Region]


class DetectAnswer(CommonAnswer):
    """Everything that was found."""

    regions: list[Region]
    text: str


class TextAnswer(CommonAnswer):
    """A text of the model."""

    text: str
    score: float
    alternatives: list[str]


class AnswerAnswer(CommonAnswer):
    """An answer, with the probability of each that was allowed."""

    answer: str
    score: float
    probabilities: dict[str, float]
    alternatives: list[str]


class ChatAnswer(CommonAnswer):
    """The model's turn, and what the next request has to bring along."""

    text: str
    regions: list[Region]
    done: bool
    history: list[tuple[str, str]]
    opening: str


class Health(BaseModel):
    """The state of the service."""

    status: str
    model: str
    version: str
    under_way: int
