"""Samples come in the order of the data, in the same batches for any number of threads, each on its picture."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from bench import files
from PIL import Image

from ofa_core import OFA
from ofa_core.bench.samples import Sample
from ofa_core.bench.tasks import TASKS, read_samples
from ofa_core.data import loading
from ofa_core.data.images import Images
from ofa_core.data.loading import BATCHES_AHEAD, Batch, DataFiles, batched, load_images
from ofa_core.data.records import BadRow, Format
from ofa_core.errors import OFAError


def samples_of(paths: dict[Format, Path], task: str, limit: int | None = None) -> list[Sample]:
    return list(read_samples(TASKS[task], DataFiles(paths[TASKS[task].format]), limit))


def batches_of(ofa: OFA, samples: list[Sample], root: Path, size: int = 4, workers: int = 2) -> list[Batch]:
    with Images.open(root) as images:
        return list(load_images(batched(samples, size), images, ofa.pipeline, workers))


# Samples


def test_samples_are_numbered_through_all_records(paths: dict[Format, Path]) -> None:
    samples = samples_of(paths, "guesswhat_oracle")
    assert [sample.index for sample in samples] == list(range(15))
    assert [sample.id for sample in samples[:4]] == ["0/1", "0/2", "0/3", "1/1"]


def test_a_limit_counts_samples_and_reads_no_further(tmp_path: Path) -> None:
    rows = [files.game(1), files.game(2), b"not json\n"]
    path = files.written(tmp_path / "x.jsonl", files.json_lines(rows))
    samples = list(read_samples(TASKS["guesswhat_oracle"], DataFiles(path), 4))
    assert [sample.id for sample in samples] == ["1/1", "1/2", "1/3", "2/1"]
    assert len(list(read_samples(TASKS["guesswhat_oracle"], DataFiles(path), 6))) == 6
    with pytest.raises(BadRow):
        list(read_samples(TASKS["guesswhat_oracle"], DataFiles(path), 7))


def test_bad_rows_are_told_and_take_no_number(tmp_path: Path) -> None:
    rows = [files.phrase(1), files.phrase(2, text="?!"), files.phrase(3), files.phrase(4, text="")]
    path = files.written(tmp_path / "x.tsv", files.tab_lines(rows))
    told: list[BadRow] = []
    samples = list(read_samples(TASKS["refcoco_grounding"], DataFiles(path), on_bad=told.append))
    assert [(sample.id, sample.index) for sample in samples] == [("r1", 0), ("r3", 1)]
    assert [bad.place for bad in told] == [f"{path}:2", f"{path}:4"]
    with pytest.raises(BadRow, match=r"x\.tsv:2: text"):
        list(read_samples(TASKS["refcoco_grounding"], DataFiles(path)))


def test_missing_data_are_told_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(OFAError, match="does not exist"):
        read_samples(TASKS["invig_oracle"], DataFiles(tmp_path / "none.jsonl"))


def test_columns_come_in_any_order(tmp_path: Path) -> None:
    row = files.phrase(1)
    names = ("image", "text", "region-coord", "uniq-id", "image-id")
    path = tmp_path / "x.tsv"
    path.write_text("\t".join(row[name] for name in names) + "\n")
    (sample,) = read_samples(TASKS["refcoco_grounding"], DataFiles(path, None, names))
    assert (sample.id, sample.record.text) == ("r1", 'the "red" square')


@pytest.mark.parametrize(("size", "expected"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (9, [5])])
def test_only_the_last_batch_is_smaller(paths: dict[Format, Path], size: int, expected: list[int]) -> None:
    batches = list(batched(samples_of(paths, "refcoco_grounding"), size))
    assert [len(batch) for batch in batches] == expected
    assert [sample.index for batch in batches for sample in batch] == list(range(5))


# Pictures


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_sample_has_its_picture_as_the_model_takes_it(
    ofa: OFA, paths: dict[Format, Path], tmp_path: Path, workers: int
) -> None:
    samples = samples_of(paths, "guesswhat_oracle")
    batches = batches_of(ofa, samples, tmp_path / "images", workers=workers)
    assert [sample.id for batch in batches for sample in batch.samples] == [sample.id for sample in samples]
    assert [len(batch.samples) for batch in batches] == [4, 4, 4, 3]
    for batch in batches:
        for sample, picture in zip(batch.samples, batch.pictures, strict=True):
            with Image.open(tmp_path / "images" / sample.record.image) as image:
                expected = ofa.pipeline.transform(image)
            assert torch.equal(ofa.pipeline.transform.normalized(picture.pixels), expected)
            assert picture.size == files.SIZE


def test_samples_of_one_picture_share_it_within_a_batch(
    ofa: OFA, paths: dict[Format, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    load = Images.load
    monkeypatch.setattr(Images, "load", lambda self, record: [opened.append(record.image), load(self, record)][1])
    (batch,) = batches_of(ofa, samples_of(paths, "refcoco_grounding"), tmp_path / "images", size=5)
    names = [sample.record.image for sample in batch.samples]
    assert names == ["0.png", "0.png", "1.png", "1.png", "2.png"]
    assert [batch.pictures.index(picture) for picture in batch.pictures] == [0, 0, 2, 2, 4]
    assert sorted(opened) == ["0.png", "1.png", "2.png"]


def test_inline_pictures_are_told_apart_by_their_content(ofa: OFA, tmp_path: Path) -> None:
    rows = [files.phrase(number, **{"uniq-id": str(place), "image-id": "x"}) for place, number in enumerate((1, 1, 2))]
    path = files.written(tmp_path / "x.tsv", files.tab_lines(rows))
    (batch,) = batches_of(ofa, list(read_samples(TASKS["refcoco_grounding"], DataFiles(path))), tmp_path)
    first, again, other = batch.pictures
    assert first is again
    assert other.image.tobytes() == files.drawn(2).tobytes() != first.image.tobytes()
    assert {sample.record.inline for sample in batch.samples} == {None}  # what is decoded is not kept


def test_the_box_is_clipped_to_the_picture(ofa: OFA, paths: dict[Format, Path], tmp_path: Path) -> None:
    row = files.phrase(1, **{"region-coord": "10,20,90.7,60.4"})
    path = files.written(tmp_path / "y.tsv", files.tab_lines([row]))
    (batch,) = batches_of(ofa, list(read_samples(TASKS["refcoco_grounding"], DataFiles(path))), tmp_path)
    assert batch.samples[0].record.box == (10.0, 20.0, 90.0, 60.0)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_wrong_with_one_row_spoils_no_other_of_its_picture(ofa: OFA, tmp_path: Path, workers: int) -> None:
    boxes = ["10,20,400,50", "10,20,40,50", "10,20,40,500"]
    rows = [files.phrase(1, **{"uniq-id": str(number), "region-coord": box}) for number, box in enumerate(boxes)]
    path = files.written(tmp_path / "x.tsv", files.tab_lines(rows))
    samples = list(read_samples(TASKS["refcoco_grounding"], DataFiles(path)))
    (batch,) = batches_of(ofa, samples, tmp_path, workers=workers)
    assert [sample.id for sample in batch.samples] == ["1"]
    assert len(batch.pictures) == 1
    assert [str(failure).partition(": ")[0] for failure in batch.failures] == [f"{path}:1", f"{path}:3"]


def test_a_picture_that_is_missing_is_told_for_each_of_its_samples(
    ofa: OFA, paths: dict[Format, Path], tmp_path: Path
) -> None:
    (tmp_path / "images" / "1.png").unlink()
    (tmp_path / "images" / "2.png").write_bytes(b"no picture")
    batches = batches_of(ofa, samples_of(paths, "refcoco_grounding"), tmp_path / "images")
    assert [[sample.id for sample in batch.samples] for batch in batches] == [["r0", "r1"], []]
    told = [str(failure) for batch in batches for failure in batch.failures]
    assert [text.partition(": ")[0] for text in told] == [f"{paths['refcoco']}:{line}" for line in (3, 4, 5)]
    assert "1.png" in told[0]
    assert "2.png" in told[2]


def test_pictures_are_opened_a_few_batches_ahead_and_no_further(
    ofa: OFA, paths: dict[Format, Path], tmp_path: Path
) -> None:
    taken: list[int] = []

    def batches() -> Iterator[list[Sample]]:
        for batch in batched(samples_of(paths, "guesswhat_oracle"), 1):
            taken.append(batch[0].index)
            yield batch

    with Images.open(tmp_path / "images") as images:
        ready = load_images(batches(), images, ofa.pipeline, workers=2)
        next(ready)
        assert taken == list(range(BATCHES_AHEAD + 1))
        next(ready)
        assert taken == list(range(BATCHES_AHEAD + 2))
        ready.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pictures")]


def test_pictures_are_opened_by_threads(
    ofa: OFA, paths: dict[Format, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[str] = set()
    group = loading._group

    def noted(*arguments: object) -> object:
        threads.add(threading.current_thread().name.partition("_")[0])
        return group(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loading, "_group", noted)
    samples = samples_of(paths, "refcoco_grounding")
    batches_of(ofa, samples, tmp_path / "images", workers=2)
    assert threads == {"pictures"}
    batches_of(ofa, samples, tmp_path / "images", workers=0)
    assert threads == {"pictures", threading.current_thread().name.partition("_")[0]}
