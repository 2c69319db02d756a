"""Mutations of model directories: any file of one, damaged or replaced, with its digests and without."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fuzz_checkpoints import small_model
from fuzzing import CHANGES, observe

import ofa_core
from ofa_core import OFAError
from ofa_core.checkpoint.digests import DIGESTS_FILE
from ofa_core.checkpoint.inspection import inspect_directory
from ofa_core.checkpoint.model_dir import CONFIG_FILE, WEIGHTS_FILE, save_directory
from ofa_core.checkpoint.verification import verify_directory

Mutation = Callable[[Path, random.Random], None]
#: Values that a field of the configuration may turn into.
VALUES: tuple[Any, ...] = (
    -1, 0, 1, 2, 7, 10**6, 10**9, 10**30, 0.5, 1e308, True, None, "", "x", "\ud800", [], [10**6, 2, 2], {}, {"x": 1},
    {"length": 10**9}, {"a.b": {"num_classes": 2}}, {"keys": {"num_classes": 2}}, ["<a>"] * 3, [" "], "src",
)  # fmt: skip


def prepare(directory: Path) -> Path:
    """A model directory."""
    model, tokenizer = small_model()
    save_directory(directory, model.state_dict(), model.config, tokenizer, {"source": "a fuzzer"})
    return directory


def damaged_file(directory: Path, rng: random.Random) -> None:
    """A file with its bytes changed."""
    path = rng.choice(sorted(directory.iterdir()))
    path.write_bytes(rng.choice(CHANGES)(path.read_bytes(), rng))


def other_settings(directory: Path, rng: random.Random) -> None:
    """Fields of config.json with other values, or gone, or new."""
    path = directory / CONFIG_FILE
    config = json.loads(path.read_text())
    for _ in range(rng.randint(1, 3)):
        part = config["task"] if rng.random() < 0.4 and isinstance(config.get("task"), dict) else config
        name = rng.choice([*part, "unknown"])
        part[name] = rng.choice(VALUES)
        if rng.random() < 0.1:
            del part[name]
    path.write_text(json.dumps(config))


def other_lines(directory: Path, rng: random.Random) -> None:
    """A text file with its lines shuffled, doubled, dropped or put in from another file."""
    texts = [path for path in sorted(directory.iterdir()) if path.name != WEIGHTS_FILE]
    path = rng.choice(texts)
    lines = path.read_bytes().splitlines(keepends=True)
    at = rng.randrange(len(lines))
    rng.choice(
        (
            lambda: rng.shuffle(lines),
            lambda: lines.insert(at, lines[0]),
            lambda: lines.pop(at),
            lambda: lines.insert(at, b"x" * 10**6),
            lambda: lines.insert(at, rng.choice(rng.choice(texts).read_bytes().splitlines(keepends=True) or [b""])),
        )
    )()
    path.write_bytes(b"".join(lines))


def other_header(directory: Path, rng: random.Random) -> None:
    """The header of the weights with other types, shapes, places or names."""
    path = directory / WEIGHTS_FILE
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    for name in rng.sample(sorted(header), rng.randint(1, 3)):
        entry = header[name]
        field = rng.choice(sorted(entry))
        entry[field] = rng.choice(["F64", "I8", "BOOL", "F8_E4M3", [1], [2**60, 2], [], [0, 0], [0, 2**63], -1, None])
        if rng.random() < 0.2:
            header[name + "x"] = header.pop(name)
    text = json.dumps(header).encode()
    size = rng.choice([len(text), len(text), len(text), 0, 2**62])
    path.write_bytes(size.to_bytes(8, "little") + text + data[8 + size if size < 2**32 else 8 :])


def other_values(directory: Path, rng: random.Random) -> None:
    """Weights that are zero, huge, not finite, or arbitrary bits."""
    path = directory / WEIGHTS_FILE
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    at = rng.randrange(start, len(data) - 4)
    end = min(len(data), at + rng.choice([4, 400, 40_000, len(data)]))
    pattern = rng.choice([bytes(4), b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff\xff\x7f\x7f", rng.randbytes(4)])
    data[at:end] = (pattern * (end - at))[: end - at]
    path.write_bytes(data)


def other_things(directory: Path, rng: random.Random) -> None:
    """A file gone, or a pipe, a directory, a dead link or a device in its place, or one too many."""
    path = rng.choice(sorted(directory.iterdir()))
    if rng.random() < 0.1:
        (directory / "vocab.txt").write_bytes(b"[UNK]\na\n")
        return
    path.unlink()
    rng.choice(
        (
            lambda: None,
            lambda: os.mkfifo(path),
            lambda: path.mkdir(),
            lambda: path.symlink_to("nowhere"),
            lambda: path.symlink_to(path.name),
            lambda: path.symlink_to("/dev/zero"),
        )
    )()


MUTATIONS: tuple[Mutation, ...] = (
    damaged_file,
    damaged_file,
    other_settings,
    other_settings,
    other_lines,
    other_header,
    other_values,
    other_things,
)


def use(directory: Path) -> None:
    """Load a directory and let it answer; all of what is done with one is tried, whatever came of the rest."""
    errors: list[OFAError] = []
    for step in (_answer, inspect_directory, verify_directory):
        try:
            step(directory)
        except OFAError as error:
            errors.append(error)
    if errors:
        raise max(errors, key=lambda error: len(str(error)))


def _answer(directory: Path) -> None:
    ofa = ofa_core.load(directory)
    with torch.inference_mode():
        tokens = ofa.tokenizer.pad([ofa.tokenizer.encode("what is it? \ud800 é", add_special_tokens=True)])
        ofa.model.encode(tokens[:, :16])


def findings(whole: Path, number: int, directory: Path) -> list[str]:
    """Findings of mutation ``number`` of a model directory, usually none."""
    rng = random.Random(number)
    mutation = MUTATIONS[number % len(MUTATIONS)]
    copy = directory / "model"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(whole, copy)
    mutation(copy, rng)
    if rng.random() < 0.7:  # otherwise digests would find most, and little else would be tried
        (copy / DIGESTS_FILE).unlink(missing_ok=True) if not (copy / DIGESTS_FILE).is_dir() else None
    return [f"{mutation.__name__} {number}: {what}" for what in observe(lambda: use(copy))]
