from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from reference import golden_path

from ofa_core.text import Tokenizer, small_vocabulary_dir


@pytest.fixture(scope="session")
def official(official_bpe: Path) -> Tokenizer:
    return Tokenizer.from_dir(official_bpe)


@pytest.fixture(scope="session")
def small() -> Tokenizer:
    return Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=8, num_bins=1000)


@pytest.fixture(scope="session", params=["official", "small"])
def vocabulary_dir(request: pytest.FixtureRequest) -> Path:
    if request.param == "small":
        return small_vocabulary_dir()
    directory: Path = request.getfixturevalue("official_bpe")
    return directory


@pytest.fixture(scope="session")
def golden() -> Any:
    return lambda name: json.loads(golden_path(f"{name}.json").read_text("utf-8"))
