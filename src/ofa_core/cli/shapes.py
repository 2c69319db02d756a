"""The command ``ofa-core shapes``."""

from __future__ import annotations

import argparse

from ..demo.files import FILES, write_dataset
from ..errors import OFAError
from ..utils.printable import printable


def shapes(args: argparse.Namespace) -> int:
    """Write the files of a drawn dataset."""
    if args.count < 1 or args.first < 0:
        raise OFAError(f"--count must be at least 1 and --first at least 0, not {args.count} and {args.first}")
    write_dataset(args.out, args.count, args.split, first=args.first)
    for name, content in FILES.items():
        print(printable(f"{args.out / name.format(split=args.split)}: {content}"))
    return 0
