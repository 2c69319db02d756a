"""``python -m ofa_core`` is the program ``ofa-core``."""

from __future__ import annotations

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
