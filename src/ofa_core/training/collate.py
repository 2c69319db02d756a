"""Examples put together: padded tokens and stacked pictures of what one pass learns from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
    pictures: Tensor  # [B], index into the batch's pictures of this group's side, -1 without one
    weights: Tensor  # [B]
    side: Tensor  # scalar, index into the batch's sides; that of no picture where the group has none
    closed: Tensor  # [B], True where the target is one of a set of answers
    allowed: Tensor  # [pairs, 3], for closed rows: row, position and a token that continues one of the answers there
    codes: Tensor  # [B], True where the target is image codes


@dataclass(frozen=True)
class Batch:
    """The examples of one micro-batch on one process."""

    pixels: tuple[Tensor, ...]  # for each side, [pictures, 3, h, w], each picture once
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
        groups = tuple(Group(*map(change, vars(group).values())) for group in self.groups)
        return Batch(tuple(map(change, self.pixels)), groups, self.failures)


def collate(
    examples: Sequence[Example], tokenizer: Tokenizer, transform: ImageTransform, group_size: int | None = None
) -> Batch:
    """A batch of ``examples``, by length in groups of ``group_size`` (None: all in one group).

    Pictures of one side share a tensor, and examples of different sides are in different groups.
    """
    shelves: dict[tuple[int, ...], list[Tensor]] = {}  # of a side: its pictures, each once
    places: dict[int, tuple[int, int]] = {}  # of a picture: its side and its index there
    for example in examples:
        if example.image is None or id(example.image) in places:
            continue
        pixels = example.image if isinstance(example.image, Tensor) else transform(example.image)
        side = tuple(pixels.shape[-2:])
        shelf = shelves.setdefault(side, [])
        places[id(example.image)] = (list(shelves).index(side), len(shelf))
        shelf.append(pixels)
    groups = []
    for number in range(max(1, len(shelves))):
        # what has no picture goes with those of the first side
        own = [example for example in examples if (_side(example, places) or 0) == number]
        groups += _groups(own, tokenizer, places, number, group_size)
    return Batch(tuple(map(torch.stack, shelves.values())), tuple(groups))


def _side(example: Example, places: dict[int, tuple[int, int]]) -> int | None:
    return None if example.image is None else places[id(example.image)][0]


def _groups(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    places: dict[int, tuple[int, int]],
    side: int,
    group_size: int | None,
) -> list[Group]:
    """Examples of one side in groups of about one length."""
    ordered = sorted(examples, key=lambda example: (len(example.source), len(example.target)))
    size = group_size or max(1, len(ordered))
    groups = []
    for start in range(0, len(ordered), size):
        part = ordered[start : start + size]
        index = [-1 if example.image is None else places[id(example.image)][1] for example in part]
        groups.append(
            Group(
                tokens=tokenizer.pad([example.source for example in part]),
                prefix=tokenizer.pad([[*example.prompt, *(example.said or example.target)[:-1]] for example in part]),
                target=tokenizer.pad([[PAD] * (len(example.prompt) - 1) + list(example.target) for example in part]),
                pictures=torch.tensor(index),
                weights=torch.tensor([example.weight for example in part]),
                side=torch.tensor(side),
                closed=torch.tensor([example.answers is not None for example in part]),
                allowed=_allowed(part),
                codes=torch.tensor([example.codes for example in part]),
            )
        )
    return groups


def _allowed(examples: Sequence[Example]) -> Tensor:
    """[pairs, 3]: row, position and allowed token of every target token that is one of an answer's."""
    found = []
    for row, example in enumerate(examples):
        if example.answers is not None:
            start = len(example.prompt) - 1
            for place in range(len(example.target)):
                tokens = example.answers.allowed(example.target[:place])
                found += [(row, start + place, token) for token in tokens]
    return torch.tensor(found, dtype=torch.long).reshape(-1, 3)


def answer_mask(group: Group, vocab_size: int) -> Tensor:
    """[B, T, V], True for the tokens that may stand at each position.

    Of a row without a set of answers, and behind a target, these are all; within a prompt none.
    """
    rows, places = group.target.shape
    mask = torch.ones(rows, places, vocab_size, dtype=torch.bool, device=group.target.device)
    last = places - group.target.flip(1).ne(PAD).long().argmax(1)  # one past them
    at = torch.arange(places, device=mask.device)
    mask[group.closed[:, None] & (at < last[:, None])] = False
    row, place, token = group.allowed.T
    mask[row, place, token] = True
    return mask
