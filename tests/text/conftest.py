from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ofa_core.text import Tokenizer, small_vocabulary_dir

ROOT = Path(__file__).parents[2]


def official_dir() -> Path:
    return Path(os.environ.get("OFA_BPE_DIR") or ROOT.parent / "shared" / "bpe")


@pytest.fixture(scope="session")
def official_vocabulary() -> Path:
    directory = official_dir()
    if not (directory / "encoder.json").is_file():
        pytest.skip(f"the official vocabulary files are not in {directory}; set OFA_BPE_DIR to where they are")
    return directory


@pytest.fixture(scope="session")
def official(official_vocabulary: Path) -> Tokenizer:
    return Tokenizer.from_dir(official_vocabulary)


@pytest.fixture(scope="session")
def small() -> Tokenizer:
    return Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=8, num_bins=1000)


@pytest.fixture(scope="session", params=["official", "small"])
def vocabulary_dir(request: pytest.FixtureRequest) -> Path:
    if request.param == "small":
        return small_vocabulary_dir()
    directory: Path = request.getfixturevalue("official_vocabulary")
    return directory


@pytest.fixture(scope="session")
def golden() -> Any:
    return lambda name: json.loads((ROOT / "tests" / "golden" / f"{name}.json").read_text("utf-8"))
