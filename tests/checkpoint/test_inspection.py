from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from reference import quick_config, random_state, small_config

from ofa_core import CheckpointError, OFAModel, Tokenizer
from ofa_core.checkpoint.inspection import PARTS, inspect_directory
from ofa_core.checkpoint.model_dir import save_directory
from ofa_core.cli.main import main
from ofa_core.config import ClassificationHeadConfig, OFAConfig
from ofa_core.text import small_vocabulary_dir


def test_every_parameter_belongs_to_a_part(small_directory: Path) -> None:
    found = inspect_directory(small_directory)
    model = OFAModel(small_config())
    assert sum(found.parameters.values()) == sum(p.numel() for p in model.parameters())
    assert found.parameters["image stem"] == sum(p.numel() for p in model.encoder.image_stem.parameters())
    assert found.parameters["token embedding"] == model.token_embedding.weight.numel()
    assert set(found.parameters) <= set(PARTS.values())
    assert found.size is None
    assert found.dtypes.keys() == {"float32"}


def test_what_is_unusual_is_told(tmp_path: Path) -> None:
    heads = {"topic": ClassificationHeadConfig(num_classes=3)}
    config = quick_config(scale_resids=True, adapter_dim=4, classification_heads=heads)
    tokenizer = Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=0)
    save_directory(tmp_path / "x", random_state(config), config, tokenizer, {"source": "a.pt", "source_kind": "file"})
    found = inspect_directory(tmp_path / "x")
    for fact in ("scale_resids is True", "adapter_dim is 4", "classification heads: topic of 3 classes"):
        assert fact in found.unusual
    assert "provenance: source a.pt, source_kind file" in found.lines()
    assert not any("embed_dim" in fact or "dropout" in fact for fact in found.unusual)


def test_a_size_is_recognised_by_its_dimensions(monkeypatch: pytest.MonkeyPatch, small_directory: Path) -> None:
    assert "architecture: of its own" in inspect_directory(small_directory).lines()[0]
    row = {name: getattr(small_config(), name) for name in OFAConfig.preset("base").model_fields_set}
    row = {name: value for name, value in row.items() if name != "task"}
    monkeypatch.setitem(inspect_directory.__globals__["PRESETS"], "pocket", row)
    assert inspect_directory(small_directory).size == "pocket"


def test_the_program_prints_lines_or_json(small_directory: Path, capsys: Any, tmp_path: Path) -> None:
    assert main(["inspect", str(small_directory)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed] == [
        "architecture", "task", "vocabulary", "weights", "parameters", "provenance", "unusual",
    ]  # fmt: skip
    assert main(["inspect", str(small_directory), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["embed_dim"] == 32
    assert main(["inspect", str(tmp_path)]) == 2
    assert "is not a model directory" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="does not exist"):
        inspect_directory(tmp_path / "nowhere")
