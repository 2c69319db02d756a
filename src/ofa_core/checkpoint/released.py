"""The released checkpoints by name: where each of them is, what it was trained for, and its published figures."""

from __future__ import annotations

import csv
import difflib
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from ..errors import CheckpointError

#: The table, written by ``scripts/released_models.py``.
TABLE = Path(__file__).parent / "released.tsv"

#: The kind of a released checkpoint: fairseq's and mmpretrain's files have an address; ``hub`` is a repository of the
#: Hugging Face hub, ``modelscope`` one of ModelScope; the others are no OFA with pictures.
Family = Literal["fairseq", "mmpretrain", "hub", "modelscope", "text-only", "speech"]
#: Kinds that are one file at an address.
OF_ONE_FILE: tuple[Family, ...] = ("fairseq", "mmpretrain")


@dataclass(frozen=True)
class Released:
    """A released checkpoint."""

    name: str
    family: Family
    size: str
    #: The data or task as its publishers call it.
    task: str
    #: fairseq's name of the task it was trained for; empty where it is none of the original's.
    trained_for: str
    #: The file to take; empty where the repository tells.
    file: str
    url: str
    #: Figures as they were published, by the split of the data, such as ``{"val": 90.05}``.
    figures: dict[str, float]
    #: Figures that users found for the very file that was released, where they are others.
    of_file: dict[str, float]
    #: The published figures in words.
    published: str


@cache
def released() -> dict[str, Released]:
    """Every released checkpoint by its name."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return {row["name"]: _entry(row) for row in rows}


#: Columns of the table.
COLUMNS = tuple(field.name for field in fields(Released))


def _entry(row: dict[str, str]) -> Released:
    family = next(family for family in get_args(Family) if family == row["family"])
    numbers = {name: read_figures(row[name]) for name in ("figures", "of_file")}
    return Released(**row | {"family": family} | numbers)


def read_figures(text: str) -> dict[str, float]:
    """The figures that a cell of the table holds: ``val=90.05 testA=92.93``."""
    return {name: float(value) for name, _, value in (part.partition("=") for part in text.split())}


def nearest_names(name: str, count: int = 3) -> list[str]:
    """The names of released checkpoints that are most like ``name``, the nearest first."""
    known = {known.lower(): known for known in released()}
    found = difflib.get_close_matches(name.lower(), known, n=count, cutoff=0.0)
    return [known[lower] for lower in found]


#: The reason why a kind is not downloaded, and the way to it.
_REFUSED: dict[Family, str] = {
    "text-only": "is a language model without pictures, not an OFA; it cannot be converted",
    "speech": "is MMSpeech: it reads speech, which OFA's network does not; it cannot be converted",
    "modelscope": "lies on ModelScope, from which nothing is downloaded here: fetch it with "
    "'modelscope download --model {name} --local_dir DIR' and pass DIR",
}


def check_downloadable(entry: Released) -> None:
    """Refuse a released checkpoint that is not downloaded here.

    Raises:
        CheckpointError: it is of such a kind; the message tells the reason and the way.
    """
    if entry.family in _REFUSED:
        raise CheckpointError(f"{entry.name} {_REFUSED[entry.family].format(name=entry.name)}")
