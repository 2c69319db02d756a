"""One step of any search: the next token's log-probabilities under a model or an ensemble, with all rules applied."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import OFAError
from ..inference.compiled_decoder import StaticDecoder
from ..model.decoder import TABLE_LENGTH
from ..model.encoder import ImageFeatures
from ..model.kv_cache import DecoderCache
from ..model.ofa import OFAModel
from ..text.vocabulary import PAD
from . import logits_processors as rules
from .logits_processors import Constraint, Step
from .options import GenerationOptions


@dataclass(frozen=True)
class Hypothesis:
    """A generated target."""

    tokens: list[int]  # with the final </s>, without <s>
    score: float  # what hypotheses are ranked by, see GenerationOptions.length_penalty
    token_scores: list[float]  # log-probability of each token


def rules_of(options: GenerationOptions, constraints: Sequence[Constraint]) -> list[Constraint]:
    """All rules of a search in the order in which they apply within their stage."""
    optional: list[tuple[bool, Constraint | None]] = [
        (options.unk_penalty != 0, rules.UnkPenalty(options.unk_penalty)),
        (options.suppress_special_tokens or options.image_codes, rules.SuppressSpecialTokens()),
        (True, rules.MaxLength()),
        (
            options.no_repeat_ngram_size > 0,
            rules.NoRepeatNgram(options.no_repeat_ngram_size) if options.no_repeat_ngram_size else None,
        ),
    ]
    always: list[Constraint] = [rules.ForcedPrefix(), rules.MinNewTokens(options.min_new_tokens), rules.NeverInvalid()]
    return [*constraints, *always, *(rule for wanted, rule in optional if wanted and rule is not None)]


class Stepper:
    """Encodes a batch once and then scores next tokens, step by step, with one cache a model."""

    def __init__(
        self,
        models: Sequence[OFAModel],
        tokens: Tensor,
        images: Tensor | ImageFeatures | None,
        image_mask: Tensor | None,
        options: GenerationOptions,
        constraints: Sequence[Constraint],
        forced: Tensor | None,
    ) -> None:
        if not models:
            raise OFAError("there is no model to generate with")
        if len({model.config.vocab_size for model in models}) > 1:
            raise OFAError("the models of an ensemble must have the same vocabulary")
        if forced is not None and (forced.dim() != 2 or forced.shape[0] != tokens.shape[0]):
            raise OFAError(f"prefix must be [{tokens.shape[0]}, length], not {list(forced.shape)}")
        if forced is not None and forced.numel():
            models[0].check_tokens(forced, "prefix")
        self.models = list(models)
        self.options = options
        self.rules = rules_of(options, constraints)
        self.memories = [model.encode(tokens, images, image_mask) for model in models]
        self.caches = [DecoderCache() for _ in models]
        self.static: list[StaticDecoder] = []
        self.samples = torch.arange(tokens.shape[0], device=tokens.device)
        self.forced = None if forced is None else forced.to(tokens.device)
        self.max_length = options.max_length(
            tokens.shape[1], min(model.config.max_target_positions for model in models)
        )
        if options.min_new_tokens > self.max_length:
            raise OFAError(f"min_new_tokens {options.min_new_tokens} is more than the {self.max_length} tokens allowed")

    @property
    def is_static(self) -> bool:
        """Whether all steps have one shape: no sample leaves before the others."""
        return (
            all(model.static_step is not None for model in self.models)
            and not self.options.image_codes
            and self.max_length < TABLE_LENGTH
        )

    def log_probs(self, prefixes: Tensor) -> Tensor:
        """Log-probabilities [B, K, V], in float32, of what follows ``prefixes`` [B, K, t].

        Each call has prefixes that are one token longer than those of the call before.
        """
        step = Step(prefixes, self.samples, self.max_length, self.forced)
        each = []
        for logits in self._static_logits(prefixes) if self.is_static else self._logits(prefixes):
            logits = logits.float().unflatten(0, prefixes.shape[:2])
            if self.options.temperature != 1:
                logits = logits / self.options.temperature
            each.append(self._normalize(logits, step))
        scores = each[0] if len(each) == 1 else torch.stack(each).logsumexp(0) - math.log(len(each))
        return self._apply("log_probs", scores, step)

    def _logits(self, prefixes: Tensor) -> Iterator[Tensor]:
        """Logits [B*K, V] of each model."""
        code_mask = torch.ones_like(self.samples, dtype=torch.bool) if self.options.image_codes else None
        for model, memory, cache in zip(self.models, self.memories, self.caches, strict=True):
            yield model.logits(model.decode_states(memory, prefixes.flatten(0, 1), cache, code_mask)[:, -1])

    def _static_logits(self, prefixes: Tensor) -> Iterator[Tensor]:
        rows, length = prefixes.flatten(0, 1).shape
        if not self.static:
            pairs = zip(self.models, self.memories, strict=True)
            self.static = [StaticDecoder(model, memory, rows, self.max_length + 1) for model, memory in pairs]
        for decoder in self.static:
            yield decoder.step(prefixes[..., -1].flatten(), length - 1)

    def still_forced(self, number: int) -> Tensor:
        """[B], True where token ``number`` of the target, from 0, is forced: a ``</s>`` there ends nothing."""
        if self.forced is None or number >= self.forced.shape[1]:
            return torch.zeros_like(self.samples, dtype=torch.bool)
        return self.forced[:, number] != PAD

    def _normalize(self, logits: Tensor, step: Step) -> Tensor:
        if self.options.constrain_after_softmax:
            return self._apply("logits", logits.log_softmax(-1), step)
        return self._apply("logits", logits, step).log_softmax(-1)

    def _apply(self, stage: str, scores: Tensor, step: Step) -> Tensor:
        for rule in self.rules:
            if rule.stage == stage:
                scores = rule(scores, step)
        return scores

    def reorder(self, rows: Tensor) -> None:
        """Go on with the beams ``rows`` (indices into B*K)."""
        for decoder in self.static:
            decoder.reorder(rows)
        for cache in self.caches:
            cache.reorder(rows)

    def keep_samples(self, kept: Tensor) -> None:
        """Go on with the samples ``kept`` (indices into B); call :meth:`reorder` for their beams."""
        self.samples = self.samples[kept]
        self.forced = None if self.forced is None else self.forced[kept]
        self.memories = [memory.select(kept) for memory in self.memories]
        for cache in self.caches:
            cache.select_samples(kept)
