"""The folder that an export writes, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import ofa_core
from ofa_core import GenerationOptions, OFAError
from ofa_core.cli.main import main
from ofa_core.export import export_model
from ofa_core.export.folder import exported_config, searched
from ofa_core.export.rounding import compare


def test_a_folder_says_what_it_is(small_directory: Path) -> None:
    found = exported_config(ofa_core.load(small_directory), "onnx", int8=False)
    assert (found["format"], found["opset"], found["weights"], found["why_not"]) == ("onnx", 18, "float32", "")
    assert found["graphs"] == ["encoder.onnx", "decoder.onnx"]
    assert found["ground"]["image_size"] == found["image_size"] == 64
    assert json.loads(json.dumps(found)) == found


def test_a_model_directory_is_not_replaced(small_directory: Path) -> None:
    with pytest.raises(OFAError, match="is a model directory, which an export does not replace"):
        export_model(small_directory, small_directory, "torch", overwrite=True)
    assert ofa_core.load(small_directory)


def test_int8_is_for_onnx(small_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(small_directory), str(tmp_path / "out"), "--format", "torch", "--int8"]) == 2
    told = capsys.readouterr()
    assert told.err == "ofa-core: int8 rounds the weights of ONNX files: it needs the format onnx\n"
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_kept(small_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["export", str(small_directory), str(tmp_path), "--format", "torch"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["export", str(small_directory), str(tmp_path), "--format", "torch", "--overwrite"]) == 2
    assert "is not a model directory and is not overwritten" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_wrong_format_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", "demo", "out", "--format", "tensorrt"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_int8_without_onnxruntime(monkeypatch: pytest.MonkeyPatch, small_directory: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="ONNX files need onnxscript")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(OFAError, match="rounding to int8 needs onnxruntime"):
        export_model(small_directory, tmp_path / "out", int8=True)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_beams": 4, "num_beam_groups": 2}, "num_beam_groups"),
        ({"do_sample": True}, "do_sample"),
        ({"suppress_special_tokens": True}, "suppress_special_tokens"),
    ],
    ids=["groups", "sampling", "suppressed"],
)
def test_a_search_that_the_runner_does_not_know(options: dict[str, int], named: str) -> None:
    with pytest.raises(OFAError, match=f"the runner's search does not know {named}"):
        searched(GenerationOptions(**options), 1024)  # type: ignore[typeddict-item]


def test_settings_that_do_not_matter_are_no_hindrance() -> None:
    found = searched(GenerationOptions(constrain_after_softmax=True, diversity_penalty=0.1, num_beams=3), 7)
    assert found["num_beams"] == 3
    assert found["max_target_positions"] == 7


def test_a_comparison_counts_boxes_and_tokens() -> None:
    answers = {"a": ([0.0, 0.0, 2.0, 2.0], [1]), "b": ([0.0, 0.0, 2.0, 1.0], [2]), "c": (None, [3]), "d": (None, [4])}

    def one(path: Path, text: str) -> dict[str, object]:
        box, tokens = answers[text]
        return {"box": box, "tokens": tokens}

    def other(path: Path, text: str) -> dict[str, object]:
        return one(path, {"b": "a", "d": "b"}.get(text, text))

    found = compare([(Path(), text) for text in answers], one, other)
    assert (found.questions, found.equal) == (4, 2)
    assert found.iou == pytest.approx((1 + 0.5 + 1 + 0) / 4)
    assert found.line() == "int8 and float32 on 4 drawn pictures: IoU 0.6250, 2 equal"
