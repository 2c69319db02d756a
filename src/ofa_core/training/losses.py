"""The loss of OFA's fine-tuning: label-smoothed cross-entropy over targets that are not padding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import OFAError
from ..generation.trie import Trie
from ..model.encoder import ImageFeatures
from ..model.ofa import OFAModel
from ..text.vocabulary import BOS, EOS, PAD, UNK, Vocabulary
from .collate import Batch, Group, answer_mask
from .settings import LossSettings

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
        allowed = torch.ones(1, log_probs.shape[1], dtype=torch.bool, device=log_probs.device)
    share = epsilon / (allowed.sum(-1) - 1 + 1e-6)
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


def drop_worst(losses: Tensor, ratio: float) -> Tensor:
    """The losses [L] without the share ``ratio`` of the largest, which may be wrongly labelled."""
    return losses.topk(int(len(losses) * (1 - ratio)), largest=False).values if ratio else losses


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
        """Sum of the losses of all target tokens; and a row of counts [tokens in the loss, target tokens, right ones].

        ``step`` says whether dropping the worst losses has begun.
        """
        features = [self.model.image_features(pixels) for pixels in batch.pixels]
        loss = self.model.token_embedding.weight.new_zeros(())
        counts = torch.zeros(3, dtype=torch.long, device=loss.device)
        for group in batch.groups:
            own = features[int(group.side)] if features else None
            group_loss, group_counts = self._group(group, own, step)
            loss, counts = loss + group_loss, counts + group_counts
        return loss, counts

    def _group(self, group: Group, features: ImageFeatures | None, step: int) -> tuple[Tensor, Tensor]:
        real = group.target.ne(PAD)
        target = group.target[real]
        allowed = self._allowed(group, real)
        log_probs = self._log_probs(group, features, real, allowed)
        losses = self._losses(log_probs, target, allowed)
        if self.settings.rdrop:
            other = self._log_probs(group, features, real, allowed)  # dropout makes it another
            losses = (losses + self._losses(other, target, allowed)) / 2
            losses = losses + self.settings.rdrop * symmetric_divergence(log_probs, other)
        losses = losses * group.weights[:, None].expand_as(real)[real]
        if step >= self.settings.drop_worst_after:
            losses = drop_worst(losses, self.settings.drop_worst)
        right = log_probs.detach().argmax(-1).eq(target).sum()
        return losses.sum(), torch.stack([torch.tensor(len(losses), device=target.device), real.sum(), right])

    def _log_probs(self, group: Group, features: ImageFeatures | None, real: Tensor, allowed: Tensor | None) -> Tensor:
        """Log-probabilities [L, V] at the L target tokens that are not padding."""
        images, mask = None, None
        if features is not None and bool((group.pictures >= 0).any()):
            images = features.select(group.pictures.clamp(min=0))
            mask = None if bool((group.pictures >= 0).all()) else group.pictures >= 0
        memory = self.model.encode(group.tokens, images, mask)
        codes = group.codes if bool(group.codes.any()) else None
        states = self.model.decode_states(memory, group.prefix, code_mask=codes)
        logits = self.model.logits(states[real]).float()
        if allowed is not None:
            logits = logits.masked_fill(~allowed, -torch.inf)
        return logits.log_softmax(-1)

    def _losses(self, log_probs: Tensor, target: Tensor, allowed: Tensor | None) -> Tensor:
        losses = label_smoothed_nll(log_probs, target, self.settings.label_smoothing, allowed)
        bins = target - self.vocabulary.bin_start
        is_bin = (bins >= 0) & (bins < self.vocabulary.num_bins)
        if sigma := self.settings.bin_sigma:
            soft = soft_bin_loss(log_probs[is_bin], bins[is_bin], self.vocabulary, sigma)
            losses = losses.masked_scatter(is_bin, soft)
        return torch.where(is_bin, losses * self.settings.bin_weight, losses)

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
        for row, tokens in enumerate(group.target.tolist()):
            places = real[row].nonzero()[:, 0].tolist()  # behind the prompt
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
