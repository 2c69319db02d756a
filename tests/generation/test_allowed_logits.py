"""Searches whose rules leave few tokens compute few logits, and find what they would with all of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference import assert_same, tiny_model
from torch import Tensor

from ofa_core import AllowedRange, AnswerTrie, OFAError, OFAModel, generate, optimized
from ofa_core.generation import GenerationOptions, Step, stepper

VOCABULARY = 40
TOKENS = torch.tensor([[0, 5, 9, 2], [0, 7, 2, 1]])
IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


class Revive:
    """A user's rule that gives back what an earlier one took."""

    stage = "logits"

    def __call__(self, scores: Tensor, step: Step) -> Tensor:
        scores[..., 30] = scores[..., 5]
        return scores


RULES: dict[str, tuple[Callable[[], list[Any]], dict[str, Any]]] = {
    "range": (lambda: [AllowedRange(10, 20)], {"max_new_tokens": 4, "suppress_special_tokens": True}),
    "range, drawn": (lambda: [AllowedRange(10, 20)], {"max_new_tokens": 4, "do_sample": True, "top_k": 3}),
    "range, hot": (lambda: [AllowedRange(10, 20)], {"max_new_tokens": 3, "temperature": 1.7}),
    "range, zero-shot": (lambda: [AllowedRange(10, 20)], {"max_new_tokens": 3, "constrain_after_softmax": True}),
    "revived": (lambda: [AllowedRange(5, 9), Revive()], {"max_new_tokens": 3}),
    "trie": (lambda: [AnswerTrie([[5, 6], [5], [7, 8, 9], [12]])], {"max_new_tokens": 5}),
    "groups": (lambda: [AllowedRange(10, 20)], {"max_new_tokens": 3, "num_beams": 4, "num_beam_groups": 2}),
}


@pytest.fixture(scope="module")
def model() -> OFAModel:
    return tiny_model(VOCABULARY)


def found(models: Any, name: str, prefix: Tensor | None = None) -> list[Any]:
    rules, options = RULES[name]
    generator = torch.Generator().manual_seed(0)
    return generate(
        models, TOKENS, IMAGES, GenerationOptions(**options), constraints=rules(), prefix=prefix, generator=generator
    )


def all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepper.rules, "allowed_ids", lambda *_: None)


def spied(monkeypatch: pytest.MonkeyPatch, model: OFAModel) -> list[str]:
    """The names of the methods that logits come from, as they are called."""
    called: list[str] = []
    for name in ("logits", "logits_of"):
        method = getattr(type(model), name)

        def call(self: OFAModel, *args: Any, name: str = name, method: Any = method) -> Tensor:
            called.append(name)
            return method(self, *args)

        monkeypatch.setattr(type(model), name, call)
    return called


@pytest.mark.parametrize("prefixed", [False, True], ids=["free", "prefixed"])
@pytest.mark.parametrize("name", RULES)
def test_few_logits_give_what_all_give(
    monkeypatch: pytest.MonkeyPatch, model: OFAModel, name: str, prefixed: bool
) -> None:
    answering = optimized(copy.deepcopy(model))
    prefix = torch.tensor([[12], [1]]) if prefixed else None
    few = found(answering, name, prefix)
    all_logits(monkeypatch)
    assert_same(few, found(answering, name, prefix))


def test_an_ensemble_computes_few_too(monkeypatch: pytest.MonkeyPatch, model: OFAModel) -> None:
    models = [optimized(copy.deepcopy(model)), optimized(tiny_model(VOCABULARY, seed=1))]
    few = found(models, "range")
    all_logits(monkeypatch)
    assert_same(few, found(models, "range"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("range", {"logits_of"}), ("trie", {"logits_of"}), ("revived", {"logits_of"}), ("range, zero-shot", {"logits"})],
)
def test_few_are_computed_where_the_softmax_runs_over_few(
    monkeypatch: pytest.MonkeyPatch, model: OFAModel, name: str, expected: set[str]
) -> None:
    answering = optimized(copy.deepcopy(model))
    called = spied(monkeypatch, answering)
    found(answering, name)
    assert set(called) == expected


def test_the_plain_model_finds_the_same(model: OFAModel) -> None:
    assert_same(found(optimized(copy.deepcopy(model)), "range"), found(model, "range"))


def test_a_models_own_logits_are_asked_for(monkeypatch: pytest.MonkeyPatch, model: OFAModel) -> None:
    class Louder(OFAModel):
        def logits(self, states: Tensor) -> Tensor:
            return 3 * super().logits(states)

    own = Louder(model.config).eval()
    own.load_state_dict(model.state_dict())
    louder = optimized(copy.deepcopy(model))
    vars(louder)["logits"] = lambda states: 3 * model.logits(states)
    few = [found(one, "range") for one in (own, louder)]
    quiet = found(model, "range")
    all_logits(monkeypatch)
    for one in few:
        assert_same(one, found(own, "range"))
    assert few[0][0][0].score != pytest.approx(quiet[0][0].score, abs=1e-3)


def test_ids_that_are_none_are_refused_as_before(model: OFAModel) -> None:
    with pytest.raises(OFAError, match="candidate 0 holds id 99; ids run from 0 to 39"):
        generate(model, TOKENS, IMAGES, constraints=[AnswerTrie([[99], [5]])])


def test_weights_that_change_between_searches_count(model: OFAModel) -> None:
    fast = optimized(copy.deepcopy(model))
    before = found(fast, "range")
    fast.token_embedding.weight.data[10:20] *= -2
    changed = found(fast, "range")
    assert changed[0][0].score != pytest.approx(before[0][0].score, abs=1e-3)
    assert_same(changed, found(plain_copy(fast), "range"))


def plain_copy(fast: OFAModel) -> OFAModel:
    own = OFAModel(fast.config).eval()
    own.load_state_dict(fast.state_dict())
    return own
