"""Tests that start several processes, which need much memory."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def one_job_at_a_time() -> Iterator[None]:
    """Wait while another process of the tests is within this."""
    with (Path(tempfile.gettempdir()) / "ofa_core-tests.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
