"""The parts that the fuzzers share: changes to bytes, an eye on time and memory, and a process that may be lost."""

from __future__ import annotations

import multiprocessing
import random
import resource
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ofa_core import OFAError

MEMORY_LIMIT, SECONDS_LIMIT = 1 << 30, 10.0
#: Seconds without a word, after which the process that tries is given up.
_HANG = 60.0
#: Address space beyond what it takes to import everything: where a mutation asks for more, that is an error in it.
_ADDRESS_SPACE = 8 << 30
_LONGEST_MESSAGE = 1000

Change = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Fuzzer:
    """A kind of input."""

    #: Makes what is whole in a directory that is not there yet.
    prepare: Callable[[Path], Any]
    #: Tries a mutation, by its number, of what is whole, in another directory; gives what is wrong, usually nothing.
    findings: Callable[[Any, int, Path], list[str]]


# --- changes ---------------------------------------------------------------------------------------------------------


def truncated(data: bytes, rng: random.Random) -> bytes:
    """The beginning."""
    return data[: rng.randrange(len(data) + 1)]


def flipped(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed anywhere."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 40) if changed else 0):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def flipped_at_the_ends(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed in the beginning or at the end, where headers and directories stand."""
    changed = bytearray(data)
    reach = min(len(changed), 400)
    for _ in range(rng.randint(1, 6) if changed else 0):
        at = rng.randrange(reach)
        changed[at if rng.random() < 0.5 else -1 - at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    return bytes(changed)


def moved(data: bytes, rng: random.Random) -> bytes:
    """A piece taken out, doubled or filled with one byte."""
    start = rng.randrange(len(data) + 1)
    end = min(len(data), start + rng.choice([1, 8, 512, 5000]))
    piece = rng.choice([b"", data[start:end] * 2, bytes([rng.randrange(256)]) * (end - start)])
    return data[:start] + piece + data[end:]


def replaced_numbers(data: bytes, rng: random.Random) -> bytes:
    """Digits replaced by large numbers, with or without a sign."""
    spots = [index for index, byte in enumerate(data) if 48 <= byte < 58]
    if not spots:
        return data
    at = rng.choice(spots)
    return data[:at] + rng.choice([b"-1", b"9" * 30, b"1e999", b"4294967296", b"NaN", b"9" * 5000]) + data[at + 1 :]


_PIECES = (b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"\r", b"\t", b'"', b"[" * 10**5, b"\n\n", b"{")


def garbled(data: bytes, rng: random.Random) -> bytes:
    """Bytes put in that text files stumble over."""
    at = rng.randrange(len(data) + 1)
    piece = rng.choice(
        [b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"\r", b"\t", b'"', b"[" * 10**5, b"\n\n", b"{"]
    )
    return data[:at] + piece + data[at:]


CHANGES: tuple[Change, ...] = (truncated, flipped, flipped_at_the_ends, moved, replaced_numbers, garbled)


# --- watching --------------------------------------------------------------------------------------------------------


def observe(use: Callable[[], object]) -> list[str]:
    """Findings of one use: another exception than ours, a long message, much memory, or much time."""
    found = []
    _forget_peak()
    before, start = _memory("VmRSS"), time.perf_counter()
    try:
        use()
    except OFAError as error:
        if "\n" in str(error) or len(str(error)) > _LONGEST_MESSAGE:
            found.append(f"an error of several lines or of {len(str(error))} characters: {str(error)!r:.200}")
    except Exception as error:
        found.append(f"{type(error).__name__}: {str(error)[:200]!r}")
    if (more := _memory("VmHWM") - before) > MEMORY_LIMIT:
        found.append(f"{more / 1e9:.1f} GB more memory")
    if (seconds := time.perf_counter() - start) > SECONDS_LIMIT:
        found.append(f"{seconds:.0f} s")
    return found


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _memory(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(field))) * 1024


# --- running ---------------------------------------------------------------------------------------------------------


def run(fuzzer: Fuzzer, start: int, count: int, directory: Path) -> Iterator[tuple[int, list[str]]]:
    """The number and the findings of every mutation in turn, tried in a process that is replaced when it is lost."""
    context = multiprocessing.get_context("spawn")
    number, end = start, start + count
    while number < end:
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(fuzzer, number, end, directory, theirs), daemon=True)
        worker.start()
        theirs.close()
        while number < end:
            try:
                if not ours.poll(_HANG):
                    lost = f"nothing for {_HANG:.0f} s"
                    break
                yield ours.recv()
                number += 1
            except EOFError:
                worker.join()
                lost = f"the process ended with {worker.exitcode}"
                break
        else:
            worker.join()
            return
        worker.kill()
        worker.join()
        yield number, [f"{number}: {lost}"]
        number += 1


def _work(fuzzer: Fuzzer, start: int, end: int, directory: Path, results: Connection) -> None:
    whole = fuzzer.prepare(directory / f"whole-{start}")
    place = directory / f"mutated-{start}"
    place.mkdir()
    warnings.simplefilter("ignore")  # Pillow's, of what it reads all the same
    limit = _memory("VmSize") + _ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for number in range(start, end):
        results.send((number, fuzzer.findings(whole, number, place)))
