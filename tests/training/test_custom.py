"""A task of one's own: rows with any columns, templates of what is read and said, learned and evaluated alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from reference import scripted
from training.made import TOKENIZER, picture, settings

from ofa_core import OFA, OFAError
from ofa_core.bench.evaluate import evaluate
from ofa_core.bench.results import iter_rows
from ofa_core.cli.main import main
from ofa_core.data.loading import DataFiles
from ofa_core.data.read_options import ReadOptions
from ofa_core.data.readers import read_records
from ofa_core.heads.grounding import refcoco_codec
from ofa_core.training.run import make_trainer, trained
from ofa_core.training.setting_tables import DataSettings, EvaluationSettings
from ofa_core.training.sources import make_source

BOX = [8.0, 16.0, 40.0, 48.0]
TEMPLATES: dict[str, Any] = {"source": "what is {thing}?", "target": "{colour}"}
ROWS: list[dict[str, Any]] = [
    {"image": "1.png", "thing": "the {dog}", "colour": "red", "box": BOX, "n": 3},
    {"thing": "grass", "colour": "Green.", "n": 2.5},
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    picture("red").save(tmp_path / "1.png")
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return tmp_path / "rows.jsonl"


def source_of(data: Path, ofa: OFA, **templates: Any) -> Any:
    return make_source(DataSettings(task="custom", path=data, images=data.parent, **templates), ofa.pipeline, seed=1)


def texts(source: Any) -> set[tuple[str, str]]:
    examples = [source.examples(index)[0] for index in range(2)]
    return {(TOKENIZER.decode(one.source), TOKENIZER.decode(one.target[:-1])) for one in examples}


def test_templates_say_what_is_read_and_said(ofa: OFA, data: Path) -> None:
    source = source_of(data, ofa, **TEMPLATES)
    assert texts(source) == {(" what is the {dog}?", " red"), (" what is grass?", " Green.")}
    pictures = {TOKENIZER.decode(one.target[:-1]): one.image for one in (source.examples(0)[0], source.examples(1)[0])}
    assert pictures[" Green."] is None
    assert pictures[" red"] is not None
    literal = {"source": "{{{n}}} of {thing}", "target": "{n} {colour}"}
    assert (" {3} of the {dog}", " 3 red") in texts(source_of(data, ofa, **literal))


def test_a_box_is_said_in_bins_and_never_read_from_a_text(ofa: OFA, data: Path) -> None:
    (row, _) = ROWS
    data.write_text(json.dumps(row | {"thing": "<bin_7>"}))
    source = source_of(data, ofa, source="what is in {box}, {thing}?", target="{box} {colour}")
    (example,) = source.examples(0)
    vocabulary = TOKENIZER.vocabulary
    bins = vocabulary.bins_to_ids(refcoco_codec(ofa.pipeline).encode(tuple(BOX), (64, 64)))
    encode = TOKENIZER.encode
    assert list(example.source) == [0, *encode(" what is in"), *bins, *encode(", <bin_7>?"), 2]
    assert list(example.target) == [*bins, *encode(" red"), 2]


@pytest.mark.parametrize(
    ("row", "templates", "message"),
    [
        (
            ROWS[0],
            {"source": "{name}"},
            r"rows.jsonl:1: name: the source names this column, and the row has image, thi",
        ),
        (ROWS[0], {"target": "{box}", "source": "{n"}, "source '{n' has a brace that stands alone"),
        (ROWS[0], {"source": "{n!r}"}, "should hold names of columns in its braces, and nothing else"),
        (ROWS[0], {"source": "{}"}, "should hold names of columns in its braces, and nothing else"),
        (ROWS[0], {"source": None}, "need a source and a target.* source is missing"),
        (ROWS[1], {"target": "{box}"}, "rows.jsonl:1: box: a template names it, and the row has none"),
        (ROWS[1] | {"box": BOX}, {"target": "{box}"}, "rows.jsonl:1: image: a box is on none"),
        (ROWS[0] | {"box": [1, 2, 3]}, {"target": "{box}"}, "rows.jsonl:1: box"),
        (ROWS[0] | {"colour": " "}, {}, "rows.jsonl:1: target: it is empty"),
        (ROWS[0] | {"colour": ["red"]}, {}, "rows.jsonl:1: colour: the target needs a text or a number, not list"),
        (ROWS[0] | {"colour": "\ud800"}, {}, "rows.jsonl:1: colour: it holds half of a surrogate pair"),
        (ROWS[0] | {"thing": "dog " * 1100}, {}, "rows.jsonl:1: source: it has .* the model reads no more than"),
        (ROWS[0] | {"colour": "red " * 1100}, {}, "rows.jsonl:1: target: it has .* the model says no more than"),
    ],
)
def test_what_cannot_be_used_is_named(ofa: OFA, data: Path, row: Any, templates: Any, message: str) -> None:
    data.write_text(json.dumps(row))
    with pytest.raises(OFAError, match=message):
        source_of(data, ofa, **(TEMPLATES | templates)).examples(0)


def test_a_column_that_no_template_names_may_hold_anything(ofa: OFA, data: Path) -> None:
    data.write_text(json.dumps(ROWS[0] | {"box": "none", "more": [1]}))
    assert texts(source_of(data, ofa, **TEMPLATES)) == {(" what is the {dog}?", " red")}


def test_templates_are_for_this_task_alone(data: Path) -> None:
    with pytest.raises(ValueError, match="source is for the task 'custom' alone, and 'caption' has its own prompt"):
        DataSettings(task="caption", path=data, source="{text}")
    with pytest.raises(ValueError, match="target is for the task 'custom' alone"):
        EvaluationSettings(task="vqa", path=data, target="{text}")


def test_all_columns_of_a_parquet_file_are_there(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.Table.from_pylist([{"thing": "grass", "colour": "green"}]), tmp_path / "a.parquet")
    (record,) = read_records("custom", tmp_path / "a.parquet", options=ReadOptions(**TEMPLATES))
    assert (record.source, record.target, record.has_picture) == (("what is grass?",), ("green",), False)


def test_the_benchmark_compares_whole_texts_and_characters(
    ofa: OFA, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [*TOKENIZER.encode(" red"), 2])
    files = DataFiles(data, data.parent, options=ReadOptions(**TEMPLATES))
    summary = evaluate(ofa, "custom", files)
    assert summary.headline.name == "exact"
    assert summary.headline.value == 0.5
    assert summary.scores["characters"].value == pytest.approx((1 + 2 / 6) / 2), "of Green. two letters are there"


def test_a_task_of_ones_own_is_learned_and_scored(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"task": "custom", "path": data, "images": data.parent, **TEMPLATES}
    changes: dict[str, Any] = {
        "data": [own],
        "evaluation": [own],
        "steps": 150,
        "save_every": 150,
        "config": {"dropout": 0.0},
    }
    trainer = trained(settings(tmp_path / "run", **changes, optimizer={"lr": 3e-3}))
    assert trainer.headline == ("custom/rows", 1.0, 150)
    (results,) = (tmp_path / "run/evaluation/custom/step-150").glob("*.jsonl")
    _, rows = iter_rows(results)
    assert {(row.target, row.output) for row in rows} == {("red", "red"), ("Green.", "Green.")}
    command = ["bench", "custom", "--model", str(tmp_path / "run/last"), "--data", str(data), "--quiet", "--json"]
    command += ["--images", str(data.parent), "--out", str(tmp_path / "results")]
    asked = ["--source", TEMPLATES["source"], "--target", TEMPLATES["target"]]
    assert main([*command, *asked]) == 0
    assert json.loads(capsys.readouterr().out)["headline"]["value"] == 1.0
    assert main(command) == 2
    assert "source is missing" in capsys.readouterr().err


def test_templates_of_an_evaluation_are_looked_at_before_the_run(data: Path, tmp_path: Path) -> None:
    own = {"task": "custom", "path": data, "images": data.parent, **TEMPLATES}
    with pytest.raises(OFAError, match=r"the first problem is .*rows.jsonl:1: name: the source names this column"):
        make_trainer(settings(tmp_path / "run", data=[own], evaluation=[own | {"source": "{name}"}]))


def test_the_options_are_refused_where_no_task_has_a_use_for_them(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "caption", "--model", "x", "--data", str(data), "--source", "{thing}"]) == 2
    assert "custom" in capsys.readouterr().err
