"""Benchmarks while training: the scores of the model as it stands."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..api import OFA
from ..bench.runner import Run, make_header, run_task
from ..bench.samples import Models, Settings, read_answers
from ..bench.summary import LESS_IS_BETTER, Summary, task_scores
from ..bench.tasks import TASKS
from ..data.loading import DataFiles
from ..model.ofa import OFAModel
from ..text import Tokenizer
from ..utils.distributed import Process
from .held_out import HELD_OUT_LOSS, HeldOutLoss
from .sample_pictures import sample_pictures
from .setting_tables import EvaluationSettings

#: The directory of evaluations' results in that of a run.
DIRECTORY = "evaluation"


class Evaluation:
    """Runs the benchmarks of a training run; its results files stand beside the run's models."""

    def __init__(
        self,
        benchmarks: Sequence[EvaluationSettings],
        tokenizer: Tokenizer,
        out: Path,
        process: Process,
        held_out: HeldOutLoss | None = None,
        shows_pictures: bool = False,
    ) -> None:
        #: Benchmarks by the names of their scores.
        self.benchmarks = _named(benchmarks)
        self.tokenizer = tokenizer
        self.out = out / DIRECTORY
        self.process = process
        self.held_out = held_out
        self._shows_pictures = shows_pictures
        #: Pictures of the first samples of each benchmark in the latest evaluation, where they are shown.
        self.pictures: dict[str, list[Image.Image]] = {}

    def __call__(self, model: OFAModel, step: int) -> dict[str, float]:
        """The headline score of every benchmark by its task and name, the same in every process; then the loss."""
        scores = {name: self._score(model, step, name, benchmark) for name, benchmark in self.benchmarks.items()}
        if self.held_out is not None:
            device = next(model.parameters()).device
            scores[HELD_OUT_LOSS] = self.held_out(model, device)
        return scores

    def cut(self, step: int) -> None:
        """Remove the results of steps behind ``step``, which will be done again."""
        if self.process.is_rank0:
            for directory in self.out.glob("*/step-*"):
                number = directory.name.removeprefix("step-")
                if number.isdecimal() and int(number) > step:
                    shutil.rmtree(directory)

    def _score(self, model: OFAModel, step: int, name: str, benchmark: EvaluationSettings) -> float:
        ofa = OFA(model, self.tokenizer, optimize=False)  # a model in parts (FSDP2) can be used as it is only
        listed = None if benchmark.answers is None else read_answers(benchmark.answers)
        settings = Settings(
            batch_size=benchmark.batch_size,
            limit=benchmark.limit,
            max_new_tokens=benchmark.max_new_tokens,
            answers=listed,
        )
        task = TASKS[benchmark.task]
        models = Models(ofa, ofa)
        header = make_header(
            task,
            models,
            settings,
            comment=f"step-{step}",
            model=f"{self.out.parent}, step {step}",
            model_sha256="",
            data=data_files(benchmark).name,
        )
        run = Run(task, data_files(benchmark), models, settings, header, self.out, skip_bad=True, quiet=True)
        outcome = run_task(run, self.process)
        if outcome is not None and self._shows_pictures:
            self.pictures[name] = sample_pictures(task, run.data, benchmark.limit, outcome.path)
        told = self.process.broadcast_from_rank0(lambda: f"{score_to_raise(outcome.summary)!r}" if outcome else "")
        return float(told)


def score_to_raise(summary: Summary) -> float:
    """The headline; where less of it is better, the score of single samples, since the best model has the most."""
    if summary.headline.name not in LESS_IS_BETTER:
        return summary.headline.value
    return summary.scores[task_scores(summary.task).by_sample].value


def data_files(benchmark: EvaluationSettings) -> DataFiles:
    """The place of a benchmark's rows and pictures, and how they are read."""
    return DataFiles(
        benchmark.path,
        benchmark.images,
        allow_outside=benchmark.allow_outside,
        options=benchmark.read_options,
        more=benchmark.more,
    )


def _named(benchmarks: Sequence[EvaluationSettings]) -> dict[str, EvaluationSettings]:
    """Each by its task and its file's name, with a number where another one is called so already."""
    named: dict[str, EvaluationSettings] = {}
    for benchmark in benchmarks:
        name, number = f"{benchmark.task}/{benchmark.path.stem}", 2
        while name in named:
            name, number = f"{benchmark.task}/{benchmark.path.stem} ({number})", number + 1
        named[name] = benchmark
    return named
