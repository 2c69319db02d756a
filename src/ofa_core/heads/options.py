"""Options of the methods of :class:`~ofa_core.OFA`, by name, so that editors complete them and checkers check them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from ..generation.options import SearchOptions
from ..generation.scoring import DecoderPrompt
from ..text.dialog import Style
from .answering import OnError
from .confidence import Decode
from .detection import DetectionStyle
from .grounding import Presence
from .image_generation import OnRow, Rank
from .oracle import Scoring
from .vqa import Method


class BatchOptions(TypedDict, total=False):
    """Options of every method."""

    batch_size: int
    progress: bool
    on_error: OnError


class PromptOptions(BatchOptions, total=False):
    """Options of a method whose prompt may be another."""

    prompt: str | None


class ClosedSetOptions(PromptOptions, total=False):
    """Options of a method that decides between given answers."""

    decoder_prompt: DecoderPrompt | None


class TextOptions(SearchOptions, BatchOptions, total=False):
    """Options of a method that searches for a text."""


class GenerateOptions(TextOptions, total=False):
    """Options of :meth:`~ofa_core.OFA.generate`."""

    symbols: bool


class PromptedTextOptions(SearchOptions, PromptOptions, total=False):
    """Options of a method that searches for a text and whose prompt may be another."""


class GroundOptions(SearchOptions, PromptOptions, total=False):
    """Options of :meth:`~ofa_core.OFA.ground`."""

    bins_only: bool
    threshold: float
    confidence: bool | None
    decode: Decode | None
    all: bool
    presence: Presence | None


class SureOptions(BatchOptions, total=False):
    """Options of :meth:`~ofa_core.OFA.ground_caption`."""

    confidence: bool | None
    decode: Decode | None


class ExplainOptions(PromptOptions, total=False):
    """Options of :meth:`~ofa_core.OFA.explain`."""

    gradients: bool


class AgentOptions(TextOptions, total=False):
    """Options of :meth:`~ofa_core.OFA.agent_turn`."""

    ambiguity: bool
    ask_above: float | None


class DetectOptions(SearchOptions, PromptOptions, total=False):
    """Options of :meth:`~ofa_core.OFA.detect`."""

    style: DetectionStyle | None
    threshold: float


class GroundDialogOptions(SearchOptions, BatchOptions, total=False):
    """Options of :meth:`~ofa_core.OFA.ground_dialog`."""

    style: Style
    threshold: float
    confidence: bool | None
    decode: Decode | None


class AskOptions(SearchOptions, BatchOptions, total=False):
    """Options of :meth:`~ofa_core.OFA.ask`."""

    style: Style


class OracleOptions(SearchOptions, BatchOptions, total=False):
    """Options of :meth:`~ofa_core.OFA.oracle`."""

    style: Style
    answers: Sequence[str]
    scoring: Scoring


class AnswerOptions(SearchOptions, ClosedSetOptions, total=False):
    """Options of :meth:`~ofa_core.OFA.answer`."""

    candidates: Sequence[str] | None
    method: Method
    objects: Any
    box: Any


class ReadOptions(SearchOptions, PromptOptions, total=False):
    """Options of :meth:`~ofa_core.OFA.read`."""

    document: bool


class HeadOptions(BatchOptions, total=False):
    """Options of :meth:`~ofa_core.OFA.head_probabilities`."""

    decoder_prompt: DecoderPrompt | None


class ImagineOptions(TypedDict, total=False):
    """Options of :meth:`ofa_core.OFA.imagine`."""

    count: int
    top_k: int | None
    top_p: float | None
    temperature: float | None
    guidance: float | None
    seed: int | None
    rank: Rank
    prompt: str | None
    batch_size: int
    progress: bool
    on_row: OnRow | None
