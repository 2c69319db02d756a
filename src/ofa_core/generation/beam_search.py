"""Beam search as the original does it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..text.vocabulary import BOS, EOS
from .options import GenerationOptions
from .stepper import Hypothesis, Stepper

#: Scores that are looked at as one by :func:`_largest`.
BLOCK = 256


def beam_search(stepper: Stepper, options: GenerationOptions) -> list[list[Hypothesis]]:
    """The best hypotheses of each sample, best first.

    A sample is done when K hypotheses have ended or the length is reached. It may have fewer than K where constraints
    leave no more, even none.
    """
    batch, beams = len(stepper.samples), options.num_beams
    ended: list[list[Hypothesis]] = [[] for _ in range(batch)]
    first = beams if stepper.is_static else 1  # all beams are alike at the first step
    prefixes = torch.full((batch, first, 1), BOS, device=stepper.samples.device)
    totals = torch.zeros(batch, beams, 0, device=stepper.samples.device)  # cumulative score after each token
    for step in range(stepper.max_length + 1):
        log_probs = stepper.log_probs(prefixes).expand(-1, beams, -1)
        scores, tokens, origins = _candidates(log_probs, totals, options)  # [B, 2K] each
        origins = origins.clamp(max=prefixes.shape[1] - 1)
        ends = tokens.eq(EOS) & scores.gt(-torch.inf) & ~stepper.still_forced(step)[:, None]
        for sample, rank in ends[:, :beams].nonzero().tolist():
            finished = ended[int(stepper.samples[sample])]
            if len(finished) < beams:
                origin = origins[sample, rank]
                finished.append(
                    _finish(prefixes[sample, origin], totals[sample, origin], scores[sample, rank], options)
                )
        kept = [i for i, sample in enumerate(stepper.samples.tolist()) if len(ended[sample]) < beams]
        if not kept or step == stepper.max_length:
            break
        if stepper.is_static:
            kept = list(range(len(stepper.samples)))

        going_on = ends.int().argsort(dim=1, stable=True)[:, :beams]  # the best K that have not ended
        scores, tokens, origins = (part.gather(1, going_on)[kept] for part in (scores, tokens, origins))
        rows = torch.tensor(kept, device=origins.device)[:, None]
        stepper.reorder((rows * prefixes.shape[1] + origins).flatten())
        if len(kept) < len(stepper.samples):
            stepper.keep_samples(rows[:, 0])
        prefixes = torch.cat([prefixes[rows, origins], tokens[..., None]], dim=-1)
        totals = torch.cat([totals[rows, origins], scores[..., None]], dim=-1)
    wanted = options.num_return_sequences or beams
    return [sorted(finished, key=lambda hypothesis: -hypothesis.score)[:wanted] for finished in ended]


def _candidates(log_probs: Tensor, totals: Tensor, options: GenerationOptions) -> tuple[Tensor, Tensor, Tensor]:
    """The best continuations of all beams: cumulative score, token and beam of origin, [B, 2K] each.

    Groups of beams pick one after the other, each with a penalty on what the earlier ones picked; group g owns the
    beams g, g + groups, ... and the results are interleaved in the same way.
    """
    groups = options.num_beam_groups
    picked: list[tuple[Tensor, Tensor, Tensor]] = []
    chosen_before = torch.zeros_like(log_probs[:, 0])  # [B, V]
    for group in range(groups):
        own = log_probs[:, group::groups]
        if group:
            own = own - options.diversity_penalty * chosen_before[:, None]
        scores, tokens, origins = _best(own, totals[:, group::groups])
        picked.append((scores, tokens, origins * groups + group))
        if groups > 1:
            chosen_before.scatter_add_(1, tokens, torch.ones_like(scores))
    scores, tokens, origins = (torch.stack(parts, dim=2).flatten(1) for parts in zip(*picked, strict=True))
    return scores, tokens, origins


def _best(log_probs: Tensor, totals: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best 2K of one group's K beams; at the first step all beams are alike and the first one speaks for all.

    The best of all are among the best of each beam, so what the beams have so far is added to few scores.
    """
    beams, first = log_probs.shape[1], totals.shape[-1] == 0
    own = log_probs[:, :1] if first else log_probs
    scores, tokens = (part.unflatten(0, own.shape[:2]) for part in _top_k(own.flatten(0, 1), 2 * beams))
    scores = scores if first else scores + totals[..., -1:]  # [B, K, 2K]
    each = scores.shape[2]
    best, index = scores.flatten(1).topk(min(2 * beams, scores[0].numel()), dim=1)
    tokens, origins = tokens.flatten(1).gather(1, index), index // each
    if missing := 2 * beams - best.shape[1]:  # a vocabulary smaller than the beam
        best = torch.nn.functional.pad(best, (0, missing), value=-torch.inf)
        tokens, origins = (torch.nn.functional.pad(part, (0, missing)) for part in (tokens, origins))
    return best, tokens, origins


def _top_k(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest of each row and their places, [N, count] or all there are, largest first.

    A row's largest are in those of its runs whose maxima are largest, and maxima are found several times faster.
    """
    length = scores.shape[1]
    if length < BLOCK * count:
        return scores.topk(min(count, length), dim=1)
    runs = (
        scores[:, : length - length % BLOCK].unflatten(1, (-1, BLOCK)).amax(2).topk(count, dim=1).indices
    )  # [N, count]
    among = (runs[..., None] * BLOCK + torch.arange(BLOCK, device=scores.device)).flatten(1)
    rest = torch.arange(length - length % BLOCK, length, device=scores.device)  # the incomplete last run
    among = torch.cat([among, rest.expand(len(scores), -1)], dim=1)
    best, index = scores.gather(1, among).topk(count, dim=1)
    return best, among.gather(1, index)


def _finish(prefix: Tensor, totals: Tensor, score: Tensor, options: GenerationOptions) -> Hypothesis:
    """A hypothesis from its tokens [t] with ``<s>``, their cumulative scores [t - 1] and the one with ``</s>``."""
    totals = torch.cat([totals, score[None]])
    token_scores = totals.diff(prepend=totals.new_zeros(1)).tolist()
    length = len(token_scores)
    final = float(score) / length**options.length_penalty if options.normalize_scores else float(score)
    return Hypothesis([*prefix[1:].tolist(), EOS], final, token_scores)
