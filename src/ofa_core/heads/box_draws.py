"""The model's own distribution of boxes: a few boxes drawn from it, evenly, and the mean around the chosen one.

The points at which boxes are drawn are fixed and evenly spread, so that an answer depends neither on chance nor on the
batch it stands in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.quasirandom import SobolEngine

from ..generation import GenerationOptions, Hypothesis, LogitsProcessor, generate
from ..generation.encoded import Encoded, encode_once
from ..inference.fast_model import answering
from ..model.ofa import OFAModel
from ..text.vocabulary import BOS
from .batching import in_order
from .listing import CORNERS
from .pipeline import Opened, Pipeline

#: Boxes that are drawn for an answer; powers of two are spread most evenly.
DRAWS = 32
#: Boxes that are drawn where all regions are looked for.
ALL_DRAWS = 64
#: Bins at each side of a chosen one whose mean is taken, of a thousand.
WINDOW = 40


@dataclass(frozen=True)
class BoxDraws:
    """The model's distribution of boxes for one answer, in bins: positions that need not be whole numbers."""

    #: [K, 4], x0, y0, x1 and y1 of the drawn boxes, all of positive area.
    drawn: Tensor
    #: [4], the mean of each corner around the chosen one, given the corners before it; None where none was chosen.
    expected: Tensor | None
    #: The probability that a bin comes here, and not a word: that the model has a box to say.
    mass: float


@dataclass(frozen=True)
class Searched:
    """An answer's hypotheses, best first, and the distribution of boxes that they come from."""

    beams: list[Hypothesis]
    draws: BoxDraws


def search_and_draw(
    pipeline: Pipeline,
    pictures: Sequence[Opened],
    sources: Sequence[Sequence[int]],
    options: GenerationOptions,
    constraints: Sequence[LogitsProcessor] = (),
    *,
    count: int = DRAWS,
    batch_size: int = 16,
) -> list[Searched]:
    """As :meth:`Pipeline.run`, and boxes drawn where the best answer has its first one; encoded once for both."""
    model, bins = pipeline.model, pipeline.tokenizer.vocabulary.bin_ids
    searched: list[tuple[list[int], list[Searched]]] = []
    for places, batch in pipeline.batches(pictures, sources, batch_size):
        with torch.inference_mode(), answering(model):
            encoded = encode_once(model, batch.tokens, batch.images, batch.image_mask)
            beams = generate(model, batch.tokens, None, options, constraints=constraints, encoded=encoded)
            chosen = [first_box(found[0].tokens if found else (), bins) for found in beams]
            draws = draw_boxes(model, encoded, chosen, bins, count)
        searched.append((places, [Searched(*pair) for pair in zip(beams, draws, strict=True)]))
    return in_order(searched)


@dataclass(frozen=True)
class Chosen:
    """The words of an answer before its first box, and that box; empty where there is none."""

    lead: tuple[int, ...] = ()
    box: tuple[int, ...] = ()  # ids


def first_box(tokens: Sequence[int], bins: range) -> Chosen:
    """The first box that ``tokens`` say, if its four bins stand together and enclose something."""
    at = next((place for place, token in enumerate(tokens) if token in bins), len(tokens))
    box = tuple(tokens[at : at + CORNERS])
    ordered = len(box) == CORNERS and all(t in bins for t in box) and box[0] < box[2] and box[1] < box[3]
    return Chosen(tuple(tokens[:at]), box) if ordered else Chosen()


@torch.inference_mode()
def draw_boxes(
    model: OFAModel, encoded: Encoded, chosen: Sequence[Chosen], bins: range, count: int = DRAWS
) -> list[BoxDraws]:
    """Draw boxes for each of B samples, ``count`` each, all in a batch of four steps.

    Args:
        model: the model.
        encoded: the batch.
        chosen: the answer of each sample, whose first words the boxes stand behind.
        bins: the ids of the bins.
        count: K, the boxes to draw.

    Returns:
        The draws of each sample.
    """
    found: dict[int, BoxDraws] = {}
    by_lead: dict[int, list[int]] = {}
    for sample, one in enumerate(chosen):
        by_lead.setdefault(len(one.lead), []).append(sample)
    for samples in by_lead.values():
        part = _selected(encoded, samples, len(chosen))
        found |= zip(samples, _draw(model, part, [chosen[i] for i in samples], bins, count), strict=True)
    return [found[sample] for sample in range(len(chosen))]


def _selected(encoded: Encoded, samples: list[int], of: int) -> Encoded:
    """The samples of a batch of ``of``."""
    if len(samples) == of:
        return encoded
    rows = torch.tensor(samples, device=encoded.memory.states.device)
    shared = encoded.shared.branch()
    shared.select_samples(rows)
    return Encoded(encoded.memory.select(rows), shared)


def _draw(model: OFAModel, encoded: Encoded, chosen: Sequence[Chosen], bins: range, count: int) -> list[BoxDraws]:
    """The draws of samples whose leads are equally long; the first row of each sample goes the chosen box's way."""
    device, batch = encoded.memory.states.device, len(chosen)
    cache = encoded.shared.branch()
    prefix = torch.tensor([[BOS, *one.lead] for one in chosen], device=device)
    states = model.decode_states(encoded.memory, prefix, cache)[:, -1:]  # [B, 1, D]
    mass = model.logits(states).float().softmax(-1)[..., bins.start : bins.stop].sum(-1)[:, 0].tolist()
    cache.reorder(torch.arange(batch, device=device).repeat_interleave(1 + count))

    there = torch.tensor([bool(one.box) for one in chosen], device=device)
    ids = torch.tensor([one.box or (bins.start,) * CORNERS for one in chosen], device=device) - bins.start  # [B, 4]
    points, drawn, expected = even_points(count).to(device), ids.new_zeros(batch, 1 + count, 0), []
    for corner in range(CORNERS):
        if corner:
            rows = torch.cat([prefix.repeat_interleave(1 + count, 0), drawn.flatten(0, 1) + bins.start], dim=1)
            states = model.decode_states(encoded.memory, rows, cache)[:, -1].unflatten(0, (batch, 1 + count))
        probabilities = corner_probabilities(_bin_logits(model, states, bins), drawn)  # [B, 1 + K or 1, bins]
        expected.append(mean_around(probabilities[:, 0], ids[:, corner]))
        picked = inverse_cdf(probabilities[:, -count:], points[:, corner])
        own = torch.where(there, ids[:, corner], picked[:, 0])
        drawn = torch.cat([drawn, torch.cat([own[:, None], picked], dim=1)[..., None]], dim=-1)
    means = torch.stack(expected, dim=-1).cpu()
    boxes = drawn[:, 1:].float().cpu()
    return [BoxDraws(boxes[i], means[i] if chosen[i].box else None, mass[i]) for i in range(batch)]


def _bin_logits(model: OFAModel, states: Tensor, bins: range) -> Tensor:
    """Logits [..., bins] of the bins alone."""
    return F.linear(states, model.token_embedding.weight[bins.start : bins.stop]).float()


def corner_probabilities(logits: Tensor, before: Tensor) -> Tensor:
    """Probabilities of a corner's bins where only those that enclose something may come.

    Args:
        logits: [B, K, bins], or [B, 1, bins] for the first corner.
        before: bins [B, K, t] of the t corners before it, in the order x0, y0, x1 and y1.

    Returns:
        Probabilities [B, K, bins].
    """
    at = torch.arange(logits.shape[-1], device=logits.device)
    corner = before.shape[-1]
    ruled_out = at == logits.shape[-1] - 1 if corner < CORNERS // 2 else at <= before[..., corner - CORNERS // 2, None]
    return logits.masked_fill(ruled_out, -torch.inf).softmax(-1)


def inverse_cdf(probabilities: Tensor, points: Tensor) -> Tensor:
    """The bins [B, K] at which cumulative ``probabilities`` [B, K or 1, bins] pass ``points`` [K], 0 to 1."""
    cumulative = probabilities.cumsum(-1)
    total = cumulative[..., -1:].contiguous()
    aims = points[:, None] * total if total.shape[1] == len(points) else points * total  # [B, K, 1] or [B, 1, K]
    passed = torch.searchsorted(cumulative, aims, right=True)
    last = torch.searchsorted(cumulative, total)
    return torch.minimum(passed, last).flatten(1)  # rounding never leads to what is ruled out


def mean_around(probabilities: Tensor, centres: Tensor) -> Tensor:
    """The means [B] of bins under ``probabilities`` [B, bins], within the window around ``centres`` [B]."""
    bins = torch.arange(probabilities.shape[-1], device=probabilities.device)
    reach = max(1, WINDOW * probabilities.shape[-1] // 1000)
    near = ((bins - centres[:, None]).abs() <= reach) * probabilities
    total = near.sum(-1)
    return torch.where(total > 0, (near * bins).sum(-1) / total.clamp(min=torch.finfo(total.dtype).tiny), centres)


def even_points(count: int) -> Tensor:
    """Points [count, 4] that fill the unit cube of four dimensions evenly (Sobol's), always the same."""
    return SobolEngine(CORNERS).draw(count) + 0.5 / count
