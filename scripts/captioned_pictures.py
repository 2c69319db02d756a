"""Write small pictures of shapes with their captions, which the demo model that draws learns from.

python scripts/captioned_pictures.py runs/captions.tsv --count 16000
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ofa_core.demo.files import write_captioned

#: The number of the first picture: those before it, no training begins with.
FIRST = 30_000_000


def main() -> int:
    """Write the file; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=16_000)
    args = parser.parse_args()
    write_captioned(args.out, args.count, first=FIRST)
    return 0


if __name__ == "__main__":
    sys.exit(main())
