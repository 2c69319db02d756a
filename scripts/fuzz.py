"""Feeds damaged and hostile inputs to what reads them, and watches that each ends in a result or in one of our errors.

    python scripts/fuzz.py [--count 3000] [--start 0] [KIND...] [--checkpoint FILE]

Mutation number n of a kind (checkpoints, models, data, archives) is the same every time, so a run can go on with
--start where another stopped, and a finding can be repeated with --start n --count 1. Exit code 1 and a line for every
finding: another exception, a message of several lines, something executed, more than 1 GB of memory, more than 10
seconds, or a process that died. --checkpoint takes a file of yours instead of a small one that is made.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import fuzz_archives
import fuzz_checkpoints
import fuzz_data
import fuzz_models
from fuzzing import Fuzzer, run

KINDS = {
    "checkpoints": Fuzzer(fuzz_checkpoints.prepare, fuzz_checkpoints.findings),
    "models": Fuzzer(fuzz_models.prepare, fuzz_models.findings),
    "data": Fuzzer(fuzz_data.prepare, fuzz_data.findings),
    "archives": Fuzzer(fuzz_archives.prepare, fuzz_archives.findings),
}


def main() -> int:
    """Run the fuzzers; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)}; all by default")
    parser.add_argument("--count", type=int, default=3000, help="mutations of each kind")
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, action="append", default=[], help="mutate this checkpoint instead")
    args = parser.parse_args()
    if unknown := [kind for kind in args.kinds if kind not in KINDS]:
        parser.error(f"there is no kind {unknown[0]!r}; there are {', '.join(KINDS)}")
    fuzzers = {kind: KINDS[kind] for kind in args.kinds or (() if args.checkpoint else KINDS)}
    for path in args.checkpoint:
        fuzzers[path.name] = Fuzzer(partial(fuzz_checkpoints.read, path), fuzz_checkpoints.findings)
    bad = sum(_fuzz(name, fuzzer, args.start, args.count) for name, fuzzer in fuzzers.items())
    return bool(bad)


def _fuzz(name: str, fuzzer: Fuzzer, start: int, count: int) -> int:
    bad, begun = 0, time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        for number, lines in run(fuzzer, start, count, Path(directory)):
            bad += len(lines)
            for line in lines:
                print(f"{name}: {line}", flush=True)
            if number % 500 == 499:
                print(f"{name}: {number + 1} mutations, {bad} findings", flush=True)
    print(f"{name}: {count} mutations, {bad} findings, {time.perf_counter() - begun:.0f} s", flush=True)
    return bad


if __name__ == "__main__":
    sys.exit(main())
