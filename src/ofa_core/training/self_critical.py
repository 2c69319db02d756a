"""Self-critical training of captions: candidates that score above the others of their picture become more probable.

The second stage of the original's captioning. The model searches for (or draws) a few captions of each picture; each is
scored with CIDEr-D against what people wrote, and its reward is its score less the mean of the others' scores. The loss
of a token is its negative log-probability times the reward, over the number of tokens. As in the original, captions are
compared without ASCII punctuation, word by word, and their end counts as a word. How rare an n-gram is, is counted over
the rows that are learned from; the original reads such counts from a file, of COCO's training part.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..bench.scorers.captions import MAX_ORDER, Counts, cider, ngrams
from ..generation import generate
from ..heads.caption import SPEC
from ..model.encoder import ImageFeatures
from ..model.ofa import OFAModel
from ..text import Tokenizer
from ..text.normalize import SEVERAL, without_punctuation
from ..text.vocabulary import BOS, PAD
from .collate import Batch, Group
from .setting_tables import SelfCriticalSettings

#: The word that stands for the end of a caption.
END = "<eos>"


class CaptionReward:
    """CIDEr-D of captions, on its own scale of 10.

    Args:
        references: the captions of each picture of the data, over which the rarity of n-grams is counted.
    """

    def __init__(self, references: Iterable[Sequence[str]]) -> None:
        words = [[_words(text) for text in group] for group in references]
        self._unseen = math.log(len(words)) if words else 0.0
        self._rarity: dict[tuple[str, ...], float] = {}
        for order in range(1, MAX_ORDER + 1):  # one after the other: most n-grams occur once, and need not be kept
            occurs = Counter(ngram for group in words for ngram in {n for one in group for n in _of_order(one, order)})
            self._rarity |= {n: self._unseen - math.log(count) for n, count in occurs.items() if count > 1}

    def scores(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        """The score of each of some ``candidates`` for a picture that people described with ``references``."""
        truths = [_counts(text) for text in references]
        return [cider(_counts(text), truths, self._rarity, self._unseen) for text in candidates]


def _words(text: str) -> list[str]:
    return [*without_punctuation(text).split(), END]


def _counts(text: str) -> list[Counts]:
    return ngrams(_words(text))


def _of_order(words: Sequence[str], order: int) -> Iterator[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(order)), strict=False)


def advantages(scores: Sequence[float]) -> list[float]:
    """The difference of each of some scores to the mean of the others; 0 where there are no others."""
    others = len(scores) - 1
    total = math.fsum(scores)
    return [score - (total - score) / others if others else 0.0 for score in scores]


class SelfCriticalLoss(nn.Module):
    """A model with its self-critical loss, in the place of :class:`~ofa_core.training.losses.LossModule`.

    Targets hold the captions of people, as the lesson ``caption_references`` has them.
    """

    #: The mean of the candidates' scores, which the log tells.
    measure = "cider"

    def __init__(
        self, model: OFAModel, tokenizer: Tokenizer, settings: SelfCriticalSettings, reward: CaptionReward
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.reward = reward
        searched = SPEC.options(model.config.task, tokenizer.kind, model.config.embed_dim)
        count = settings.candidates
        self.options = (
            searched.updated(num_beams=1, do_sample=True, num_return_sequences=count, no_repeat_ngram_size=0)
            if settings.draw
            else searched.updated(num_beams=count)
        )

    def forward(self, batch: Batch, step: int = 0) -> tuple[Tensor, Tensor]:
        """Sum of the losses of all candidates' tokens; and a row [tokens, candidates, sum of their scores, 0]."""
        loss = self.model.token_embedding.weight.new_zeros(())
        counts = torch.zeros(4, dtype=torch.float64, device=loss.device)
        for group in batch.groups:
            images = _images(batch, group)
            said = self._candidates(group.tokens, images)
            scores = [
                self.reward.scores(list(map(self.tokenizer.decode, candidates)), truths)
                for candidates, truths in zip(said, self._truths(group), strict=True)
            ]
            group_loss, tokens = self._loss(group, images, said, [advantages(row) for row in scores])
            loss = loss + group_loss
            flat = [score for row in scores for score in row]
            counts = counts + counts.new_tensor([tokens, len(flat), math.fsum(flat), 0.0])
        return loss, counts

    def _truths(self, group: Group) -> list[list[str]]:
        """The captions that people gave each picture."""
        return [self.tokenizer.decode(row).split(SEVERAL) for row in group.target.tolist()]

    def _candidates(self, tokens: Tensor, images: Tensor | ImageFeatures) -> list[list[list[int]]]:
        """Token ids of the candidates of each picture, each up to and with ``</s>``, as the model answers."""
        with _evaluating(self.model):
            found = generate(self.model, tokens, images, self.options)
        torch.clear_autocast_cache()  # which has weights without gradients in it
        return [[hypothesis.tokens for hypothesis in beams] for beams in found]

    def _loss(
        self, group: Group, images: Tensor | ImageFeatures, said: list[list[list[int]]], rewards: list[list[float]]
    ) -> tuple[Tensor, int]:
        """Sum of the losses of what was ``said``, and its number of tokens."""
        beams = max(map(len, said))
        rows = [row for candidates in said for row in [*candidates, *[[]] * (beams - len(candidates))]]
        target = self.tokenizer.pad([row or [PAD] for row in rows]).to(group.tokens.device)  # [B*K, T]
        prefix = self.tokenizer.pad([[BOS, *row[:-1]] for row in rows]).to(target.device)
        reward = target.new_zeros(len(rows), dtype=torch.float32)
        reward[torch.tensor([bool(row) for row in rows])] = reward.new_tensor([r for row in rewards for r in row])

        memory = self.model.encode(group.tokens, images)
        states = self.model.decode_states(memory, prefix)  # the candidates of a picture share what is encoded of it
        real = target.ne(PAD)
        log_probs = self.model.logits(states[real]).float().log_softmax(-1)
        of_target = log_probs.gather(1, target[real][:, None])[:, 0]
        return -(of_target * reward[:, None].expand_as(real)[real]).sum(), int(real.sum())


def _images(batch: Batch, group: Group) -> Tensor | ImageFeatures:
    """The pictures of a group's examples, one each: what the stem has made of them, or their pixels."""
    side = int(group.side)
    if batch.features:
        return batch.features[side].select(group.pictures)
    return batch.pixels[side].index_select(0, group.pictures)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode; every module is then again in the mode in which it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
