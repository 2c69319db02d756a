"""The server that plays the public addresses, and a cache of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoint.web import Web, serving

from ofa_core.checkpoint import download


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Web]:
    """The server; nothing asks another one, waits between tries or touches the user's cache."""
    with serving() as found:
        monkeypatch.setenv("OFA_RELEASES_URL", found.address)
        monkeypatch.setenv("OFA_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(download, "PAUSES", (0.0, 0.0, 0.0))
        yield found
