"""Completing a text in which something is missing."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from ..errors import OFAError
from ..generation import GenerationOptions
from ..text.vocabulary import BOS, EOS
from .pipeline import Pipeline
from .results import Text, to_text
from .tasks import INFILLING_KEPT, INFILLING_TOKENS, TASKS

SPEC = TASKS["text_infilling"]
#: The mark of what is missing in a text.
MASK = "<mask>"
_FIELD = " {text}"


def complete(
    pipeline: Pipeline,
    texts: Sequence[str],
    options: GenerationOptions | None = None,
    *,
    prompt: str | None = None,
    batch_size: int = 16,
) -> list[Text]:
    """Each text without gaps; see :meth:`ofa_core.OFA.complete`."""
    sources = [infilling_source(pipeline, masked_ids(pipeline, text), prompt) for text in texts]
    found = pipeline.run([None] * len(sources), sources, options or pipeline.options(SPEC), batch_size=batch_size)
    return [to_text(pipeline.tokenizer, beams) for beams in found]


def masked_ids(pipeline: Pipeline, text: str) -> list[int]:
    """The ids of a text in which each ``<mask>`` stands for any number of words.

    Raises:
        OFAError: it is empty, or nothing is missing in it.
    """
    if not isinstance(text, str) or not text.strip():
        raise OFAError(f"the text to complete is {text!r}; it should be a string that is not empty")
    first, *rest = text.split(MASK)
    if not rest:
        raise OFAError(f"nothing is missing in the text to complete: {text[:60]!r} holds no {MASK}")
    ids = pipeline.tokenizer.encode(plain_text(first)) if first.strip() else []
    for part in rest:
        behind = (" " * part[:1].isspace() + part.strip()) if part.strip() else ""
        ids += [pipeline.tokenizer.vocabulary.mask, *pipeline.tokenizer.encode(behind.lower())]
    kept = kept_ids(ids)
    if len(kept) < len(ids):
        warnings.warn(f"a text to complete of {len(ids)} tokens was cut to {len(kept)}", stacklevel=3)
    return kept


def plain_text(text: str) -> str:
    """A text as the model completes it: in lower case, behind one space."""
    return f" {text.strip().lower()}"


def kept_ids(ids: Sequence[int]) -> list[int]:
    """The tokens of a text that are kept: of the first ones, the last."""
    return list(ids[:INFILLING_TOKENS][-INFILLING_KEPT:])


def infilling_source(pipeline: Pipeline, masked: Sequence[int], prompt: str | None = None) -> list[int]:
    """The ids, ``<s>`` to ``</s>``, that :func:`complete` reads for the ids of a text with gaps."""
    template = pipeline.prompt(SPEC, prompt)
    if template.count(_FIELD) != 1:
        raise OFAError(f"the prompt {template!r} cannot be filled in: it should hold{_FIELD} once")
    before, behind = map(pipeline.tokenizer.encode, template.split(_FIELD))
    return [BOS, *before, *masked, *behind, EOS]
