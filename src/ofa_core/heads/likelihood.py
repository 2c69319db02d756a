"""Probabilities of texts that people wrote: of each token, given the picture, the source and the tokens before."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..inference.fast_model import answering
from ..text.vocabulary import BOS, PAD
from .batching import in_order
from .pipeline import Batch, Opened, Pipeline


@torch.inference_mode()
def token_log_probs(
    pipeline: Pipeline,
    pictures: Sequence[Opened],
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    batch_size: int = 16,
) -> list[list[float]]:
    """Natural logarithms of the probabilities of the tokens of each target.

    Args:
        pipeline: the model.
        pictures: pictures that were opened, or None for text alone.
        sources: source ids, ``<s>`` to ``</s>``.
        targets: target ids, up to and with ``</s>``.
        batch_size: samples computed at once.

    Returns:
        A number for each token of each target.

    Raises:
        OFAError: a target is longer than the model holds.
    """
    found: list[tuple[list[int], list[list[float]]]] = []
    with answering(pipeline.model):
        for places, batch in pipeline.batches(pictures, sources, batch_size):
            found.append((places, _log_probs(pipeline, batch, [targets[place] for place in places])))
    return in_order(found)


def _log_probs(pipeline: Pipeline, batch: Batch, targets: Sequence[Sequence[int]]) -> list[list[float]]:
    model = pipeline.model
    target = pipeline.tokenizer.pad(targets).to(batch.tokens.device)
    first = torch.full_like(target[:, :1], BOS)
    memory = model.encode(batch.tokens, batch.images, batch.image_mask)
    states = model.decode_states(memory, torch.cat([first, target[:, :-1]], dim=1))
    real = target.ne(PAD)
    # one sample at a time: logits over the vocabulary are the largest thing here
    return [_of_one(model.logits(row[mask]), ids[mask]) for row, ids, mask in zip(states, target, real, strict=True)]


def _of_one(logits: Tensor, target: Tensor) -> list[float]:
    log_probs = logits.float().log_softmax(-1).gather(1, target[:, None])[:, 0]
    values: list[float] = log_probs.clamp(max=0.0).tolist()
    return values
