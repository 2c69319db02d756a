"""Datasets of the drawn world in the files that benchmarks and training read."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from ..heads.showing import encoded
from ..utils.atomic_write import atomic_path, naming_errors
from .dialogs import closed_dialog, open_dialog
from .language import (
    PHRASES,
    absent_phrase,
    all_phrase,
    caption,
    count_question,
    from_left_to_right,
    phrase,
    picture_question,
)
from .pictures import captioned
from .world import Scene, Split, Thing, draw, make_scene

#: Files that :func:`write_dataset` makes, and what is in them.
FILES = {
    "images": "the pictures, as PNG files",
    "phrases.tsv": "phrases of all kinds with their boxes, in OFA's RefCOCO format with the pictures inside",
    "names.tsv": "the same with phrases of a colour and a kind only",
    "guesswhat.{split}.jsonl.gz": "games of closed questions, in GuessWhat?!'s format",
    "invig.{split}.jsonl": "dialogs that begin with a query, in InViG's format",
    "grefcoco.{split}.jsonl": "phrases of one shape, of several and of none, with all their boxes, for grefcoco",
    "detection.{split}.jsonl": "every shape with its box and its name, for detection",
    "questions.{split}.jsonl": "questions about whole pictures with their answers, for vqa",
    "counting.{split}.jsonl": "the same with questions about how many shapes there are only",
}

#: A row of a picture, or None where nothing of its kind can be said about it; from its number, its scene and what
#: chooses at random.
Row = Callable[[int, Scene, Random], dict[str, Any] | None]


def write_dataset(directory: Path, count: int, split: Split = "test", *, first: int = 0) -> None:
    """Write ``count`` scenes of a split, from seed ``first`` on, with what :data:`FILES` tells for each."""
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
    for name, row in _PLAIN.items():
        _write(directory / f"{name}.{split}.jsonl", _json_lines(scenes, row, name))


def write_captioned(path: Path, count: int, split: Split = "train", *, first: int = 0) -> None:
    """Write ``count`` small pictures with their captions, from seed ``first`` on, as rows of OFA's caption files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, (_captioned_row(seed, split) for seed in range(first, first + count)))


def _captioned_row(seed: int, split: Split) -> str:
    picture, words = captioned(seed, split)
    return "\t".join([str(seed), str(seed), words, "", base64.b64encode(encoded(picture, "PNG")).decode()])


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


def _json_lines(scenes: list[Scene], row: Row, chosen_by: str = "dialog") -> Iterator[str]:
    """A line for each scene that has such a row, which the scene and ``chosen_by`` determine."""
    for number, scene in enumerate(scenes):
        if (fields := row(number, scene, Random(f"{chosen_by} {scene.seed}"))) is not None:
            yield json.dumps(fields)


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


def _picture(number: int, scene: Scene, kind: str) -> dict[str, Any]:
    """The fields of plain rows about a picture, and an id with the kind of what is asked about it."""
    return {"id": f"{number}-{kind}", "image": _name(number), "width": scene.width, "height": scene.height}


def _boxes(things: Iterable[Thing]) -> list[list[float]]:
    return [[round(value, 2) for value in thing.box] for thing in things]


def _any_phrase(number: int, scene: Scene, random: Random) -> dict[str, Any] | None:
    """A phrase of one shape, of several or of none, all as likely; another one where a scene has none of a kind."""
    for kind in random.sample(_KINDS_OF_PHRASE, len(_KINDS_OF_PHRASE)):
        if (found := phrase_of(kind, scene, random)) is not None:
            words, things = found
            return {**_picture(number, scene, kind), "text": words, "boxes": _boxes(things)}
    return None


_KINDS_OF_PHRASE = ("one", "several", "none")
#: Names that are tried until one is found that is not there.
_TRIES = 20


def phrase_of(kind: str, scene: Scene, random: Random) -> tuple[str, list[Thing]] | None:
    """A phrase and all that it means, from left to right."""
    if kind == "one":
        one = phrase(scene, random)
        return None if one is None else (one[2], [one[0]])
    if kind == "none":
        tried = (absent_phrase(scene, random) for _ in range(_TRIES))
        words = next(filter(None, tried), None)
        return None if words is None else (words, [])
    several = all_phrase(scene, random)
    return None if several is None else (several[0], [t for t in from_left_to_right(scene) if t in several[1]])


def _things(number: int, scene: Scene, random: Random) -> dict[str, Any]:
    things = from_left_to_right(scene)
    return {**_picture(number, scene, "things"), "boxes": _boxes(things), "label": [thing.name for thing in things]}


def _question(number: int, scene: Scene, random: Random) -> dict[str, Any]:
    question, answer = picture_question(scene, random)
    return {**_picture(number, scene, "question"), "question": question, "answer": answer}


def _count(number: int, scene: Scene, random: Random) -> dict[str, Any]:
    question, answer = count_question(scene, random)
    return {**_picture(number, scene, "count"), "question": question, "answer": answer}


#: Rows of the files that hold one for each picture, in the plain form, by the file's first name.
_PLAIN: dict[str, Row] = {"grefcoco": _any_phrase, "detection": _things, "questions": _question, "counting": _count}
