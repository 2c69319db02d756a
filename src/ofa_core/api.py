"""OFA as its users see it: load once, then ask about one picture or many."""

from __future__ import annotations

from os import PathLike
from typing import Any, overload

import torch

from .errors import OFAError
from .heads import grounding
from .heads.grounding import Grounding
from .heads.pipeline import Pipeline
from .model import OFAModel
from .text import Tokenizer
from .vision.transform import ImageLike, ImageTransform
from .weights import load_model, load_tokenizer


def load(
    directory: str | PathLike[str], *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> OFA:
    """Load a model directory written by ``convert-ckpt``.

    Args:
        directory: where config.json, model.safetensors and the vocabulary files are.
        device: where the model shall run, such as ``"cpu"`` or ``"cuda"``.
        dtype: float32, float16 or bfloat16; None means float32 on a CPU and what is stored elsewhere.

    Raises:
        CheckpointError: the directory or a file in it is missing or broken.
    """
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise OFAError(f"device {str(device)!r} is not available here: torch finds no CUDA GPU")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise OFAError(f"device {str(device)!r} is not available here: {str(error).splitlines()[0]}") from None
    model = load_model(directory, device, dtype)
    return OFA(model, load_tokenizer(directory, model.config))


class OFA:
    """A loaded model with everything it needs to answer questions about pictures.

    A picture is a path, a PIL image, an array [h, w, 3] of uint8 or a tensor [3, h, w]. Every method takes one picture
    or a list of them, of any sizes; texts likewise. One text goes with every picture, one picture with every text. The
    result is a list where an argument was one.
    """

    def __init__(self, model: OFAModel, tokenizer: Tokenizer) -> None:
        task = model.config.task
        self.model = model
        self.tokenizer = tokenizer
        self._pipeline = Pipeline(model, tokenizer, ImageTransform(task.image_size, task.imagenet_normalization))

    @overload
    def ground(self, image: ImageLike, text: str, **options: Any) -> Grounding: ...
    @overload
    def ground(self, image: list[ImageLike], text: str | list[str], **options: Any) -> list[Grounding]: ...
    @overload
    def ground(self, image: ImageLike, text: list[str], **options: Any) -> list[Grounding]: ...
    def ground(
        self,
        image: ImageLike | list[ImageLike],
        text: str | list[str],
        *,
        bins_only: bool = False,
        batch_size: int = 16,
        **options: Any,
    ) -> Grounding | list[Grounding]:
        """The box of what ``text`` describes.

        Args:
            image: one picture or a list.
            text: a phrase such as ``"the man in white"``, or a list of as many as there are pictures.
            bins_only: let the model say nothing but box coordinates.
            batch_size: how many pairs are computed at once.
            options: :class:`~ofa_core.GenerationOptions` to change, by name.

        Raises:
            OFAError: an unreadable picture, an empty text, lists of unequal length, an unknown option.
        """
        images, texts, single = _pairs(image, text)
        settings = grounding.OPTIONS.updated(**options)
        found = grounding.ground(self._pipeline, images, texts, settings, bins_only, batch_size)
        return found[0] if single else found


def _pairs(image: ImageLike | list[ImageLike], text: str | list[str]) -> tuple[list[ImageLike], list[str], bool]:
    """Pictures and texts side by side, and whether both were single."""
    images = list(image) if isinstance(image, list | tuple) else None
    texts = list(text) if isinstance(text, list | tuple) else None
    for value in texts if texts is not None else [text]:
        if not isinstance(value, str):
            raise OFAError(f"a text must be a string, not {type(value).__name__}")
    if images is not None and texts is not None and len(images) != len(texts):
        raise OFAError(f"{len(images)} images and {len(texts)} texts do not pair up")
    count = len(texts) if texts is not None else len(images) if images is not None else 1
    if count == 0:
        raise OFAError("an empty list was given: at least one image and one text are needed")
    single = images is None and texts is None
    return images or [image] * count, texts or [text] * count, single  # type: ignore[list-item]
