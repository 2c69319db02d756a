"""Sharded checkpoints, cut here from whole ones in the layout that fairseq stores."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import fairseq_content, quick_config, random_state
from torch import Tensor

from checkpoints_convert import convert
from checkpoints_convert.sources import open_source
from ofa_core import CheckpointError
from ofa_core.checkpoint.model_dir import read_safetensors
from ofa_core.text import small_vocabulary_dir

CONFIG = quick_config()
BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "version", "rp_bucket", "position_idx")


def cut(state: dict[str, Tensor], parts: int) -> list[dict[str, Any]]:
    """Two units, the decoder's layers and the rest, each flattened, padded and cut into ``parts`` slices."""
    buffers = [name for name in state if name.endswith(BUFFERS)]
    tied = {"decoder.embed_tokens.weight", "decoder.output_projection.weight"}
    units = {"": [], "decoder": []}  # type: dict[str, list[str]]
    for name in state:
        if name not in buffers and name not in tied:
            units["decoder" if name.startswith("decoder.") else ""].append(name)
    shards: list[dict[str, Any]] = [{name: state[name] for name in buffers} for _ in range(parts)]
    metadata: list[list[dict[str, Any]]] = [[] for _ in range(parts)]
    for path, names in units.items():
        flat = torch.cat([state[name].flatten() for name in names])
        length = -(-flat.numel() // parts)
        for index in range(parts):
            piece = flat[index * length : (index + 1) * length]
            padding = length - piece.numel()
            shards[index][f"{path}.flat_param_0" if path else "flat_param_0"] = torch.nn.functional.pad(
                piece, (0, padding)
            )
            layout = {
                "names": [name.removeprefix("decoder.") if path else name for name in names],
                "shapes": [tuple(state[name].shape) for name in names],
                "numels": [state[name].numel() for name in names],
                "padding": padding,
            }
            shared = [] if path else [("encoder.embed_tokens.weight", name) for name in sorted(tied)]
            unit = {"fsdp_path": path, "params": {"flat_param_0": layout}, "shared_param_info": shared}
            metadata[index].append(unit | {"no_broadcast_optim_state": False})
    return [
        {"model": shard, "fsdp_metadata": {"param_metadata": meta, "buffer_names": buffers}}
        for shard, meta in zip(shards, metadata, strict=True)
    ]


def write(directory: Path, parts: int, change: Callable[[list[dict[str, Any]]], None] = lambda shards: None) -> Path:
    content = fairseq_content(CONFIG)
    shards = cut(content["model"], parts)
    change(shards)
    for index, shard in enumerate(shards):
        torch.save(content | shard, directory / f"last-shard{index}.pt")
    return directory / "last-shard0.pt"


@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_the_parts_become_the_whole(tmp_path: Path, parts: int) -> None:
    path = write(tmp_path, parts)
    convert(path, tmp_path / "out", bpe_dir=small_vocabulary_dir())
    found, expected = read_safetensors(tmp_path / "out" / "model.safetensors"), random_state(CONFIG)
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_any_part_names_them_all(tmp_path: Path) -> None:
    write(tmp_path, 3)
    state = open_source(tmp_path / "last-shard2.pt").state
    assert torch.equal(state["encoder.image_proj.weight"], random_state(CONFIG)["encoder.image_proj.weight"])


def without_layout(shards: list[dict[str, Any]]) -> None:
    shards[0]["fsdp_metadata"] = {"param_metadata": [{"fsdp_path": ""}]}


def other_metadata(shards: list[dict[str, Any]]) -> None:
    shards[0]["fsdp_metadata"] = "text"


@pytest.mark.parametrize("change", [without_layout, other_metadata])
def test_metadata_of_another_layout_are_refused(tmp_path: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    with pytest.raises(CheckpointError, match="the sharding metadata are not of the known layout"):
        open_source(write(tmp_path, 2, change))


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, 3)
    (tmp_path / "last-shard1.pt").unlink()
    with pytest.raises(CheckpointError, match=r"last-shard1\.pt is missing beside the other parts"):
        open_source(path)


def test_a_missing_last_part_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, 3)
    (tmp_path / "last-shard2.pt").unlink()
    with pytest.raises(CheckpointError, match=r"the 2 parts of flat_param_0 hold .* numbers: a part is missing"):
        open_source(path)


def test_a_part_under_another_name_or_beside_a_stranger_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, 2)
    torch.save(fairseq_content(CONFIG) | {"args": argparse.Namespace()}, tmp_path / "last-shard1.pt")
    with pytest.raises(CheckpointError, match=r"last-shard1\.pt is not part of a sharded checkpoint"):
        open_source(path)
    path.rename(tmp_path / "renamed.pt")
    with pytest.raises(CheckpointError, match=r"its name should end in -shard0\.pt"):
        open_source(tmp_path / "renamed.pt")
