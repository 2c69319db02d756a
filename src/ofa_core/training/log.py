"""The log of a run: a JSON line every few steps, and its curve as a picture."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from ..utils.atomic_write import atomic_write_text, naming_errors
from .plot import curve_svg
from .trackers import Tracker

LOG_FILE = "log.jsonl"
PLOT_FILE = "loss.svg"


class Log:
    """``log.jsonl`` and ``loss.svg`` of the run in ``directory``, and the trackers that are told the same."""

    def __init__(self, directory: Path, writes: bool = True, trackers: Sequence[Tracker] = ()) -> None:
        self.path = directory / LOG_FILE
        self._writes = writes
        self._trackers = trackers if writes else ()
        if writes:
            directory.mkdir(parents=True, exist_ok=True)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add a line."""
        if self._writes:
            content = _line({"step": step, **values}).encode()
            with naming_errors(self.path), self.path.open("ab", buffering=0) as file:
                length = file.tell()
                try:
                    if file.write(content) < len(content):
                        file.write(content)  # which says why
                except BaseException:
                    os.ftruncate(file.fileno(), length)
                    raise
            for tracker in self._trackers:
                tracker.write(step, values)

    def show(self, step: int, name: str, pictures: Sequence[Image.Image]) -> None:
        """Show pictures where there are trackers."""
        for tracker in self._trackers:
            tracker.show(step, name, pictures)

    def flush(self) -> None:
        """Put on the disk what trackers were told; ``log.jsonl`` is there already."""
        for tracker in self._trackers:
            tracker.flush()

    def close(self) -> None:
        """End the trackers."""
        for tracker in self._trackers:
            tracker.close()

    def rows(self) -> list[dict[str, float | None]]:
        """The lines so far, without those that a kill or a full disk cut; what was not finite is None."""
        if not self.path.is_file():
            return []
        rows = map(_row, self.path.read_bytes().split(b"\n")[:-1])  # the last is empty, or was being written
        return [row for row in rows if row is not None]

    def cut(self, step: int) -> None:
        """Forget what was logged behind ``step``: it will be done again."""
        if self._writes and self.path.is_file():
            kept = [row for row in self.rows() if (row["step"] or 0) <= step]
            atomic_write_text(self.path, "".join(map(_line, kept)))
        for tracker in self._trackers:
            tracker.begin(step)

    def plot(self) -> None:
        """Draw the curves of everything that was logged."""
        if self._writes:
            atomic_write_text(self.path.with_name(PLOT_FILE), curve_svg(self.rows()))


def _line(row: Mapping[str, float | None]) -> str:
    """A row as JSON, which has no numbers that are not finite: null stands for them."""
    finite = {name: value if value is not None and math.isfinite(value) else None for name, value in row.items()}
    rounded = {name: None if value is None else round(value, 6) for name, value in finite.items()}
    return json.dumps(rounded, allow_nan=False) + "\n"


def _row(line: bytes) -> dict[str, float | None] | None:
    """The row of a line; None where it is not a whole one."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None
