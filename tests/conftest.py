"""Fixtures that tests share; plain helpers are in reference.py."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from bench.runs import write_data
from reference import SHARED, forget_large_models, lively_ofa, small_config

from ofa_core import OFA, OFAModel, Tokenizer
from ofa_core.checkpoint.model_dir import save_directory
from ofa_core.data.records import Format
from ofa_core.text import small_vocabulary_dir

C_LIBRARY = ctypes.CDLL(None)
#: Parameters of glibc's ``mallopt`` and their values: threads share two heaps, and what is larger than 4 MiB returns to
#: the system as soon as it is free.
MALLOC = {-8: 2, -3: 4 << 20}

with suppress(AttributeError):  # another C library
    for parameter, value in MALLOC.items():
        C_LIBRARY.mallopt(parameter, value)
#: Compile in this process: helpers would take 300 MB each.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


@pytest.fixture(scope="module", autouse=True)
def _give_memory_back() -> Iterator[None]:
    """Return to the system what is free behind each module's tests, which the C library would keep for later."""
    yield
    forget_large_models()
    with suppress(AttributeError):
        C_LIBRARY.malloc_trim(0)


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


@pytest.fixture
def paths(tmp_path: Path) -> dict[Format, Path]:
    """Five rows of each dataset format, and their pictures beside them."""
    return write_data(tmp_path, 5)
