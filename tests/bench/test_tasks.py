"""What each task makes of a record, what the model reads for it, and the row that comes of its answer."""

from __future__ import annotations

import math
from typing import Any

import pytest
from bench.runs import BINS, BOX, record, spoken
from reference import picture

from ofa_core import OFA
from ofa_core.bench.metrics import scored_iou
from ofa_core.bench.results import Row
from ofa_core.bench.samples import Models, Settings
from ofa_core.bench.summary import TASK_SCORES
from ofa_core.bench.tasks import TASKS
from ofa_core.data.records import BadRow

GAME = ("Is it a dog?", "no", "is it  red?", "yes", "is it big?", "n/a")
DIALOG = ("The cup", "which one?", "the left one", "this?", "yes")


def asked(ofa: OFA, task: str, settings: Settings | None = None, **fields: Any) -> list[Row]:
    samples = TASKS[task].samples(record(**fields))
    pictures = [ofa.pipeline.prepare(picture(0))] * len(samples)
    return TASKS[task].answer(Models(ofa, ofa), pictures, samples, settings or Settings())


# Samples


def test_tasks_are_those_that_have_scores() -> None:
    assert TASKS.keys() == TASK_SCORES.keys()
    games = {name for name, task in TASKS.items() if task.protocols}
    assert games == {name for name, scores in TASK_SCORES.items() if scores.kind == "selfplay"}
    assert TASKS["guesswhat_grounding_end2end"].protocols == ("open", "closed")
    assert TASKS["invig_grounding_end2end"].protocols == ("open",)
    for name, task in TASKS.items():
        assert name == task.name
        assert name.startswith(task.format) or not TASK_SCORES[name].has_boxes


def test_a_game_has_an_oracle_sample_for_each_question_with_what_was_said_before() -> None:
    samples = TASKS["guesswhat_oracle"].samples(record(turns=GAME))
    assert [(sample.id, sample.turns, sample.target) for sample in samples] == [
        ("7/1", GAME[:1], "no"),
        ("7/2", GAME[:3], "yes"),
        ("7/3", GAME[:5], "n/a"),
    ]


def test_a_dialog_has_an_oracle_sample_for_each_answer_behind_the_query() -> None:
    samples = TASKS["invig_oracle"].samples(record(turns=DIALOG))
    assert [(sample.id, sample.turns, sample.target) for sample in samples] == [
        ("7/1", DIALOG[:2], "the left one"),
        ("7/2", DIALOG[:4], "yes"),
    ]


@pytest.mark.parametrize(("turns", "count"), [(DIALOG[:1], 0), (DIALOG[:2], 0), (DIALOG[:3], 1), (DIALOG[:4], 1)])
def test_a_question_that_nobody_answered_is_no_sample(turns: tuple[str, ...], count: int) -> None:
    assert len(TASKS["invig_oracle"].samples(record(turns=turns))) == count


@pytest.mark.parametrize("task", ["guesswhat_grounding", "invig_grounding"])
def test_grounding_reads_the_whole_dialog(task: str) -> None:
    (sample,) = TASKS[task].samples(record(turns=DIALOG))
    assert (sample.id, sample.turns) == ("7", DIALOG)


@pytest.mark.parametrize("task", ["guesswhat_grounding_end2end", "invig_grounding_end2end"])
def test_self_play_begins_without_the_dialog(task: str) -> None:
    (sample,) = TASKS[task].samples(record(turns=DIALOG))
    assert (sample.id, sample.turns) == ("7", ())


def test_a_phrase_of_nothing_but_marks_is_a_bad_row() -> None:
    with pytest.raises(BadRow, match=r"^data:7: text: nothing is left of '\.\.!'"):
        TASKS["refcoco_grounding"].samples(record(text="..!"))


# What the model reads

AGENT_GAME = '"agent: is it a dog? human: no agent: is it red? human: yes agent: is it big? human: n/a"'
SOURCES = {
    "refcoco_grounding": ' which region does the text " the red one " describe?',
    "guesswhat_grounding": " \n#instruction: which region does the context describe?\n#context: " + AGENT_GAME,
    "guesswhat_oracle": (
        " \n#instruction: answer the question based on the region with yes or no.\n"
        f'#context: "human: is it a dog? agent: no human: is it red?"\n#region: {BINS}'
    ),
    "invig_grounding": (
        " \n#instruction: which region does the context describe?\n#context: "
        '"human: the cup agent: which one? human: the left one agent: this? human: yes"'
    ),
    "invig_oracle": (
        " \n#instruction: answer the question based on the region.\n"
        f'#context: "human: the cup agent: which one? human: the left one agent: this?"\n#region: {BINS}'
    ),
}
TURNS = {"guesswhat": GAME, "invig": DIALOG, "refcoco": ()}


@pytest.mark.parametrize("task", SOURCES)
def test_the_source_of_a_row_is_what_the_model_read(ofa: OFA, monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    calls = spoken(monkeypatch, lambda source: " no")
    rows = asked(ofa, task, text="The red one", turns=TURNS[TASKS[task].format])
    place = 1 if task.endswith("oracle") else 0
    (call,) = calls
    assert rows[place].source == SOURCES[task]
    assert [row.source for row in rows] == call.sources
    symbols = ofa.tokenizer.encode(SOURCES[task].partition("#region")[0])
    assert call.ids[place][1 : 1 + len(symbols)] == symbols


# Rows


def test_a_box_is_scored_by_the_convention_of_its_task(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken(monkeypatch, lambda source: " region: <bin_200> <bin_250> <bin_500> <bin_998>")
    (row,) = asked(ofa, "guesswhat_grounding", turns=GAME)
    assert (row.target, row.output) == (f"region: {BINS}", f"region: {BINS}")
    assert row.box == BOX
    assert row.found == pytest.approx((18.0, 15.0, 45.0, 59.88))  # bin / 1000 of 90 × 60
    assert row.iou == 1.0  # the target is read from its bins, too
    assert row.score == pytest.approx(math.exp(-0.5))
    assert (row.id, row.image, row.size, row.category) == ("7", "7.png", (90, 60), "dog")
    assert (row.turns, row.questions, row.probabilities) == (GAME, None, {})


def test_a_phrases_box_is_scored_as_refcoco_is(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken(monkeypatch, lambda source: "<bin_100> <bin_250> <bin_500> <bin_999>")
    (row,) = asked(ofa, "refcoco_grounding", text="it")
    assert row.target == "<bin_200> <bin_250> <bin_500> <bin_999>"
    assert row.found == pytest.approx((100 / 999 * 90, 250 / 999 * 60, 500 / 999 * 90, 60), abs=1e-4)
    assert row.iou == scored_iou(BOX, row.found, (90, 60), "refcoco")
    assert row.iou == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("task", ["refcoco_grounding", "guesswhat_grounding", "invig_grounding"])
def test_where_no_box_came_the_iou_is_0(ofa: OFA, monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    spoken(monkeypatch, lambda source: " i see <bin_1> <bin_2> ")
    (row,) = asked(ofa, task, text="it", turns=DIALOG)
    assert (row.found, row.iou, row.output) == (None, 0.0, "i see <bin_1> <bin_2>")


def test_an_answer_to_a_question_has_its_probabilities_and_the_region(
    ofa: OFA, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken(monkeypatch, lambda source: "no" if "red" in source else "yes")
    rows = asked(ofa, "guesswhat_oracle", turns=GAME)
    assert [(row.id, row.target, row.output) for row in rows] == [
        ("7/1", "no", "yes"),
        ("7/2", "yes", "no"),
        ("7/3", "n/a", "no"),
    ]
    assert rows[1].probabilities == {"yes": 0.0, "no": 1.0, "n/a": 0.0}
    assert (rows[1].box, rows[1].found, rows[1].iou, rows[1].score) == (BOX, None, None, 1.0)
    assert rows[1].turns == GAME[:3]


def test_an_answer_in_free_text_is_stripped(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken(monkeypatch, lambda source: " the left one ")
    row = asked(ofa, "invig_oracle", turns=DIALOG)[0]
    assert (row.target, row.output, row.probabilities) == ("the left one", "the left one", {})


@pytest.mark.parametrize(
    ("task", "settings", "expected"),
    [
        ("refcoco_grounding", {}, (5, 4, 4)),
        ("refcoco_grounding", {"num_beams": 3, "max_new_tokens": 9}, (3, 4, 4)),
        ("refcoco_grounding", {"max_new_tokens": 2}, (5, 4, 4)),
        ("guesswhat_grounding", {}, (5, 1, 1024)),
        ("invig_oracle", {"num_beams": 1}, (1, 1, 1024)),
        ("invig_grounding", {"max_new_tokens": 9}, (5, 1, 9)),
    ],
)
def test_heads_search_as_they_do_but_for_what_is_asked(
    ofa: OFA, monkeypatch: pytest.MonkeyPatch, task: str, settings: dict[str, int], expected: tuple[int, int, int]
) -> None:
    calls = spoken(monkeypatch, lambda source: " it")
    asked(ofa, task, Settings(**settings), text="it", turns=DIALOG)
    options = calls[0].options
    assert options is not None
    assert (options.num_beams, options.min_new_tokens, options.max_new_tokens) == expected


@pytest.mark.parametrize("task", ["guesswhat_oracle", "invig_oracle"])
def test_questions_about_one_picture_run_the_stem_once(ofa: OFA, task: str) -> None:
    seen: list[int] = []
    handle = ofa.pipeline.model.encoder.image_stem.register_forward_hook(
        lambda module, inputs, output: seen.append(len(inputs[0]))
    )
    asked(ofa, task, Settings(num_beams=1, max_new_tokens=2), turns=GAME)
    handle.remove()
    assert seen == [1]


@pytest.mark.parametrize("task", ["guesswhat_grounding", "invig_grounding"])
def test_of_several_regions_the_first_is_scored(ofa: OFA, monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    spoken(monkeypatch, lambda source: " region: <bin_200> <bin_250> <bin_500> <bin_998>")
    (one,) = asked(ofa, task, text="it", turns=DIALOG)
    spoken(
        monkeypatch, lambda source: " region: <bin_200> <bin_250> <bin_500> <bin_998> region: <bin_1> <bin_1> <bin_9>"
    )
    (several,) = asked(ofa, task, text="it", turns=DIALOG)
    assert several.found == one.found is not None
    assert several.iou == one.iou > 0
