"""Which rows a step learns from."""

from __future__ import annotations

from collections import Counter

import pytest
from training.made import TOKENIZER, Questions, example

from ofa_core import ImageTransform
from ofa_core.data.examples import Example
from ofa_core.text.vocabulary import BOS, EOS, PAD
from ofa_core.training.batches import CYCLE_LENGTH, Batches, round_robin
from ofa_core.training.collate import collate

TRANSFORM = ImageTransform(64)


class Numbered:
    """Rows that say whose and which they are."""

    def __init__(self, name: str) -> None:
        self.name = name

    def examples(self, index: int) -> list[Example]:
        return [Example([BOS, EOS], [ord(self.name), index, EOS])]


def mixed(**changes: int) -> Batches:
    sources = [Numbered("a"), Numbered("b"), Numbered("c")]
    settings = {"batch_size": 4} | changes
    return Batches(sources, [5, 3, 2], TOKENIZER, TRANSFORM, **settings)


def test_sources_take_turns_by_their_weights() -> None:
    assert Counter(round_robin([5, 3, 2])) == {0: 500, 1: 300, 2: 200}
    assert Counter(round_robin([5, 3, 2], 10)) == {0: 5, 1: 3, 2: 2}
    assert round_robin([1, 1], 6) == [0, 1] * 3
    assert round_robin([1]) == [0] * CYCLE_LENGTH


def test_every_row_of_every_source_comes_once_in_order() -> None:
    batches = mixed()
    seen = [tuple(batches.row(row)[0].target[:2]) for row in range(3 * CYCLE_LENGTH)]
    for name, share in (("a", 0.5), ("b", 0.3), ("c", 0.2)):
        rows = [index for letter, index in seen if letter == ord(name)]
        assert rows == list(range(round(share * 3 * CYCLE_LENGTH)))


def test_two_processes_see_together_what_one_sees() -> None:
    one = Batches([Questions()], [1.0], TOKENIZER, TRANSFORM, batch_size=4)
    two = [Batches([Questions()], [1.0], TOKENIZER, TRANSFORM, batch_size=2, rank=r, world=2) for r in (0, 1)]
    for index in range(3):
        targets = sorted(map(str, one[index].groups[0].target.tolist()))
        parts = [row for batches in two for row in batches[index].groups[0].target.tolist()]
        assert sorted(str(row) for row in parts) == targets


def test_a_batch_is_padded_and_begins_targets_with_bos() -> None:
    batch = collate([example(" a", " red"), example(" what is it?", " a red circle")], TOKENIZER, TRANSFORM)
    (group,) = batch.groups
    red, a_red_circle = TOKENIZER.encode(" red"), TOKENIZER.encode(" a red circle")
    assert group.prefix.tolist() == [[BOS, *red, PAD, PAD], [BOS, *a_red_circle]]
    assert group.target.tolist() == [[*red, EOS, PAD, PAD], [*a_red_circle, EOS]]
    assert (group.tokens[:, 0] == BOS).all()
    assert group.pictures.tolist() == [-1, -1]
    assert batch.pixels == ()


@pytest.mark.parametrize(("size", "groups"), [(None, [5]), (2, [2, 2, 1]), (8, [5])])
def test_groups_are_of_one_length(size: int | None, groups: list[int]) -> None:
    texts = ["a a a a a a", "a", "a a a", "a a", "a a a a"]
    batch = collate([example(f" {text}", " red") for text in texts], TOKENIZER, TRANSFORM, size)
    assert [len(group.tokens) for group in batch.groups] == groups
    lengths = [int(row.ne(PAD).sum()) for group in batch.groups for row in group.tokens]
    assert lengths == sorted(lengths)


def test_a_prompt_is_given_and_not_learned() -> None:
    long = example(" what is it?", " red")
    prompted = Example(long.source, long.target, prompt=long.source[:-1], weight=0.5)
    (group,) = collate([prompted, long], TOKENIZER, TRANSFORM).groups
    assert group.prefix[0].tolist() == [*long.source[:-1], *long.target[:-1]]
    learned = group.target[0].tolist()
    assert learned == [PAD] * (len(long.source) - 2) + list(long.target)
    assert group.target[1].tolist()[: len(long.target)] == list(long.target)
    assert group.weights.tolist() == [0.5, 1.0]


def test_a_batch_may_have_nothing_to_teach() -> None:
    batch = collate([], TOKENIZER, TRANSFORM)
    assert batch.groups == ()
    assert batch.pixels == ()
