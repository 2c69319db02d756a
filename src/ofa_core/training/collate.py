"""Examples put together: padded tokens and stacked pictures of what one pass learns from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data.examples import Example
from ..text import Tokenizer
from ..text.vocabulary import PAD
from ..vision.transform import ImageTransform


@dataclass(frozen=True)
class Group:
    """Examples of about one length, computed at once."""

    tokens: Tensor  # [B, N]
    prefix: Tensor  # [B, T], the prompt and the target without its last token
    target: Tensor  # [B, T], what follows each position of the prefix; padding within the prompt
    pictures: Tensor  # [B], index into the batch's pictures, -1 without one
    weights: Tensor  # [B]


@dataclass(frozen=True)
class Batch:
    """The examples of one micro-batch on one process."""

    pixels: Tensor | None  # [pictures, 3, h, w], each picture once
    groups: tuple[Group, ...]
    #: Errors of the rows that were left out.
    failures: tuple[str, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """The same on ``device``."""
        return self._changed(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same in memory that a GPU reads while computing; the data loader calls it."""
        return self._changed(Tensor.pin_memory)

    def _changed(self, change: Callable[[Tensor], Tensor]) -> Batch:
        pixels = None if self.pixels is None else change(self.pixels)
        return Batch(pixels, tuple(Group(*map(change, vars(group).values())) for group in self.groups), self.failures)


def collate(
    examples: Sequence[Example], tokenizer: Tokenizer, transform: ImageTransform, group_size: int | None = None
) -> Batch:
    """A batch of ``examples``, by length in groups of ``group_size`` (None: all in one group)."""
    pictures: dict[int, tuple[int, Any]] = {}
    for example in examples:
        if example.image is not None:
            pictures.setdefault(id(example.image), (len(pictures), example.image))
    pixels = transform.batch([image for _, image in pictures.values()]) if pictures else None
    ordered = sorted(examples, key=lambda example: (len(example.source), len(example.target)))
    size = group_size or max(1, len(ordered))
    groups = []
    for start in range(0, len(ordered), size):
        part = ordered[start : start + size]
        index = [-1 if example.image is None else pictures[id(example.image)][0] for example in part]
        groups.append(
            Group(
                tokens=tokenizer.pad([example.source for example in part]),
                prefix=tokenizer.pad([[*example.prompt, *example.target[:-1]] for example in part]),
                target=tokenizer.pad([[PAD] * (len(example.prompt) - 1) + list(example.target) for example in part]),
                pictures=torch.tensor(index),
                weights=torch.tensor([example.weight for example in part]),
            )
        )
    return Batch(pixels, tuple(groups))
