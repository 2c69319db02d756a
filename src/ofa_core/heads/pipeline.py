"""The base of every head: pictures and source texts in, hypotheses or candidate scores out, in batches."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from string import Formatter
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..config import TaskSettings
from ..errors import OFAError
from ..generation import GenerationOptions, Hypothesis, LogitsProcessor, generate, score_candidates
from ..generation.logits_processors import MaxNewTokens
from ..generation.scoring import DecoderPrompt
from ..model.encoder import ImageFeatures
from ..model.ofa import OFAModel
from ..model.position_bias import PATCH_SIZE
from ..text import Tokenizer
from ..utils.progress import progress
from ..vision.images import ImageLike, check_image, image_size, readable_again
from ..vision.transform import ImageTransform
from .batching import batch_places, in_order, read_ahead
from .tasks import TaskSpec, spec_of


class OpenedImage:
    """A picture that is there to be read when its turn comes: of a long list, only a batch's pixels are held.

    Args:
        source: the picture as it was handed in.
        transform: what reads it and resizes it.
    """

    def __init__(self, source: ImageLike, transform: ImageTransform) -> None:
        self.source = source
        self._transform = transform
        self._size: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        if self._size is None:
            self._size = image_size(self.source, like_original=self._transform.like_original)
        return self._size

    @property
    def image(self) -> Image.Image:
        """The picture in RGB at its own size, read anew."""
        return self.open()

    def open(self) -> Image.Image:
        """Read the picture in RGB at its own size."""
        return self._transform.open(self.source)

    def pixels(self) -> Tensor:
        """Pixels [3, side, side] in uint8, read anew."""
        image = self.open()
        self._size = image.size
        return self._transform.resized(image)


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """A picture opened and resized ahead of time, as a loader's threads do; every method takes it in its place."""

    size: tuple[int, int]  # width and height in pixels
    pixels: Tensor  # [3, side, side] in uint8, what ``transform`` made of it
    transform: ImageTransform
    source: Callable[[], Image.Image]  # reads the picture anew, for a model with another transform

    @property
    def image(self) -> Image.Image:
        """The picture in RGB at its own size, read anew."""
        return self.source()


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """A picture the image stem has looked at; every method takes it in its place and saves the stem's work."""

    features: ImageFeatures  # of this one picture
    picture: OpenedImage | PreparedImage

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.picture.size

    @property
    def image(self) -> Image.Image:
        """The picture in RGB at its own size, read anew."""
        return self.picture.image


Picture: TypeAlias = "ImageLike | EncodedImage | PreparedImage"
#: A picture that was opened, or None for text alone.
Opened: TypeAlias = "Image.Image | OpenedImage | EncodedImage | PreparedImage | None"
#: A picture whose pixels are to be read.
Readable: TypeAlias = "Image.Image | OpenedImage | PreparedImage"


@dataclass(frozen=True)
class Batch:
    """The model's inputs for a few samples at once."""

    tokens: Tensor  # [B, N]
    images: ImageFeatures | None
    image_mask: Tensor | None  # [B], where only some samples have a picture


@dataclass(frozen=True)
class Pipeline:
    """A model with the tokenizer and the picture transform it was trained with."""

    model: OFAModel
    tokenizer: Tokenizer
    transform: ImageTransform
    #: True if pictures are taken at another side than the model's own, so that a look at one is of no use.
    other_side: bool = False
    #: True for a bar that tells how far a call has come.
    progress: bool = False

    def __post_init__(self) -> None:
        """Refuse prompts of tasks that there are not."""
        for name in self.model.config.task.prompts:
            spec_of(name)

    def settings(self, spec: TaskSpec) -> TaskSettings:
        """The settings under which this model does a task."""
        return spec.settings(self.model.config.task)

    def for_task(self, spec: TaskSpec) -> Pipeline:
        """This pipeline with pictures of the side that the task takes with this model."""
        return self.for_side(self.settings(spec).image_size)

    def for_side(self, side: int) -> Pipeline:
        """This pipeline with pictures of ``side`` × ``side`` pixels."""
        if side == self.model.config.task.image_size:
            return self
        return replace(self, transform=_of_side(self.transform, side, self.transform.like_original), other_side=True)

    def options(self, spec: TaskSpec) -> GenerationOptions:
        """The task's search with this model."""
        return spec.options(self.model.config.task, self.tokenizer.kind, self.model.config.embed_dim)

    def open(self, images: Sequence[Picture]) -> list[OpenedImage | EncodedImage | PreparedImage]:
        """The pictures, to be read when their turn comes; one that is missing or none is an error before any work."""
        if len(images) == 0:
            raise OFAError("there are no images: at least one is needed")
        opened: dict[Any, OpenedImage | EncodedImage | PreparedImage] = {}
        keys = [image if isinstance(image, str) else id(image) for image in images]
        for key, image in zip(keys, images, strict=True):
            if key not in opened:  # one picture stays one, so that the stem runs once for it
                opened[key] = self._opened(image)
        return [opened[key] for key in keys]

    def _opened(self, image: Picture) -> OpenedImage | EncodedImage | PreparedImage:
        if isinstance(image, EncodedImage):
            return self._at_own_side(image.picture) if self.other_side else self._checked(image)
        if isinstance(image, PreparedImage):
            return image
        image = readable_again(image)
        check_image(image)
        return OpenedImage(image, self.transform)

    def _at_own_side(self, picture: OpenedImage | PreparedImage) -> OpenedImage | PreparedImage:
        """A picture that was looked at, to be read at the side of this pipeline."""
        return OpenedImage(picture.source, self.transform) if isinstance(picture, OpenedImage) else picture

    def keep(self, image: Any) -> Any:
        """Reduce a picture of a generator to what is kept: its name or bytes, or its pixels as this model takes them.

        One that cannot be read stays as it is, to be named when its turn comes.
        """
        if not isinstance(image, Image.Image | np.ndarray | Tensor):
            return image
        try:
            picture = self.transform.open(image)
        except OFAError:
            return image
        return PreparedImage(picture.size, self.transform.resized(picture), self.transform, _not_kept)

    def source_of(self, image: Picture | OpenedImage | None) -> OpenedImage | PreparedImage | None:
        """The reader of a picture, to show it again; None where it is not kept."""
        if image is None:
            return None
        if isinstance(image, EncodedImage):
            return self.source_of(image.picture)
        if isinstance(image, PreparedImage | OpenedImage):
            return None if isinstance(image, PreparedImage) and image.source is _not_kept else image
        return OpenedImage(readable_again(image), self.transform)

    def prepare(self, image: ImageLike, source: Callable[[], Image.Image] | None = None) -> PreparedImage:
        """``image`` opened, and its pixels as this model takes them.

        ``source`` reads it anew where another model needs it; without it, ``image`` itself is kept for that.
        """
        picture = self.transform.open(image)
        again = source or OpenedImage(readable_again(image), self.transform).open
        return PreparedImage(picture.size, self.transform.resized(picture), self.transform, again)

    def _checked(self, look: EncodedImage) -> EncodedImage:
        """A look that was made at this model's image size."""
        side = -(-self.transform.size // PATCH_SIZE)
        if look.features.grid != (side, side):
            rows, columns = look.features.grid
            raise OFAError(
                f"a picture was looked at with an image size of {columns * PATCH_SIZE} × {rows * PATCH_SIZE} pixels, "
                f"this model takes {self.transform.size} × {self.transform.size}"
            )
        return look

    def look(self, images: Sequence[Picture], batch_size: int = 16) -> list[EncodedImage]:
        """Run the image stem on every picture, ``batch_size`` at a time."""
        pictures = self.open(images)
        features: dict[int, ImageFeatures] = {}
        each = list({id(picture): picture for picture in pictures}.values())
        groups = [each[start : start + batch_size] for start in range(0, len(each), batch_size)]
        with closing(read_ahead(_to_read(groups), self._pixels)) as read:
            for group, pixels in zip(groups, read, strict=True):
                features |= self._features(group, features, pixels)
        return [p if isinstance(p, EncodedImage) else EncodedImage(features[id(p)], p) for p in pictures]

    def prompt(self, spec: TaskSpec, given: str | None) -> str:
        """The ``given`` prompt, or that of the model's settings, or the task's in the model's language."""
        if given is not None:
            return given
        return self.model.config.task.prompts.get(spec.name) or spec.prompt(self.tokenizer.kind)

    def decoder_prompt(self, spec: TaskSpec, given: DecoderPrompt | None = None) -> DecoderPrompt:
        """The decoder prompt ``given``, or the one the checkpoint was trained with, or the task's."""
        return given or self.settings(spec).prompt_type or spec.decoder_prompt

    def encode(self, text: str) -> list[int]:
        """Source ids of plain text, ``<s>`` to ``</s>``."""
        return self.tokenizer.encode(text, add_special_tokens=True)

    def source_text(self, source: Sequence[int]) -> str:
        """Text of the ids of a source, without ``<s>`` and ``</s>``."""
        return self.tokenizer.decode(source)

    def candidate_ids(self, candidates: Sequence[str]) -> list[list[int]]:
        """Ids of closed-set answers, each with the leading space it has in targets.

        Raises:
            OFAError: no candidates, an empty one, or one that occurs twice.
        """
        if isinstance(candidates, str):
            raise OFAError(f"answers are a list of texts, not the one text {candidates!r}")
        if not candidates:
            raise OFAError("the list of answers is empty")
        seen: dict[str, int] = {}
        for index, candidate in enumerate(candidates):
            if not isinstance(candidate, str) or not candidate.strip():
                raise OFAError(f"answer {index} is {candidate!r}; an answer is a text that is not empty")
            if candidate in seen:
                raise OFAError(f"answer {candidate!r} occurs twice, at {seen[candidate]} and {index}")
            seen[candidate] = index
        return [self.tokenizer.encode(f" {candidate}") for candidate in candidates]

    def run(
        self,
        pictures: Sequence[Opened],
        sources: Sequence[Sequence[int]],
        options: GenerationOptions,
        constraints: Sequence[LogitsProcessor] = (),
        *,
        prefixes: Sequence[Sequence[int]] | None = None,
        batch_size: int = 16,
    ) -> list[list[Hypothesis]]:
        """Hypotheses for each pair of a picture and source ids, beginning with ``prefixes`` where they are given.

        A prefix does not count in ``options.max_new_tokens``.
        """
        hypotheses: list[tuple[list[int], list[list[Hypothesis]]]] = []
        for places, batch in self.batches(pictures, sources, batch_size):
            prefix, rules, settings = None, constraints, options
            own = None if prefixes is None else [prefixes[place] for place in places]
            if own is not None and any(own):
                prefix = self.tokenizer.pad(own).to(self.model.device)
                rules = [*constraints, MaxNewTokens(options.max_new_tokens)]
                settings = options.updated(max_new_tokens=options.max_new_tokens + prefix.shape[1])
            found = generate(
                self.model,
                batch.tokens,
                batch.images,
                settings,
                image_mask=batch.image_mask,
                constraints=rules,
                prefix=prefix,
            )
            hypotheses.append((places, found))
        return in_order(hypotheses)

    def score(
        self,
        pictures: Sequence[Opened],
        sources: Sequence[Sequence[int]],
        candidates: Sequence[Sequence[int]],
        decoder_prompt: DecoderPrompt,
        batch_size: int = 16,
    ) -> list[list[float]]:
        """Probabilities of all candidates, which sum to one, for each pair of a picture and source ids."""
        scores: list[tuple[list[int], list[list[float]]]] = []
        for places, batch in self.batches(pictures, sources, batch_size):
            log_probs = score_candidates(
                self.model, batch.tokens, batch.images, candidates, decoder_prompt, image_mask=batch.image_mask
            )
            scores.append((places, log_probs.exp().tolist()))
        return in_order(scores)

    def batches(
        self, pictures: Sequence[Opened], sources: Sequence[Sequence[int]], batch_size: int
    ) -> Iterator[tuple[list[int], Batch]]:
        """The samples in groups of ``batch_size``: the places of those in a group, and what the model takes for them.

        Pictures are read while the model computes the group before; see :mod:`~ofa_core.heads.batching` for the order.
        """
        if batch_size < 1:
            raise OFAError(f"batch_size must be at least 1, not {batch_size}")
        groups = batch_places(pictures, sources, batch_size)
        held: dict[int, ImageFeatures] = {}  # of the previous batch: samples of one picture share the stem's work
        wanted = _to_read([[pictures[place] for place in places] for places in groups])
        with (
            progress(len(sources), 0, "answered", unit="sample", shown=self.progress) as bar,
            closing(read_ahead(wanted, self._pixels)) as read,
        ):
            for places, pixels in zip(groups, read, strict=True):
                own = [pictures[place] for place in places]
                held = self._features(own, held, pixels)
                tokens = self.tokenizer.pad([sources[place] for place in places]).to(self.model.device)
                yield places, Batch(tokens, *self._stack(own, held))
                bar.update(len(tokens))

    @torch.inference_mode()
    def _features(
        self, pictures: Sequence[Opened], held: Mapping[int, ImageFeatures], read: Mapping[int, Tensor]
    ) -> dict[int, ImageFeatures]:
        """The stem's features by the pictures' identity, computed for those that are neither looked at nor held.

        ``read`` has the pixels of pictures that were read ahead.
        """
        features = {id(picture): picture.features for picture in pictures if isinstance(picture, EncodedImage)}
        features |= {id(picture): held[id(picture)] for picture in pictures if id(picture) in held}
        new = {id(p): p for p in pictures if p is not None and id(p) not in features}
        if new:
            pixels = torch.stack([read[key] for key in new])
            computed = self.model.image_features(self.transform.normalized(pixels))
            for key, patches in zip(new, computed.patches.split(1), strict=True):
                features[key] = ImageFeatures(patches, computed.grid)
        return features

    def _pixels(self, picture: Readable) -> Tensor:
        """[3, side, side] in uint8; what another model's transform prepared is of no use here."""
        if isinstance(picture, PreparedImage) and picture.transform is self.transform:
            return picture.pixels
        if isinstance(picture, OpenedImage):
            return picture.pixels()
        return self.transform.resized(
            self.transform.open(picture if isinstance(picture, Image.Image) else picture.image)
        )

    def _stack(
        self, pictures: Sequence[Opened], features: Mapping[int, ImageFeatures]
    ) -> tuple[ImageFeatures | None, Tensor | None]:
        """The features of a batch, and which samples have a picture if not all have."""
        present = [features[id(picture)] for picture in pictures if picture is not None]
        if not present:
            return None, None
        absent = torch.zeros_like(present[0].patches)
        parts = [absent if picture is None else features[id(picture)].patches for picture in pictures]
        mask = torch.tensor([picture is not None for picture in pictures], device=absent.device)
        return ImageFeatures(torch.cat(parts), present[0].grid), None if mask.all() else mask


def _to_read(groups: Sequence[Sequence[Opened]]) -> list[dict[int, Readable]]:
    """The pictures of each batch by their identity: all that are neither looked at nor in the batch before."""
    before: set[int] = set()
    wanted = []
    for group in groups:
        own = {id(picture): picture for picture in group if picture is not None}
        wanted.append({key: one for key, one in own.items() if key not in before and not isinstance(one, EncodedImage)})
        before = {*own}
    return wanted


@lru_cache(maxsize=16)  # one object, so that what it prepared is known again
def _of_side(transform: ImageTransform, side: int, like_original: bool) -> ImageTransform:
    """``transform`` as it reads files now, for pictures of another side in pixels."""
    other = copy.copy(transform)
    other.size, other.like_original = side, like_original
    return other


def _not_kept() -> Image.Image:
    raise OFAError("a picture from a generator is not kept: only what the model needs of it")


def fill_prompt(template: str, **fields: str) -> str:
    """A prompt with its fields filled in.

    Raises:
        OFAError: it has not exactly these fields, or a brace that stands alone.
    """
    try:
        found = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
    except ValueError:  # a brace that stands alone
        found = set()
    if found != set(fields):
        names = " and ".join(f"{{{name}}}" for name in fields)
        raise OFAError(f"the prompt {template!r} cannot be filled in: it should hold {names} and no other field")
    return template.format(**fields)


def normalize_text(text: str, rule: Callable[[str, int | None], str], max_words: int, what: str) -> str:
    """``text`` through ``rule`` (:func:`~ofa_core.text.pre_caption` or the like), cut to ``max_words`` with a warning.

    Raises:
        OFAError: nothing is left of it.
    """
    if not isinstance(text, str):
        raise OFAError(f"the {what} must be a string, not {type(text).__name__}")
    whole = rule(text, None)
    if not whole:
        raise OFAError(f"the {what} is empty: {text!r}")
    cut = rule(text, max_words)
    if cut != whole:
        warnings.warn(f"a {what} of {len(whole.split(' '))} words was cut to {max_words}", stacklevel=3)
    return cut
