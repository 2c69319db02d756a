"""The seven tasks of GLUE: a judgement of one text or two, without a picture."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import OFAError
from ..generation.scoring import DecoderPrompt
from .pipeline import Pipeline, fill_prompt, normalize_text
from .results import Answer, to_answer
from .tasks import GLUE, TaskSpec, spec_of


def judge(
    pipeline: Pipeline,
    task: str,
    texts: Sequence[str],
    seconds: Sequence[str | None],
    *,
    decoder_prompt: DecoderPrompt | None = None,
    prompt: str | None = None,
    batch_size: int = 16,
) -> list[Answer]:
    """The judgement of each text, or of each pair; see :meth:`ofa_core.OFA.judge`."""
    spec = spec_of(task, GLUE)
    sources = glue_sources(pipeline, task, texts, seconds, prompt)
    kind = pipeline.decoder_prompt(spec, decoder_prompt)
    candidates = pipeline.candidate_ids(spec.answers)
    scores = pipeline.score([None] * len(sources), sources, candidates, kind, batch_size)
    return [to_answer(spec.answers, probabilities) for probabilities in scores]


def glue_sources(
    pipeline: Pipeline, task: str, texts: Sequence[str], seconds: Sequence[str | None], prompt: str | None = None
) -> list[list[int]]:
    """The ids, ``<s>`` to ``</s>``, that :func:`judge` reads for each text, or for each pair."""
    spec = spec_of(task, GLUE)
    words = pipeline.settings(spec).max_source_tokens
    template = pipeline.prompt(spec, prompt)
    sources = []
    for text, second in zip(texts, seconds, strict=True):
        if (second is not None) != takes_two(spec):
            raise OFAError(f"the task {task} judges {'two texts' if takes_two(spec) else 'one text'}")
        fields = {"text": normalize_text(text, spec.rule, words, "text to judge")}
        if second is not None:
            fields["text2"] = normalize_text(second, spec.rule, words, "second text to judge")
        sources.append(pipeline.encode(fill_prompt(template, **fields)))
    return sources


def takes_two(spec: TaskSpec) -> bool:
    """Tell whether a task judges two texts."""
    return "{text2}" in spec.prompts["gpt2"]
