"""Lessons in TiO's prompts: rows of every format teach pairs that its functions could have made."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from reference import lively_ofa
from training.made import picture

from ofa_core import OFA, OFAError, TaskSettings
from ofa_core.data.examples import Example
from ofa_core.data.records import Record
from ofa_core.text.tio import TIO_TASKS
from ofa_core.training.lessons import Row
from ofa_core.training.setting_tables import DataSettings
from ofa_core.training.sources import LESSONS, make_source
from ofa_core.training.tio_lessons import tio_lessons

IMAGE = picture("red")
BOX = (8.0, 16.0, 40.0, 48.0)
REGION = "<bin_125> <bin_250> <bin_624> <bin_749>"  # a fraction of 0.625 lies at 624.375 of 999
TALK = ("The Red one.", "Which one?", "the left one.", "Sure?", "Yes.")
GAME = ("Is it red?", "yes", "is it a dog?", "no")


@pytest.fixture(scope="module")
def ofa() -> OFA:
    return lively_ofa(task=TaskSettings(image_size=64, max_image_size=64, code_dict_size=0))


def taught(
    ofa: OFA, name: str, absent: tuple[str, ...] = (), draws: int = 60, **fields: Any
) -> Counter[tuple[str, str]]:
    """The pairs that ``draws`` rows of one record teach, as text with bins, and how often each came."""
    teach = tio_lessons(absent)[name].teach
    found: Counter[tuple[str, str]] = Counter()
    for seed in range(draws):
        for example in teach(ofa.pipeline, Row(Record("1", "1.png", size=(64, 64), **fields), Random(seed), IMAGE)):
            found[read(ofa, example)] += 1
    return found


def read(ofa: OFA, example: Example) -> tuple[str, str]:
    assert example.image is IMAGE
    return ofa.tokenizer.decode(example.source), ofa.tokenizer.decode(example.target)


def source(instruction: str, context: str = "") -> str:
    return f' \n#instruction: {instruction}\n#context: "{context}"'


def test_every_turn_of_the_agent_is_drawn_in_both_styles(ofa: OFA) -> None:
    found = taught(ofa, "tio_invig_question", turns=TALK, draws=200)
    first, second = "human: the red one.", "human: the red one. agent: which one? human: the left one."
    ask, guess = "ask a question to guess what i want.", "can you specify which region the context describes?"
    assert set(found) == {
        (source(ask, first), " which one?"),
        (source(ask, second), " sure?"),
        (source(guess, first), " not yet. which one?"),
        (source(guess, second), " not yet. sure?"),
    }
    plain = sum(count for (asked, _), count in found.items() if ask in asked)
    assert 160 < plain < 198  # nine of ten


def test_the_oracle_answers_or_opens(ofa: OFA) -> None:
    found = taught(ofa, "tio_invig_answer", turns=TALK, box=BOX, draws=100)
    answer = "answer the question based on the region."
    assert set(found) == {
        (source(answer, "agent: the red one. human: which one?") + f"\n#region: {REGION}", " the left one."),
        (
            source(answer, "agent: the red one. human: which one? agent: the left one. human: sure?")
            + f"\n#region: {REGION}",
            " yes.",
        ),
        (source("state your query about the region.") + f"\n#region: {REGION}", " the red one."),
    }


def test_a_dialog_gives_its_region(ofa: OFA) -> None:
    found = taught(ofa, "tio_invig_grounding", turns=(*TALK, "I see.", "good"), box=BOX)
    context = "human: the red one. agent: which one? human: the left one. agent: sure? human: yes."
    assert set(found) == {
        (source("which region does the context describe?", context), f" region: {REGION}"),
        (source("can you specify which region the context describes?", context), f" sure. region: {REGION}"),
    }
    game = taught(ofa, "tio_guesswhat_grounding", turns=GAME, box=BOX)
    assert {said for _, said in game} == {f" region: {REGION}", f" sure. region: {REGION}"}


def test_a_dialog_without_a_question_teaches_none(ofa: OFA) -> None:
    assert not taught(ofa, "tio_invig_question", turns=TALK[:1])
    opening = taught(ofa, "tio_invig_answer", turns=TALK[:1], box=BOX)
    assert {said for _, said in opening} == {" the red one."}


def test_games_are_asked_and_answered(ofa: OFA) -> None:
    asked = taught(ofa, "tio_guesswhat_question", turns=GAME)
    assert {said for _, said in asked} == {
        *(" is it red?", " is it a dog?"),
        *(" not yet. is it red?", " not yet. is it a dog?"),
    }
    answer = "answer the question based on the region with yes or no."
    assert set(taught(ofa, "tio_guesswhat_answer", turns=GAME, box=BOX)) == {
        (source(answer, "human: is it red?") + f"\n#region: {REGION}", " yes"),
        (source(answer, "human: is it red? agent: yes human: is it a dog?") + f"\n#region: {REGION}", " no"),
    }


def test_conversations_are_asked_answered_and_described(ofa: OFA) -> None:
    pairs = ("is it red", "yes", "is it a dog", "no")
    assert set(taught(ofa, "tio_visdial_question", turns=pairs)) == {
        (source("ask a question based on the image."), " is it red?"),
        (source("ask a question based on the image.", "agent: is it red? human: yes."), " is it a dog?"),
    }
    assert set(taught(ofa, "tio_visdial_answer", turns=pairs)) == {
        (source("answer the question.", "human: is it red?"), " yes."),
        (source("answer the question.", "human: is it red? agent: yes. human: is it a dog?"), " no."),
    }
    assert set(taught(ofa, "tio_visdial_caption", turns=pairs, text="A Dog.")) == {
        (source("what does the image show?"), " a dog."),
        (source("describe the image briefly."), " a dog."),
    }
    assert not taught(ofa, "tio_visdial_caption", turns=pairs)
    told = ("What is it?", "A Dog.", "Is it red?", "Yes.")
    assert {said for _, said in taught(ofa, "tio_llava_conversation_58k", turns=told)} == {" a dog.", " yes."}
    assert set(taught(ofa, "tio_llava_detail_23k", turns=told)) == {(source("what is it?"), " a dog.")}


def test_phrases_and_captions(ofa: OFA) -> None:
    assert set(taught(ofa, "tio_refcoco_grounding", text="The dog", box=BOX)) == {
        (source("which region does the context describe?", "human: the dog"), f" region: {REGION}")
    }
    assert set(taught(ofa, "tio_refcoco_caption", text="The dog", box=BOX)) == {
        (source("describe the region briefly.") + f"\n#region: {REGION}", " the dog")
    }
    assert set(taught(ofa, "tio_cc_sbu_align_caption", text="A dog.")) == {
        (source("what does the image show?"), " a dog."),
        (source("describe the image."), " a dog."),
    }


def test_several_regions_or_none(ofa: OFA) -> None:
    things = ((BOX, "dog"), ((0.0, 0.0, 64.0, 64.0), "dog"), ((0.0, 0.0, 32.0, 32.0), "cat"))
    found = taught(ofa, "tio_openimages_detection", things=things, draws=100)
    asked = {said for said, _ in found}
    which = "which region does the context describe? #context: "
    assert asked == {
        *(source(f"where are {name} located?") for name in ("dog", "cat")),
        *(source(f"{which}{name}") for name in ("dog", "cat")),
    }
    dog = next(said for where, said in found if where == source("where are dog located?"))
    assert dog == f" there are 2 dog.\n region: {REGION} region: <bin_1> <bin_1> <bin_998> <bin_998>"
    found = taught(ofa, "tio_openimages_detection", ("dog", "cup"), things=things, draws=100)
    assert (source("where are cup located?"), " there is no cup.") in found


@pytest.mark.parametrize("name", sorted(TIO_TASKS))
def test_rows_of_files_are_learned(name: str, ofa: OFA, tmp_path: Path) -> None:
    IMAGE.save(tmp_path / "1.png")
    rows: dict[str, dict[str, Any]] = {
        "invig": {"image": "1.png", "dialog": ["", *TALK], "box": BOX},
        "guesswhat": {"image": "1.png", "dialog": GAME, "box": BOX},
        "conversation": {"image": "1.png", "dialog": [["is it red", "yes"]], "caption": "a dog"},
        "refcoco": {"image": "1.png", "text": "the dog", "box": BOX},
        "caption": {"image": "1.png", "text": "a dog"},
        "pretrain_detection": {"image": "1.png", "boxes": [BOX], "label": ["dog"]},
    }
    lesson = LESSONS[f"tio_{name}"]
    (tmp_path / "rows.jsonl").write_text(json.dumps(rows[lesson.format]) + "\n")
    settings = DataSettings(task=f"tio_{name}", path=tmp_path / "rows.jsonl", images=tmp_path)
    (example,) = make_source(settings, ofa.pipeline, seed=1).examples(0)
    assert ofa.tokenizer.decode(example.source).startswith(" \n#instruction: ")


def test_absent_things_come_from_a_file(ofa: OFA, tmp_path: Path) -> None:
    IMAGE.save(tmp_path / "1.png")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": "1.png", "boxes": [BOX], "label": ["dog"]}) + "\n")
    (tmp_path / "all_captions.txt").write_text("two cats\n")
    (tmp_path / "object.txt").write_text("dog\ncup\n")
    (tmp_path / "type2ans.json").write_text("{}")
    common = {"path": tmp_path / "rows.jsonl", "images": tmp_path, "negatives": tmp_path}
    said = set()
    for seed in range(60):
        settings = DataSettings(task="tio_openimages_detection", **common)
        (example,) = make_source(settings, ofa.pipeline, seed=seed).examples(0)
        said.add(ofa.tokenizer.decode(example.target))
    assert " there is no cup." in said
    assert " there is no dog." not in said
    with pytest.raises(OFAError, match="'tio_invig_answer' draws nothing from negatives; pretrain and tio_openimages"):
        make_source(DataSettings(task="tio_invig_answer", **common), ofa.pipeline, seed=1)
