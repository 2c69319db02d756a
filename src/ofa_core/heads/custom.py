"""A task of one's own: what the model reads and says stands in the rows, with their box as bins."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import OFAError
from ..generation import GenerationOptions
from ..text.vocabulary import BOS, EOS
from ..vision.boxes import Box
from .grounding import refcoco_codec
from .pipeline import Pipeline

#: The search, in which an answer may be as long as most are.
OPTIONS = GenerationOptions(max_new_tokens=256)


def piece_ids(pipeline: Pipeline, pieces: Sequence[str | None], box: Box, size: tuple[int, int] | None) -> list[int]:
    """The ids of a text in pieces, with a space before its first word, as all of OFA's prompts and answers have it.

    Args:
        pipeline: a model's.
        pieces: texts; None stands for the bins of ``box``.
        box: xyxy in pixels of the original picture.
        size: its width and height in pixels; None for text alone.

    Returns:
        The ids, without ``<s>`` and ``</s>``.

    Raises:
        OFAError: there is a box to say, and no picture that it is on.
    """
    ids: list[int] = []
    for number, piece in enumerate(pieces):
        if piece is None:
            if size is None:
                raise OFAError("box: there is no picture that it could be on")
            ids += pipeline.tokenizer.vocabulary.bins_to_ids(refcoco_codec(pipeline).encode(box, size))
            continue
        text = piece if number or piece.startswith(" ") else f" {piece}"
        ends = number + 1 == len(pieces)
        ids += pipeline.tokenizer.encode(text if ends else text.rstrip())
    return ids


def custom_source(
    pipeline: Pipeline, pieces: Sequence[str | None], box: Box, size: tuple[int, int] | None
) -> list[int]:
    """The ids, ``<s>`` to ``</s>``, that the model reads; see :func:`piece_ids`.

    Raises:
        OFAError: they are more than the model can read.
    """
    ids = [BOS, *piece_ids(pipeline, pieces, box, size), EOS]
    longest = pipeline.model.config.max_source_positions
    if len(ids) > longest:
        raise OFAError(f"source: it has {len(ids)} tokens, and the model reads no more than {longest}")
    return ids


def custom_target(
    pipeline: Pipeline, pieces: Sequence[str | None], box: Box, size: tuple[int, int] | None
) -> list[int]:
    """The ids that the model learns to say, up to and with ``</s>``; see :func:`piece_ids`.

    Raises:
        OFAError: they are more than the model can say.
    """
    ids = [*piece_ids(pipeline, pieces, box, size), EOS]
    longest = pipeline.model.config.max_target_positions
    if len(ids) > longest:
        raise OFAError(f"target: it has {len(ids)} tokens, and the model says no more than {longest}")
    return ids
