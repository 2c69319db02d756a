"""The load test of the service: a small one of it finds no error and no answer of somebody else's question."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("fastapi", reason="the extra web is not installed")

from benchmarks.serve import Question, Reply, is_right, measure


def test_a_small_load_is_answered_without_error() -> None:
    figures = measure(requests=48, alone=4, clients=12, hostile_requests=25, arguments=["--batch-size", "8"])
    assert (figures.requests, figures.hostile) == (48, 25)
    assert (figures.errors, figures.wrong, figures.exit_code) == (0, 0, 0)
    assert figures.serves_after_hostile
    assert 1 < figures.mean_batch <= 8
    good = replace(figures, speedup=2.5, p95_in_batch_times=2.9)
    assert good.failures == []
    bad = replace(good, errors=1, wrong=1, speedup=2.4, p95_in_batch_times=3, serves_after_hostile=False, exit_code=1)
    assert len(bad.failures) == 6


@pytest.mark.parametrize(("box", "right"), [((1.0, 2.0, 3.0, 4.0), True), ((1.0, 2.0, 3.0, 4.1), False), (None, False)])
def test_an_answer_is_compared_with_that_of_its_own_question(box: tuple[float, ...] | None, right: bool) -> None:
    assert is_right(Reply(0, 200, box, 0.1), Question(b"", (1.0, 2.0, 3.0, 4.0))) == right
    assert is_right(Reply(0, 200, box, 0.1), Question(b"", None)) == (box is None)
