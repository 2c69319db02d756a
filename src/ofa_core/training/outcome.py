"""The last lines of a run: the score, where the model is, and what to do with it."""

from __future__ import annotations

import shlex

from ..utils.printable import printable
from .settings import TrainingSettings
from .stored import ADAPTER, BEST, LAST
from .trainer import Trainer

#: Questions to a model that has learned a task; the first that fits is told.
QUESTIONS = {
    "caption": "caption PHOTO",
    "vqa": 'answer PHOTO "what is on the table?"',
    "guesswhat_oracle": 'oracle PHOTO --box X0,Y0,X1,Y1 "is it a person?"',
}
GROUND = 'ground PHOTO "the dog on the left"'


def outcome_lines(trainer: Trainer) -> list[str]:
    """Lines for the end of a run."""
    settings = trainer.settings
    lines = []
    name_of_model = LAST
    if trainer.headline is not None:
        name, value, step = trainer.headline
        name_of_model = BEST
        lines.append(f"{name} {value:.4g}, the best of this run, at step {step} of {trainer.step}")
    model = settings.out / name_of_model
    lines.append(f"the model is in {printable(str(model))}")
    if settings.lora is not None:
        lines.append(f"the adapter alone is in {printable(str(settings.out / (name_of_model + ADAPTER)))}")
    lines.append(f"next: {printable(_next_command(settings, str(model)))}")
    return lines


def _next_command(settings: TrainingSettings, model: str) -> str:
    """A command that uses the model: its benchmark where it has one, else a question."""
    if settings.evaluation:
        benchmark = settings.evaluation[0]
        images = f" --images {shlex.quote(str(benchmark.images))}" if benchmark.images else ""
        place = f"--data {shlex.quote(str(benchmark.path))}{images}"
        return f"ofa-core bench {benchmark.task} --model {shlex.quote(model)} {place}"
    question = next((QUESTIONS[data.task] for data in settings.data if data.task in QUESTIONS), GROUND)
    return f"ofa-core {question} --model {shlex.quote(model)}"
