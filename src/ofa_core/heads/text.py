"""Text from text, with or without a picture: summaries, and any prompt of the user's own."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from ..errors import OFAError
from ..generation import GenerationOptions
from ..text.vocabulary import BOS, EOS
from .pipeline import Picture, Pipeline, fill_prompt, normalize_text
from .results import Text, to_text
from .tasks import TASKS

SUMMARY_SPEC = TASKS["gigaword"]


def summarize(
    pipeline: Pipeline,
    texts: Sequence[str],
    options: GenerationOptions | None = None,
    prompt: str | None = None,
    batch_size: int = 16,
) -> list[Text]:
    """A summary of each text; see :meth:`ofa_core.OFA.summarize`."""
    sources = summary_sources(pipeline, texts, prompt)
    changed = options or pipeline.options(SUMMARY_SPEC)
    found = pipeline.run([None] * len(sources), sources, changed, batch_size=batch_size)
    return [to_text(pipeline.tokenizer, beams) for beams in found]


def summary_sources(pipeline: Pipeline, texts: Sequence[str], prompt: str | None = None) -> list[list[int]]:
    """The ids, ``<s>`` to ``</s>``, that :func:`summarize` reads for each text; a long one loses the prompt's end."""
    template = pipeline.prompt(SUMMARY_SPEC, prompt)
    most = pipeline.settings(SUMMARY_SPEC).max_source_tokens  # words of a text, and tokens of the filled prompt
    cleaned = [normalize_text(text, SUMMARY_SPEC.rule, most, "text to summarize") for text in texts]
    filled = [fill_prompt(template, text=text) for text in cleaned]
    sources = []
    for text in filled:
        ids = pipeline.tokenizer.encode(text)
        if len(ids) > most:
            warnings.warn(f"a text to summarize of {len(ids)} tokens was cut to {most}", stacklevel=3)
        sources.append([BOS, *ids[:most], EOS])
    return sources


def generate_text(
    pipeline: Pipeline,
    texts: Sequence[str],
    images: Sequence[Picture | None] | None,
    options: GenerationOptions,
    batch_size: int = 16,
    symbols: bool = True,
) -> list[Text]:
    """The model's text behind each text, taken as it is; see :meth:`ofa_core.OFA.generate`."""
    images = [None] * len(texts) if images is None else images
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise OFAError(f"the text is {text!r}; it should be a string that is not empty")
    encode = pipeline.tokenizer.encode_prompt if symbols else pipeline.tokenizer.encode_typed
    sources = [[BOS, *encode(text), EOS] for text in texts]
    present = [image for image in images if image is not None]
    opened = iter(pipeline.open(present) if present else ())
    pictures = [None if image is None else next(opened) for image in images]
    found = pipeline.run(pictures, sources, options, batch_size=batch_size)
    return [to_text(pipeline.tokenizer, beams) for beams in found]
