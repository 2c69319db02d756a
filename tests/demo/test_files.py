"""The dataset files hold what the benchmarks read, row for row."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections import Counter
from pathlib import Path

import pytest

from ofa_core.data.images import Images
from ofa_core.data.readers import read_records
from ofa_core.data.records import Record
from ofa_core.demo.files import FILES, write_dataset
from ofa_core.demo.language import NUMBERS
from ofa_core.demo.world import COLOURS, Scene, Thing, make_scene

COUNT = 12


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shapes")
    write_dataset(path, COUNT, "test", first=40)
    return path


def test_every_format_reads_back_to_the_scene(directory: Path) -> None:
    scenes = [make_scene(seed, "test") for seed in range(40, 40 + COUNT)]
    games = list(read_records("guesswhat", directory / "guesswhat.test.jsonl.gz"))
    dialogs = list(read_records("invig", directory / "invig.test.jsonl"))
    phrases = list(read_records("refcoco", directory / "phrases.tsv"))
    for records in (games, dialogs, phrases):
        assert len(records) == COUNT
        with Images.open(directory / "images") as images:
            for record, scene in zip(records, scenes, strict=True):
                assert images.load(record).size == scene.size
                boxes = [pytest.approx(thing.box, abs=0.011) for thing in scene.things]
                assert record.box in boxes
    assert [game.category for game in games] == [scene_name(game.box, s) for game, s in zip(games, scenes, strict=True)]
    assert all(record.inline for record in phrases)


def scene_name(box: tuple[float, ...], scene: object) -> str:
    return next(t.name for t in scene.things if t.box == pytest.approx(box, abs=0.011))  # type: ignore[attr-defined]


def test_names_are_phrases_of_a_colour_and_a_kind(directory: Path) -> None:
    records = list(read_records("refcoco", directory / "names.tsv"))
    assert records
    assert all(len(record.text.split()) == 3 and record.id.endswith("-name") for record in records)


def scenes_of(records: list[Record]) -> list[Scene]:
    """The scene of each record, by the number in its id."""
    return [make_scene(40 + int(record.id.partition("-")[0]), "test") for record in records]


def matching(scene: Scene, words: str) -> list[Thing]:
    """The shapes of a colour and a kind that ``words`` name in the plural or singular; ``shape`` is any kind."""
    colour = next((colour for colour in COLOURS if colour in words.split()), None)
    (kind,) = re.findall(r"(shape|circle|square|triangle|star|cross|ring)(?:e?s)?\b", words)
    return [t for t in scene.things if colour in (None, t.colour) and kind in ("shape", t.kind)]


def about(scene: Scene, boxes: tuple[tuple[float, ...], ...]) -> list[Thing]:
    """The shapes that have these boxes."""
    return [next(t for t in scene.things if t.box == pytest.approx(box, abs=0.011)) for box in boxes]


def test_phrases_of_any_number_of_shapes(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("many")
    write_dataset(path, 60, "test", first=40)
    records = list(read_records("grefcoco", path / "grefcoco.test.jsonl"))
    assert len(records) == 60
    kinds = Counter(record.id.partition("-")[2] for record in records)
    assert set(kinds) == {"one", "several", "none"}
    assert min(kinds.values()) >= 12
    for record, scene in zip(records, scenes_of(records), strict=True):
        things = about(scene, record.boxes)
        assert [thing.box[0] for thing in things] == sorted(thing.box[0] for thing in things)
        kind = record.id.partition("-")[2]
        first = re.split(r" (?:on|at|left of|right of|above|below) ", record.text)[0]
        if kind == "several":
            assert len(things) > 1
            side = record.text != first
            there = matching(scene, first)
            assert all(thing in there for thing in things)
            assert side or len(things) == len(there)
        elif kind == "none":
            assert (things, matching(scene, first)) == ([], [])
        else:
            assert len(things) == 1
            assert things[0] in matching(scene, first)


def test_everything_in_a_picture_is_listed(directory: Path) -> None:
    records = list(read_records("pretrain_detection", directory / "detection.test.jsonl"))
    assert len(records) == COUNT
    for record, scene in zip(records, scenes_of(records), strict=True):
        found = about(scene, tuple(box for box, _ in record.things))
        assert sorted(map(scene.things.index, found)) == list(range(len(scene.things)))
        assert [name for _, name in record.things] == [thing.name for thing in found]


def test_questions_about_pictures_and_their_answers(directory: Path) -> None:
    questions = list(read_records("vqa", directory / "questions.test.jsonl"))
    counts = list(read_records("vqa", directory / "counting.test.jsonl"))
    assert len(questions) == len(counts) == COUNT
    for record, scene in zip(counts, scenes_of(counts), strict=True):
        assert record.text.startswith("how many")
        assert record.answer == NUMBERS[len(matching(scene, record.text))]
    assert len({record.text.split()[0] for record in questions}) > 1
    assert len({record.answer for record in questions}) > 4


#: SHA-256 of files of earlier versions, as text without the pictures.
EARLIER = {
    "phrases.tsv": "e3089ce9416552df92eb5256654493a270b5276dd97e5a4a7b60b37a4abfd8f5",
    "names.tsv": "fdde46f7e9a1be9d24ec7499bc732437719dcb1d353253c3ce74dc3fb39918bb",
    "guesswhat.test.jsonl.gz": "2712d8fff4bafb9e52bbc7011bec97701127209ade080f711cb001f3fe52bfae",
    "invig.test.jsonl": "068314981a14492ff9691d8fea66b0a27c09b1ac2967529444eab7cc002d1c65",
}


@pytest.mark.parametrize("name", EARLIER)
def test_published_figures_are_of_the_same_rows(directory: Path, name: str) -> None:
    content = (directory / name).read_bytes()
    if name.endswith(".gz"):
        content = gzip.decompress(content)
    elif name.endswith(".tsv"):
        content = b"".join(line.rpartition(b"\t")[0] + b"\n" for line in content.splitlines())
    assert hashlib.sha256(content).hexdigest() == EARLIER[name]


def test_every_file_is_told(directory: Path) -> None:
    assert sorted(path.name for path in directory.iterdir()) == sorted(name.format(split="test") for name in FILES)


def test_the_same_seeds_give_the_same_bytes(directory: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path, COUNT, "test", first=40)
    for path in directory.iterdir():
        if path.is_file():
            assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name
