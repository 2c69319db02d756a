"""Games between two models: what each side reads, when a game ends, and that a batch plays as its games would alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from bench.runs import BINS, BOX, QUICK, Call, record, spoken
from reference import assert_same, lively_ofa, picture

from ofa_core import OFA
from ofa_core.bench.results import Row
from ofa_core.bench.samples import Models, Sample, Settings
from ofa_core.bench.self_play import MAX_TURNS, play

pytestmark = pytest.mark.filterwarnings("ignore:a dialog of")

QUERY = f' \n#instruction: state your query about the region.\n#context: ""\n#region: {BINS}'
AGENT = " \n#instruction: can you specify which region the context describes?\n#context: "
ORACLE = " \n#instruction: answer the question based on the region.\n#context: "
ASK = " \n#instruction: ask a close-ended question to guess what i want.\n#context: "
YES_NO = " \n#instruction: answer the question based on the region with yes or no.\n#context: "
GROUND = " \n#instruction: which region does the context describe?\n#context: "


def played(models: OFA | Models, settings: Settings | None = None, count: int = 1, **fields: Any) -> list[Row]:
    models = models if isinstance(models, Models) else Models(models, models)
    samples = [Sample(str(number), record(**fields), index=number) for number in range(count)]
    pictures = [models.agent.pipeline.prepare(picture(number)) for number in range(count)]
    return play(models, pictures, samples, settings or Settings())


def by_kind(calls: Sequence[Call], start: str) -> list[list[str]]:
    """The sources of the calls of one kind."""
    return [call.sources for call in calls if call.sources[0].startswith(start)]


# The open game


def test_the_oracle_queries_the_agent_asks_the_oracle_answers_the_agent_names_the_region(
    ofa: OFA, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = iter([" The cup", " not yet. Left or right?", " Left ", f" sure. region: {BINS}"])
    calls = spoken(monkeypatch, lambda source: next(script))
    (row,) = played(ofa)
    assert [call.sources for call in calls] == [
        [QUERY],
        [AGENT + '"human: the cup"'],
        [ORACLE + f'"human: the cup agent: left or right?"\n#region: {BINS}'],
        [AGENT + '"human: the cup agent: left or right? human: left"'],
    ]
    assert row.source == calls[-1].sources[0]
    assert row.turns == ("The cup", "Left or right?", "Left")
    assert row.questions == 1
    assert row.output == f"sure. region: {BINS}"
    assert (row.target, row.box, row.iou) == (f"region: {BINS}", BOX, 1.0)
    assert row.found == pytest.approx((18, 15, 45, 59.88))
    assert 0 < row.score < 1


def test_a_region_that_is_no_box_ends_the_game_all_the_same(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spoken(monkeypatch, lambda source: " sure. region: <bin_1>" if source.startswith(AGENT) else " it")
    (row,) = played(ofa)
    assert len(calls) == 2
    assert (row.found, row.iou, row.output, row.questions) == (None, 0.0, "sure. region: <bin_1>", 0)


def test_a_game_ends_without_a_region_after_eight_questions(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spoken(monkeypatch, lambda source: " not yet. why?" if source.startswith(AGENT) else " so")
    (row,) = played(ofa)
    assert len(by_kind(calls, AGENT)) == MAX_TURNS == 8
    assert len(by_kind(calls, ORACLE)) == 7  # nobody would read the eighth answer
    assert (row.found, row.iou, row.questions, row.score) == (None, 0.0, 8, 0.0)
    assert row.turns == ("so", *("why?", "so") * 7, "why?")
    assert row.output == "not yet. why?"


def test_a_region_in_the_eighth_turn_counts(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    def reply(source: str) -> str:
        return f" region: {BINS}" if source.count("why?") == 7 else " why?"

    spoken(monkeypatch, lambda source: reply(source) if source.startswith(AGENT) else " so")
    (row,) = played(ofa)
    assert (row.iou, row.questions) == (1.0, 7)


def test_games_that_have_ended_leave_the_batch(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    """Game n names its region after n questions; the query tells the games apart."""
    numbers = iter(range(4))

    def reply(source: str) -> str:
        if source.startswith(AGENT):
            due = next(number for number in range(4) if f"thing{number}" in source)
            return f" region: {BINS}" if source.count("why?") >= due else " not yet. why?"
        return " so" if source.startswith(ORACLE) else f" thing{next(numbers)}"

    calls = spoken(monkeypatch, reply)
    rows = played(ofa, count=4)
    assert [len(sources) for sources in by_kind(calls, AGENT)] == [4, 3, 2, 1]
    assert [len(sources) for sources in by_kind(calls, ORACLE)] == [3, 2, 1]
    assert [(row.id, row.index, row.questions) for row in rows] == [(str(n), n, n) for n in range(4)]
    assert [row.turns for row in rows] == [(f"thing{n}", *("why?", "so") * n) for n in range(4)]
    assert {row.iou for row in rows} == {1.0}


@pytest.mark.parametrize(
    ("silent", "turns", "questions", "last"),
    [
        (QUERY, (), 0, QUERY),
        (AGENT, ("it",), 0, AGENT + '"human: it"'),
        (ORACLE, ("it", "why?"), 1, AGENT + '"human: it"'),
    ],
    ids=["no_query", "no_question", "no_answer"],
)
def test_a_side_that_says_nothing_ends_the_game(
    ofa: OFA, monkeypatch: pytest.MonkeyPatch, silent: str, turns: tuple[str, ...], questions: int, last: str
) -> None:
    def reply(source: str) -> str:
        words = {QUERY: " it", AGENT: " why?", ORACLE: " so"}
        return (
            "" if source.startswith(silent) else next(said for start, said in words.items() if source.startswith(start))
        )

    calls = spoken(monkeypatch, reply)
    (row,) = played(ofa)
    assert (row.turns, row.questions, row.found, row.iou) == (turns, questions, None, 0.0)
    assert row.source == last
    assert len(calls) == 1 + 2 * (silent != QUERY) - (silent == AGENT)


def test_not_yet_alone_asks_nothing(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken(monkeypatch, lambda source: " not yet." if source.startswith(AGENT) else " it")
    (row,) = played(ofa)
    assert (row.turns, row.questions, row.output) == (("it",), 0, "not yet.")


# The closed game

CLOSED = Settings(protocol="closed")


def test_the_closed_game_asks_eight_questions_and_then_grounds_them(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    def reply(source: str) -> str:
        if source.startswith(ASK):
            return f" Is it {source.count('agent:')}?"
        return "yes" if source.startswith(YES_NO) else f" region: {BINS}"

    calls = spoken(monkeypatch, reply)
    (row,) = played(ofa, CLOSED)
    assert row.turns == tuple(turn for number in range(8) for turn in (f"Is it {number}?", "yes"))
    assert calls[0].sources == [ASK + '""']
    assert calls[1].sources == [YES_NO + f'"human: is it 0?"\n#region: {BINS}']
    assert calls[2].sources == [ASK + '"agent: is it 0? human: yes"']
    assert calls[3].sources == [YES_NO + f'"human: is it 0? agent: yes human: is it 1?"\n#region: {BINS}']
    assert len(calls) == 17
    said = " ".join(f"agent: is it {number}? human: yes" for number in range(8))
    assert row.source == calls[-1].sources[0] == f'{GROUND}"{said}"'
    assert (row.questions, row.iou, row.output) == (8, 1.0, f"region: {BINS}")


def test_an_agent_that_asks_no_more_grounds_what_it_knows(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    def reply(source: str) -> str:
        if source.startswith(ASK):
            return "" if "agent:" in source else " big?"
        return "no" if source.startswith(YES_NO) else f" region: {BINS}"

    calls = spoken(monkeypatch, reply)
    (row,) = played(ofa, CLOSED)
    assert (row.turns, row.questions, row.iou) == (("big?", "no"), 1, 1.0)
    assert len(calls) == 4


def test_an_agent_that_asks_nothing_at_all_finds_nothing(ofa: OFA, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spoken(monkeypatch, lambda source: "")
    (row,) = played(ofa, CLOSED)
    assert (row.turns, row.questions, row.found, row.iou, row.source) == ((), 0, None, 0.0, ASK + '""')
    assert len(calls) == 1


# Roles, pictures, batches


@pytest.mark.parametrize("protocol", ["open", "closed"])
def test_each_side_speaks_through_its_own_model(ofa: OFA, monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    other = lively_ofa(seed=1)
    calls = spoken(monkeypatch, lambda source: "yes" if "region:" in source else " why?")
    played(Models(ofa, other), Settings(protocol=protocol))
    knows = {"#region:" in call.sources[0] for call in calls if call.pipeline is other.pipeline}
    looks = {"#region:" in call.sources[0] for call in calls if call.pipeline is ofa.pipeline}
    assert (knows, looks) == ({True}, {False})


def _counted(ofa: OFA, seen: list[int]) -> Callable[[], None]:
    stem = ofa.pipeline.model.encoder.image_stem
    return stem.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0]))).remove


def test_the_stem_runs_once_for_a_picture_and_a_model_whatever_the_turns(ofa: OFA) -> None:
    other = lively_ofa(seed=1)
    mine, its = [], []
    removers = [_counted(ofa, mine), _counted(other, its)]
    rows = played(ofa, QUICK, count=3)
    assert sum(row.questions or 0 for row in rows) > 3
    assert (mine, its) == ([3], [])
    played(Models(ofa, other), QUICK, count=2)
    for remove in removers:
        remove()
    assert (mine, its) == ([3, 2], [2])


@pytest.mark.parametrize("protocol", ["open", "closed"])
def test_games_of_a_batch_are_played_as_each_would_be_alone(ofa: OFA, protocol: str) -> None:
    settings = Settings(protocol=protocol, num_beams=2, max_new_tokens=4)
    together = played(ofa, settings, count=3)
    assert len({row.turns for row in together}) > 1
    samples = [Sample(str(number), record(), index=number) for number in range(3)]
    for sample, row in zip(samples, together, strict=True):
        image = ofa.pipeline.prepare(picture(sample.index))
        (alone,) = play(Models(ofa, ofa), [image], [sample], settings)
        assert_same(alone.model_dump(), row.model_dump())
