"""Pictures from texts: image codes are drawn one by one, and become pixels; a picture's part is completed likewise."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import OFAError
from ..generation import AllowedRange, GenerationOptions, Hypothesis, LogitsProcessor, Step, draw
from ..generation.logits_processors import Stage
from ..model.encoder import ImageFeatures
from ..model.position_bias import CODE_SIZE
from ..text.vocabulary import EOS
from ..utils.progress import progress as progress_bar
from ..vision.images import ImageLike
from ..vision.vqgan import VQGAN
from . import caption
from .box_codec import checked_box
from .image_codes import Codes, codes_of_tokens, decode_codes
from .likelihood import token_log_probs
from .pipeline import Pipeline, fill_prompt, normalize_text
from .showing import encoded
from .tasks import TASKS

SPEC, INFILLING_SPEC = TASKS["image_gen"], TASKS["image_infilling"]

#: A function of a picture and its text to a number; the picture with the largest comes first.
Scorer: TypeAlias = Callable[[Image.Image, str], float]
#: The order of pictures: by how probable their text is as a caption, by how probable their codes were, or a scorer's.
Rank: TypeAlias = Literal["caption", "codes"] | Scorer
#: Called with the pictures as far as they are drawn, rows from the top, each time a row of codes is done.
OnRow: TypeAlias = Callable[[list[Image.Image]], None]


@dataclass(frozen=True, eq=False)
class Imagined:
    """A picture that the model made of a text, or completed."""

    image: Image.Image
    #: Its codes [rows, columns], rows first.
    codes: Codes = field(repr=False)
    #: Log-probability of each code as it was drawn, row by row, before ``top_k`` and ``top_p``.
    token_scores: tuple[float, ...] = field(repr=False)
    #: The number that it was ranked by.
    score: float
    #: The seed that draws it again.
    seed: int

    @property
    def log_prob(self) -> float:
        """Log-probability of all codes together."""
        return sum(self.token_scores)

    def _repr_png_(self) -> bytes:
        """The picture as a notebook shows it."""
        return encoded(self.image, "PNG")


def imagine(
    pipeline: Pipeline,
    vqgan: VQGAN,
    texts: Sequence[str],
    *,
    count: int = 4,
    options: GenerationOptions | None = None,
    seed: int | None = None,
    rank: Rank = "caption",
    prompt: str | None = None,
    batch_size: int = 16,
    on_row: OnRow | None = None,
) -> list[list[Imagined]]:
    """``count`` pictures of each text, best first; see :meth:`ofa_core.OFA.imagine`."""
    sources, without_text = image_sources(pipeline, texts, prompt), image_source(pipeline, "", prompt)
    options = options or pipeline.options(SPEC)
    found = []
    for index, (text, source) in enumerate(zip(texts, sources, strict=True)):
        seeds = picture_seeds(seed, index, count)
        drawn = _draw(pipeline, vqgan, source, None, seeds, options, batch_size, on_row, without_text)
        found.append(_ranked(pipeline, text, drawn, rank, batch_size))
    return found


def infill(
    pipeline: Pipeline,
    vqgan: VQGAN,
    image: ImageLike,
    box: Sequence[float] | None = None,
    *,
    count: int = 1,
    options: GenerationOptions | None = None,
    seed: int | None = None,
    prompt: str | None = None,
    batch_size: int = 16,
    on_row: OnRow | None = None,
) -> list[Imagined]:
    """The picture with what is in ``box`` drawn anew, ``count`` times; see :meth:`ofa_core.OFA.infill`."""
    picture = pipeline.transform.open(image)
    region = _region(picture.size, box)
    window = _window(picture, region, 2 * pipeline.model.config.code_image_size)
    pixels = pipeline.transform.normalized(torch.from_numpy(np.array(window)).permute(2, 0, 1))
    with torch.inference_mode():
        features = pipeline.model.image_features(without_middle(pixels)[None])
    source = pipeline.encode(pipeline.prompt(INFILLING_SPEC, prompt))
    seeds = picture_seeds(seed, 0, count)
    options = (options or pipeline.options(SPEC)).updated(guidance=1)
    drawn = _draw(pipeline, vqgan, source, features, seeds, options, batch_size, on_row)
    return [replace(one, image=_pasted(picture, one.image, region)) for one in drawn]


def image_sources(pipeline: Pipeline, texts: Sequence[str], prompt: str | None = None) -> list[list[int]]:
    """The ids, ``<s>`` to ``</s>``, that :func:`imagine` reads for each text."""
    most = pipeline.settings(SPEC).max_source_tokens
    cleaned = [normalize_text(text, SPEC.rule, most, "text to imagine") for text in texts]
    return [image_source(pipeline, text, prompt) for text in cleaned]


def image_source(pipeline: Pipeline, text: str, prompt: str | None = None) -> list[int]:
    """The ids that stand for a cleaned text, or for none: the same in training and in drawing."""
    return pipeline.encode(fill_prompt(pipeline.prompt(SPEC, prompt), text=text))


def picture_seeds(seed: int | None, index: int, count: int) -> list[int]:
    """A seed for each of ``count`` pictures of the text at ``index``, whatever is drawn beside them.

    The first picture of the first text has ``seed`` itself, so that the seed of any picture draws it alone again.
    """
    if count < 1:
        raise OFAError(f"count must be at least 1, not {count}")
    if seed is not None and not 0 <= seed < _SEEDS:
        raise OFAError(f"seed must be a whole number from 0 to 2**63 - 1, not {seed}")
    first = secrets.randbits(48) if seed is None else seed
    return [_derived_seed(first, index, number) if index or number else first for number in range(count)]


_SEEDS = 2**63


def _derived_seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]) % _SEEDS


# Drawing codes


class _Watch:
    """A rule that changes nothing and tells of each row of codes that is done."""

    stage: Stage = "log_probs"

    def __init__(self, columns: int, told: Callable[[Tensor], None]) -> None:
        self.columns, self.told = columns, told

    def __call__(self, scores: Tensor, step: Step) -> Tensor:
        """``scores`` as they are."""
        if step.number and step.number % self.columns == 0:
            self.told(step.prefixes[0, :, 1:])
        return scores


def _draw(
    pipeline: Pipeline,
    vqgan: VQGAN,
    source: Sequence[int],
    features: ImageFeatures | None,
    seeds: Sequence[int],
    options: GenerationOptions,
    batch_size: int,
    on_row: OnRow | None,
    without_text: Sequence[int] = (),
) -> list[Imagined]:
    """A picture for each seed."""
    if batch_size < 1:
        raise OFAError(f"batch_size must be at least 1, not {batch_size}")
    vocabulary, side = pipeline.tokenizer.vocabulary, codes_side(pipeline, vqgan)
    options = options.updated(
        do_sample=True, image_codes=True, min_new_tokens=side**2, max_new_tokens=side**2, num_return_sequences=None
    )
    tokens = torch.tensor([list(source)], device=pipeline.model.device)
    unguided = None if options.guidance == 1 else torch.tensor([list(without_text)], device=tokens.device)
    drawn: list[Imagined] = []
    with progress_bar(len(seeds) * side, 0, "drawn", unit=" rows", shown=pipeline.progress) as bar:

        def told(prefixes: Tensor) -> None:
            bar.update(len(prefixes))
            if on_row is not None:
                grids = [codes_of_tokens(row, vocabulary.code_start, side) for row in prefixes.tolist()]
                on_row([decode_codes(vqgan, grid) for grid in grids])

        rules: list[LogitsProcessor] = [AllowedRange(vocabulary.code_start, vocabulary.code_end), _Watch(side, told)]
        for start in range(0, len(seeds), batch_size):
            part = seeds[start : start + batch_size]
            generators = [torch.Generator(tokens.device).manual_seed(seed) for seed in part]
            found = draw(
                pipeline.model,
                tokens,
                features,
                options,
                constraints=rules,
                generators=generators,
                without_text=unguided,
            )
            for seed, hypothesis in zip(part, found, strict=True):
                drawn.append(_imagined(vqgan, hypothesis, vocabulary.code_start, side, seed))
    return drawn


def _imagined(vqgan: VQGAN, hypothesis: Hypothesis, code_start: int, side: int, seed: int) -> Imagined:
    codes = codes_of_tokens(hypothesis.tokens[:-1], code_start, side)
    scores = tuple(hypothesis.token_scores[:-1])
    return Imagined(decode_codes(vqgan, codes), codes, scores, sum(scores), seed)


def codes_side(pipeline: Pipeline, vqgan: VQGAN) -> int:
    """Codes a side of a picture that the model draws.

    Raises:
        OFAError: the network of image codes is another model's.
    """
    known, wanted = pipeline.tokenizer.vocabulary.code_dict_size, vqgan.config.num_codes
    if known != wanted:
        raise OFAError(f"the model has {known:,} image codes, the network that makes pictures of them {wanted:,}")
    return pipeline.model.config.code_image_size // CODE_SIZE


# Ranking


def _ranked(pipeline: Pipeline, text: str, drawn: Sequence[Imagined], rank: Rank, batch_size: int) -> list[Imagined]:
    if rank == "caption":
        scores = caption_scores(pipeline, [one.image for one in drawn], text, batch_size)
    elif rank == "codes":
        scores = [one.log_prob for one in drawn]
    elif callable(rank):
        scores = [float(rank(one.image, text)) for one in drawn]
    else:
        raise OFAError(f"rank is {rank!r}; it should be 'caption', 'codes' or a function of a picture and its text")
    ranked = [replace(one, score=score) for one, score in zip(drawn, scores, strict=True)]
    return sorted(ranked, key=lambda one: -one.score)


def caption_scores(pipeline: Pipeline, images: Sequence[ImageLike], text: str, batch_size: int = 16) -> list[float]:
    """Mean log-probability of the tokens of ``text`` as the model's caption of each picture."""
    pipeline = pipeline.for_task(caption.SPEC)
    ids = [*pipeline.tokenizer.encode(f" {text.strip().lower()}"), EOS]
    pictures, sources = pipeline.open(images), caption.caption_sources(pipeline, len(images))
    found = token_log_probs(pipeline, pictures, sources, [ids] * len(images), batch_size)
    return [sum(log_probs) / len(log_probs) for log_probs in found]


# Completing


def without_middle(pixels: Tensor) -> Tensor:
    """Pixels [..., 3, h, w] whose middle, half as high and as wide, is zero."""
    height, width = pixels.shape[-2:]
    pixels = pixels.clone()
    pixels[..., height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = 0
    return pixels


def _region(size: tuple[int, int], box: Sequence[float] | None) -> tuple[int, int, int, int]:
    """The box to complete in whole pixels; without one, the middle, half as high and as wide."""
    width, height = size
    if box is None:
        return width // 4, height // 4, width - width // 4, height - height // 4
    x0, y0, x1, y1 = checked_box(box, size)
    return math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)


def _window(picture: Image.Image, region: tuple[int, int, int, int], side: int) -> Image.Image:
    """A crop around ``region``, twice as high and as wide, brought to ``side``; black beyond the picture."""
    x0, y0, x1, y1 = region
    half_width, half_height = (x1 - x0) / 2, (y1 - y0) / 2
    left, top, right, bottom = x0 - half_width, y0 - half_height, x1 + half_width, y1 + half_height
    crop = picture.crop((round(left), round(top), round(right), round(bottom)))
    return crop.resize((side, side), Image.Resampling.BICUBIC)


def _pasted(picture: Image.Image, part: Image.Image, region: tuple[int, int, int, int]) -> Image.Image:
    """A copy of ``picture`` with ``part`` in the place of ``region``."""
    x0, y0, x1, y1 = region
    whole = picture.copy()
    whole.paste(part.resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC), (x0, y0))
    return whole
