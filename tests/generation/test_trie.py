from __future__ import annotations

import pytest
import torch

from ofa_core import OFAError
from ofa_core.generation.trie import Trie

EOS = 2


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ([], {5, 7}),
        ([5], {6, EOS}),  # [5] is an answer and begins one
        ([5, 6], {8, 9}),
        ([5, 6, 8], {EOS}),
        ([7], {EOS}),
        ([5, 6, 8, EOS], {EOS}),  # an answer that is over
        ([6], {EOS}),  # no answer begins like that
        ([5, 7], {EOS}),
        ([7, 5, 6], {EOS}),
    ],
)
def test_what_may_follow_a_prefix(prefix: list[int], expected: set[int]) -> None:
    trie = Trie([[5, 6, 8], [5], [7], [5, 6, 9]])
    allowed = trie.allowed(prefix)
    assert set(allowed) == expected
    assert len(allowed) == len(expected)


def test_shared_prefixes_are_one_node() -> None:
    trie = Trie([[5, 6, 8], [5, 6, 9], [5]])
    assert len(trie.parents) == 1 + 4 + 3  # root, 5, 6, 8, 9, and an end for each


def test_the_path_to_a_leaf_spells_its_sequence() -> None:
    sequences = [[5, 6, 8], [5], [7, 5, 6], [5, 6]]
    trie = Trie(sequences)
    for sequence, leaf in zip(sequences, trie.leaves, strict=True):
        path = trie.path(leaf)
        assert [trie.tokens[node] for node in path] == [*sequence, EOS]
        assert [trie.parents[node] for node in path] == [0, *path[:-1]]
    assert trie.path(0) == []


def test_numbers_of_any_integer_kind_are_one_token() -> None:
    trie = Trie([list(torch.tensor([5, 6])), [5, 7]])
    assert sorted(trie.allowed([5])) == [6, 7]


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([], "there are no candidates"),
        ([[5], []], "candidate 1 is empty"),
        ([[5], [6, 7], [5]], "candidate 2 repeats candidate 0"),
        ([[5], [6, 7], [6, 7], [5]], "candidate 2 repeats candidate 1"),
    ],
)
def test_sequences_that_make_no_choice_are_refused(sequences: list[list[int]], message: str) -> None:
    with pytest.raises(OFAError, match=message):
        Trie(sequences)
