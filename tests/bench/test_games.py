"""Scores of games: repeated questions, games by length, and what questions tell."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from bench import files, made
from bench.made import header, row
from bench.runs import BINS, record, rows_in, run_of, spoken, write_data
from reference import lively_ofa, picture

from ofa_core import OFA, OFAError
from ofa_core.bench.games import GameScores, question_places, repeats
from ofa_core.bench.information import information_gain
from ofa_core.bench.results import Row
from ofa_core.bench.runner import run_task
from ofa_core.bench.samples import Models, Sample, Settings
from ofa_core.bench.self_play import play
from ofa_core.bench.summary import summarize
from ofa_core.data.records import fitting_boxes
from ofa_core.utils.distributed import Process

pytestmark = pytest.mark.filterwarnings("ignore:a dialog of")

TASK = "guesswhat_grounding_end2end"
YES, NO = {"yes": 1.0, "no": 0.0}, {"yes": 0.0, "no": 1.0}


def game(index: int, won: bool, *questions: str, **changes: object) -> Row:
    turns = ("the red one", *(turn for question in questions for turn in (question, "yes")))
    return row(index, iou=float(won), turns=turns, questions=len(questions), **changes)


def scored(*games: Row, protocol: str = "open") -> GameScores:
    found = summarize(header(TASK, settings={"protocol": protocol}), games).games
    assert found is not None
    return found


# What a question tells


@pytest.mark.parametrize(
    ("answers", "bits"),
    [
        ([YES, YES, YES], 0.0),
        ([YES, NO], 1.0),
        ([YES, YES, NO, NO], 1.0),
        ([YES, NO, NO, NO], 0.25 * 2 + 0.75 * math.log2(4 / 3)),
        ([{"yes": 0.5, "no": 0.5}] * 2, 0.0),  # an oracle that tosses a coin tells nothing
        ([{"red": 1.0}, {"blue": 1.0}, {"green": 1.0}], math.log2(3)),
        ([{"yes": 2.0}, {"no": 0.5}], 1.0),
    ],
)
def test_a_question_tells_what_is_known_of_the_object_after_its_answer(
    answers: list[dict[str, float]], bits: float
) -> None:
    assert information_gain(answers) == pytest.approx(bits)


def test_information_is_that_of_the_joint_distribution() -> None:
    """By the definition: the sum of p(o, a) log p(o, a) / (p(o) p(a))."""
    answers = [
        {"yes": 0.7, "no": 0.2, "n/a": 0.1},
        {"yes": 0.1, "no": 0.8, "n/a": 0.1},
        {"yes": 0.3, "no": 0.3, "n/a": 0.4},
    ]
    overall = {name: sum(each[name] for each in answers) / 3 for name in answers[0]}
    due = sum(each[a] / 3 * math.log2(each[a] / overall[a]) for each in answers for a in overall)
    assert information_gain(answers) == pytest.approx(due)


# Scores


def test_games_that_were_won_have_their_own_number_of_questions() -> None:
    found = scored(game(0, True, "a", "b"), game(1, True, "a", "b", "c"), game(2, False, *"abcdefgh"))
    assert found.questions_per_won is not None
    assert found.questions_per_won.value == 2.5
    assert scored(game(0, False, "a")).questions_per_won is None


def test_repeated_questions_are_told_but_for_case_and_marks() -> None:
    assert repeats(["Is it red?", "is  it red", "Is it big?", "is it RED ?"]) == 2
    found = scored(game(0, True, "Is it red?", "is it red"), game(1, True, "Is it red?", "big?"), game(2, True))
    assert found.repeated_questions is not None
    assert found.games_with_repeats is not None
    assert (found.repeated_questions.value, found.games_with_repeats.value) == (0.25, pytest.approx(1 / 3))
    assert scored(game(0, True)).repeated_questions is None


def test_closed_games_begin_with_a_question() -> None:
    assert [*question_places("qaqa", closed=True)] == [0, 2]
    assert [*question_places("tqaq", closed=False)] == [1, 3]
    closed = row(0, iou=1.0, turns=("Red?", "yes", "red", "no"), questions=2)
    found = scored(closed, protocol="closed")
    assert found.repeated_questions is not None
    assert found.repeated_questions.value == 0.5


def test_games_stand_by_their_length() -> None:
    found = scored(game(0, True, "a"), game(1, False, "a"), game(2, True), game(3, False, *"abc")).by_questions
    assert {number: (part.games, part.success_rate.value) for number, part in found.items()} == {
        0: (1, 1.0),
        1: (2, 0.5),
        3: (1, 0.0),
    }
    assert list(found) == [0, 1, 3]


def test_information_is_that_of_all_questions_that_were_measured() -> None:
    boxes = ((0.0, 0.0, 9.0, 9.0), (9.0, 9.0, 20.0, 20.0))
    measured = game(0, True, "a", "b", objects=boxes, object_answers=((YES, NO), (YES, YES)))
    more = game(1, True, "a", objects=boxes, object_answers=((YES, NO),))
    found = scored(measured, more, game(2, True, "a"))
    assert found.information_gain is not None
    assert (found.information_gain.value, found.measured_questions) == (pytest.approx(2 / 3), 3)
    assert scored(game(0, True, "a")).information_gain is None


@pytest.mark.parametrize(
    ("answers", "problem"),
    [(((YES,),), "other answers than one for each of its 2 objects"), (((YES, {}),), "answers have no probabilities")],
)
def test_answers_that_fit_no_objects_are_refused(answers: object, problem: str) -> None:
    boxes = ((0.0, 0.0, 9.0, 9.0), (9.0, 9.0, 20.0, 20.0))
    with pytest.raises(OFAError, match=f"'game-0' has .*{problem}"):
        scored(game(0, True, "a", objects=boxes, object_answers=answers))


def test_rows_keep_all_that_the_scores_need(tmp_path: Path) -> None:
    boxes = ((0.0, 0.0, 9.0, 9.0), (9.0, 9.0, 20.0, 20.0))
    rows = [game(0, True, "a", "a", objects=boxes, object_answers=((YES, NO), (YES, NO))), game(1, False, "a")]
    path = made.written(tmp_path / "x.jsonl", rows, header(TASK))
    assert rows_in(path) == rows
    assert summarize(header(TASK), rows_in(path)) == summarize(header(TASK), rows)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert ["objects" in line for line in lines] == [False, True, False]


# What is asked


CLOSED = Settings(protocol="closed", information_gain=True)
OTHER = (50.0, 10.0, 80.0, 40.0)


def test_every_question_is_put_to_the_oracle_about_every_object(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    def reply(source: str) -> str:
        if "ask a close-ended" in source:
            return "" if source.count("agent:") == 2 else f" Is it {source.count('agent:')}?"
        if "with yes or no" in source:
            return "yes" if BINS in source and "is it 0" in source.rpartition("human:")[2] else "no"
        return f" region: {BINS}"

    calls = spoken(monkeypatch, reply)
    sample = Sample("0", record(object_boxes=(record().box, OTHER)))
    (played,) = play(Models(ofa, ofa), [ofa.pipeline.prepare(picture(0))], [sample], CLOSED)
    assert played.turns == ("Is it 0?", "yes", "Is it 1?", "no")
    assert played.objects == (record().box, OTHER)
    plain = [[max(answer, key=lambda name: answer[name]) for answer in each] for each in played.object_answers]
    assert plain == [["yes", "no"], ["no", "no"]]
    last = calls[-1].sources
    assert len(last) == 4
    assert last[0] == calls[1].sources[0]  # about the target, word by word what the oracle was asked in the game
    assert last[2] == calls[3].sources[0]
    assert [source.partition("#region")[0] for source in last[::2]] == [
        source.partition("#region")[0] for source in last[1::2]
    ]


def test_free_answers_are_as_they_are_said(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    def reply(source: str) -> str:
        if "can you specify" in source:
            return f" region: {BINS}" if "which" in source.partition("context: ")[2] else " which?"
        return " left" if BINS in source else " right"

    spoken(monkeypatch, reply)
    sample = Sample("0", record(object_boxes=(record().box, OTHER)))
    settings = Settings(information_gain=True)
    (played,) = play(Models(ofa, ofa), [ofa.pipeline.prepare(picture(0))], [sample], settings)
    assert played.object_answers == (({"left": 1.0}, {"right": 1.0}),)


def test_one_object_tells_nothing_and_without_the_setting_nobody_asks(ofa: OFA) -> None:
    image = ofa.pipeline.prepare(picture(0))
    quick = {"protocol": "closed", "num_beams": 1, "max_new_tokens": 3}
    alone = Sample("0", record(object_boxes=(record().box,)))
    several = Sample("0", record(object_boxes=(record().box, OTHER)))
    for sample, settings in ((alone, Settings(information_gain=True, **quick)), (several, Settings(**quick))):
        (played,) = play(Models(ofa, ofa), [image], [sample], settings)
        assert (played.objects, played.object_answers) == ((), ())


def test_games_of_a_batch_are_measured_as_each_would_be_alone(ofa: OFA) -> None:
    settings = Settings(protocol="closed", num_beams=2, max_new_tokens=4, information_gain=True, batch_size=3)
    boxes = [(record().box, OTHER), (record().box,), (record().box, OTHER, (1.0, 1.0, 30.0, 20.0))]
    samples = [Sample(str(at), record(object_boxes=each), index=at) for at, each in enumerate(boxes)]
    images = [ofa.pipeline.prepare(picture(at)) for at in range(3)]
    together = play(Models(ofa, ofa), images, samples, settings)
    for sample, image, said in zip(samples, images, together, strict=True):
        (alone,) = play(Models(ofa, ofa), [image], [sample], settings)
        assert alone.turns == said.turns
        for mine, its in zip(alone.object_answers, said.object_answers, strict=True):
            assert [information_gain(mine)] == pytest.approx([information_gain(its)], abs=1e-4)
    assert [len(said.objects) for said in together] == [2, 0, 3]


# From data to scores


def test_a_run_measures_what_questions_tell(tmp_path: Path) -> None:
    ofa, paths = lively_ofa(), write_data(tmp_path, 3)
    settings = Settings(4, 2, "closed", 2, 5, information_gain=True)
    run = run_of(ofa, TASK, paths, tmp_path / "out", settings=settings)
    outcome = run_task(run, Process())
    assert outcome is not None
    games = outcome.summary.games
    assert games is not None
    assert games.information_gain is not None
    assert 0 <= games.information_gain.value <= 1  # of two objects
    assert games.measured_questions == sum(row.questions or 0 for row in rows_in(outcome.path))
    assert {row.objects for row in rows_in(outcome.path)} == {((0.0, 0.0, 9.5, 9.0), files.BOX)}


def test_data_that_list_no_objects_are_refused(tmp_path: Path) -> None:
    paths = write_data(tmp_path, 3)
    paths["guesswhat"] = files.written(
        tmp_path / "plain.jsonl",
        files.json_lines([{"image": "0.png", "dialog": [["is it red?", "yes"]], "box": [10, 20, 40, 50]}]),
    )
    run = run_of(lively_ofa(), TASK, paths, tmp_path / "out", settings=Settings(information_gain=True))
    with pytest.raises(OFAError, match=r"plain.jsonl lists no objects of its pictures, which --information-gain asks"):
        run_task(run, Process())
    assert not (tmp_path / "out").exists()


def test_objects_that_are_not_asked_about_may_be_wrong(tmp_path: Path) -> None:
    assert fitting_boxes([(0, 0, 9, 9), (5, 5, 5, 9), (80, 10, 92, 30), (500, 0, 600, 9)], files.SIZE) == (
        (0, 0, 9, 9),
        (80, 10, 90, 30),
    )
