"""Progress of long runs: a line that moves on a terminal, and now and then a line in a log."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

#: Seconds between two lines in a log.
LOG_INTERVAL = 30.0


def progress(total: int | None, done: int, what: str, *, unit: str = "it", shown: bool = True) -> tqdm[Any]:
    """A progress bar on stderr for ``total`` units (None: nobody knows), of which ``done`` were done before."""
    interval = 0.1 if sys.stderr.isatty() else LOG_INTERVAL
    return tqdm(total=total, initial=done, desc=what, unit=unit, disable=not shown, mininterval=interval)
