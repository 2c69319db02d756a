"""Rules on the next token. Each is an object that changes the scores of a step; the search applies a list of them.

A rule at stage ``logits`` comes before the softmax, so that what it leaves sums to one; a rule at stage ``log_probs``
comes after it. Any object with a ``stage`` and a ``__call__`` like those here can be passed to
:func:`ofa_core.generate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from ..errors import OFAError
from ..text.vocabulary import EOS, PAD, UNK
from .trie import Trie

NEVER = -torch.inf
#: Ids below this are special tokens, which a range of ids always leaves.
SPECIAL = 4
Stage = Literal["logits", "log_probs"]


@dataclass(frozen=True)
class Step:
    """The state of a search that a processor may look at."""

    prefixes: Tensor  # [B, K, t], the tokens so far, <s> first
    samples: Tensor  # [B], which sample of the user's batch each row is: finished ones leave
    max_length: int  # tokens that may stand before </s>
    forced: Tensor | None = None  # [B, L], a prefix that every hypothesis must begin with, padded with <pad>

    @property
    def number(self) -> int:
        """Tokens generated so far."""
        return self.prefixes.shape[-1] - 1

    @property
    def is_last(self) -> bool:
        """True if nothing but ``</s>`` may follow."""
        return self.number >= self.max_length

    def forced_lengths(self) -> list[int]:
        """Number of forced tokens, sample by sample."""
        return [0] * len(self.prefixes) if self.forced is None else self.forced.ne(PAD).sum(1).tolist()


class LogitsProcessor(Protocol):
    """A rule on the next token."""

    @property
    def stage(self) -> Stage:
        """Before or after the softmax."""

    def __call__(self, scores: Tensor, step: Step) -> Tensor:
        """New scores [B, K, V] of a step; ``scores`` may be changed in place."""


class AllowedRange:
    """Only ids from ``start`` to ``end`` - 1, and the special tokens 0 to 3."""

    stage: Stage = "logits"

    def __init__(self, start: int, end: int) -> None:
        if not SPECIAL <= start < end:
            raise OFAError(f"an id range needs {SPECIAL} <= start < end, not {start}, {end}")
        self.start: int = start
        self.end: int = end

    def __call__(self, scores: Tensor, step: Step) -> Tensor:
        """New scores [B, K, V]."""
        scores[..., SPECIAL : self.start] = NEVER
        scores[..., self.end :] = NEVER
        return scores


class AnswerTrie:
    """Only one of the given answers (token ids without ``<s>`` and ``</s>``), behind the forced prefix if any."""

    stage: Stage = "logits"

    def __init__(self, answers: Sequence[Sequence[int]]) -> None:
        self.trie: Trie = Trie(answers)

    def __call__(self, scores: Tensor, step: Step) -> Tensor:
        """New scores [B, K, V]."""
        if step.number == 0:
            self.trie.check_ids(scores.shape[-1])
        banned = torch.ones_like(scores, dtype=torch.bool)
        for sample, (beams, start) in enumerate(zip(step.prefixes.tolist(), step.forced_lengths(), strict=True)):
            for beam, prefix in enumerate(beams):
                free = step.number >= start
                banned[sample, beam, self.trie.allowed(prefix[start + 1 :]) if free else slice(None)] = False
        return scores.masked_fill_(banned, NEVER)


def allowed_ids(rules: Sequence[LogitsProcessor], step: Step, vocab_size: int) -> Tensor | None:
    """Find the ids that ``rules`` leave at a step, where the first one before the softmax leaves few.

    Others have no probability whatever the model says of them, so that their logits need not be computed.

    Args:
        rules: rules in the order in which they apply.
        step: the step.
        vocab_size: V.

    Returns:
        Ids [n], in order, at most half of V; None where all logits are needed.
    """
    first = next((rule for rule in rules if rule.stage == "logits"), None)
    if type(first) is AllowedRange:  # a subclass may leave others
        ids = [*range(min(SPECIAL, vocab_size)), *range(first.start, min(first.end, vocab_size))]
    elif type(first) is AnswerTrie and step.number >= max(step.forced_lengths(), default=0):
        starts = step.forced_lengths()
        prefixes = (
            beam[start + 1 :] for beams, start in zip(step.prefixes.tolist(), starts, strict=True) for beam in beams
        )
        allowed = {token for prefix in prefixes for token in first.trie.allowed(prefix)}
        ids = sorted(token for token in allowed if 0 <= token < vocab_size)
    else:
        return None
    return torch.tensor(ids, device=step.prefixes.device) if ids and 2 * len(ids) <= vocab_size else None


class NoRepeatNgram:
    """No run of ``size`` tokens twice, ``<s>`` and forced tokens included."""

    stage: Stage = "log_probs"

    def __init__(self, size: int) -> None:
        if size < 1:
            raise OFAError(f"an n-gram has at least one token, not {size}")
        self.size = size

    def __call__(self, scores: Tensor, step: Step) -> Tensor:
        """New scores [B, K, V]."""
        length = step.prefixes.shape[-1]
        if length < self.size:
            return scores
        ngrams = step.prefixes.unfold(-1, self.size, 1)  # [B, K, runs, size]
        last = step.prefixes[..., length - self.size + 1 :].unsqueeze(2)  # [B, K, 1, size - 1]
        repeats = (ngrams[..., :-1] == last).all(-1)  # [B, K, runs]: runs that start like the present end
        penalty = torch.zeros_like(repeats, dtype=scores.dtype).masked_fill_(repeats, NEVER)
        return scores.scatter_add_(-1, ngrams[..., -1], penalty)


class ForcedPrefix:
    """The next token of the forced prefix, where it still lasts."""

    stage: Stage = "log_probs"

    def __call__(self, scores: Tensor, step: Step) -> Tensor:
        """New scores [B, K, V]."""
        if step.forced is None or step.number >= step.forced.shape[1] or step.is_last:
            return scores
        token = step.forced[:, step.number]  # [B]
        other = torch.arange(scores.shape[-1], device=scores.device) != token[:, None]
        return scores.masked_fill_((other & token.ne(PAD)[:, None])[:, None], NEVER)


class MinNewTokens:
    """No ``</s>`` before ``count`` tokens, unless the forced prefix says so."""

    stage: Stage = "log_probs"

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, scores: Tensor, step: Step) -> Tensor:
        """New scores [B, K, V]."""
        if step.number < self.count:
            free = torch.tensor([step.number >= length for length in step.forced_lengths()], device=scores.device)
            scores[..., EOS] = scores[..., EOS].masked_fill(free[:, None], NEVER)
        return scores


class MaxNewTokens:
    """Nothing but ``</s>`` once ``count`` tokens stand behind the sample's own forced prefix."""

    stage: Stage = "log_probs"

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, scores: Tensor, step: Step) -> Tensor:
        """New scores [B, K, V]."""
        full = [step.number >= length + self.count for length in step.forced_lengths()]
        other = torch.arange(scores.shape[-1], device=scores.device) != EOS
        return scores.masked_fill_(torch.tensor(full, device=scores.device)[:, None, None] & other, NEVER)


class NeverInvalid:
    """No ``<pad>``, and nothing whose score is not a number."""

    stage: Stage = "log_probs"

    def __call__(self, scores: Tensor, step: Step) -> Tensor:
        """New scores [B, K, V]."""
        if scores.device.type != "cpu" or scores.sum().isnan():  # where looking at each takes several times as long
            scores.masked_fill_(scores.isnan(), NEVER)
        scores[..., PAD] = NEVER
        return scores


class UnkPenalty:
    """Takes ``penalty`` from the score of ``<unk>``."""

    stage: Stage = "log_probs"

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty

    def __call__(self, scores: Tensor, step: Step) -> Tensor:
        """New scores [B, K, V]."""
        scores[..., UNK] -= self.penalty
        return scores


class SuppressSpecialTokens:
    """No id from 0 to 3 before the last step."""

    stage: Stage = "log_probs"

    def __call__(self, scores: Tensor, step: Step) -> Tensor:
        """New scores [B, K, V]."""
        if not step.is_last:
            scores[..., :4] = NEVER
        return scores


class MaxLength:
    """Nothing but ``</s>`` at the last step."""

    stage: Stage = "log_probs"

    def __call__(self, scores: Tensor, step: Step) -> Tensor:
        """New scores [B, K, V]."""
        if step.is_last:
            scores[..., :EOS] = NEVER
            scores[..., EOS + 1 :] = NEVER
        return scores
