"""Fixtures of the benchmarks' tests; plain helpers are in runs.py, made.py and files.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.runs import write_data

from ofa_core.bench.records import Format


@pytest.fixture
def paths(tmp_path: Path) -> dict[Format, Path]:
    """Five rows of each format, and their pictures beside them."""
    return write_data(tmp_path, 5)
