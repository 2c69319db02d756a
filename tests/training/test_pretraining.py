"""Pre-training goes on with one recipe: pictures of two sides, texts alone and codes in the same run."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
import torch
from training.made import picture, settings

from ofa_core import load
from ofa_core.training.batches import Batches
from ofa_core.training.run import make_trainer, train

RECIPE = (("pretrain", 8), ("pretrain_text", 1), ("pretrain_image", 1), ("pretrain_detection", 1))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    buffer = io.BytesIO()
    picture("red").save(buffer, "PNG")
    inline = base64.b64encode(buffer.getvalue()).decode()
    rows = {
        "pretrain": [
            ("1", inline, "a red dog", "", "", "dog", "cc12m", "caption"),
            ("1", inline, "", "what is it?", "0.3|!+cat&&0.9|!+dog", "", "vqa", "qa"),
            ("2", inline, "the Red dog", "", "8,16,40,48", "", "refcoco", "visual_grounding"),
        ],
        "pretrain_text": [("The red dog lies on the small green lawn.",)],
        "pretrain_image": [("1", inline, "5 0 7 1")],
        "pretrain_detection": [("1", inline, "8,16,40,48,1,dog&&0,0,64,64,2,lawn")],
    }
    for name, lines in rows.items():
        (tmp_path / f"{name}.tsv").write_text("\n".join("\t".join(line) for line in lines) + "\n")
    (tmp_path / "all_captions.txt").write_text("two cats\n")
    (tmp_path / "object.txt").write_text("dog\ncat\n")
    (tmp_path / "type2ans.json").write_text(json.dumps({"other": ["cup", "dog"]}))
    return tmp_path


def mixed(files: Path, out: Path, **changes: object) -> object:
    data = [
        {"task": name, "path": files / f"{name}.tsv", "weight": weight}
        | ({"negatives": files} if name == "pretrain" else {})
        for name, weight in RECIPE
    ]
    begun = settings(out)
    assert begun.new_model is not None
    new = begun.new_model.model_dump()
    new["config"] |= {"image_bucket_size": 42, "code_image_size": 16}
    new["config"]["task"] |= {"code_dict_size": 8, "name": "unify_task", "max_image_size": 512}
    return settings(out, data=data, new_model=new, **changes)


def test_one_recipe_mixes_all_of_pretraining(files: Path) -> None:
    run = mixed(files, files / "run", steps=1, batch_size=11, group_size=8)
    trainer = make_trainer(run)  # type: ignore[arg-type]
    batch = Batches.__getitem__(trainer.batches, 0)
    side = trainer.model.config.task.image_size
    assert {tuple(pixels.shape[1:]) for pixels in batch.pixels} == {(3, side, side), (3, 32, 32)}, (
        "twice the codes' side"
    )
    groups = batch.groups
    assert sum(int(group.codes.sum()) for group in groups) == 1
    assert sum(int((group.pictures < 0).sum()) for group in groups) == 2, "a text, twice"
    assert sum(len(group.tokens) for group in groups) == 8 * 2 + 2 + 1 + 1
    train(run)  # type: ignore[arg-type]
    rows = [json.loads(line) for line in (files / "run" / "log.jsonl").read_text().splitlines()]
    assert all(torch.tensor(row["loss"]).isfinite() for row in rows)
    assert load(files / "run" / "last").model.config.task.name == "unify_task"


def test_a_recipe_gives_a_model_the_settings_of_a_fine_tuning_script(files: Path) -> None:
    train(mixed(files, files / "run", steps=1, batch_size=2))  # type: ignore[arg-type]
    (files / "vqa.tsv").write_text((files / "pretrain.tsv").read_text().splitlines()[1])
    data = [{"task": "pretrain_text", "path": files / "pretrain_text.tsv"}]
    tuned = settings(
        files / "tuned", steps=1, model=files / "run" / "last", new_model=None, task="vqa", data=data, batch_size=1
    )
    train(tuned)
    task = load(files / "tuned" / "last").model.config.task
    assert (task.name, task.image_size, task.prompt_type, task.add_object) == ("vqa_gen", 480, "prev_output", True)
