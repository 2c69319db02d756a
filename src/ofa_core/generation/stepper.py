"""One step of any search: the next token's log-probabilities under a model or an ensemble, with all rules applied."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import OFAError
from ..inference.compiled_decoder import CompiledDecoder
from ..inference.fast_model import compiled_decoder, compiles_steps, gives_some_logits
from ..inference.growing_cache import GrowingCache
from ..inference.position_table import TABLE_LENGTH
from ..model.encoder import ImageFeatures, Memory
from ..model.kv_cache import DecoderCache
from ..model.ofa import OFAModel
from ..text.vocabulary import PAD
from . import logits_processors as rules
from .encoded import Encoded
from .logits_processors import LogitsProcessor, Step
from .options import GenerationOptions


@dataclass(frozen=True)
class Hypothesis:
    """A generated target."""

    tokens: list[int]  # with the final </s>, without <s>
    score: float  # what hypotheses are ranked by, see GenerationOptions.length_penalty
    token_scores: list[float]  # log-probability of each token


def processors_of(options: GenerationOptions, constraints: Sequence[LogitsProcessor]) -> list[LogitsProcessor]:
    """All rules of a search in the order in which they apply within their stage."""
    optional: list[tuple[bool, LogitsProcessor | None]] = [
        (options.unk_penalty != 0, rules.UnkPenalty(options.unk_penalty)),
        (options.suppress_special_tokens or options.image_codes, rules.SuppressSpecialTokens()),
        (True, rules.MaxLength()),
        (
            options.no_repeat_ngram_size > 0,
            rules.NoRepeatNgram(options.no_repeat_ngram_size) if options.no_repeat_ngram_size else None,
        ),
    ]
    always: list[LogitsProcessor] = [
        rules.ForcedPrefix(),
        rules.MinNewTokens(options.min_new_tokens),
        rules.NeverInvalid(),
    ]
    return [*constraints, *always, *(rule for wanted, rule in optional if wanted and rule is not None)]


class CachedDecoder:
    """Decodes with a cache that grows; samples may leave before the others."""

    def __init__(
        self, model: OFAModel, memory: Memory, options: GenerationOptions, shared: DecoderCache | None = None
    ) -> None:
        self.model, self.memory = model, memory
        self.image_codes = options.image_codes
        searched = DecoderCache() if shared is None else shared.branch()
        self.cache = GrowingCache() if options.do_sample else searched  # which a search reorders at every step

    def logits(self, prefixes: Tensor, ids: Tensor | None = None) -> Tensor:
        """Logits [rows, V] of what follows ``prefixes`` [rows, t]; where ``ids`` [n] are given, -inf for all others."""
        samples = self.memory.states.shape[0]
        code_mask = torch.ones(samples, dtype=torch.bool, device=prefixes.device) if self.image_codes else None
        states = self.model.decode_states(self.memory, prefixes, self.cache, code_mask)[:, -1]
        if ids is None or not gives_some_logits(self.model):
            return self.model.logits(states)
        none = states.new_full((len(states), self.model.config.vocab_size), rules.NEVER)
        return none.index_copy_(1, ids, self.model.logits_of(states, ids))

    def reorder(self, rows: Tensor) -> None:
        """Go on with the prefixes ``rows``."""
        self.cache.reorder(rows)

    def select_samples(self, samples: Tensor) -> None:
        """Go on with ``samples`` (indices into B); call :meth:`reorder` for their prefixes."""
        self.memory = self.memory.select(samples)
        self.cache.select_samples(samples)


class Stepper:
    """One step of a search after the other: encodes a batch once, then scores next tokens, with one cache a model."""

    def __init__(
        self,
        models: Sequence[OFAModel],
        tokens: Tensor,
        images: Tensor | ImageFeatures | None,
        image_mask: Tensor | None,
        options: GenerationOptions,
        constraints: Sequence[LogitsProcessor],
        forced: Tensor | None,
        encoded: Encoded | None = None,
        without_text: Tensor | None = None,
    ) -> None:
        self.models = list(models)
        self.options = options
        self.rules = processors_of(options, constraints)
        self.shared = None if encoded is None else encoded.shared
        if encoded is None:
            self.memories = [model.encode(tokens, images, image_mask) for model in models]
        else:
            self.memories = [encoded.memory]
        if (options.guidance != 1) != (without_text is not None):
            raise OFAError(f"guidance is {options.guidance:g}; it is for pictures that are drawn of a text")
        if without_text is not None:
            self.models *= 2
            self.memories += [model.encode(without_text, images, image_mask) for model in models]
        self.samples = torch.arange(tokens.shape[0], device=tokens.device)
        self.forced = None if forced is None else forced.to(tokens.device)
        longest = min(model.config.max_target_positions for model in models) + options.image_codes
        self.max_length = options.max_length(tokens.shape[1], longest)
        if options.min_new_tokens > self.max_length:
            raise OFAError(f"min_new_tokens {options.min_new_tokens} is more than the {self.max_length} tokens allowed")
        #: True if all steps have one shape: no sample leaves before the others.
        self.is_static = (
            not options.image_codes and self.max_length < TABLE_LENGTH and all(map(compiles_steps, self.models))
        )
        self._decoders: list[CachedDecoder] | list[CompiledDecoder] = []

    def log_probs(self, prefixes: Tensor) -> Tensor:
        """Log-probabilities [B, K, V], in float32, of what follows ``prefixes`` [B, K, t].

        Each call has prefixes that are one token longer than those of the call before.
        """
        step = Step(prefixes, self.samples, self.max_length, self.forced)
        rows = prefixes.flatten(0, 1)
        ids = self._allowed_ids(step)
        each = []
        for decoder in self._decoders or self._make_decoders(len(rows)):
            logits = decoder.logits(rows, ids) if isinstance(decoder, CachedDecoder) else decoder.logits(rows)
            logits = logits.float().unflatten(0, prefixes.shape[:2])
            if self.options.temperature != 1:
                logits = logits / self.options.temperature
            each.append(self._normalize(logits, step))
        return self._apply("log_probs", self._together(each), step)

    def _together(self, each: Sequence[Tensor]) -> Tensor:
        """Log-probabilities [B, K, V] from those of each decoder: guided by the latter half, or averaged."""
        if len(each) == 1:
            return each[0]
        if self.options.guidance == 1:
            return _mean(each)
        given, without = _mean(each[: len(each) // 2]), _mean(each[len(each) // 2 :])
        apart = without + self.options.guidance * (given - without)
        return apart.masked_fill(given == rules.NEVER, rules.NEVER).log_softmax(-1)

    def _make_decoders(self, rows: int) -> list[CachedDecoder] | list[CompiledDecoder]:
        pairs = zip(self.models, self.memories, strict=True)
        if self.is_static:
            length = self.max_length + 1
            self._decoders = [compiled_decoder(model, memory, rows, length) for model, memory in pairs]
        else:
            self._decoders = [CachedDecoder(model, memory, self.options, self.shared) for model, memory in pairs]
        return self._decoders

    def still_forced(self, number: int) -> Tensor:
        """[B], True where token ``number`` of the target, from 0, is forced: a ``</s>`` there ends nothing."""
        if self.forced is None or number >= self.forced.shape[1]:
            return torch.zeros_like(self.samples, dtype=torch.bool)
        return self.forced[:, number] != PAD

    def _normalize(self, logits: Tensor, step: Step) -> Tensor:
        if self.options.constrain_after_softmax:
            return self._apply("logits", logits.log_softmax(-1), step)
        return self._apply("logits", logits, step).log_softmax(-1)

    def _allowed_ids(self, step: Step) -> Tensor | None:
        """Ids [n] whose logits alone are needed; None: all are, or no model gives some alone."""
        if self.is_static or self.options.constrain_after_softmax or not any(map(gives_some_logits, self.models)):
            return None
        return rules.allowed_ids(self.rules, step, self.models[0].config.vocab_size)

    def _apply(self, stage: str, scores: Tensor, step: Step) -> Tensor:
        for rule in self.rules:
            if rule.stage == stage:
                scores = rule(scores, step)
        return scores

    def reorder(self, rows: Tensor) -> None:
        """Go on with the beams ``rows`` (indices into B*K)."""
        for decoder in self._decoders:
            decoder.reorder(rows)

    def keep_samples(self, kept: Tensor) -> None:
        """Go on with the samples ``kept`` (indices into B); call :meth:`reorder` for their beams."""
        self.samples = self.samples[kept]
        self.forced = None if self.forced is None else self.forced[kept]
        for decoder in self._decoders:
            if isinstance(decoder, CachedDecoder):
                decoder.select_samples(kept)


def _mean(each: Sequence[Tensor]) -> Tensor:
    """The logarithm of the mean of probabilities, from their logarithms."""
    return each[0] if len(each) == 1 else torch.stack(list(each)).logsumexp(0) - math.log(len(each))
