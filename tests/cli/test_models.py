"""``ofa-core models``, ``cache``, ``push`` and ``reproduce``, and cards."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bench.runs import write_data
from checkpoint.test_names import run
from checkpoint.web import Web, serving
from PIL import Image
from reference import fairseq_content, quick_config, script

import ofa_core
from ofa_core import OFA, CheckpointError, TaskSettings
from ofa_core.bench.metrics import Score
from ofa_core.checkpoint import download
from ofa_core.checkpoint.released import released
from ofa_core.cli.main import main
from ofa_core.cli.reproduce import compare
from ofa_core.heads.tasks import METHODS, TASKS, answered_methods
from ofa_core.text import small_vocabulary_dir


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Web]:
    with serving() as found:
        monkeypatch.setenv("OFA_RELEASES_URL", found.address)
        monkeypatch.setenv("OFA_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("OFA_BPE_DIR", str(small_vocabulary_dir()))
        monkeypatch.setattr(download, "PAUSES", ())
        config = quick_config(task=TaskSettings(name="refcoco", image_size=64, max_image_size=64, code_dict_size=0))
        torch.save(fairseq_content(config), tmp_path / "made.pt")
        found.files["/checkpoints/refcoco_base_best.pt"] = (tmp_path / "made.pt").read_bytes()
        yield found


def printed(capsys: Any, *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    return str(capsys.readouterr().out)


def error(capsys: Any, *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    told = str(capsys.readouterr().err)
    assert told.count("\n") == 1
    return told


# The table


def test_every_released_checkpoint_is_listed_with_its_figure_and_heads(web: Web, capsys: Any) -> None:
    lines = printed(capsys, "models").splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(released())
    (row,) = [line for line in lines if line.startswith("refcoco_large_best ")]
    assert row.split() == ["refcoco_large_best", "large", "refcoco", "ground", "90.05/92.93/85.26", "(README)"]
    rows = [json.loads(line) for line in printed(capsys, "models", "--json", "vqa", "huge").splitlines()]
    assert [(row["name"], row["answers"]) for row in rows] == [("vqa_huge_best", ["answer"])]


def test_the_table_and_the_list_tell_what_is_in_the_cache(web: Web, capsys: Any) -> None:
    ofa_core.load("refcoco_base_best")
    (row,) = [json.loads(line) for line in printed(capsys, "models", "--json", "refcoco_base_best").splitlines()]
    assert row["in the cache"] == ["downloads", "converted"]
    assert row["MB"] == round(len(web.files["/checkpoints/refcoco_base_best.pt"]) / 1e6)
    listed = printed(capsys, "cache", "list")
    assert re.search(r"downloads +refcoco_base_best\.pt\n", listed)
    assert re.search(r"converted +refcoco_base_best-[0-9a-f]{16}\n", listed)
    assert len(printed(capsys, "cache", "list", "--json").splitlines()) == 2
    assert printed(capsys, "cache", "remove", "refcoco_base_best").count("removed ") == 2
    assert printed(capsys, "cache", "list").startswith("       0.0 MB  in ")
    assert "has no 'refcoco_base_best'; it has nothing" in error(capsys, "cache", "remove", "refcoco_base_best")
    assert printed(capsys, "cache", "remove", "--forget", "refcoco_base_best") == ""


def test_a_download_that_was_cut_off_is_listed_and_removed(web: Web, capsys: Any) -> None:
    web.cuts = [1000]
    with pytest.raises(CheckpointError, match="cut off"):
        ofa_core.load("refcoco_base_best")
    assert "refcoco_base_best.pt (cut off; goes on when it is asked for)" in printed(capsys, "cache", "list")
    printed(capsys, "cache", "remove", "refcoco_base_best")
    ofa_core.load("refcoco_base_best")
    assert web.gets()[-1][1] == ""


# Heads that a model has not learned


def test_pre_trained_models_answer_what_pre_training_taught() -> None:
    taught = {
        "ground", "caption", "describe_region", "answer", "entails", "matches", "is_answer", "complete", "infill",
        "detect",
    }  # fmt: skip
    assert set(answered_methods(TaskSettings(name="unify_task"))) == taught
    assert answered_methods(TaskSettings(name="mnli")) == ["judge"]
    assert {"ground_dialog", "read"} <= set(answered_methods(TaskSettings(name="ofa")))
    learned = answered_methods(TaskSettings(name="refcoco", learned=("guesswhat_oracle", "caption")))
    assert {"ground", "caption", "oracle", "ground_dialog"} <= set(learned)
    assert "answer" not in learned


def test_a_head_that_was_not_learned_warns_once(web: Web) -> None:
    ofa: OFA = ofa_core.load("refcoco_base_best")
    picture = Image.new("RGB", (40, 30), "red")
    few = {"num_beams": 1, "max_new_tokens": 2}
    with pytest.warns(UserWarning, match=r"trained for 'refcoco' and not for what ground_dialog asks"):
        ofa.ground_dialog(picture, [("is it red?", "yes")], **few)
    with pytest.warns(UserWarning, match=r"what judge asks"):
        ofa.judge("cola", "a dog")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ofa.ground_dialog(picture, [("is it red?", "yes")], **few)
        ofa.judge("cola", "a dog")
        ofa.ground(picture, "the dog", num_beams=1)
        ofa.generate(" what?", picture, **few)


# Saving and pushing


def test_a_saved_model_is_the_same_and_has_a_card(web: Web, tmp_path: Path) -> None:
    ofa = ofa_core.load("refcoco_base_best")
    ofa.save(tmp_path / "saved")
    again = ofa_core.load(tmp_path / "saved")
    assert all(torch.equal(value, again.model.state_dict()[name]) for name, value in ofa.model.state_dict().items())
    assert again.model.config == ofa.model.config
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "| task | refcoco |" in card
    assert f'ofa_core.load("{tmp_path / "saved"}")' in card
    with pytest.raises(CheckpointError, match="exists already"):
        ofa.save(tmp_path / "saved")
    (tmp_path / "saved" / "README.md").write_text("my own words")
    ofa_core.load(tmp_path / "saved")  # a card may be changed
    assert main(["inspect", "--verify", str(tmp_path / "saved")]) == 0


def test_a_network_that_its_configuration_does_not_describe_is_not_saved(web: Web, tmp_path: Path) -> None:
    ofa = ofa_core.load("refcoco_base_best")
    ofa.model.encoder.more = torch.nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"2 entries are not part of this model: encoder\.more\.weight"):
        ofa.save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


PUSH = """
from ofa_core.cli.main import main
ofa = ofa_core.load("refcoco_base_best")
print(ofa.push_to_hub("me/first", data=["refcoco"]))
assert main(["push", "refcoco_base_best", "me/second", "--scores", {scores!r}, "--data", "a <b> | c"]) == 0
first, second = ofa_core.load("hf:me/first"), ofa_core.load("hf:me/second")
print(all((value == second.model.state_dict()[name]).all() for name, value in first.model.state_dict().items()))
"""


def test_a_model_is_pushed_and_loads_again(web: Web, tmp_path: Path, small_directory: Path, capsys: Any) -> None:
    data = write_data(tmp_path, 3)["refcoco"]
    where = ("--data", data, "--images", tmp_path / "images", "--out", tmp_path / "res")
    printed(capsys, "bench", "refcoco_grounding", "--model", small_directory, *where)
    (scores,) = [path for path in (tmp_path / "res").rglob("*.json") if path.stem[0].isdigit()]
    out, err = run(web, tmp_path, PUSH.format(scores=str(scores)))
    lines = out.splitlines()
    assert lines[:1] + lines[-1:] == [f"{web.address}/me/first", "True"], err
    files = web.repos["me/second"].files
    assert {"config.json", "model.safetensors", "README.md", "SHA256SUMS", "encoder.json"} <= files.keys()
    card = files["README.md"].decode()
    assert 'ofa_core.load("hf:me/second")' in card
    assert "| trained on | a &lt;b> \\| c |" in card
    assert re.search(r"\| refcoco_grounding \| \S+ \| acc@0\.5 \| [0-9.]+ \([0-9.]+ to [0-9.]+\), 3 samples \|", card)
    assert "| trained on | refcoco |" in web.repos["me/first"].files["README.md"].decode()
    assert error(capsys, "push", small_directory, "me/x", "--scores", data).endswith("as a .json\n")


# Reproducing


def test_a_published_figure_is_compared_with_ours(web: Web, tmp_path: Path, capsys: Any) -> None:
    data = write_data(tmp_path, 4)["refcoco"]
    named = data.rename(data.with_name("refcoco_testA.tsv"))
    common = ("--data", named, "--images", tmp_path / "images", "--out", tmp_path / "results", "--quiet")
    told = printed(capsys, "reproduce", "refcoco_base_best", *common)
    assert re.search(
        r"refcoco_base_best, testA, 4 samples\n  ours +[0-9.]+, 95% interval .*\n  published +90\.67\n", told
    )
    found = json.loads(printed(capsys, "reproduce", "refcoco_base_best", *common, "--figure", "val", "--json"))
    assert (found["split"], found["published"], found["samples"]) == ("val", 88.48, 4)
    assert found["agrees"] == (found["low"] <= 88.48 <= found["high"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("refcoco_base_best", "--data", "rows.tsv"), "were published for val, testA, testB: pass one with --figure"),
        (("refcoco_base_best", "--data", "val.tsv", "--figure", "dev"), "pass one with --figure"),
        (("refcoco_bse_best", "--data", "val.tsv"), "is no released checkpoint; nearest: refcoco_base_best"),
        (("caption_base_best", "--data", "val.tsv"), "was trained for caption, which no benchmark here scores"),
        (
            ("damo/ofa_visual-grounding_refcoco_large_en", "--data", "val.tsv"),
            "no figures of .* were published by split",
        ),
    ],
)
def test_what_cannot_be_compared_is_one_line(web: Web, capsys: Any, arguments: tuple[str, ...], message: str) -> None:
    assert re.search(message, error(capsys, "reproduce", *arguments))
    assert web.asked == []


def test_the_interval_decides() -> None:
    entry = released()["refcocoplus_large_best"]  # published 85.80, of the released file 84.45
    lines = {}
    for value in (0.858, 0.845, 0.83):
        found = compare(entry, "val", Score(value=value, low=value - 0.005, high=value + 0.005), 10834)
        lines[found.agrees, value] = "\n".join(found.lines())
    assert [agrees for agrees, _ in lines] == [True, True, False]
    assert "published  85.80 (of the released file: 84.45)" in lines[True, 0.845]
    assert "differs: no published figure lies within the interval; the difference is -2.80" in lines[False, 0.83]


def test_the_pages_have_the_table_of_released_models() -> None:
    models = script("released_models")
    for path in models.PAGES:
        text = path.read_text(encoding="utf-8")
        assert models.with_tables(text) == text, f"run scripts/released_models.py: {path.name} differs"
        assert "<!-- models: " in text


def test_a_method_is_named_by_one_table() -> None:
    named = {method.partition("(")[0]: name for method, name, _ in script("task_tables").METHODS}
    of_no_task = {
        "head_probabilities", "generate", "look", "chat", "is_present", "encode_image", "decode_codes", "explain",
        "ground_caption",
    }  # fmt: skip
    assert named.keys() - of_no_task == METHODS
    of_tasks = {method: name for method, name in named.items() if name in TASKS and method not in of_no_task}
    assert all(TASKS[name].method == method for method, name in of_tasks.items())
