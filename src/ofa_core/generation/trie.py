"""A prefix tree of token sequences."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import OFAError
from ..text.vocabulary import EOS


class Trie:
    """Token sequences, each ended by ``</s>``, that share their prefixes. Node 0 is the root.

    Raises:
        OFAError: no sequences, an empty one, or one that occurs twice.
    """

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        if not sequences:
            raise OFAError("there are no candidates: at least one is needed")
        self.children: list[dict[int, int]] = [{}]
        self.parents: list[int] = [-1]
        self.tokens: list[int] = [-1]
        #: The node of each sequence's final ``</s>``.
        self.leaves: list[int] = []
        for index, sequence in enumerate(sequences):
            if not sequence:
                raise OFAError(f"candidate {index} is empty: it should have at least one token")
            node = 0
            for token in (*sequence, EOS):
                node = self.children[node].get(int(token)) or self._add(node, int(token))
            self.leaves.append(node)
        if len(set(self.leaves)) < len(self.leaves):
            twice = next(i for i, leaf in enumerate(self.leaves) if self.leaves.index(leaf) < i)
            raise OFAError(f"candidate {twice} repeats candidate {self.leaves.index(self.leaves[twice])}")

    def check_ids(self, vocab_size: int) -> None:
        """Raise OFAError where a token is outside a vocabulary of ``vocab_size``."""
        for index, leaf in enumerate(self.leaves):
            for token in (self.tokens[node] for node in self.path(leaf)):
                if not 0 <= token < vocab_size:
                    raise OFAError(f"candidate {index} holds id {token}; ids run from 0 to {vocab_size - 1}")

    def _add(self, parent: int, token: int) -> int:
        node = len(self.parents)
        self.children[parent][token] = node
        self.children.append({})
        self.parents.append(parent)
        self.tokens.append(token)
        return node

    def allowed(self, prefix: Sequence[int]) -> list[int]:
        """Tokens that may follow ``prefix`` (without ``<s>``); only ``</s>`` where no sequence begins like it."""
        node = 0
        for token in prefix:
            if token not in self.children[node]:
                return [EOS]
            node = self.children[node][token]
        return list(self.children[node]) or [EOS]

    def path(self, node: int) -> list[int]:
        """The nodes from below the root to ``node``."""
        path = []
        while node:
            path.append(node)
            node = self.parents[node]
        return path[::-1]
