"""The log of a run: a JSON line every few steps, and its curve as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ..utils.atomic_write import atomic_write_text
from .plot import curve_svg

LOG_FILE = "log.jsonl"
PLOT_FILE = "loss.svg"


class Log:
    """``log.jsonl`` and ``loss.svg`` of the run in ``directory``."""

    def __init__(self, directory: Path, writes: bool = True) -> None:
        self.path = directory / LOG_FILE
        self._writes = writes
        if writes:
            directory.mkdir(parents=True, exist_ok=True)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add a line."""
        if self._writes:
            line = json.dumps({"step": step} | {name: round(value, 6) for name, value in values.items()})
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def rows(self) -> list[dict[str, float]]:
        """The lines so far."""
        if not self.path.is_file():
            return []
        lines = self.path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1]]  # the last is empty, or was being written

    def cut(self, step: int) -> None:
        """Forget what was logged behind ``step``: it will be done again."""
        if self._writes and self.path.is_file():
            kept = [row for row in self.rows() if row["step"] <= step]
            atomic_write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def plot(self) -> None:
        """Draw the curves of everything that was logged."""
        if self._writes:
            atomic_write_text(self.path.with_name(PLOT_FILE), curve_svg(self.rows()))
