"""Mutations of checkpoints in torch's file formats, among them pickles that would execute something."""

from __future__ import annotations

import io
import os
import pickle
import random
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from fuzzing import observe

from checkpoints_convert import config_from_fairseq, from_fairseq, save_fairseq
from checkpoints_convert.sources import open_source
from ofa_core import OFAConfig, OFAModel, TaskSettings, Tokenizer
from ofa_core.text import small_vocabulary_dir

STORAGES = (b"HalfStorage", b"FloatStorage", b"DoubleStorage", b"LongStorage", b"BoolStorage", b"ComplexFloatStorage")
Mutation = Callable[[bytes, random.Random, Path], bytes]


class Hostile:
    """Unpickled the usual way, it creates ``canary``."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.canary}",)


def truncated(data: bytes, rng: random.Random, _: Path) -> bytes:
    """The beginning of the file."""
    return data[: rng.randrange(len(data))]


def flipped(data: bytes, rng: random.Random, _: Path) -> bytes:
    """A few bytes changed anywhere."""
    changed = bytearray(data)
    for _i in range(rng.randint(1, 40)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def flipped_in_directory(data: bytes, rng: random.Random, _: Path) -> bytes:
    """A few bytes changed at the end, where a zip keeps its directory."""
    changed = bytearray(data)
    for _i in range(rng.randint(1, 10)):
        changed[-rng.randint(1, min(len(changed), 1 << 15))] = rng.randrange(256)
    return bytes(changed)


def flipped_in_pickle(data: bytes, rng: random.Random, _: Path) -> bytes:
    """A few bytes of the pickle changed."""

    def change(content: bytes) -> bytes:
        changed = bytearray(content)
        for _i in range(rng.randint(1, 12)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)

    return _with_pickle(data, change)


def absurd_numbers(data: bytes, rng: random.Random, _: Path) -> bytes:
    """Sizes and offsets in the pickle replaced by large ones (opcodes K, M and J hold 1, 2 and 4 bytes)."""

    def change(content: bytes) -> bytes:
        changed = bytearray(content)
        spots = [i for i, byte in enumerate(changed) if byte in b"KMJ" and i + 5 < len(changed)]
        for spot in rng.sample(spots, min(len(spots), rng.randint(1, 5))):
            width = {ord("K"): 1, ord("M"): 2, ord("J"): 4}[changed[spot]]
            changed[spot + 1 : spot + 1 + width] = rng.choice([b"\xff", b"\x7f"]) * width
        return bytes(changed)

    return _with_pickle(data, change)


def other_types(data: bytes, rng: random.Random, _: Path) -> bytes:
    """Storages of another type than their bytes."""
    old, new = rng.choice(STORAGES), rng.choice(STORAGES)
    return _with_pickle(data, lambda content: content.replace(old, new, rng.randint(1, 5)))


def hostile(data: bytes, rng: random.Random, canary: Path) -> bytes:
    """A pickle that would execute something, in place of the checkpoint's or before it."""
    payload = pickle.dumps({"model": Hostile(canary)}, protocol=rng.randint(0, 5))
    return _with_pickle(data, lambda content: payload if rng.random() < 0.5 else payload[:-1] + content)


def twice(data: bytes, rng: random.Random, _: Path) -> bytes:
    """Two records of one name."""
    output = io.BytesIO(data)
    with zipfile.ZipFile(output, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library warns of just this
        name = rng.choice(archive.namelist())
        archive.writestr(name, b"\x00" * rng.randrange(1000))
    return output.getvalue()


def nested(data: bytes, rng: random.Random, _: Path) -> bytes:
    """A pickle of lists within lists, each naming the last one twice."""
    depth = rng.choice([10, 1000, 100_000])
    return _with_pickle(data, lambda _content: b"\x80\x02]q\x00" + b"](h\x00h\x00eq\x00" * depth + b".")


MUTATIONS: tuple[Mutation, ...] = (
    truncated,
    flipped,
    flipped_in_directory,
    flipped_in_pickle,
    flipped_in_pickle,
    absurd_numbers,
    other_types,
    hostile,
    twice,
    nested,
)


def _with_pickle(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The zip with its pickle changed; the other records are as they were."""
    output = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(output, "w") as changed:
        for info in archive.infolist():
            content = archive.read(info)
            changed.writestr(info.filename, change(content) if info.filename.endswith("data.pkl") else content)
    return output.getvalue()


def convert_state(path: Path) -> None:
    """Do what a conversion does before it writes."""
    source = open_source(path)
    from_fairseq(source.state, config_from_fairseq(source.state, source.args, source.task))


def findings(data: bytes, number: int, directory: Path) -> list[str]:
    """Findings of mutation ``number`` of ``data``, usually none."""
    rng = random.Random(number)
    mutation = MUTATIONS[number % len(MUTATIONS)]
    path, canary = directory / "mutated.pt", directory / "canary"
    path.unlink(missing_ok=True)  # what is mapped must not change
    path.write_bytes(mutation(data, rng, canary))
    found = observe(lambda: convert_state(path))
    if canary.exists():
        canary.unlink()
        found.append("something was executed")
    return [f"{mutation.__name__} {number}: {what}" for what in found]


def small_model() -> tuple[OFAModel, Tokenizer]:
    """A model that is quick to read, and its tokenizer."""
    tokenizer = Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=0)
    config = OFAConfig(
        embed_dim=16,
        ffn_dim=16,
        encoder_layers=1,
        decoder_layers=1,
        num_heads=2,
        stem_depths=(1, 1, 1),
        vocab_size=len(tokenizer),
        max_source_positions=32,
        max_target_positions=32,
        token_bucket_size=8,
        image_bucket_size=4,
        task=TaskSettings(code_dict_size=0, image_size=64),
    )
    torch.manual_seed(0)
    return OFAModel(config), tokenizer


def small_checkpoint() -> bytes:
    """A checkpoint of :func:`small_model`."""
    model, _ = small_model()
    with tempfile.TemporaryDirectory() as directory:
        save_fairseq(Path(directory) / "small.pt", model.state_dict(), model.config)
        return (Path(directory) / "small.pt").read_bytes()


def prepare(_directory: Path) -> bytes:
    """The small checkpoint."""
    return small_checkpoint()


def read(path: Path, _directory: Path) -> bytes:
    """A checkpoint of the user's."""
    return path.read_bytes()
