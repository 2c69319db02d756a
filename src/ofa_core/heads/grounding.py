"""Grounding: the box of what a text describes (RefCOCO), or of what a dialog is about (GuessWhat?!, InViG)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..config import Calibration, TaskSettings
from ..errors import OFAError
from ..generation import AllowedRange, GenerationOptions, Hypothesis, LogitsProcessor
from ..generation.logits_processors import NEVER, Stage, Step
from ..text.dialog import Dialog, Style, dialog_source, dialog_task, flatten_dialog
from ..vision.boxes import Box, box_iou
from .any_boxes import TIO, BoxOrEnd, least_mass, names_any_number, says_absence
from .box_codec import BoxCodec
from .box_draws import ALL_DRAWS, DRAWS, BoxDraws, first_box, search_and_draw
from .confidence import (
    LEAST_SHARE,
    Decode,
    checked_decode,
    clusters,
    confidence_of,
    decode_box,
    evidence_of_presence,
    present_of,
)
from .listing import CORNERS
from .pipeline import Opened, Picture, Pipeline, fill_prompt, normalize_text
from .presence import decide, may_be_asked
from .regions import regions_said
from .results import Detection, box_text, confidence, region_lines, regions_of
from .showing import Pictured, Region
from .tasks import TASKS

SPEC = TASKS["refcoco"]
DIALOG_OPTIONS = GenerationOptions(num_beams=5, max_new_tokens=1024)
#: Of two alternatives that overlap more than this, the better one is kept.
SAME_BOX_IOU = 0.9
#: A way to learn whether a thing is there beside what the model's boxes tell: to ask it (TiO's ``bin_check``).
Presence = Literal["check"]
#: The least probability of yes with which there is a box, where a model without a calibration was asked.
LEAST_CHECKED = 0.5


@dataclass(frozen=True)
class Grounding(Pictured):
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

    def marked(self) -> list[Region]:
        """The regions of an answer that names several, or the box, with its confidence where it is known."""
        if self.regions:
            return regions_of(self.regions)
        sure = self.score if self.confidence is None else self.confidence
        return [] if self.box is None else [Region(self.box, self.asked, sure)]

    def said(self) -> list[tuple[str, str]]:
        """The box or that there is none, and how sure the model is."""
        lines = [("box", "none" if self.box is None else box_text(self.box)), *region_lines(self.regions)]
        known = (("confidence", self.confidence), ("present", self.present), ("score", self.score))
        return lines + [(name, f"{value:.2f}") for name, value in known if value is not None]


@dataclass(frozen=True)
class Sureness:
    """The questions to the model's distribution of boxes, which costs a few short steps of the decoder."""

    decode: Decode = "argmax"
    #: True for every region that a phrase fits.
    all_regions: bool = False
    #: False for the expected IoU and the evidence of presence themselves, whatever a calibration makes of them, and a
    #: box in any case.
    calibrated: bool = True
    #: True to ask the model, too, whether the thing is there.
    check: bool = False


def asked_sureness(
    pipeline: Pipeline,
    confidence: bool | None,
    decode: str | None,
    all_regions: bool = False,
    presence: str | None = None,
) -> Sureness | None:
    """Tell what a call asks of the distribution of boxes, None where it asks nothing.

    A model that was calibrated is asked unless ``confidence`` is False; another one, unless it is True, is only where
    something else needs it, so that its answers are the original's at the original's cost.

    Raises:
        OFAError: there is no such way to choose a box, it needs what ``confidence=False`` forgoes, or the model never
            learned to tell whether something is there and is asked to.
    """
    task = pipeline.model.config.task
    calibration = task.calibration
    check = _checked_presence(presence, task)
    needed = all_regions or check or decode not in (None, "argmax")
    if confidence is False:
        if needed:
            raise OFAError(
                "confidence=False draws no boxes, without which there is only decode='argmax' and one box, no presence"
            )
        checked_decode(decode, calibration)
        return None
    chosen = checked_decode(decode, calibration)
    wanted = needed or (calibration is not None if confidence is None else confidence)
    return Sureness(chosen, all_regions, check=check) if wanted else None


def _checked_presence(presence: str | None, task: TaskSettings) -> bool:
    """Tell whether the model is to be asked if things are there.

    Raises:
        OFAError: there is no such way, or the model never learned the question.
    """
    if presence not in (None, "check"):
        raise OFAError(f"presence is 'check' or None, not {presence!r}")
    if presence == "check" and not may_be_asked(task):
        raise OFAError("presence='check' asks what this model has not learned (bin_check): leave it out")
    return presence == "check"


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
    constraints, options = rules_for(pipeline, options, bins_only, sureness is None or sureness.calibrated)
    searched = search(pipeline, pictures, sources, options, constraints, sureness, batch_size)
    checked: list[float] | list[None] = [None] * len(searched)
    if sureness is not None and sureness.check:
        checked = [one.yes for one in decide(pipeline, pictures, captions, batch_size)]
    absence = says_absence(pipeline.model.config.task)
    return [
        to_sure_grounding(pipeline, codec, one, picture.size, threshold, sureness, absence, yes)
        for one, picture, yes in zip(searched, pictures, checked, strict=True)
    ]


def rules_for(
    pipeline: Pipeline, options: GenerationOptions, bins_only: bool = False, calibrated: bool = True
) -> tuple[list[LogitsProcessor], GenerationOptions]:
    """The rules on what is said of a phrase, and the search with them; if not ``calibrated``, a box in any case."""
    bins = pipeline.tokenizer.vocabulary.bin_ids
    any_number = names_any_number(pipeline.model.config.task)
    if bins_only:
        length = {"min_new_tokens": CORNERS, "max_new_tokens": CORNERS} if any_number else {}
        rules: list[LogitsProcessor] = [AllowedRange(bins.start, bins.stop), OrderedCorners(bins)]
        return rules, options.updated(suppress_special_tokens=True, **length)  # type: ignore[arg-type]  # both are
    least = least_mass(pipeline.model.config.task.calibration) if calibrated else 0.0
    return [BoxOrEnd(bins, least)] if any_number else [], options


def search(
    pipeline: Pipeline,
    pictures: Sequence[Opened],
    sources: Sequence[Sequence[int]],
    options: GenerationOptions,
    constraints: Sequence[LogitsProcessor],
    sureness: Sureness | None,
    batch_size: int,
) -> list[tuple[list[Hypothesis], BoxDraws | None]]:
    """The beams of sources, and boxes drawn from the model's distribution where ``sureness`` asks for them."""
    if sureness is None:
        found = pipeline.run(pictures, sources, options, constraints, batch_size=batch_size)
        return [(beams, None) for beams in found]
    count = ALL_DRAWS if sureness.all_regions else DRAWS
    drawn = search_and_draw(pipeline, pictures, sources, options, constraints, count=count, batch_size=batch_size)
    return [(one.beams, one.draws) for one in drawn]


def to_sure_grounding(
    pipeline: Pipeline,
    codec: BoxCodec,
    searched: tuple[list[Hypothesis], BoxDraws | None],
    size: tuple[int, int],
    threshold: float,
    sureness: Sureness | None,
    says_absence: bool,
    checked: float | None = None,
) -> Grounding:
    """A grounding, with what the distribution of boxes tells of it where that was asked for."""
    beams, draws = searched
    grounding = to_grounding(pipeline, codec, beams, size, threshold)
    if sureness is None or draws is None:
        return grounding
    calibration = pipeline.model.config.task.calibration if sureness.calibrated else None
    evidence = evidence_of_presence(draws)
    present: float | None = evidence
    if sureness.calibrated:
        present = present_of(evidence, draws.mass, calibration, says_absence, checked)
    grounding = replace(grounding, present=present)
    if grounding.box is None or draws.expected is None:
        return grounding
    if is_held_back(present, calibration, checked is not None):
        return replace(grounding, box=None, regions=())
    return _sure(pipeline, codec, grounding, beams, draws, size, sureness)


def is_held_back(present: float | None, calibration: Calibration | None, checked: bool = False) -> bool:
    """Tell whether a box is not returned, since what it should be of is probably not there.

    Args:
        present: the probability that it is.
        calibration: the model's, which knows the least that is enough.
        checked: whether the model was asked, which needs no calibration to count.
    """
    if calibration is not None and calibration.present:
        return present is not None and present < calibration.least_present
    return checked and present is not None and present < LEAST_CHECKED


def _sure(
    pipeline: Pipeline,
    codec: BoxCodec,
    grounding: Grounding,
    beams: Sequence[Hypothesis],
    draws: BoxDraws,
    size: tuple[int, int],
    sureness: Sureness,
) -> Grounding:
    """A grounding with the box that its distribution makes the best, and the confidence in it."""
    said = [bins for beam in beams if (bins := _first_bins(pipeline, beam.tokens)) is not None]
    decoded = decode_box(draws, said, sureness.decode)
    box = grounding.box if sureness.decode == "argmax" else codec.decode_within(decoded.bins, size)
    regions = grounding.regions
    if sureness.all_regions and not regions:
        regions = tuple(_drawn_regions(codec, draws, size))
    calibration = pipeline.model.config.task.calibration if sureness.calibrated else None
    sure = confidence_of(decoded.expected_iou, calibration)
    return replace(grounding, box=box or grounding.box, regions=regions, confidence=sure)


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
    sources, codec = dialog_sources(pipeline, dialogs, style), invig_codec(pipeline)
    pictures = pipeline.open(images)
    searched = search(pipeline, pictures, sources, options, (), sureness, batch_size)
    absence = pipeline.model.config.task.name == TIO
    return [
        to_sure_grounding(pipeline, codec, one, picture.size, threshold, sureness, absence)
        for one, picture in zip(searched, pictures, strict=True)
    ]


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
    found = [_one(pipeline, codec, beam, size) for beam in beams]
    best = found[0]
    alternatives = [one for one in _distinct([one for one in found if one.box is not None]) if one is not best]
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


def _distinct(found: Sequence[Grounding]) -> list[Grounding]:
    """Those of ``found``, all with a box, whose boxes are not all but the same as one that is kept before them."""
    boxes = torch.tensor([one.box for one in found]).view(-1, CORNERS)
    alike = (box_iou(boxes[:, None], boxes[None]) > SAME_BOX_IOU).tolist()
    kept: list[int] = []
    for place, likeness in enumerate(alike):
        if not any(likeness[better] for better in kept):
            kept.append(place)
    return [found[place] for place in kept]
