"""Rows that a step learns from: a function of the seed and the step alone, whatever came before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from torch.utils.data import Dataset

from ..data.examples import Example
from ..text import Tokenizer
from ..vision.transform import ImageTransform
from .collate import Batch, collate
from .feature_cache import FeatureCache

#: Length of the pattern in which sources take turns: weights are kept to one part in this.
CYCLE_LENGTH = 1000


class Source(Protocol):
    """Rows to learn from, without end: row ``index`` is always the same."""

    def examples(self, index: int) -> list[Example]:
        """Examples of a row; nothing where it has nothing to teach."""
        ...


@runtime_checkable
class SkippingSource(Source, Protocol):
    """A source that leaves out rows which cannot be used."""

    def take_failures(self) -> list[str]:
        """Errors of the rows that were left out since this was last asked."""
        ...


def round_robin(weights: Sequence[float], length: int = CYCLE_LENGTH) -> list[int]:
    """Take turns, ``length`` times: each source as often as its weight says, as evenly spread as can be."""
    total = sum(weights)
    credit = [0.0] * len(weights)
    order = []
    for _ in range(length):
        credit = [have + weight / total for have, weight in zip(credit, weights, strict=True)]
        turn = max(range(len(credit)), key=credit.__getitem__)
        credit[turn] -= 1
        order.append(turn)
    return order


class Batches(Dataset[Batch]):
    """Item ``i`` is the batch of pass ``i`` on this process.

    The rows of a pass are shared out over the processes in blocks, so that two processes see together what one sees
    with twice the batch size.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        weights: Sequence[float],
        tokenizer: Tokenizer,
        transform: ImageTransform,
        *,
        batch_size: int,
        group_size: int | None = None,
        patch_counts: Sequence[int | None] | None = None,
        cache: FeatureCache | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.sources = sources
        self.tokenizer, self.transform = tokenizer, transform
        self.batch_size, self.group_size = batch_size, group_size
        #: For each source, how many patches of a picture the encoder sees; None: all.
        self.patch_counts = patch_counts or [None] * len(sources)
        self.cache = cache
        self.rank, self.world = rank, world
        order = round_robin(weights)
        counts = [0] * len(sources)
        #: For each place in the pattern: the source, and how many rows it gave since the pattern began.
        self._pattern: list[tuple[int, int]] = []
        for turn in order:
            self._pattern.append((turn, counts[turn]))
            counts[turn] += 1
        self._counts = counts

    def __getitem__(self, index: int) -> Batch:
        first = (index * self.world + self.rank) * self.batch_size
        examples = [example for row in range(first, first + self.batch_size) for example in self.row(row)]
        batch = collate(examples, self.tokenizer, self.transform, self.group_size, self.cache)
        failures = [source.take_failures() for source in self.sources if isinstance(source, SkippingSource)]
        return replace(batch, failures=tuple(failure for some in failures for failure in some))

    def row(self, row: int) -> list[Example]:
        """The examples of row ``row`` of the mixture."""
        rounds, place = divmod(row, len(self._pattern))
        source, before = self._pattern[place]
        examples = self.sources[source].examples(rounds * self._counts[source] + before)
        patches = self.patch_counts[source]
        return examples if patches is None else [replace(example, patches=patches) for example in examples]
