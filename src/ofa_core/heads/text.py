"""Text from text, with or without a picture: summaries, and any prompt of the user's own."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import OFAError
from ..generation import GenerationOptions
from ..text import pre_caption
from ..text.vocabulary import BOS, EOS
from .pipeline import Picture, Pipeline, fill_prompt, normalize_text
from .results import Text, to_text

SUMMARY_PROMPTS = {"gpt2": ' what is the summary of article " {text} "?'}
SUMMARY_OPTIONS = GenerationOptions(num_beams=6, max_new_tokens=32, length_penalty=0.7, no_repeat_ngram_size=3)
SUMMARY_MAX_WORDS = 512


def summarize(
    pipeline: Pipeline,
    texts: Sequence[str],
    options: GenerationOptions = SUMMARY_OPTIONS,
    prompt: str | None = None,
    batch_size: int = 16,
) -> list[Text]:
    """A summary of each text; see :meth:`ofa_core.OFA.summarize`."""
    template = pipeline.prompt(SUMMARY_PROMPTS, prompt)
    cleaned = [normalize_text(text, pre_caption, SUMMARY_MAX_WORDS, "text to summarize") for text in texts]
    sources = [pipeline.encode(fill_prompt(template, text=text.replace("<unk>", "unk"))) for text in cleaned]
    found = pipeline.run([None] * len(sources), sources, options, batch_size=batch_size)
    return [to_text(pipeline.tokenizer, beams) for beams in found]


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
    encode = pipeline.tokenizer.encode_prompt if symbols else pipeline.tokenizer.encode
    sources = [[BOS, *encode(text), EOS] for text in texts]
    present = [image for image in images if image is not None]
    opened = iter(pipeline.open(present) if present else ())
    pictures = [None if image is None else next(opened) for image in images]
    found = pipeline.run(pictures, sources, options, batch_size=batch_size)
    return [to_text(pipeline.tokenizer, beams) for beams in found]
