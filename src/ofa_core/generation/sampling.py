"""Drawing targets at random instead of searching for the best."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..text.vocabulary import BOS, EOS
from .options import GenerationOptions
from .stepper import Hypothesis, Stepper


def sample(stepper: Stepper, options: GenerationOptions, generator: torch.Generator | None) -> list[list[Hypothesis]]:
    """``num_return_sequences`` targets for each sample, best score first; see :func:`draws`."""
    found = draws(stepper, options, generator)
    return [sorted((h for h in one if h is not None), key=lambda h: -h.score) for one in found]


def draws(
    stepper: Stepper, options: GenerationOptions, generators: torch.Generator | Sequence[torch.Generator] | None
) -> list[list[Hypothesis | None]]:
    """``num_return_sequences`` targets for each sample in the order of their draws; None where a draw was impossible.

    Token scores are log-probabilities before ``top_k`` and ``top_p``. The same generator state gives the same draws;
    with a generator for each target, whatever is drawn beside it.
    """
    batch, count = len(stepper.samples), options.num_return_sequences or 1
    prefixes = torch.full((batch, count, 1), BOS, device=stepper.samples.device)
    scores = torch.zeros(batch, count, 0, device=stepper.samples.device)
    ended = torch.zeros(batch, count, 0, dtype=torch.bool, device=scores.device)
    for step in range(stepper.max_length + 1):
        log_probs = stepper.log_probs(prefixes)
        probabilities = keep_top(log_probs, options.top_k, options.top_p).softmax(-1).nan_to_num()
        impossible = probabilities.sum(-1, keepdim=True) == 0  # constraints leave nothing: the draw is void
        drawn = _drawn((probabilities + impossible).flatten(0, 1), generators)
        drawn = drawn.unflatten(0, (batch, count))
        prefixes = torch.cat([prefixes, drawn], dim=-1)
        scores = torch.cat([scores, log_probs.gather(-1, drawn)], dim=-1)
        ends = drawn.eq(EOS) & ~stepper.still_forced(step)[:, None, None]
        ended = torch.cat([ended, ends], dim=-1)
        if ended.any(-1).all():
            break
    drawn_targets = (prefixes[..., 1:], scores, ended)
    targets = zip(*(part.flatten(0, 1) for part in drawn_targets), strict=True)
    found = [_finish(tokens.tolist(), token_scores, ends.tolist(), options) for tokens, token_scores, ends in targets]
    return [found[i * count : (i + 1) * count] for i in range(batch)]


def _drawn(probabilities: Tensor, generators: torch.Generator | Sequence[torch.Generator] | None) -> Tensor:
    """An index [R, 1] into each row of ``probabilities`` [R, V]."""
    if generators is None or isinstance(generators, torch.Generator):
        return torch.multinomial(probabilities, 1, generator=generators)
    rows = zip(probabilities, generators, strict=True)
    return torch.stack([torch.multinomial(row, 1, generator=generator) for row, generator in rows])


def keep_top(log_probs: Tensor, top_k: int, top_p: float) -> Tensor:
    """``log_probs`` [..., V], -inf for all but the ``top_k`` best and, of these, the fewest that reach ``top_p``."""
    if top_k:
        least = log_probs.topk(min(top_k, log_probs.shape[-1]), dim=-1).values[..., -1:]
        log_probs = log_probs.masked_fill(log_probs < least, -torch.inf)
    if top_p < 1:
        ordered, index = log_probs.sort(dim=-1, descending=True)
        probabilities = ordered.softmax(-1)
        reached_before = probabilities.cumsum(-1) - probabilities >= top_p
        log_probs = log_probs.masked_fill(reached_before.scatter(-1, index, reached_before), -torch.inf)
    return log_probs


def _finish(tokens: list[int], token_scores: Tensor, ends: list[bool], options: GenerationOptions) -> Hypothesis | None:
    """A hypothesis up to the first token that ends it; None where a draw was impossible."""
    if True not in ends:
        return None
    length = ends.index(True) + 1
    total = float(token_scores[:length].sum())
    if total == -torch.inf:
        return None
    final = total / length**options.length_penalty if options.normalize_scores else total
    return Hypothesis(tokens[:length], final, token_scores[:length].tolist())
