"""The dataset files hold what the benchmarks read, row for row."""

from __future__ import annotations

from pathlib import Path

import pytest

from ofa_core.data.images import Images
from ofa_core.data.readers import read_records
from ofa_core.demo.files import write_dataset
from ofa_core.demo.world import make_scene

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


def test_the_same_seeds_give_the_same_bytes(directory: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path, COUNT, "test", first=40)
    for path in directory.iterdir():
        if path.is_file():
            assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name
