"""Datasets of the drawn world in the files that benchmarks and training read."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from ..utils.atomic_write import atomic_path, naming_errors
from .dialogs import closed_dialog, open_dialog
from .language import PHRASES, caption, phrase
from .world import Scene, Split, Thing, draw, make_scene

#: Files that :func:`write_dataset` makes, and what is in them.
FILES = {
    "images": "the pictures, as PNG files",
    "phrases.tsv": "phrases of all kinds with their boxes, in OFA's RefCOCO format with the pictures inside",
    "names.tsv": "the same with phrases of a colour and a kind only",
    "guesswhat.{split}.jsonl.gz": "games of closed questions, in GuessWhat?!'s format",
    "invig.{split}.jsonl": "dialogs that begin with a query, in InViG's format",
}


def write_dataset(directory: Path, count: int, split: Split = "test", *, first: int = 0) -> None:
    """Write ``count`` scenes of a split, from seed ``first`` on, with a phrase, a game and a dialog for each."""
    images = directory / "images"
    images.mkdir(parents=True, exist_ok=True)
    scenes = [make_scene(seed, split) for seed in range(first, first + count)]
    for number, scene in enumerate(scenes):
        with naming_errors(images / _name(number)):
            draw(scene).save(images / _name(number))
    _write(directory / "phrases.tsv", _phrases(scenes, tuple(PHRASES), images))
    _write(directory / "names.tsv", _phrases(scenes, ("name",), images))
    _write(directory / f"guesswhat.{split}.jsonl.gz", _json_lines(scenes, _game), compressed=True)
    _write(directory / f"invig.{split}.jsonl", _json_lines(scenes, _dialog))


def _name(number: int) -> str:
    return f"{number:05d}.png"


def _write(path: Path, lines: Iterator[str], *, compressed: bool = False) -> None:
    """Write a file, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("wb") as raw:
        # without a name or time in it, so that the same scenes give the same bytes
        file = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if compressed else raw
        for line in lines:
            file.write((line + "\n").encode())
        if file is not raw:
            file.close()


def _phrases(scenes: list[Scene], kinds: tuple[str, ...], images: Path) -> Iterator[str]:
    """Rows with their pictures inside, as they stand in ``images``."""
    for number, scene in enumerate(scenes):
        found = phrase(scene, Random(f"phrase {scene.seed}"), kinds)
        if found is not None:
            thing, kind, words = found
            box = ",".join(f"{value:.2f}" for value in thing.box)
            picture = base64.b64encode((images / _name(number)).read_bytes()).decode()
            yield "\t".join([f"{number}-{kind}", _name(number), words, box, picture])


def _json_lines(scenes: list[Scene], row: Callable[[int, Scene, Random], dict[str, Any]]) -> Iterator[str]:
    for number, scene in enumerate(scenes):
        yield json.dumps(row(number, scene, Random(f"dialog {scene.seed}")))


def _game(number: int, scene: Scene, random: Random) -> dict[str, Any]:
    target = random.choice(scene.things)
    talk = closed_dialog(scene, target, random)
    pairs = talk.questions or ((f"is it {target.colour}?", "yes"),)
    return {
        "id": number,
        "image": {"id": number, "file_name": _name(number), "width": scene.width, "height": scene.height},
        "objects": [
            {"id": index, "category": thing.name, "bbox": _corner_and_size(thing)}
            for index, thing in enumerate(scene.things)
        ],
        "object_id": scene.things.index(target),
        "qas": [{"question": question, "answer": answer} for question, answer in pairs],
        "status": "success",
    }


def _corner_and_size(thing: Thing) -> list[float]:
    x0, y0, x1, y1 = thing.box
    return [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)]


def _dialog(number: int, scene: Scene, random: Random) -> dict[str, Any]:
    target = random.choice(scene.things)
    return {
        "id": number,
        "global_image_id": number,
        "image_path": _name(number),
        "bbox": [round(value, 2) for value in target.box],
        "category": target.name,
        "caption": caption(scene),
        "dialog": open_dialog(scene, target, random).pairs,
    }
