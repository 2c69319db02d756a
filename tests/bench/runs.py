"""What tests of tasks and runs share: data files with pictures, models, and scripts that models speak."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bench import files
from reference import lively_ofa, picture

from ofa_core import OFA, GenerationOptions, Hypothesis
from ofa_core.bench.result_shards import Plan
from ofa_core.bench.results import Header, Row, iter_rows
from ofa_core.bench.runner import Run
from ofa_core.bench.samples import Models, Settings
from ofa_core.bench.tasks import TASKS
from ofa_core.checkpoint.model_dir import save_directory
from ofa_core.data.loading import DataFiles
from ofa_core.data.records import Format, Record
from ofa_core.heads.pipeline import Pipeline

BOX = (18.0, 15.0, 45.0, 60.0)  # of a picture of 90 × 60: fractions 0.2, 0.25, 0.5, 1
BINS = "<bin_200> <bin_250> <bin_500> <bin_998>"  # times 999, to the nearest; 1 is clipped to 0.999 before
#: Short answers, so that runs are quick.
QUICK = Settings(batch_size=4, num_beams=2, max_new_tokens=5)


def record(**changes: Any) -> Record:
    fields: dict[str, Any] = {"id": "7", "image": "7.png", "box": BOX, "category": "dog", "place": "data:7"}
    return Record(**(fields | changes))


def save_lively(directory: Path, seed: int = 0) -> Path:
    """A model directory whose answers depend strongly on picture and text."""
    ofa = lively_ofa(seed)
    save_directory(directory, ofa.model.state_dict(), ofa.model.config, ofa.tokenizer)
    return directory


def write_data(directory: Path, count: int = 10, images: int | None = None) -> dict[Format, Path]:
    """``count`` rows of each format on pictures of noise in ``directory / "images"``; two rows share a picture."""
    folder = directory / "images"
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number // 2}.png" for number in range(count)]
    for number, name in enumerate(sorted(set(names[:images]))):
        picture(number, files.SIZE[1], files.SIZE[0]).save(folder / name)
    image = {"width": files.SIZE[0], "height": files.SIZE[1]}
    games = [files.game(number, image=image | {"file_name": name}) for number, name in enumerate(names)]
    dialogs = [files.dialog(number, image_path=name) for number, name in enumerate(names)]
    phrases = [files.phrase(number, **{"image-id": names[number], "image": ""}) for number in range(count)]
    return {
        "guesswhat": files.written(directory / "games.jsonl.gz", files.json_lines(games)),
        "invig": files.written(directory / "dialogs.jsonl", files.json_lines(dialogs)),
        "refcoco": files.written(directory / "phrases.tsv", files.tab_lines(phrases)),
    }


def run_of(ofa: OFA, task: str, paths: dict[Format, Path], out: Path, **changes: Any) -> Run:
    """A quick run of a task on :func:`write_data`."""
    path = paths[TASKS[task].format]
    settings = changes.pop("settings", QUICK)
    fields: dict[str, Any] = {
        "task": TASKS[task],
        "data": DataFiles(path, path.parent / "images"),
        "models": Models(ofa, ofa),
        "settings": settings,
        "header": header(task, batch_size=settings.batch_size, limit=settings.limit),
        "out": out,
        "workers": 2,
        "quiet": True,
    }
    return Run(**(fields | changes))


def header(task: str, **settings: Any) -> Header:
    return Header(task=task, comment="c", model="m", model_sha256="0", data="d", settings=settings, started="")


def rows_in(path: Path) -> list[Row]:
    return list(iter_rows(path)[1])


def only(out: Path, pattern: str = "*/*/*.jsonl") -> Path:
    """The one file there is."""
    (path,) = out.glob(pattern)
    return path


def plan_of(path: Path, **changes: Any) -> Plan:
    fields: dict[str, Any] = {
        "path": path,
        "header": header("refcoco_grounding"),
        "first_shard": None,
        "resumed": False,
    }
    return Plan(**(fields | changes))


@dataclass(frozen=True)
class Call:
    """What a model was asked at once: the sources as text, and how it was searched."""

    pipeline: Pipeline
    sources: list[str]
    options: GenerationOptions | None
    ids: list[list[int]]


def spoken(monkeypatch: pytest.MonkeyPatch, reply: Callable[[str], str]) -> list[Call]:
    """Let every model say ``reply(source)``, or be sure of it where it chooses among answers; returns what it is asked.

    Symbols such as ``<bin_3>`` in a reply are whole.
    """
    calls: list[Call] = []

    def heard(pipeline: Pipeline, sources: Any, options: GenerationOptions | None) -> list[str]:
        calls.append(Call(pipeline, [pipeline.source_text(ids) for ids in sources], options, [*sources]))
        return [reply(source) for source in calls[-1].sources]

    def run(self: Pipeline, pictures: Any, sources: Any, options: Any, *_: Any, **__: Any) -> list[list[Hypothesis]]:
        texts = heard(self, sources, options)
        tokens = [[*self.tokenizer.encode(text, symbols=True), 2] for text in texts]
        return [[Hypothesis(ids, 0.0, [-0.5] * len(ids))] for ids in tokens]

    def score(self: Pipeline, pictures: Any, sources: Any, candidates: Any, *_: Any, **__: Any) -> list[list[float]]:
        answers = ("yes", "no", "n/a")
        return [[float(answer == text) for answer in answers] for text in heard(self, sources, None)]

    monkeypatch.setattr(Pipeline, "run", run)
    monkeypatch.setattr(Pipeline, "score", score)
    return calls
