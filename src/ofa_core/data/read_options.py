"""Options of reading that no file tells by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: The language of a dialog that rows have in two.
Language = Literal["en", "cn"]
#: The unit of a box.
BoxUnit = Literal["pixels", "fractions"]
#: Every split of a file.
ALL_SPLITS = "all"


@dataclass(frozen=True)
class ReadOptions:
    """Options of reading rows; the usual ones read everything published as it is meant."""

    #: ``cn`` takes the Chinese dialog of a row of InViG.
    language: Language = "en"
    #: The unit of boxes; None: as the row tells, and an error where it does not.
    boxes: BoxUnit | None = None
    #: Keep the last pair of a dialog whose last agent turn asks nothing; by default it is left out, as published.
    keep_last_turn: bool = False
    #: The split that is read, of several with commas between, or ``all``; None: the only one that there is.
    split: str | None = None
    #: Templates of the source and the target of a task of one's own (``custom``), with columns in braces.
    source: str | None = None
    target: str | None = None

    def wants(self, split: str) -> bool:
        """Tell whether rows of a split are read."""
        return self.split in (None, ALL_SPLITS) or split in self.splits

    @property
    def splits(self) -> list[str]:
        """The names of the splits that are read; none where all are."""
        return [] if self.split in (None, ALL_SPLITS) else [name.strip() for name in str(self.split).split(",")]


#: The usual options.
USUAL = ReadOptions()
