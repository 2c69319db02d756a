"""The genuine training checkpoints, which are third-party data and lie beside the repository, not in it."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest
from reference import CHECKPOINTS

NAMES = ("refcoco_cfg", "vqa_namespace")


@pytest.fixture(scope="session")
def genuine_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Path of each unzipped checkpoint by name; its shapes and salt lie beside it in a .json."""
    missing = [name for name in NAMES if not (CHECKPOINTS / f"{name}.pt.gz").is_file()]
    if missing:
        pytest.skip(f"the genuine checkpoints are not part of the repository: {missing} not found in {CHECKPOINTS}")
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in NAMES:
        with gzip.open(CHECKPOINTS / f"{name}.pt.gz") as source, (folder / f"{name}.pt").open("wb") as target:
            shutil.copyfileobj(source, target)
        shutil.copy(CHECKPOINTS / f"{name}.json", folder)
    return {name: folder / f"{name}.pt" for name in NAMES}
