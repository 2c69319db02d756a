"""Fixtures that tests share; plain helpers are in reference.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from reference import SHARED, lively_ofa, small_config

from ofa_core import OFA, OFAModel, Tokenizer
from ofa_core.text import small_vocabulary_dir
from ofa_core.weights import save_directory


@pytest.fixture(scope="session")
def small_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with random weights and the small vocabulary."""
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("models") / "small"
    tokenizer = Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=0)
    save_directory(directory, OFAModel(small_config()).state_dict(), small_config(), tokenizer)
    return directory


@pytest.fixture(scope="session")
def official_bpe() -> Path:
    """The official vocabulary files."""
    directory = Path(os.environ.get("OFA_BPE_DIR", SHARED / "bpe"))
    if not directory.is_dir():
        pytest.skip(f"the official vocabulary files are not in {directory}; set $OFA_BPE_DIR")
    return directory


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    """The shared photos."""
    if not (SHARED / "photos").is_dir():
        pytest.skip(f"the photos are not in {SHARED / 'photos'}")
    return sorted((SHARED / "photos").glob("*.jpg"))


@pytest.fixture(scope="module")
def ofa() -> OFA:
    """An OFA whose answers depend strongly on the picture and on the text."""
    return lively_ofa()
