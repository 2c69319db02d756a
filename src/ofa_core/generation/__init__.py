"""From a model and a source to target sequences: search, sampling and the scoring of given candidates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import OFAError
from ..inference.fast_model import answering
from ..model.encoder import ImageFeatures
from ..model.ofa import OFAModel
from .beam_search import beam_search
from .checks import check_inputs
from .encoded import Encoded
from .logits_processors import AllowedRange, AnswerTrie, LogitsProcessor, NoRepeatNgram, Step
from .options import GenerationOptions
from .sampling import draws, sample
from .scoring import score_candidates
from .stepper import Hypothesis, Stepper

__all__ = [
    "AllowedRange",
    "AnswerTrie",
    "GenerationOptions",
    "Hypothesis",
    "LogitsProcessor",
    "NoRepeatNgram",
    "Step",
    "draw",
    "generate",
    "score_candidates",
]


@torch.inference_mode()
def generate(
    models: OFAModel | Sequence[OFAModel],
    tokens: Tensor,
    images: Tensor | ImageFeatures | None = None,
    options: GenerationOptions | None = None,
    *,
    image_mask: Tensor | None = None,
    constraints: Sequence[LogitsProcessor] = (),
    prefix: Tensor | None = None,
    generator: torch.Generator | None = None,
    encoded: Encoded | None = None,
) -> list[list[Hypothesis]]:
    """Search or draw targets for a batch of sources.

    Args:
        models: one model, or several of one vocabulary whose probabilities are averaged.
        tokens: source tokens [B, N], padded with 1.
        images: normalised pixels [B, 3, h, w] or the stem's features; None for text alone.
        options: search settings; None for the defaults.
        image_mask: [B], False for samples without a picture.
        constraints: rules on the next token, see :mod:`ofa_core.generation.logits_processors`.
        prefix: [B, L] tokens that targets must begin with (without ``<s>``), padded with 1 where they are shorter.
        generator: source of randomness for ``do_sample``.
        encoded: what :func:`~ofa_core.generation.encoded.encode_once` made of the same inputs, where one model decodes
            more than this from it.

    Returns:
        For each sample its hypotheses, best first.

    Raises:
        OFAError: ids outside the vocabulary, shapes that do not fit, or sequences that are longer than the model holds.
    """
    options = options or GenerationOptions()
    models = [models] if isinstance(models, OFAModel) else list(models)
    check_inputs(models, tokens, prefix)
    if encoded is not None and len(models) > 1:
        raise OFAError(f"encoded inputs are those of one model, not of {len(models)}")
    with answering(*models):
        stepper = Stepper(models, tokens, images, image_mask, options, constraints, prefix, encoded)
        if options.do_sample:
            return sample(stepper, options, generator)
        return beam_search(stepper, options)


@torch.inference_mode()
def draw(
    model: OFAModel,
    tokens: Tensor,
    images: Tensor | ImageFeatures | None,
    options: GenerationOptions,
    *,
    generators: Sequence[torch.Generator],
    constraints: Sequence[LogitsProcessor] = (),
    without_text: Tensor | None = None,
) -> list[Hypothesis]:
    """Draw a target of one source with each of ``generators``: it does not depend on the others.

    Args:
        model: the model.
        tokens: the source's tokens [1, N].
        images: normalised pixels [1, 3, h, w] or the stem's features; None for text alone.
        options: settings of the draws.
        generators: sources of randomness, one for each target.
        constraints: rules on the next token.
        without_text: the source [1, M] without its text, where ``options`` have ``guidance``.

    Returns:
        The targets in the order of ``generators``.

    Raises:
        OFAError: as :func:`generate`, or rules that leave no token.
    """
    check_inputs([model], tokens, None)
    options = options.updated(do_sample=True, num_return_sequences=len(generators))
    with answering(model):
        stepper = Stepper([model], tokens, images, None, options, constraints, None, without_text=without_text)
        (found,) = draws(stepper, options, generators)
    drawn = [hypothesis for hypothesis in found if hypothesis is not None]
    if len(drawn) < len(generators):
        raise OFAError("the rules on the next token leave none to draw")
    return drawn
