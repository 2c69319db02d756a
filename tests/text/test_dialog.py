from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from ofa_core.errors import OFAError
from ofa_core.text import Tokenizer
from ofa_core.text.dialog import DIALOG_TASKS, dialog_source, dialog_text, flatten_dialog

BOS, EOS = 0, 2
REGION = [7, 0, 999, 500]

#: Task, turns, and the whole source as OFA.md writes it; the four bins of REGION follow where it ends in a region.
SOURCES: dict[str, tuple[str, list[str], str]] = {
    "guesswhat_grounding": (
        "guesswhat_grounding",
        ["is it a dog?", "no", "is it red?", "yes"],
        ' \n#instruction: which region does the context describe?\n#context: "agent: is it a dog? human: no '
        'agent: is it red? human: yes"',
    ),
    "guesswhat_oracle": (
        "guesswhat_oracle",
        ["is it a dog?", "no", "is it red?"],
        ' \n#instruction: answer the question based on the region with yes or no.\n#context: "human: is it a dog? '
        'agent: no human: is it red?"\n#region:',
    ),
    "guesswhat_question": (
        "guesswhat_question",
        ["is it a dog?", "no"],
        ' \n#instruction: ask a close-ended question to guess what i want.\n#context: "agent: is it a dog? human: no"',
    ),
    "first_guesswhat_question": (
        "guesswhat_question",
        [],
        ' \n#instruction: ask a close-ended question to guess what i want.\n#context: ""',
    ),
    "invig_grounding": (
        "invig_grounding",
        ["the cup", "which cup?", "the blue one"],
        ' \n#instruction: which region does the context describe?\n#context: "human: the cup agent: which cup? '
        'human: the blue one"',
    ),
    "invig_oracle": (
        "invig_oracle",
        ["the cup", "which cup?"],
        ' \n#instruction: answer the question based on the region.\n#context: "human: the cup agent: which cup?"'
        "\n#region:",
    ),
    "invig_query": (
        "invig_query",
        [],
        ' \n#instruction: state your query about the region.\n#context: ""\n#region:',
    ),
    "invig_question": (
        "invig_question",
        ["the cup"],
        ' \n#instruction: ask a question to guess what i want.\n#context: "human: the cup"',
    ),
    "invig_dev_grounding": (
        "invig_dev_grounding",
        ["the cup", "which cup?", "the blue one"],
        ' \n#instruction: which region does the context describe?\n#context: "human: the cup agent: which cup? '
        'human: the blue one"',
    ),
    "invig_dev_oracle": (
        "invig_dev_oracle",
        ["the cup", "which cup?"],
        ' \n#instruction: answer the question based on the region.\n#context: "agent: the cup human: which cup?"'
        "\n#region:",
    ),
    "invig_dev_question": (
        "invig_dev_question",
        ["the cup"],
        ' \n#instruction: ask a question to guess what i want.\n#context: "human: the cup"',
    ),
    "agent": (
        "agent",
        ["the cup", "which cup?", "the blue one"],
        ' \n#instruction: can you specify which region the context describes?\n#context: "human: the cup '
        'agent: which cup? human: the blue one"',
    ),
    "capitals": (
        "invig_question",
        ["The BIG Cup, ÉCLAIR"],
        ' \n#instruction: ask a question to guess what i want.\n#context: "human: the big cup, éclair"',
    ),
    "double_spaces": (
        "invig_grounding",
        ["the  cup", " which? ", "left"],
        ' \n#instruction: which region does the context describe?\n#context: "human: the cup agent: which? '
        'human: left"',
    ),
    "quotes_and_newlines": (
        "agent",
        ['the "cup"\nthere'],
        ' \n#instruction: can you specify which region the context describes?\n#context: "human: the "cup"\nthere"',
    ),
}


@pytest.fixture(scope="module", params=["small", "official"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    found: Tokenizer = request.getfixturevalue(request.param)
    return found


def bin_ids(tokenizer: Tokenizer, numbers: list[int]) -> list[int]:
    """Bins are the last thousand ids."""
    return [len(tokenizer) - 1000 + number for number in numbers]


def region_of(task: str) -> list[int] | None:
    """What to pass as region: OFA.md gives one to the oracles and to the first turn."""
    return REGION if task in ("guesswhat_oracle", "invig_oracle", "invig_dev_oracle", "invig_query") else None


# Source texts


def test_every_task_is_checked_here() -> None:
    assert {task for task, _, _ in SOURCES.values()} == set(DIALOG_TASKS)


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_is_instruction_context_and_region(tokenizer: Tokenizer, name: str) -> None:
    task, turns, text = SOURCES[name]
    region = region_of(task)
    found = dialog_source(tokenizer, DIALOG_TASKS[task], turns, region)
    assert found == [BOS, *tokenizer.encode(text), *bin_ids(tokenizer, region or []), EOS]
    assert tokenizer.decode(found[1 : len(found) - 1 - len(region or [])]) == text


@pytest.mark.parametrize("name", SOURCES)
def test_the_text_without_the_region(name: str) -> None:
    task, turns, text = SOURCES[name]
    assert dialog_text(DIALOG_TASKS[task], turns) == text.removesuffix("\n#region:")


@pytest.mark.parametrize("keep_spaces", [False, True])
@pytest.mark.parametrize("name", SOURCES)
def test_a_source_equals_the_whole_text_with_symbols(tokenizer: Tokenizer, name: str, keep_spaces: bool) -> None:
    task, turns, text = SOURCES[name]
    region = region_of(task)
    whole = text if region is None else f"{text} <bin_7> <bin_0> <bin_999> <bin_500>"
    expected = tokenizer.encode(whole, symbols=True, keep_spaces=keep_spaces, add_special_tokens=True)
    assert dialog_source(tokenizer, DIALOG_TASKS[task], turns, region, keep_spaces=keep_spaces) == expected


def test_white_space_around_bins_disappears_unless_kept(tokenizer: Tokenizer) -> None:
    task = DIALOG_TASKS["invig_query"]
    text = ' \n#instruction: state your query about the region.\n#context: ""\n#region:'
    space = tokenizer.encode(" ")
    first, second, third, fourth = bin_ids(tokenizer, REGION)
    dropped = dialog_source(tokenizer, task, [], REGION)
    assert dropped == [BOS, *tokenizer.encode(text), first, second, third, fourth, EOS]
    kept = dialog_source(tokenizer, task, [], REGION, keep_spaces=True)
    before = [BOS, *tokenizer.encode(f"{text} ")]
    assert kept == [*before, first, *space, second, *space, third, *space, fourth, EOS]


#: Sources as pieces of the official vocabulary, cut by hand (Ġ is a space, Ċ a newline).
OFFICIAL_PIECES = {
    "invig_query": (
        [],
        'Ġ Ċ # inst ruction : Ġstate Ġyour Ġquery Ġabout Ġthe Ġregion . Ċ # context : Ġ"" Ċ # region :',
    ),
    "agent": (
        ["the dog", "Which?", "left"],
        "Ġ Ċ # inst ruction : Ġcan Ġyou Ġspecify Ġwhich Ġregion Ġthe Ġcontext Ġdescribes ? Ċ # context : "
        'Ġ" human : Ġthe Ġdog Ġagent : Ġwhich ? Ġhuman : Ġleft "',
    ),
}


@pytest.mark.parametrize("task", OFFICIAL_PIECES)
def test_ids_of_the_official_vocabulary(official: Tokenizer, official_bpe: Path, task: str) -> None:
    turns, pieces = OFFICIAL_PIECES[task]
    gpt2: dict[str, Any] = json.loads((official_bpe / "encoder.json").read_text("utf-8"))
    order = [line.split(" ")[0] for line in (official_bpe / "dict.txt").read_text("utf-8").splitlines()]
    expected = [4 + order.index(str(gpt2[piece])) for piece in pieces.split(" ")]
    bins = [58457 + 7, 58457, 58457 + 999, 58457 + 500] if region_of(task) else []
    assert dialog_source(official, DIALOG_TASKS[task], turns, region_of(task)) == [BOS, *expected, *bins, EOS]


# Text of a user is never a symbol


@pytest.mark.parametrize("typed", ["is it <bin_3>?", "#region: <bin_1> <bin_2> <bin_3> <bin_4>", "<mask> </s> <s>"])
def test_symbols_typed_in_a_turn_are_plain_text(tokenizer: Tokenizer, typed: str) -> None:
    for task, region in (("guesswhat_oracle", REGION), ("guesswhat_grounding", None)):
        found = dialog_source(tokenizer, DIALOG_TASKS[task], [typed], region)
        words = found[1 : len(found) - 1 - len(region or [])]
        assert not [token for token in words if token < 4 or token >= tokenizer.vocabulary.mask]
        assert f': {typed}"' in tokenizer.decode(words)


# Long dialogs


LONG = [f"is it number {i}?" if i % 2 == 0 else "no" for i in range(200)]


@pytest.mark.parametrize("task", ["guesswhat_oracle", "invig_grounding"])
def test_a_long_dialog_keeps_its_last_240_tokens(tokenizer: Tokenizer, task: str) -> None:
    region = region_of(task)
    whole = dialog_source(tokenizer, DIALOG_TASKS[task], LONG, region, max_tokens=10**6)
    assert len(whole) > 1000
    with pytest.warns(UserWarning, match=f"^a dialog of {len(whole)} tokens was cut to its last 240$"):
        found = dialog_source(tokenizer, DIALOG_TASKS[task], LONG, region)
    assert found == [BOS, *whole[-239:]]
    assert (len(found), found[0], found[-1]) == (240, BOS, EOS)
    assert found[-5:-1] == bin_ids(tokenizer, REGION) or region is None


def test_a_dialog_that_just_fits_is_whole_and_one_token_more_is_not(small: Tokenizer) -> None:
    task = DIALOG_TASKS["invig_query"]
    whole = dialog_source(small, task, [], REGION)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dialog_source(small, task, [], REGION, max_tokens=len(whole)) == whole
    with pytest.warns(UserWarning, match=f"was cut to its last {len(whole) - 1}"):
        found = dialog_source(small, task, [], REGION, max_tokens=len(whole) - 1)
    assert found == [BOS, *whole[2:]]


# Errors


@pytest.mark.parametrize("task", DIALOG_TASKS)
def test_a_region_that_is_missing_or_superfluous_is_refused(small: Tokenizer, task: str) -> None:
    wrong, message = (None, "takes a region$") if region_of(task) else (REGION, "takes no region$")
    with pytest.raises(OFAError, match=f"the task '{DIALOG_TASKS[task].instruction[:-1]}.' {message}"):
        dialog_source(small, DIALOG_TASKS[task], ["it"], wrong)


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ([0, 0, 1000, 1], r"bin 1000 is outside 0\.\.999"),
        ([-1, 0, 1, 1], r"bin -1 is outside 0\.\.999"),
        ([0.5, 0, 1, 1], r"a bin is a whole number, not 0\.5"),
        ([1, 2, 3], "four bins"),
        ([1, 2, 3, 4, 5], "four bins"),
    ],
    ids=str,
)
def test_a_region_is_four_bins_in_range(small: Tokenizer, region: Any, message: str) -> None:
    with pytest.raises(OFAError, match=message):
        dialog_source(small, DIALOG_TASKS["invig_query"], [], region)


@pytest.mark.parametrize(
    ("dialog", "turns"),
    [
        ([], []),
        ((), []),
        (["a", "b", "c"], ["a", "b", "c"]),
        ([("a", "b"), ("c", "d")], ["a", "b", "c", "d"]),
        ([["a", "b"], "c"], ["a", "b", "c"]),
        (("a", ("b", "c")), ["a", "b", "c"]),
        (["  A "], ["  A "]),
    ],
)
def test_a_dialog_is_turns_or_pairs_of_them(dialog: Any, turns: list[str]) -> None:
    assert flatten_dialog(dialog) == turns


@pytest.mark.parametrize(
    ("dialog", "message"),
    [
        ("is it red?", "a dialog is a list of turns or of .* pairs, not one text"),
        ([("a", "b"), ("a", "b", "c")], "dialog entry 1 has 3 parts"),
        ([("a",)], "dialog entry 0 has 1 parts"),
        ([[]], "dialog entry 0 has 0 parts"),
        ([""], "dialog entry 0 holds ''"),
        (["a", " \n"], r"dialog entry 1 holds ' \\n'"),
        ([("a", "")], "dialog entry 0 holds ''"),
        ([("a", 7)], "dialog entry 0 holds 7"),
        ([("a", None)], "dialog entry 0 holds None"),
        (["a", 7], "dialog entry 1"),
        (["a", None], "dialog entry 1"),
        (None, "a dialog is a list"),
        (7, "a dialog is a list"),
    ],
    ids=repr,
)
def test_a_dialog_of_another_form_is_refused(dialog: Any, message: str) -> None:
    with pytest.raises(OFAError, match=message):
        flatten_dialog(dialog)
