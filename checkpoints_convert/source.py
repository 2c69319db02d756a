"""A checkpoint as it was read, of whatever kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Source:
    """A checkpoint, whatever it was stored as."""

    kind: str  # in words, for people
    file: Path  # where the weights are
    state: Mapping[str, Tensor]  # by fairseq's names
    args: Mapping[str, Any] = field(default_factory=dict)
    task: Mapping[str, Any] = field(default_factory=dict)
    #: Vocabulary files that came with it, name to content.
    vocabulary: Mapping[str, bytes] | None = None
    extra_tokens: tuple[str, ...] = ()
    #: True if there is a moving average beside the weights that were taken.
    has_ema: bool = False
    #: Further files that hold weights.
    parts: tuple[Path, ...] = ()
    #: Settings of the search that came with it, by the names of :class:`~ofa_core.GenerationOptions`.
    search: Mapping[str, int | float | bool] = field(default_factory=dict)
    #: The network of image codes that came with it, by its own names.
    image_codes: Mapping[str, Tensor] | None = None
    #: True if it is of a kind that belongs to a size's public model card where it names no picture's side.
    is_of_hub: bool = False
