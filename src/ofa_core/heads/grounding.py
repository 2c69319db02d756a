"""Grounding: the box of what a text describes (RefCOCO), or of what a dialog is about (GuessWhat?!, InViG)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import OFAError
from ..generation import AllowedRange, GenerationOptions, Hypothesis, LogitsProcessor
from ..generation.logits_processors import NEVER, Stage, Step
from ..text.dialog import Dialog, Style, dialog_source, dialog_task, flatten_dialog
from ..vision.boxes import Box, box_iou
from .box_codec import BoxCodec
from .box_draws import ALL_DRAWS, DRAWS, BoxDraws, Searched, first_box, search_and_draw
from .confidence import LEAST_SHARE, Decode, checked_decode, clusters, confidence_of, decode_box, present_of
from .listing import CORNERS
from .pipeline import EncodedImage, OpenedImage, Picture, Pipeline, PreparedImage, fill_prompt, normalize_text
from .regions import regions_said
from .results import Detection, confidence
from .tasks import TASKS

SPEC = TASKS["refcoco"]
DIALOG_OPTIONS = GenerationOptions(num_beams=5, max_new_tokens=1024)
#: Of two alternatives that overlap more than this, the better one is kept.
SAME_BOX_IOU = 0.9


@dataclass(frozen=True)
class Grounding:
    """The place of something in a picture, and the model's confidence in it."""

    #: (x0, y0, x1, y1) in pixels of the original picture, within it and of positive area: the first of the answer's
    #: regions, or the box that was decoded from the distribution it comes from; None where the answer is no box, was
    #: not sure enough, or what the text describes is not there.
    box: Box | None
    #: exp of the mean log-probability of the answer's tokens, 0 to 1.
    score: float
    #: Probability of each token of the answer, the final ``</s>`` included.
    token_scores: tuple[float, ...]
    bins: tuple[int, ...] | None
    #: The answer as text.
    text: str
    #: Boxes of the other beams, best first, without those that are all but the same as a better one.
    alternatives: tuple[Grounding, ...] = ()
    #: All regions of an answer that names several, the first one's box included; empty where it names one or none.
    regions: tuple[Detection, ...] = ()
    #: The probability, 0 to 1, that ``box`` and the right one overlap by half, if the model was calibrated; otherwise
    #: the IoU to expect of ``box`` under the model's own distribution of boxes. None where it was not asked for.
    confidence: float | None = None
    #: The probability that what the text describes is in the picture; None where nothing tells.
    present: float | None = None

    def __bool__(self) -> bool:
        """True if there is a box."""
        return self.box is not None


@dataclass(frozen=True)
class Sureness:
    """The questions to the model's distribution of boxes, which costs a few short steps of the decoder."""

    decode: Decode = "argmax"
    #: True for every region that a phrase fits.
    all_regions: bool = False
    #: False for the expected IoU itself, whatever the model's calibration makes of it, and a box in any case.
    calibrated: bool = True


def asked_sureness(
    pipeline: Pipeline, confidence: bool | None, decode: str | None, all_regions: bool = False
) -> Sureness | None:
    """Tell what a call asks of the distribution of boxes, None where it asks nothing.

    A model that was calibrated is asked unless ``confidence`` is False; another one, unless it is True, is only where
    something else needs it, so that its answers are the original's at the original's cost.

    Raises:
        OFAError: there is no such way to choose a box, or it needs what ``confidence=False`` forgoes.
    """
    calibration = pipeline.model.config.task.calibration
    needed = all_regions or decode not in (None, "argmax")
    if confidence is False:
        if needed:
            raise OFAError("confidence=False draws no boxes, without which there is only decode='argmax' and one box")
        checked_decode(decode, calibration)
        return None
    chosen = checked_decode(decode, calibration)
    wanted = needed or (calibration is not None if confidence is None else confidence)
    return Sureness(chosen, all_regions) if wanted else None


class OrderedCorners:
    """Only bins that enclose something: x1 behind x0 and y1 behind y0, so none of the first two is the last bin."""

    stage: Stage = "logits"

    def __init__(self, bins: range) -> None:
        self.bins = bins  # their ids

    def __call__(self, scores: Tensor, step: Step) -> Tensor:
        """New scores [B, K, V]."""
        if step.number < 2:
            scores[..., self.bins.stop - 1] = NEVER
        elif step.number < 4:
            first = step.prefixes[..., step.number - 1, None]  # x0 or y0: <s> stands before them
            ids = torch.arange(scores.shape[-1], device=scores.device)
            scores.masked_fill_((ids >= self.bins.start) & (ids <= first), NEVER)
        return scores


#: The result where a search found nothing at all.
NO_GROUNDING = Grounding(box=None, score=0.0, token_scores=(), bins=None, text="")


def ground(
    pipeline: Pipeline,
    images: Sequence[Picture],
    captions: Sequence[str],
    options: GenerationOptions | None = None,
    *,
    bins_only: bool = False,
    threshold: float = 0.0,
    prompt: str | None = None,
    sureness: Sureness | None = None,
    batch_size: int = 16,
) -> list[Grounding]:
    """The box of each caption in the picture at the same place; see :meth:`ofa_core.OFA.ground`."""
    pipeline = pipeline.for_task(SPEC)
    codec = refcoco_codec(pipeline)
    sources = caption_sources(pipeline, captions, prompt)
    pictures = pipeline.open(images)
    options = options or pipeline.options(SPEC)
    constraints: list[LogitsProcessor] = []
    if bins_only:
        bins = pipeline.tokenizer.vocabulary.bin_ids
        constraints = [AllowedRange(bins.start, bins.stop), OrderedCorners(bins)]
        options = options.updated(suppress_special_tokens=True)
    return _found(pipeline, codec, pictures, sources, options, constraints, threshold, sureness, batch_size)


def _found(
    pipeline: Pipeline,
    codec: BoxCodec,
    pictures: Sequence[OpenedImage | EncodedImage | PreparedImage],
    sources: Sequence[Sequence[int]],
    options: GenerationOptions,
    constraints: Sequence[LogitsProcessor],
    threshold: float,
    sureness: Sureness | None,
    batch_size: int,
) -> list[Grounding]:
    """The groundings of sources, with boxes drawn from the model's distribution where ``sureness`` asks for them."""
    if sureness is None:
        found = pipeline.run(pictures, sources, options, constraints, batch_size=batch_size)
        pairs = zip(found, pictures, strict=True)
        return [to_grounding(pipeline, codec, beams, picture.size, threshold) for beams, picture in pairs]
    count = ALL_DRAWS if sureness.all_regions else DRAWS
    searched = search_and_draw(pipeline, pictures, sources, options, constraints, count=count, batch_size=batch_size)
    groundings = []
    for one, picture in zip(searched, pictures, strict=True):
        grounding = to_grounding(pipeline, codec, one.beams, picture.size, threshold)
        groundings.append(_sure(pipeline, codec, grounding, one, picture.size, sureness))
    return groundings


def _sure(
    pipeline: Pipeline,
    codec: BoxCodec,
    grounding: Grounding,
    searched: Searched,
    size: tuple[int, int],
    sureness: Sureness,
) -> Grounding:
    """A grounding with what the distribution of boxes tells of it."""
    task, draws = pipeline.model.config.task, searched.draws
    calibration = task.calibration if sureness.calibrated else None
    says_absence = task.name == "tio"
    if grounding.box is None or draws.expected is None:
        return replace(grounding, present=draws.mass if says_absence and grounding.bins is None else None)
    said = [bins for beam in searched.beams if (bins := _first_bins(pipeline, beam.tokens)) is not None]
    decoded = decode_box(draws, said, sureness.decode)
    box = grounding.box if sureness.decode == "argmax" else codec.decode_within(decoded.bins, size)
    present = present_of(decoded.expected_iou, draws.mass, calibration, says_absence)
    if present is not None and calibration is not None and present < calibration.least_present:
        return replace(grounding, box=None, regions=(), present=present)
    regions = grounding.regions
    if sureness.all_regions and not regions:
        regions = tuple(_drawn_regions(codec, draws, size))
    sure = confidence_of(decoded.expected_iou, calibration)
    return replace(grounding, box=box or grounding.box, regions=regions, confidence=sure, present=present)


def _first_bins(pipeline: Pipeline, tokens: Sequence[int]) -> tuple[int, ...] | None:
    """The bins of an answer's first box, None where it encloses nothing."""
    ids = pipeline.tokenizer.vocabulary.bin_ids
    return tuple(token - ids.start for token in first_box(tokens, ids).box) or None


def _drawn_regions(codec: BoxCodec, draws: BoxDraws, size: tuple[int, int]) -> list[Detection]:
    """Every region that a good share of the drawn boxes mean, which is its score."""
    found = []
    for one in clusters(draws.drawn):
        box = codec.decode_within(one.bins, size)
        if box is not None and one.share >= LEAST_SHARE:
            found.append(Detection(box, "", one.share, tuple(map(round, one.bins)), ()))
    return found


def ground_dialog(
    pipeline: Pipeline,
    images: Sequence[Picture],
    dialogs: Sequence[Dialog],
    style: Style = "guesswhat",
    options: GenerationOptions = DIALOG_OPTIONS,
    *,
    threshold: float = 0.0,
    sureness: Sureness | None = None,
    batch_size: int = 16,
) -> list[Grounding]:
    """The box each dialog is about; see :meth:`ofa_core.OFA.ground_dialog`."""
    sources = dialog_sources(pipeline, dialogs, style)
    pictures = pipeline.open(images)
    return _found(pipeline, invig_codec(pipeline), pictures, sources, options, (), threshold, sureness, batch_size)


def caption_sources(pipeline: Pipeline, captions: Sequence[str], prompt: str | None = None) -> list[list[int]]:
    """The ids, ``<s>`` to ``</s>``, that :func:`ground` reads for each caption."""
    words = pipeline.settings(SPEC).max_source_tokens
    template = pipeline.prompt(SPEC, prompt)
    texts = [normalize_text(caption, SPEC.rule, words, "text to ground") for caption in captions]
    return [pipeline.encode(fill_prompt(template, caption=text)) for text in texts]


def dialog_sources(pipeline: Pipeline, dialogs: Sequence[Dialog], style: Style = "guesswhat") -> list[list[int]]:
    """The ids, ``<s>`` to ``</s>``, that :func:`ground_dialog` reads for each dialog."""
    task = dialog_task(style, "grounding")
    sources = []
    for dialog in dialogs:
        turns = flatten_dialog(dialog)
        if not turns:
            raise OFAError("the dialog is empty: there is nothing to ground")
        sources.append(dialog_source(pipeline.tokenizer, task, turns))
    return sources


def refcoco_codec(pipeline: Pipeline) -> BoxCodec:
    """Boxes as OFA's own tasks write them, on pictures of the side that the pipeline takes.

    Raises:
        OFAError: the model's pictures are resized to more than there are bins for.
    """
    task, side = pipeline.model.config.task, pipeline.transform.size
    codec = BoxCodec("refcoco", num_bins=task.num_bins, image_size=side, max_image_size=task.max_image_size)
    codec.check_image_size()
    return codec


def invig_codec(pipeline: Pipeline) -> BoxCodec:
    """Boxes as the dialog tasks write them."""
    return BoxCodec("invig", num_bins=pipeline.model.config.task.num_bins)


def to_grounding(
    pipeline: Pipeline, codec: BoxCodec, beams: Sequence[Hypothesis], size: tuple[int, int], threshold: float = 0.0
) -> Grounding:
    """The best of ``beams``, with its box if it is sure enough, and the boxes of the others."""
    if not beams:
        return NO_GROUNDING
    best, *others = [_one(pipeline, codec, beam, size) for beam in beams]
    kept = [best] if best.box else []
    alternatives = []
    for other in others:
        if other.box is not None and not any(_same(other.box, better.box) for better in kept):
            kept.append(other)
            alternatives.append(other)
    box = best.box if best.score >= threshold else None
    return replace(best, box=box, alternatives=tuple(alternatives), regions=best.regions if box else ())


def _one(pipeline: Pipeline, codec: BoxCodec, beam: Hypothesis, size: tuple[int, int]) -> Grounding:
    """One hypothesis: a box where it holds nothing but bins, or (InViG) bins anywhere; the first four are its box."""
    tokens = beam.tokens
    if codec.convention == "invig":
        tokens = [token for token in tokens if pipeline.tokenizer.vocabulary.bin_of(token) is not None]
    bins = pipeline.tokenizer.bins(tokens)
    first: list[int] | None = bins
    regions: tuple[Detection, ...] = ()
    if bins is not None and len(bins) > CORNERS:
        said = regions_said(pipeline.tokenizer, codec, beam.tokens, beam.token_scores, size)
        first, regions = bins[:CORNERS], tuple(said)
    return Grounding(
        box=codec.decode_within(first, size),
        score=confidence(beam.token_scores),
        token_scores=tuple(map(math.exp, beam.token_scores)),
        bins=None if bins is None else tuple(bins),
        text=pipeline.tokenizer.decode(beam.tokens).strip(),
        regions=regions,
    )


def _same(first: Box, second: Box | None) -> bool:
    return second is not None and float(box_iou(torch.tensor(first), torch.tensor(second))) > SAME_BOX_IOU
