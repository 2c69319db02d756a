"""Visual question answering: free text, or one of a closed set by search or by scoring every answer."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

from ..errors import OFAError
from ..generation import AnswerTrie, GenerationOptions
from ..generation.scoring import DecoderPrompt, decoder_prompt_ids
from ..text.vocabulary import EOS
from .grounding import refcoco_codec
from .pipeline import EncodedImage, OpenedImage, Picture, Pipeline, PreparedImage, fill_prompt, normalize_text
from .results import Answer, to_answer, to_text
from .tasks import OBJECTS, TASKS

SPEC = TASKS["vqa"]
REGION = " region:"
#: The way to decide a closed set: ``score`` gives every answer its probability, ``beam`` searches the tree of answers.
Method = Literal["score", "beam"]


def answer(
    pipeline: Pipeline,
    images: Sequence[Picture],
    questions: Sequence[str],
    candidates: Sequence[str] | None = None,
    options: GenerationOptions | None = None,
    *,
    method: Method = "score",
    objects: Sequence[Sequence[str] | None] | None = None,
    boxes: Sequence[Sequence[float]] | None = None,
    decoder_prompt: DecoderPrompt | None = None,
    prompt: str | None = None,
    batch_size: int = 16,
) -> list[Answer]:
    """The answer to each question; see :meth:`ofa_core.OFA.answer`."""
    if method not in ("score", "beam"):
        raise OFAError(f"method is 'score' or 'beam', not {method!r}")
    pipeline = pipeline.for_task(SPEC)
    kind = pipeline.decoder_prompt(SPEC, decoder_prompt)
    if objects is None and pipeline.settings(SPEC).add_object:
        warnings.warn("this model was trained with the names of detected objects; pass objects=", stacklevel=3)
    sources = question_sources(pipeline, questions, objects or [None] * len(questions), prompt)
    pictures = pipeline.open(images)
    if boxes is not None:
        sources = [_about_region(pipeline, *each) for each in zip(sources, pictures, boxes, strict=True)]
    ids = None if candidates is None else pipeline.candidate_ids(candidates)
    if candidates is not None and ids is not None and method == "score":
        scores = pipeline.score(pictures, sources, ids, kind, batch_size)
        return [to_answer(candidates, probabilities) for probabilities in scores]
    prefixes = [decoder_prompt_ids(source, kind)[1:] for source in sources]  # the search itself puts <s> first
    constraints = [] if ids is None else [AnswerTrie(ids)]
    options = options or pipeline.options(SPEC)
    found = pipeline.run(pictures, sources, options, constraints, prefixes=prefixes, batch_size=batch_size)
    texts = [to_text(pipeline.tokenizer, *pair) for pair in zip(found, map(len, prefixes), strict=True)]
    return [Answer(text.text, text.score, alternatives=text.alternatives) for text in texts]


def _about_region(
    pipeline: Pipeline, source: Sequence[int], picture: OpenedImage | EncodedImage | PreparedImage, box: Sequence[float]
) -> list[int]:
    """Source ids of a question about a box: the four bins follow it, as OFA's paper asks (its figure 10)."""
    bins = refcoco_codec(pipeline).encode(box, picture.size)
    return [*source[:-1], *pipeline.tokenizer.encode(REGION), *pipeline.tokenizer.vocabulary.bins_to_ids(bins), EOS]


def question_sources(
    pipeline: Pipeline,
    questions: Sequence[str],
    objects: Sequence[Sequence[str] | None],
    prompt: str | None = None,
) -> list[list[int]]:
    """The ids, ``<s>`` to ``</s>``, that :func:`answer` reads for each question with the names of detected objects."""
    return [_source(pipeline, *pair, prompt) for pair in zip(questions, objects, strict=True)]


def _source(pipeline: Pipeline, question: str, objects: Sequence[str] | None, prompt: str | None) -> list[int]:
    """Source ids of a question, followed by the names of the objects seen in the picture; None: without a list."""
    text = normalize_text(question, SPEC.rule, pipeline.settings(SPEC).max_source_tokens, "question")
    text = text if text.endswith("?") else f"{text}?"
    ids = pipeline.tokenizer.encode(fill_prompt(pipeline.prompt(SPEC, prompt), question=text))
    if objects is not None and (isinstance(objects, str) or not all(isinstance(name, str) for name in objects)):
        raise OFAError(f"objects are a list of texts, not {objects!r}")
    if objects is not None:
        names = list(objects) or [""]
        names[0], names[-1] = names[0].lstrip(), names[-1].rstrip()  # no space around the list, any within it
        ids += pipeline.tokenizer.encode(OBJECTS.format(objects=" ".join(names[: pipeline.settings(SPEC).max_objects])))
    return [pipeline.tokenizer.vocabulary.bos, *ids, EOS]
