"""Examples put together: padded tokens and stacked pictures of what one pass learns from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..data.examples import Example
from ..model.encoder import ImageFeatures
from ..text import Tokenizer
from ..text.vocabulary import PAD
from ..vision.transform import ImageTransform
from .feature_cache import FeatureCache, KnownFeatures


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
    patches: Tensor  # scalar, how many patches of each picture the encoder sees; 0: all


@dataclass(frozen=True)
class Batch:
    """The examples of one micro-batch on one process."""

    pixels: tuple[Tensor, ...]  # for each side, [pictures, 3, h, w], each picture once; with ``known`` those it lacks
    groups: tuple[Group, ...]
    #: Errors of the rows that were left out.
    failures: tuple[str, ...] = ()
    #: For each side, the features of its pictures that are in a cache; empty without one.
    known: tuple[KnownFeatures, ...] = ()
    #: For each side, the features of all its pictures, where the stem has seen them already; empty where it has not.
    features: tuple[ImageFeatures, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """The same on ``device``."""
        return self._changed(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same in memory that a GPU reads while computing; the data loader calls it."""
        return self._changed(Tensor.pin_memory)

    def _changed(self, change: Callable[[Tensor], Tensor]) -> Batch:
        groups = tuple(Group(*map(change, vars(group).values())) for group in self.groups)
        known = tuple(one.changed(change) for one in self.known)
        return replace(self, pixels=tuple(map(change, self.pixels)), groups=groups, known=known)


def collate(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    transform: ImageTransform,
    group_size: int | None = None,
    cache: FeatureCache | None = None,
) -> Batch:
    """A batch of ``examples``, by length in groups of ``group_size`` (None: all in one group).

    Pictures of one side share a tensor, and examples of different sides are in different groups, as are those of which
    other numbers of patches are seen. Of a picture whose features are in ``cache`` there are no pixels.
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
    kinds = [_kind(example, places) for example in examples]
    groups = []
    for kind in sorted(set(kinds)):
        own = [example for example, its in zip(examples, kinds, strict=True) if its == kind]
        groups += _groups(own, tokenizer, places, kind, group_size)
    stacked = tuple(map(torch.stack, shelves.values()))
    if cache is None:
        return Batch(stacked, tuple(groups))
    known = tuple(map(cache.known, stacked))
    lacking = tuple(pixels[[*one.lacking.values()]] for pixels, one in zip(stacked, known, strict=True))
    return Batch(lacking, tuple(groups), known=known)


def _kind(example: Example, places: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """The side of an example's picture and how many of its patches are seen; without one, the first side and all."""
    return (0, 0) if example.image is None else (places[id(example.image)][0], example.patches or 0)


def _groups(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    places: dict[int, tuple[int, int]],
    kind: tuple[int, int],
    group_size: int | None,
) -> list[Group]:
    """Examples of one side and number of patches in groups of about one length."""
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
                side=torch.tensor(kind[0]),
                closed=torch.tensor([example.answers is not None for example in part]),
                allowed=_allowed(part),
                codes=torch.tensor([example.codes for example in part]),
                patches=torch.tensor(kind[1]),
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
