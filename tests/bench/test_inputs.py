"""A run goes on only with what it began with: the same rows, pictures and vocabulary."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from bench import files
from bench.runs import only, rows_in, run_of, save_lively

from ofa_core import OFA, OFAError
from ofa_core.bench import inputs
from ofa_core.bench.inputs import changed_inputs, data_inputs, model_inputs
from ofa_core.bench.results import Header, iter_rows
from ofa_core.bench.runner import Run, run_task
from ofa_core.checkpoint.digests import DIGESTS_FILE
from ofa_core.data.loading import DataFiles
from ofa_core.data.records import Format
from ofa_core.utils.distributed import Process

TASK = "refcoco_grounding"


def lines_of(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


CHANGES: dict[str, tuple[str, Callable[[Path, Path], object]]] = {
    "reordered": ("data", lambda data, _: lines_of(data, lambda lines: lines[::-1])),
    "cut": ("data", lambda data, _: lines_of(data, lambda lines: lines[:-1])),
    "another picture": ("images", lambda _, images: shutil.copy(images / "1.png", images / "0.png")),
    "a picture more": ("images", lambda _, images: shutil.copy(images / "1.png", images / "9.png")),
    "a picture less": ("images", lambda _, images: (images / "0.png").unlink()),
}


@pytest.fixture(params=["killed", "finished"])
def begun(request: pytest.FixtureRequest, ofa: OFA, paths: dict[Format, Path], tmp_path: Path) -> Run:
    """A run that was begun, ready to be resumed."""
    run = run_of(ofa, TASK, paths, tmp_path / "out", resume=True)
    outcome = run_task(run, Process())
    assert outcome is not None
    if request.param == "killed":
        outcome.path.with_suffix(".json").unlink()
        lines_of(outcome.path, lambda lines: lines[:3])
    return run


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_refused_by_name_and_can_be_restored(begun: Run, tmp_path: Path, change: str) -> None:
    name, make = CHANGES[change]
    path = only(tmp_path / "out")
    before, data, images = path.read_bytes(), begun.data.path, tmp_path / "images"
    kept = shutil.copytree(images, tmp_path / "kept"), data.read_bytes()
    make(data, images)
    said = f"{path} cannot be resumed: {name} changed since .*; restore what it was, or begin anew without --resume or"
    with pytest.raises(OFAError, match=said):
        run_task(begun, Process())
    assert path.read_bytes() == before
    shutil.rmtree(images)
    shutil.copytree(kept[0], images)
    data.write_bytes(kept[1])
    outcome = run_task(begun, Process())
    assert outcome is not None
    assert (outcome.path, len(rows_in(path))) == (path, 5)
    anew = run_task(replace(begun, resume=False), Process())
    assert anew is not None
    assert anew.path != path


def test_files_of_versions_that_did_not_tell_go_on_with_a_warning(begun: Run, tmp_path: Path) -> None:
    path = only(tmp_path / "out")
    told = iter_rows(path)[0]
    assert set(told.inputs) == {"data", "images"}
    for file in (path, path.with_suffix(".json")):
        if file.exists():
            text = file.read_text()
            start = text.index('"inputs"')
            file.write_text(text[:start] + text[text.index("}", start) + 2 :])
    assert iter_rows(path)[0] == told.model_copy(update={"inputs": {}})
    with pytest.warns(UserWarning, match="does not tell what its run read"):
        outcome = run_task(begun, Process())
    assert outcome is not None
    assert (outcome.path, len(rows_in(path))) == (path, 5)


@pytest.mark.parametrize("name", ["vocab.bpe", "dict.txt", "encoder.json", "config.json"])
def test_a_models_vocabulary_and_configuration_are_told(tmp_path: Path, name: str) -> None:
    directory = save_lively(tmp_path / "model")
    before = model_inputs(directory, "model")
    other = save_lively(tmp_path / "other")
    assert model_inputs(other, "model") == before
    (other / DIGESTS_FILE).unlink()  # which would name the file before
    text = (other / name).read_text()
    (other / name).write_text(text.replace('"image_size": ', '"image_size": 1') if name == "config.json" else text[:-9])
    expected = "model's configuration" if name == "config.json" else f"model's {name}"
    assert changed_inputs(before, model_inputs(other, "model")) == [expected]
    (directory / "conversion.json").write_text("{}")
    assert model_inputs(directory, "model") == before, "where it comes from makes no answers"


def test_an_adapter_is_part_of_what_a_run_reads(tmp_path: Path) -> None:
    directory = save_lively(tmp_path / "model")
    before = model_inputs(directory, "model")
    (tmp_path / "adapter_config.json").write_text("{}")
    told = model_inputs(directory, "model", tmp_path)
    assert changed_inputs(before, told) == ["model's adapter's adapter_config.json"]
    (tmp_path / "adapter_config.json").write_text("{ }")
    other = model_inputs(directory, "model", tmp_path)
    assert changed_inputs(told, other) == ["model's adapter's adapter_config.json"]


@pytest.mark.parametrize("kind", ["directory", "zip", "tar"])
@pytest.mark.parametrize("at_most", [1 << 20, 0], ids=["read", "told by less"])
def test_pictures_in_every_place_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, at_most: int
) -> None:
    monkeypatch.setattr(inputs, "READ_AT_MOST", at_most)
    place = tmp_path / {"directory": "images", "zip": "images.zip", "tar": "images.tar"}[kind]

    def written(content: bytes) -> dict[str, str]:
        pictures = {"a/0.png": b"first", "a/1.png": content}
        if kind == "directory":
            (place / "a").mkdir(parents=True, exist_ok=True)
            for name, picture in pictures.items():
                (place / name).write_bytes(picture)
            os.utime(place / "a" / "0.png", (1, 1))
        else:
            (files.write_zip if kind == "zip" else files.write_tar)(place, pictures)
        return data_inputs(DataFiles(rows, place), "refcoco")

    rows = files.written(tmp_path / "x.tsv", b"x")
    first, second = written(b"second"), written(b"sec0nd")  # of the same length
    assert changed_inputs(first, second) == ["images"]
    assert changed_inputs(second, data_inputs(DataFiles(rows, place), "refcoco")) == []


def test_a_directory_of_rows_is_told_by_names_and_contents(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    for number in range(2):
        files.write_parquet(directory / f"{number}.parquet", [files.dialog(number)])
    before = data_inputs(DataFiles(directory), "refcoco")
    (directory / "README.md").write_text("no rows")
    assert data_inputs(DataFiles(directory), "refcoco") == before
    (directory / "0.parquet").rename(directory / "2.parquet")
    assert changed_inputs(before, data_inputs(DataFiles(directory), "refcoco")) == ["data"]


def test_the_order_of_columns_is_told(tmp_path: Path) -> None:
    data = files.written(tmp_path / "x.tsv", b"x")
    one, two = (data_inputs(DataFiles(data, columns=names), "refcoco") for names in (("a", "b"), ("b", "a")))
    assert changed_inputs(one, two) == ["columns"]


def test_pictures_alone_are_told_wherever_links_lead(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "images", tmp_path / "elsewhere"
    (root / "a").mkdir(parents=True)
    elsewhere.mkdir()
    (root / "a" / "around").symlink_to(root)
    (root / "a" / "elsewhere").symlink_to(elsewhere)
    (root / "broken.png").symlink_to("nowhere")
    os.mkfifo(root / "pipe.png")
    data = files.written(tmp_path / "x.tsv", b"x")
    before = data_inputs(DataFiles(data, root), "refcoco")
    for name in ("results.jsonl", "report.html", ".0.png", "run.log"):
        (root / name).write_text("not a picture")
    assert data_inputs(DataFiles(data, root), "refcoco") == before
    (elsewhere / "0.JPG").write_bytes(b"a picture")
    assert changed_inputs(before, data_inputs(DataFiles(data, root), "refcoco")) == ["images"]


def test_many_pictures_are_told_quickly(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"{number}.png").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "FILES_AT_MOST", 2999)
        patch.setattr(inputs, "sha256", lambda path: path.suffix == ".png" and pytest.fail("it was read"))
        found = data_inputs(DataFiles(files.written(tmp_path / "x.tsv", b""), tmp_path), "refcoco")
    assert found["images"].startswith("listing:")


def test_the_header_keeps_what_was_told(paths: dict[Format, Path]) -> None:
    told = data_inputs(DataFiles(paths["refcoco"], paths["refcoco"].parent / "images"), "refcoco")
    header = Header(task=TASK, comment="c", model="m", model_sha256="0", data="d", started="", inputs=told)
    assert Header.model_validate_json(header.model_dump_json()) == header


def test_what_is_read_beside_a_file_is_told_too(tmp_path: Path) -> None:
    def changed(rows: Path, format: Format, other: Path) -> list[str]:
        before = data_inputs(DataFiles(rows), format)
        other.write_bytes(other.read_bytes() + b" ")
        return changed_inputs(before, data_inputs(DataFiles(rows), format))

    references = files.written(tmp_path / "refs(unc).p", b"1")
    boxes = files.written(tmp_path / "instances.json", b"{}")
    assert changed(references, "refcoco", boxes) == ["data's instances.json"]
    questions = files.written(tmp_path / "v2_questions.json", b"{}")
    annotations = files.written(tmp_path / "v2_annotations.json", b"{}")
    assert changed(questions, "vqa", annotations) == ["data's v2_annotations.json"]
    folder = tmp_path / "mine"
    folder.mkdir()
    metadata = files.written(folder / "metadata.jsonl", b"{}")
    assert changed(folder, "refcoco", metadata) == ["data"]
    classes = tmp_path / "classes"
    (classes / "n01").mkdir(parents=True)
    picture = files.written(classes / "n01" / "1.png", files.encoded(1))
    names = files.written(classes / "synset_words.txt", b"n01 dog\n")
    assert changed(classes, "image_classify", names) == ["data's synset_words.txt"]
    assert changed(classes, "image_classify", picture) == ["images"]


def test_rows_in_memory_are_told_by_what_they_say() -> None:
    rows = [{"image": "1.png", "text": "it", "box": [1, 2, 30, 40]}]
    before = data_inputs(DataFiles(rows), "refcoco")
    assert data_inputs(DataFiles([dict(rows[0])]), "refcoco") == before
    assert changed_inputs(before, data_inputs(DataFiles([rows[0] | {"text": "that"}]), "refcoco")) == ["data"]
