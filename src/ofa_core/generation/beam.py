"""Beam search as the original does it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..text.vocabulary import BOS, EOS
from .options import GenerationOptions
from .stepper import Hypothesis, Stepper

#: Scores that are looked at as one by :func:`_largest`.
RUN = 256


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
    """The best 2K of one group's K beams; at the first step all beams are alike and the first one speaks for all."""
    beams, vocabulary = log_probs.shape[1:]
    scores = log_probs[:, :1] if totals.shape[-1] == 0 else log_probs + totals[..., -1:]
    flat = scores.flatten(1)
    best, index = _largest(flat, min(2 * beams, flat.shape[1]))
    if missing := 2 * beams - best.shape[1]:  # a vocabulary smaller than the beam
        best = torch.nn.functional.pad(best, (0, missing), value=-torch.inf)
        index = torch.nn.functional.pad(index, (0, missing))
    return best, index % vocabulary, index // vocabulary


def _largest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest of each row and their places, [B, count], largest first.

    A row's largest are in those of its runs whose maxima are largest, and maxima are found several times faster.
    """
    if scores.shape[1] < RUN * count:
        return scores.topk(count, dim=1)
    whole = scores.shape[1] - scores.shape[1] % RUN
    places = torch.arange(scores.shape[1], device=scores.device)
    runs = scores[:, :whole].unflatten(1, (-1, RUN)).amax(2).topk(count, dim=1).indices  # [B, count]
    among = places[:whole].unflatten(0, (-1, RUN))[runs].flatten(1)  # [B, count * RUN]
    among = torch.cat([among, places[whole:].expand(len(scores), -1)], dim=1)  # and the incomplete last run
    best, index = scores.gather(1, among).topk(count, dim=1)
    return best, among.gather(1, index)


def _finish(prefix: Tensor, totals: Tensor, score: Tensor, options: GenerationOptions) -> Hypothesis:
    """A hypothesis from its tokens [t] with ``<s>``, their cumulative scores [t - 1] and the one with ``</s>``."""
    totals = torch.cat([totals, score[None]])
    token_scores = totals.diff(prepend=totals.new_zeros(1)).tolist()
    length = len(token_scores)
    final = float(score) / length**options.length_penalty if options.normalize_scores else float(score)
    return Hypothesis([*prefix[1:].tolist(), EOS], final, token_scores)
