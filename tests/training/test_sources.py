"""What the rows of each kind of dataset teach is what the heads ask and the published models answered."""

from __future__ import annotations

import base64
import gzip
import io
import json
import multiprocessing
import tempfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from reference import lively_ofa, scripted
from training.made import TOKENIZER, picture

from ofa_core import OFA, OFAError, TaskSettings
from ofa_core.data.rows import ShuffledRecords
from ofa_core.heads.grounding import invig_codec, refcoco_codec
from ofa_core.training.batches import Source
from ofa_core.training.settings import DataSettings
from ofa_core.training.sources import LESSONS, make_source

BOX = (8.0, 16.0, 40.0, 48.0)
GAME = [("Is it red?", "Yes"), ("is it a dog?", "No")]
TALK = [["", "The Red one."], ["which one?", "the left one."], ["sure?", "yes."]]


def shown() -> bytes:
    buffer = io.BytesIO()
    picture("red").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A row of every format, all about one picture."""
    (tmp_path / "1.png").write_bytes(shown())
    inline = base64.b64encode(shown()).decode()
    game = {
        "id": 1,
        "image": {"id": 1, "file_name": "1.png", "width": 64, "height": 64},
        "objects": [{"id": 5, "category": "dog", "bbox": [8, 16, 32, 32]}],
        "object_id": 5,
        "qas": [{"question": question, "answer": answer} for question, answer in GAME],
        "status": "success",
    }
    dialog = {"id": 2, "image_path": "1.png", "bbox": BOX, "dialog": TALK}
    with gzip.open(tmp_path / "guesswhat.jsonl.gz", "wt") as file:
        file.write(json.dumps(game))
    (tmp_path / "invig.jsonl").write_text(json.dumps(dialog))
    (tmp_path / "refcoco.tsv").write_text(f"3\t1.png\tThe red dog\t8,16,40,48\t{inline}\n")
    (tmp_path / "caption.tsv").write_text("4\t1.png\ta red dog, lying (there).\tdog\t\n")
    (tmp_path / "vqa.tsv").write_text("5\t1.png\tWhat is it\t0.5|!+cat&&0.9|!+dog\tdog&&grass\t\n")
    return tmp_path


FILES = {"guesswhat": "guesswhat.jsonl.gz", "invig": "invig.jsonl"}


def source_of(task: str, data: Path, ofa: OFA) -> Source:
    format = LESSONS[task].format
    settings = DataSettings(task=task, path=data / FILES.get(format, f"{format}.tsv"), images=data)
    return make_source(settings, ofa.pipeline, seed=1)


def ofa_with(**task: Any) -> OFA:
    return lively_ofa(task=TaskSettings(image_size=64, max_image_size=64, code_dict_size=0, **task))


def region(ofa: OFA) -> str:
    return " ".join(f"<bin_{number}>" for number in invig_codec(ofa.pipeline).encode(BOX, (64, 64)))


TURNS = ["The Red one.", "which one?", "the left one.", "sure?", "yes."]
ASKED: dict[str, Any] = {
    "refcoco_grounding": lambda ofa, image: [ofa.ground(image, "The red dog")],
    "refcoco_caption": lambda ofa, image: [ofa.describe_region(image, BOX)],
    "caption": lambda ofa, image: [ofa.caption(image)],
    "vqa": lambda ofa, image: [ofa.answer(image, "What is it")],
    "guesswhat_grounding": lambda ofa, image: [ofa.ground_dialog(image, GAME)],
    "guesswhat_oracle": lambda ofa, image: [
        ofa.oracle(image, BOX, GAME[:0], GAME[0][0]),
        ofa.oracle(image, BOX, GAME[:1], GAME[1][0]),
    ],
    "guesswhat_question": lambda ofa, image: [ofa.ask(image, GAME[:0]), ofa.ask(image, GAME[:1])],
    "invig_grounding": lambda ofa, image: [ofa.ground_dialog(image, TURNS, style="invig")],
    "invig_oracle": lambda ofa, image: [
        ofa.query(image, BOX),
        ofa.oracle(image, BOX, TURNS[:1], TURNS[1], style="invig"),
        ofa.oracle(image, BOX, TURNS[:3], TURNS[3], style="invig"),
    ],
    "invig_question": lambda ofa, image: [
        ofa.ask(image, TURNS[:1], style="invig"),
        ofa.ask(image, TURNS[:3], style="invig"),
    ],
    "invig_agent": lambda ofa, image: [ofa.agent_turn(image, TURNS[:at]) for at in (1, 3, 5)],
}
ANSWERED: dict[str, list[str]] = {
    "refcoco_caption": [" The red dog"],
    "caption": [" a red dog lying there"],
    "vqa": [" dog"],
    "guesswhat_grounding": [" region: {region}"],
    "guesswhat_oracle": [" yes", " no"],
    "guesswhat_question": [" is it red?", " is it a dog?"],
    "invig_grounding": [" region: {region}"],
    "invig_oracle": [" the red one.", " the left one.", " yes."],
    "invig_question": [" which one?", " sure?"],
    "invig_agent": [" not yet. which one?", " not yet. sure?", " sure. region: {region}"],
}


def test_every_lesson_is_tested() -> None:
    assert ASKED.keys() == LESSONS.keys()
    assert ANSWERED.keys() == LESSONS.keys() - {"refcoco_grounding"}


@pytest.mark.parametrize("task", LESSONS)
def test_sources_are_those_that_the_head_feeds_the_model(
    task: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ofa = ofa_with()
    examples = source_of(task, data, ofa).examples(0)
    asked = scripted(monkeypatch, [10])
    ASKED[task](ofa, picture("red"))
    assert [list(example.source) for example in examples] == [list(one.sources[0]) for one in asked]
    assert len({id(example.image) for example in examples}) == 1


@pytest.mark.parametrize("task", ANSWERED)
def test_targets_are_what_people_said(task: str, data: Path) -> None:
    ofa = ofa_with()
    examples = source_of(task, data, ofa).examples(0)
    ids = [TOKENIZER.encode(text.format(region=region(ofa)), symbols=True, keep_spaces=True) for text in ANSWERED[task]]
    said = [text.replace("{region}", "").strip() for text in ANSWERED[task]]
    for example, words, whole in zip(examples, said, ids, strict=True):
        texts = [token for token in example.target[:-1] if TOKENIZER.vocabulary.bin_of(token) is None]
        assert TOKENIZER.decode(texts).strip() == words
        bins = [token for token in example.target if TOKENIZER.vocabulary.bin_of(token) is not None]
        assert bins == [token for token in whole if TOKENIZER.vocabulary.bin_of(token) is not None]


def test_a_phrase_has_its_box_in_the_originals_convention(data: Path) -> None:
    ofa = ofa_with()
    (example,) = source_of("refcoco_grounding", data, ofa).examples(0)
    bins = [TOKENIZER.vocabulary.bin_of(token) for token in example.target[:-1]]
    assert bins == refcoco_codec(ofa.pipeline).encode(BOX, (64, 64))


def test_a_question_begins_with_the_checkpoints_prompt_and_weighs_as_people_agree(data: Path) -> None:
    (example,) = source_of("vqa", data, ofa_with()).examples(0)
    assert example.prompt == example.source[:-1], "the original's own way: prev_output"
    assert example.weight == 0.9
    (example,) = source_of("vqa", data, ofa_with(prompt_type="none")).examples(0)
    assert list(example.prompt) == [TOKENIZER.vocabulary.bos]


def test_names_of_objects_are_given_to_models_that_know_them(data: Path) -> None:
    with_them = source_of("vqa", data, ofa_with(add_object=True)).examples(0)[0].source
    assert TOKENIZER.decode(with_them).endswith(" object: dog grass")


def test_an_epoch_has_every_row_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    inline = base64.b64encode(shown()).decode()
    lines = [f"{number}\t\tthing {number}\t8,16,40,48\t{inline}" for number in range(20)]
    (tmp_path / "x.tsv").write_text("\n".join(lines))
    rows = ShuffledRecords("refcoco", tmp_path / "x.tsv", None, seed=3)
    epochs = [[rows.row(index)[0].id for index in range(start, start + 20)] for start in (0, 20)]
    assert [sorted(epoch, key=int) for epoch in epochs] == [[str(number) for number in range(20)]] * 2
    assert epochs[0] != epochs[1]
    again = ShuffledRecords("refcoco", tmp_path / "x.tsv", None, seed=3)
    assert again.row(25)[0].id == epochs[1][5], "whatever was read before"
    assert isinstance(again.row(0)[1], Image.Image)


def test_inline_pictures_wait_on_the_disk_in_a_file_without_a_name(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    rows = ShuffledRecords("refcoco", data / "refcoco.tsv", None)
    assert rows._records[0].inline is None
    assert rows._inline.read(*rows._places[0]) == shown()
    assert list((tmp_path / "temporary").iterdir()) == [], "whatever ends the process, nothing is left"


def _send_row(rows: ShuffledRecords, connection: Any) -> None:
    connection.send(rows.row(0)[0].id)


def test_a_process_that_was_not_forked_reads_them_too(data: Path) -> None:
    rows = ShuffledRecords("refcoco", data / "refcoco.tsv", None)
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_send_row, args=(rows, there))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert here.recv() == rows.row(0)[0].id


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "grounding"}, "there is no training task 'grounding'; there are shapes, refcoco_grounding"),
        ({"task": "vqa"}, "the training task 'vqa' needs a path and has no options"),
        ({"task": "vqa", "path": "missing.tsv"}, "data missing.tsv does not exist"),
        ({"task": "shapes", "path": "x.tsv"}, "'shapes' draws its pictures and takes no path"),
        ({"task": "shapes", "options": {"emphasis": {}}}, "emphasis is called loss_weights now"),
        ({"task": "shapes", "options": {"weight": 1}}, "the options of the task 'shapes' are wrong: .*weight"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(OFAError, match=message):
        make_source(DataSettings.model_validate(settings), ofa_with().pipeline, seed=0)


def test_wrong_rows_stop_a_run_or_are_left_out(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = data / "refcoco.tsv"
    path.write_text(path.read_text() + "9\t1.png\tno box\t8,16,4\t\n")
    with pytest.raises(OFAError, match=r"refcoco\.tsv:2: region-coord"):
        ShuffledRecords("refcoco", path, data)
    assert len(ShuffledRecords("refcoco", path, data, skip_bad=True)) == 1
    assert "skipped: " in capsys.readouterr().err
    path.write_text("")
    with pytest.raises(OFAError, match="holds no rows to learn from"):
        ShuffledRecords("refcoco", path, data)


def test_rows_lead_out_of_the_pictures_only_where_that_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "secret.png").write_bytes(shown())
    (tmp_path / "rows.tsv").write_text(f"1\t{tmp_path}/secret.png\ta thing\t1,2,30,40\t\n")
    settings = {"task": "refcoco_grounding", "path": tmp_path / "rows.tsv", "images": tmp_path / "images"}
    source = make_source(DataSettings(**settings), lively_ofa().pipeline, 0)
    with pytest.raises(OFAError, match=r"secret\.png lies outside of .*allow_outside = true"):
        source.examples(0)
    source = make_source(DataSettings(**settings, allow_outside=True), lively_ofa().pipeline, 0)
    assert len(source.examples(0)) == 1
