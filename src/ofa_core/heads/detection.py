"""Detection: everything in a picture with its box and its name, or all things of given names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch

from ..errors import OFAError
from ..generation import GenerationOptions, Hypothesis
from ..text.dialog import dialog_source
from ..text.tio import LOCATED, category_text, tio_style, tio_task
from ..vision.boxes import Box, box_iou
from .any_boxes import TIO
from .grounding import DIALOG_OPTIONS, invig_codec, refcoco_codec
from .listing import Listing, listed_regions
from .pipeline import Picture, Pipeline
from .questioner import REGION
from .regions import regions_said
from .results import Detection, Detections
from .tasks import PRETRAINING, TASKS

SPEC = TASKS["detection"]
#: The prompt that asks for things: OFA's, which lists everything, or TiO's, which asks for one name at a time.
DetectionStyle = Literal["ofa", "tio"]
#: Of two regions of one label that overlap more than this, the surer one is kept.
DUPLICATE_IOU = 0.7
#: The least probability of a label of which the model had to choose one: below it, the thing has another name.
LEAST_LABEL = 0.1
#: Ends of plurals, and those of their singulars; the first that fits counts.
_PLURALS = (("ies", "y"), ("ses", "s"), ("xes", "x"), ("shes", "sh"), ("ches", "ch"), ("ss", "ss"), ("s", ""))


def detect(
    pipeline: Pipeline,
    images: Sequence[Picture],
    categories: Sequence[str] | None = None,
    style: DetectionStyle | None = None,
    options: GenerationOptions | None = None,
    *,
    threshold: float = 0.0,
    prompt: str | None = None,
    batch_size: int = 16,
) -> list[Detections]:
    """The regions of each picture; see :meth:`ofa_core.OFA.detect`."""
    names = None if categories is None else checked_names(categories)
    style = style_for(pipeline, names, style)
    if style == "tio" and prompt is not None:
        raise OFAError("a prompt of one's own goes with style='ofa' alone; TiO's has an instruction for each name")
    if style == "tio" and names is not None:
        found = _located(pipeline, images, names, options or DIALOG_OPTIONS, batch_size)
    else:
        found = _listed(pipeline, images, names, options, prompt, batch_size)
    return [Detections(merged([one for one in regions if one.score >= threshold]), text) for regions, text in found]


def checked_names(categories: Sequence[str]) -> list[str]:
    """Names of things, each once.

    Raises:
        OFAError: there are none, or one is no text or empty.
    """
    names = [categories] if isinstance(categories, str) else list(categories)
    if not names:
        raise OFAError("the list of categories is empty; None stands for everything")
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise OFAError(f"category {index} is {name!r}; a category is a text that is not empty")
    return list(dict.fromkeys(name.strip() for name in names))


def style_for(pipeline: Pipeline, names: Sequence[str] | None, style: DetectionStyle | None) -> DetectionStyle:
    """The style that was asked for, or that of a model's training.

    Raises:
        OFAError: there is no such style, or TiO's is to list everything.
    """
    if style is None:
        return "tio" if names is not None and pipeline.model.config.task.name == TIO else "ofa"
    if style not in get_args(DetectionStyle):
        raise OFAError(f"style is 'ofa' or 'tio', not {style!r}")
    if style == "tio" and names is None:
        raise OFAError("style='tio' asks for names one by one: pass categories")
    return style


def listing_pipeline(pipeline: Pipeline) -> Pipeline:
    """A pipeline with pictures of the side at which the model learned to list: in pre-training they have their own."""
    config = pipeline.model.config
    return pipeline.for_side(2 * config.code_image_size) if config.task.name == PRETRAINING else pipeline


def listing_sources(pipeline: Pipeline, count: int, prompt: str | None = None) -> list[list[int]]:
    """The ids, ``<s>`` to ``</s>``, that :func:`detect` reads for each of ``count`` pictures, in OFA's style."""
    return [pipeline.encode(pipeline.prompt(SPEC, prompt))] * count


def located_source(pipeline: Pipeline, name: str) -> list[int]:
    """The ids, ``<s>`` to ``</s>``, of TiO's question for all things of a name."""
    task = tio_task(tio_style("openimages_detection", LOCATED), category=category_text(name))
    return dialog_source(pipeline.tokenizer, task, [])


_Said = tuple[list[Detection], str]


def _listed(
    pipeline: Pipeline,
    images: Sequence[Picture],
    names: Sequence[str] | None,
    options: GenerationOptions | None,
    prompt: str | None,
    batch_size: int,
) -> list[_Said]:
    """Everything, of which the things of the names are kept."""
    pipeline = listing_pipeline(pipeline)
    codec, tokenizer = refcoco_codec(pipeline), pipeline.tokenizer
    pictures = pipeline.open(images)
    sources = listing_sources(pipeline, len(pictures), prompt)
    labels = None if names is None else [tokenizer.encode(f" {form}") for form in forms(names)]
    rule = Listing(tokenizer.vocabulary, labels)
    answers = pipeline.run(pictures, sources, options or pipeline.options(SPEC), [rule], batch_size=batch_size)
    said: list[_Said] = []
    for beams, picture in zip(answers, pictures, strict=True):
        tokens, scores = best_of(beams)
        regions = listed_regions(tokenizer, codec, tokens, scores, picture.size)
        kept = [region for region, sure in regions if names is None or _is_wanted(region.label, sure, names)]
        said.append((kept, tokenizer.decode(tokens).strip()))
    return said


def _is_wanted(label: str, probability: float, names: Sequence[str]) -> bool:
    """Tell whether a label ends in one of the names: a ``red circle`` is a circle; and is no guess among them."""
    words = label.lower().split()
    ends = {" ".join(words[start:]) for start in range(len(words))}
    return probability >= LEAST_LABEL and not ends.isdisjoint(form.lower() for form in forms(names))


def forms(names: Sequence[str]) -> list[str]:
    """Names as they are and in the singular, since a listing names one thing at a time: ``cars`` and ``car``."""
    found = list(names)
    for name in names:
        for plural, singular in _PLURALS:
            if name.lower().endswith(plural):
                found.append(name[: len(name) - len(plural)] + singular)
                break
    return list(dict.fromkeys(found))


def best_of(beams: Sequence[Hypothesis]) -> tuple[Sequence[int], Sequence[float]]:
    """Tokens of the best hypothesis and their log-probabilities; none where a search found nothing."""
    return (beams[0].tokens, beams[0].token_scores) if beams else ((), ())


def _located(
    pipeline: Pipeline, images: Sequence[Picture], names: Sequence[str], options: GenerationOptions, batch_size: int
) -> list[_Said]:
    """The things of each name, which is asked for by itself."""
    tokenizer, codec = pipeline.tokenizer, invig_codec(pipeline)
    pictures = pipeline.open(images)
    asked = [(picture, name) for picture in pictures for name in names]
    sources = [located_source(pipeline, name) for _, name in asked]
    answers = pipeline.run([picture for picture, _ in asked], sources, options, batch_size=batch_size)
    said: list[_Said] = [([], "") for _ in pictures]
    for number, ((picture, name), beams) in enumerate(zip(asked, answers, strict=True)):
        tokens, scores = best_of(beams)
        regions, before = said[number // len(names)]
        text = tokenizer.decode(tokens).strip()
        if REGION in text:
            found = regions_said(tokenizer, codec, tokens, scores, picture.size)
            regions += [replace(region, label=name) for region in found]
        said[number // len(names)] = (regions, f"{before}\n{text}".strip())
    return said


def merged(regions: Sequence[Detection]) -> tuple[Detection, ...]:
    """Regions in their order, without those that overlap a surer one of their label by :data:`DUPLICATE_IOU`."""
    kept: list[Detection] = []
    for region in sorted(regions, key=lambda one: -one.score):
        if not any(one.label == region.label and overlap(one.box, region.box) > DUPLICATE_IOU for one in kept):
            kept.append(region)
    return tuple(region for region in regions if any(region is one for one in kept))


def overlap(first: Box, second: Box) -> float:
    """Intersection over union of two boxes."""
    return float(box_iou(torch.tensor(first), torch.tensor(second)))
