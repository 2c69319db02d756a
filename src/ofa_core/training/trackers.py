"""Trackers: TensorBoard and Weights & Biases, to which a run tells what it logs, each step once after any stop."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..errors import OFAError
from ..utils.atomic_write import atomic_write_text, naming_errors
from .settings import TrainingSettings

#: TensorBoard's directory in that of a run, and the file with the name by which Weights & Biases knows the run.
TENSORBOARD_DIRECTORY, WANDB_FILE = "tensorboard", "wandb-run.txt"


class Tracker(Protocol):
    """A place outside of the run's own log where values and pictures are shown."""

    def begin(self, step: int) -> None:
        """Open it for what comes behind ``step``; what was told of later steps is forgotten, or not told again."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Show the values of a step."""

    def show(self, step: int, name: str, pictures: Sequence[Image.Image]) -> None:
        """Show pictures."""

    def flush(self) -> None:
        """Put on the disk what was told so far, so that no kill takes it away."""

    def close(self) -> None:
        """Write the rest and end."""


class TensorBoard:
    """Event files in the run's directory, for ``tensorboard --logdir``."""

    def __init__(self, out: Path) -> None:
        self.directory = out / TENSORBOARD_DIRECTORY
        self._writer: Any = None

    def begin(self, step: int) -> None:
        """Open a new event file, with which TensorBoard leaves out what earlier ones hold of later steps."""
        from torch.utils.tensorboard import SummaryWriter

        self.close()
        earlier = self.directory.is_dir() and any(self.directory.iterdir())
        self._writer = SummaryWriter(str(self.directory), purge_step=step + 1 if earlier else None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Show the values of a step, each as a curve of its name."""
        with naming_errors(self.directory):
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def show(self, step: int, name: str, pictures: Sequence[Image.Image]) -> None:
        """Show pictures, each under its number."""
        with naming_errors(self.directory):
            for number, picture in enumerate(pictures, 1):
                self._writer.add_image(f"{name}/{number}", np.asarray(picture), step, dataformats="HWC")

    def flush(self) -> None:
        """Write what waits."""
        if self._writer is not None:
            with naming_errors(self.directory):
                self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Wandb:
    """A run of Weights & Biases, which goes on under the name that it began with."""

    def __init__(self, project: str, settings: TrainingSettings) -> None:
        self.project = project
        self.settings = settings
        self._run: Any = None

    def begin(self, step: int) -> None:
        """Start the run, or go on with it: steps that it has been told of are not told again."""
        import wandb

        self.close()
        out = self.settings.out
        file = out / WANDB_FILE
        if not file.is_file():
            atomic_write_text(file, uuid.uuid4().hex[:12] + "\n")
        self._run = wandb.init(
            project=self.project,
            id=file.read_text(encoding="utf-8").strip(),
            name=out.name,
            dir=str(out),
            resume="allow",
            config=self.settings.model_dump(mode="json"),
        )
        self._first = int(self._run.step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Show the values of a step."""
        if step >= self._first:
            self._run.log(dict(values), step=step)

    def show(self, step: int, name: str, pictures: Sequence[Image.Image]) -> None:
        """Show pictures, each under its number."""
        import wandb

        if step >= self._first:
            numbered = {f"{name}/{number}": wandb.Image(picture) for number, picture in enumerate(pictures, 1)}
            self._run.log(numbered, step=step)

    def flush(self) -> None:
        """Do nothing: its own process has what it was told."""

    def close(self) -> None:
        """End the run."""
        if self._run is not None:
            self._run.finish()
            self._run = None


def check_trackers(settings: TrainingSettings) -> None:
    """Look whether the packages are there that ``settings`` ask for.

    Raises:
        OFAError: one is not.
    """
    if settings.tensorboard:
        try:
            import tensorboard  # noqa: F401, which torch.utils.tensorboard needs
        except ImportError:
            raise OFAError("tensorboard = true needs the package tensorboard: pip install tensorboard") from None
    if settings.wandb is not None:
        try:
            import wandb  # noqa: F401
        except ImportError:
            raise OFAError(f"wandb = {settings.wandb!r} needs the package wandb: pip install wandb") from None


def make_trackers(settings: TrainingSettings) -> list[Tracker]:
    """The trackers that ``settings`` ask for, none of them begun."""
    trackers: list[Tracker] = [TensorBoard(settings.out)] if settings.tensorboard else []
    return trackers if settings.wandb is None else [*trackers, Wandb(settings.wandb, settings)]
