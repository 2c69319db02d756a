"""The loss of OFA's fine-tuning: label-smoothed cross-entropy over targets that are not padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import OFAError
from ..generation.trie import Trie
from ..model.encoder import ImageFeatures
from ..model.ofa import OFAModel
from ..text.vocabulary import BOS, EOS, PAD, UNK, Vocabulary
from .collate import Batch, Group, answer_mask
from .setting_tables import LossSettings

CONTROL_IDS = (BOS, PAD, EOS, UNK)


def label_smoothed_nll(log_probs: Tensor, target: Tensor, epsilon: float, allowed: Tensor | None = None) -> Tensor:
    """Label-smoothed cross-entropy [L] of ``log_probs`` [L, V] and ``target`` [L], as the original defines it.

    (1 - epsilon - e) times the target's loss plus e times the sum of all tokens' losses, with e = epsilon / (V - 1).
    Where ``allowed`` [V] or [L, V] is given, the others have no probability, and V is the number of allowed tokens.
    """
    nll = -log_probs.gather(1, target[:, None])[:, 0]
    if not epsilon:
        return nll
    if allowed is None:
        even = epsilon / (log_probs.shape[1] - 1)
        return (1 - epsilon - even) * nll - even * log_probs.sum(1)
    share = epsilon / (allowed.sum(-1).to(log_probs.dtype) - 1 + 1e-6)
    rest = log_probs.masked_fill(~allowed, 0).sum(1)
    return (1 - epsilon - share) * nll - share * rest


def soft_bin_loss(log_probs: Tensor, bins: Tensor, vocabulary: Vocabulary, sigma: float) -> Tensor:
    """Divergence [L] of ``log_probs`` [L, V] from a Gaussian of deviation ``sigma`` around target ``bins`` [L].

    ``bins`` are numbers, not ids. The Gaussian ends where the bins end, so its weights always sum to one.
    """
    numbers = torch.arange(vocabulary.num_bins, device=bins.device)
    weights = torch.softmax(-0.5 * ((numbers - bins[:, None]) / sigma) ** 2, dim=1)
    wanted = weights.clamp(min=1e-30).log()
    return (weights * (wanted - log_probs[:, vocabulary.bin_start : vocabulary.bin_end])).sum(1)


def symmetric_divergence(first: Tensor, second: Tensor) -> Tensor:
    """R-drop's regulariser [L]: the mean of both Kullback-Leibler divergences between log-probabilities [L, V]."""
    # A token that neither allows has no share in it. It is masked before, since inf - inf has no gradient either.
    blocked = first.eq(-torch.inf) & second.eq(-torch.inf)
    first, second = first.masked_fill(blocked, 0.0), second.masked_fill(blocked, 0.0)
    there = F.kl_div(first, second, reduction="none", log_target=True)
    back = F.kl_div(second, first, reduction="none", log_target=True)
    return (there + back).sum(1) / 2


def encouraging_bonus(log_probs: Tensor, target: Tensor, epsilon: float, log_end: float) -> Tensor:
    """Encouraging loss (arXiv 2110.06537) [L] of ``log_probs`` [L, V] and ``target`` [L], as the original adds it.

    With b(p) = log(1 - p), which falls the faster the surer the model is, (1 - epsilon) times b of the target's
    probability plus epsilon / V times the sum of all b. Above ``log_end`` b is its tangent there; at 1 it is b itself.
    """
    probs = log_probs.exp()
    bonus = (1 - probs).clamp(min=1e-5).log()
    if log_end < 1:
        tangent = math.log(1 - log_end) + (probs - log_end) / (log_end - 1)
        bonus = torch.where(probs > log_end, tangent, bonus)
    own = bonus.gather(1, target[:, None])[:, 0]
    return (1 - epsilon) * own + epsilon / log_probs.shape[1] * bonus.sum(1)


def token_losses(
    log_probs: Tensor, target: Tensor, settings: LossSettings, allowed: Tensor | None, vocabulary: Vocabulary | None
) -> Tensor:
    """The loss [L] of each target token [L] under ``log_probs`` [L, V]; bins are told by ``vocabulary``."""
    losses = label_smoothed_nll(log_probs, target, settings.label_smoothing, allowed)
    if vocabulary is None:
        return losses
    bins = target - vocabulary.bin_start
    is_bin = (bins >= 0) & (bins < vocabulary.num_bins)
    if sigma := settings.bin_sigma:
        soft = soft_bin_loss(log_probs[is_bin], bins[is_bin], vocabulary, sigma)
        losses = losses.masked_scatter(is_bin, soft)
    return torch.where(is_bin, losses * settings.bin_weight, losses)


@dataclass(frozen=True)
class TokenLosses:
    """Losses of target tokens, one row or with R-drop two for the two passes, as they count in a step."""

    losses: Tensor  # [passes, L]
    nll: Tensor  # [passes, L], without smoothing and without a gradient
    divergence: Tensor | None  # [L], between two passes
    right: Tensor  # scalar, how many targets the first pass holds likeliest
    bonus: Tensor | None = None  # [L], the mean of the passes' encouraging losses

    @classmethod
    def of(
        cls,
        passes: Sequence[Tensor],
        target: Tensor,
        settings: LossSettings,
        allowed: Tensor | None = None,
        weights: Tensor | None = None,
        vocabulary: Vocabulary | None = None,
    ) -> TokenLosses:
        """Compute the losses of ``target`` [L].

        Args:
            passes: log-probabilities [L, V], one or two.
            target: ids [L].
            settings: what the loss is.
            allowed: [V] or [L, V], the tokens that have a probability; None for all.
            weights: [L], factors on the losses; None for 1.
            vocabulary: tells which targets are bins; None where none is.
        """
        losses = torch.stack([token_losses(one, target, settings, allowed, vocabulary) for one in passes])
        nll = -torch.stack([one.detach().gather(1, target[:, None])[:, 0] for one in passes])
        divergence = None
        if len(passes) == 2:
            first, second = passes
            if weights is not None and settings.rdrop_rule == "original":  # which weighs log-probabilities
                first, second = (one * weights[:, None] for one in passes)
            divergence = symmetric_divergence(first, second)
            if weights is not None and settings.rdrop_rule == "mean":
                divergence = divergence * weights
        right = passes[0].detach().argmax(-1).eq(target).sum()
        bonus = _bonus(passes, target, settings, weights)
        if weights is not None:
            losses, nll = losses * weights, nll * weights
        return cls(losses, nll, divergence, right, bonus)

    def per_token(self, settings: LossSettings) -> Tensor:
        """[L], what a token costs: the mean of the passes, and R-drop's regulariser."""
        if self.divergence is None:
            return self.losses[0]
        share = settings.rdrop / 2 if settings.rdrop_rule == "original" else settings.rdrop
        return self.losses.mean(0) + share * self.divergence


def _bonus(passes: Sequence[Tensor], target: Tensor, settings: LossSettings, weights: Tensor | None) -> Tensor | None:
    """The encouraging loss [L] of tokens, of probabilities to the power of their ``weights`` as in the original."""
    if settings.encouraging is None:
        return None
    weighed = list(passes)
    if weights is not None:  # what is not allowed stays so, whatever the weight
        weighed = [torch.where(one.isneginf(), one, one * weights[:, None]) for one in passes]
    found = [encouraging_bonus(one, target, settings.label_smoothing, settings.encouraging) for one in weighed]
    return torch.stack(found).mean(0)


def total_loss(
    parts: Sequence[TokenLosses], settings: LossSettings, step: int, sentences: int
) -> tuple[Tensor, Tensor]:
    """Sum of the losses of all tokens and passes; and a row of counts in float64.

    Args:
        parts: losses of groups of examples.
        settings: what the loss is.
        step: the step, counted from 0, which says whether dropping the worst losses has begun.
        sentences: how many examples there are.

    Returns:
        The sum, and [what a gradient of it is divided by, target tokens, right ones, losses without smoothing].
    """
    passes = max(len(part.losses) for part in parts)
    costs = [part.per_token(settings) for part in parts]
    bonuses = [part.bonus for part in parts if part.bonus is not None]
    tokens = kept = sum(map(len, costs))
    nll = sum((part.nll.double().sum() for part in parts), torch.zeros((), dtype=torch.float64))
    if _drops(settings, step):
        by_first = settings.drop_worst_rule == "original"
        chosen = smallest(torch.cat([part.losses[0] for part in parts] if by_first else costs), settings.drop_worst)
        nll = torch.cat([part.nll for part in parts], dim=1)[:, chosen].double().sum()
        costs, kept = [torch.cat(costs)[chosen]], len(chosen)
        bonuses = [torch.cat(bonuses)[chosen]] if bonuses else []  # which has no say in what is left out
    loss = sum((cost.sum() for cost in (*costs, *bonuses)), costs[0].new_zeros(()))
    size = sentences if settings.per_sentence else kept
    right = sum(int(part.right) for part in parts)
    counts = torch.tensor([size * passes, tokens, right, float(nll)], dtype=torch.float64, device=loss.device)
    return loss if passes == 1 else loss * passes, counts


def _drops(settings: LossSettings, step: int) -> bool:
    """Tell whether the worst losses are left out in a step."""
    begun = settings.drop_worst_after + (settings.drop_worst_rule == "original")
    return settings.drop_worst > 0 and step >= begun


def smallest(losses: Tensor, ratio: float) -> Tensor:
    """Places of the losses [L] without the share ``ratio`` of the largest, which may be wrongly labelled."""
    return losses.topk(int(len(losses) * (1 - ratio)), largest=False).indices


class LossModule(nn.Module):
    """A model with its loss: what a step differentiates, and what is wrapped for several processes."""

    #: The share of right tokens, which the log tells.
    measure = "accuracy"

    def __init__(
        self, model: OFAModel, vocabulary: Vocabulary, settings: LossSettings, answers: Trie | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.vocabulary = vocabulary
        self.settings = settings
        self.answers = answers
        self.allowed = _allowed_range(settings, model.config.vocab_size)

    def forward(self, batch: Batch, step: int = 0) -> tuple[Tensor, Tensor]:
        """Sum of the losses of all target tokens, and the counts of :func:`total_loss`.

        ``step`` says whether dropping the worst losses has begun.
        """
        if self.settings.rdrop and self.settings.rdrop_rule == "original" and not batch.features:
            passes = self._features_twice(batch)
        else:
            passes = [self._features(batch)] * (2 if self.settings.rdrop else 1)
        parts = []
        for group in batch.groups:
            own = [features[int(group.side)] if features else None for features in passes]
            parts.append(self._group(group, own))
        return total_loss(parts, self.settings, step, sum(len(group.target) for group in batch.groups))

    def _features(self, batch: Batch) -> list[ImageFeatures]:
        if batch.features:
            return list(batch.features)
        return [self.model.image_features(pixels) for pixels in batch.pixels]

    def _features_twice(self, batch: Batch) -> list[list[ImageFeatures]]:
        """Features for two passes, of pictures that are twice in one batch of the stem."""
        both = [self.model.image_features(torch.cat([pixels, pixels])) for pixels in batch.pixels]
        halves = [features.patches.chunk(2) for features in both]
        return [
            [ImageFeatures(half[number], features.grid) for half, features in zip(halves, both, strict=True)]
            for number in (0, 1)
        ]

    def _group(self, group: Group, passes: Sequence[ImageFeatures | None]) -> TokenLosses:
        """Losses of a group, whose pictures have the features ``passes`` in the passes there are."""
        real = self._counted(group)
        allowed = self._allowed(group, real)
        log_probs = [self._log_probs(group, features, real, allowed) for features in passes]  # dropout tells them apart
        weights = group.weights[:, None].expand_as(real)[real]
        return TokenLosses.of(log_probs, group.target[real], self.settings, allowed, weights, self.vocabulary)

    def _counted(self, group: Group) -> Tensor:
        """[B, T], True at the target tokens that are in the loss."""
        counted = group.target.ne(PAD)
        if self.settings.ignore_eos:
            counted = counted & group.target.ne(EOS)
        if skipped := self.settings.ignore_prefix_size:
            counted = counted & (torch.arange(counted.shape[1], device=counted.device) >= skipped)
        return counted

    def _log_probs(self, group: Group, features: ImageFeatures | None, real: Tensor, allowed: Tensor | None) -> Tensor:
        """Log-probabilities [L, V] at the L target tokens that are not padding."""
        images, mask = None, None
        if features is not None and bool((group.pictures >= 0).any()):
            images = features.select(group.pictures.clamp(min=0))
            if int(group.patches):
                images = images.sample_patches(int(group.patches))
            mask = None if bool((group.pictures >= 0).all()) else group.pictures >= 0
        memory = self.model.encode(group.tokens, images, mask)
        codes = group.codes if bool(group.codes.any()) else None
        states = self.model.decode_states(memory, group.prefix, code_mask=codes)
        logits = self.model.logits(states[real])
        logits = logits if logits.dtype == torch.float64 else logits.float()
        if allowed is not None:
            logits = logits.masked_fill(~allowed, -torch.inf)
        return logits.log_softmax(-1)

    def _allowed(self, group: Group, real: Tensor) -> Tensor | None:
        """Mask of the tokens that may follow: [V] for a range of ids, [L, V] for sets of answers, None for all."""
        usual = self._usually_allowed(group, real)
        if not bool(group.closed.any()):
            return usual
        own = answer_mask(group, self.model.config.vocab_size)[real]
        closed = group.closed[:, None].expand_as(real)[real]
        return torch.where(closed[:, None], own, own if usual is None else usual)

    def _usually_allowed(self, group: Group, real: Tensor) -> Tensor | None:
        """Mask of the tokens that the settings allow to a target without a set of answers of its own."""
        if self.answers is None:
            return None if self.allowed is None else self.allowed.to(group.target.device)
        allowed = torch.zeros(*group.target.shape, self.model.config.vocab_size, dtype=torch.bool)
        targets = group.target.ne(PAD)
        for row, tokens in enumerate(group.target.tolist()):
            places = targets[row].nonzero()[:, 0].tolist()  # behind the prompt
            for place in places:
                allowed[row, place, self.answers.allowed(tokens[places[0] : place])] = True
        return allowed.to(group.target.device)[real]


def _allowed_range(settings: LossSettings, vocab_size: int) -> Tensor | None:
    """[V], True for the control ids and the ids of the range."""
    if settings.constraint_range is None:
        return None
    start, end = settings.constraint_range
    if not 4 <= start < end <= vocab_size:
        raise OFAError(f"constraint_range {start}, {end} is not a range of ids between 4 and {vocab_size}")
    allowed = torch.zeros(vocab_size, dtype=torch.bool)
    allowed[list(CONTROL_IDS)] = True
    allowed[start:end] = True
    return allowed
