"""Numbers that cannot be meant are refused wherever they come from, at once and without memory."""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import quick_config, random_state

import ofa_core
from checkpoints_convert import convert, to_fairseq
from checkpoints_convert.infer_config import arguments_of, task_of
from ofa_core import OFAError, Tokenizer
from ofa_core.text import small_vocabulary_dir
from ofa_core.training.run import train
from ofa_core.training.settings import TrainingSettings

#: Fields with their values, and where they stand in a configuration.
CHANGES: dict[str, dict[str, Any]] = {
    "num_bins": {"task": {"num_bins": 10**9}},
    "code_dict_size": {"task": {"code_dict_size": 10**9}},
    "image_size": {"task": {"image_size": 20_000}},
    "encoder_layers": {"encoder_layers": 10**6},
    "stem_depths": {"stem_depths": [10**6, 2, 2]},
}
#: Those that fairseq's settings hold, by their names there.
STORED = {"num_bins": "num_bins", "code_dict_size": "code_dict_size", "image_size": "patch_image_size"}


def in_directory(model: Path, place: Path, field: str) -> None:
    directory = Path(shutil.copytree(model, place / "model"))
    (directory / "SHA256SUMS").unlink()
    config = json.loads((directory / "config.json").read_text())
    change = CHANGES[field]
    config |= {"task": config["task"] | change["task"]} if "task" in change else change
    (directory / "config.json").write_text(json.dumps(config))
    ofa_core.load(directory)


def as_option(model: Path, _: Path, field: str) -> None:
    ofa_core.load(model, **CHANGES[field]["task"])


def in_checkpoint(_: Path, place: Path, field: str) -> None:
    config = quick_config()
    task = task_of(config) | {STORED[field]: CHANGES[field]["task"][field]}
    cfg = {"model": argparse.Namespace(**arguments_of(config)), "task": task}
    torch.save({"cfg": cfg, "model": to_fairseq(random_state(config), config)}, place / "x.pt")
    convert(place / "x.pt", place / "out", bpe_dir=small_vocabulary_dir())


def in_recipe(model: Path, place: Path, field: str) -> None:
    change = json.dumps(CHANGES[field]).replace(":", "=")
    data = 'steps = 1\nout = "run"\ndata = [{ task = "shapes" }]\n'
    (place / "x.toml").write_text(f'model = "{model}"\nconfig = {change}\n{data}')
    train(TrainingSettings.from_toml(place / "x.toml"))


def in_new_model(_: Path, place: Path, field: str) -> None:
    fields = quick_config().model_dump(
        include={"embed_dim", "ffn_dim", "encoder_layers", "decoder_layers", "num_heads"}
    )
    fields |= {"stem_depths": [1, 1, 1]} | CHANGES[field]
    data = 'steps = 1\nout = "run"\ndata = [{ task = "shapes" }]\n'
    (place / "x.toml").write_text(f"{data}[new_model]\nconfig = {json.dumps(fields).replace(':', '=')}\n")
    train(TrainingSettings.from_toml(place / "x.toml"))


def as_tokenizer(_: Path, __: Path, field: str) -> None:
    Tokenizer.from_dir(small_vocabulary_dir(), **CHANGES[field]["task"])


Way = Callable[[Path, Path, str], None]
WAYS: list[tuple[Way, str]] = [
    *((way, field) for way in (in_directory, in_recipe, in_new_model) for field in CHANGES),
    *((way, field) for way in (as_option, in_checkpoint) for field in STORED),
    *((as_tokenizer, field) for field in ("num_bins", "code_dict_size")),
]


def peak_memory() -> int:
    """The most memory that this process had resident, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.parametrize(("way", "field"), WAYS, ids=[f"{way.__name__}-{field}" for way, field in WAYS])
def test_a_number_that_cannot_be_meant_is_refused(
    small_directory: Path, tmp_path: Path, way: Callable[[Path, Path, str], None], field: str
) -> None:
    start, before = time.perf_counter(), peak_memory()
    with pytest.raises(OFAError, match=rf"{field}.* is more than [0-9,]+, the most that is accepted: [a-z]") as caught:
        way(small_directory, tmp_path, field)
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - start < 2
    assert peak_memory() - before < 200 * 10**6
