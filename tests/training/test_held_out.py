"""The loss of rows that are not learned from decides which model is best, and when a run ends."""

from __future__ import annotations

import json
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from training.made import COLOURS, TOKENIZER, picture, settings

from ofa_core import ImageTransform, OFAError, load
from ofa_core.checkpoint.model_dir import PROVENANCE_FILE
from ofa_core.training.collate import collate
from ofa_core.training.losses import LossModule
from ofa_core.training.outcome import outcome_lines
from ofa_core.training.run import make_trainer, trained
from ofa_core.training.setting_tables import LossSettings


def captions(directory: Path, count: int = 5) -> dict[str, Any]:
    """A source of captions of coloured pictures."""
    lines = []
    for number in range(count):
        content = BytesIO()
        picture(COLOURS[number]).save(content, "PNG")
        lines.append(f"{number}\t{number}\t{COLOURS[number]} {number}\t-\t{b64encode(content.getvalue()).decode()}\n")
    (directory / "captions.tsv").write_text("".join(lines))
    return {"task": "caption", "path": directory / "captions.tsv"}


def rows(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_it_is_the_mean_loss_of_all_tokens_without_what_training_adds(tmp_path: Path) -> None:
    source = captions(tmp_path)
    run = settings(tmp_path / "run", data=[source], held_out=[source], loss={"label_smoothing": 0.3, "rdrop": 2.0})
    trainer = make_trainer(run)
    told = trainer.evaluate(trainer.model, 0)  # type: ignore[misc]
    examples = [example for row in range(5) for example in trainer.batches.sources[0].examples(row)]
    plain = LossModule(trainer.model.eval(), TOKENIZER.vocabulary, LossSettings(label_smoothing=0.0))
    with torch.no_grad():
        loss, counts = plain(collate(examples, TOKENIZER, ImageTransform(64)))
    assert told == {"held_out_loss": pytest.approx(float(loss / counts[0]), rel=1e-5)}
    assert len(examples) == 5


def test_the_lowest_decides_and_patience_ends_the_run(tmp_path: Path) -> None:
    source = captions(tmp_path)
    run = settings(tmp_path / "run", data=[source], held_out=[source], evaluate_every=1, steps=9, patience=2)
    trainer = make_trainer(run)
    losses = iter([3.0, 1.5, 2.0, 1.6, 9.0])
    trainer.evaluate = lambda model, step: {"held_out_loss": next(losses)}
    trainer.run()
    assert (trainer.step, trainer.headline) == (4, ("held_out_loss", 1.5, 2))
    assert load(run.out / "best").model is not None
    assert json.loads((run.out / "best" / PROVENANCE_FILE).read_text())["trained_for"] == 2
    assert json.loads((run.out / "last" / PROVENANCE_FILE).read_text())["trained_for"] == 4
    again = make_trainer(run)
    again.run()
    assert (again.step, again.headline) == (4, ("held_out_loss", 1.5, 2)), "it has ended for good"
    further = make_trainer(run.model_copy(update={"patience": None}))
    further.run()
    assert further.step == 9, "unless nothing is waited for any more"


def test_a_run_with_held_out_rows_logs_and_tells_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = captions(tmp_path)
    run = settings(tmp_path / "run", data=[source], held_out=[source], evaluate_every=3)
    trainer = trained(run)
    told = [row["held_out_loss"] for row in rows(run.out) if "held_out_loss" in row]
    assert len(told) == 2
    name, value, step = trainer.headline  # type: ignore[misc]
    assert (name, value) == ("held_out_loss", pytest.approx(min(told), abs=1e-5))
    assert outcome_lines(trainer) == [
        f"held_out_loss {value:.4g}, the best of this run, at step {step} of 6",
        f"the model is in {run.out / 'best'}",
        f"next: ofa-core caption PHOTO --model {run.out / 'best'}",
    ]


def test_drawn_data_cannot_be_held_out(tmp_path: Path) -> None:
    with pytest.raises(OFAError, match="held_out needs data with files, and 'shapes' is drawn"):
        make_trainer(settings(tmp_path, held_out=settings(tmp_path).model_dump()["data"]))
