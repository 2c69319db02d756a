"""Pictures to the model's pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import OFAError
from .images import ImageLike, open_image

#: Mean and standard deviation of each channel: OFA's own, and ImageNet's for models trained with it.
OFA_STATISTICS = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def _resized(image: Image.Image, side: int) -> Image.Image:
    """``image`` resized to a square with the bicubic filter, its width first.

    Pillow rounds to 8 bits between its two passes, so their order counts. The original's Pillow always began with the
    width; newer ones begin with the height where that is less work, unless they are asked for one pass at a time.
    """
    return image.resize((side, image.height), Image.Resampling.BICUBIC).resize((side, side), Image.Resampling.BICUBIC)


class ImageTransform:
    """RGB, resized to a square with PIL's bicubic filter (the aspect ratio is not kept), normalised.

    :class:`~ofa_core.heads.box_codec.BoxCodec` holds the way back for boxes.

    Args:
        size: side of the square in pixels.
        imagenet_normalization: whether to use ImageNet's statistics instead of OFA's own.
        like_original: whether files are read as the original reads them: as they lie, whatever orientation their EXIF
            data note, and 16-bit grey cut off at 255; see :func:`~ofa_core.open_image`.
    """

    def __init__(self, size: int = 512, imagenet_normalization: bool = False, *, like_original: bool = False) -> None:
        self.size = size
        self.like_original = like_original
        mean, std = IMAGENET_STATISTICS if imagenet_normalization else OFA_STATISTICS
        self._mean = torch.tensor(mean)[:, None, None]
        self._std = torch.tensor(std)[:, None, None]

    def __call__(self, image: ImageLike) -> Tensor:
        """Normalised pixels [3, size, size] in float32."""
        return self.normalized(self.resized(self.open(image)))

    def open(self, image: ImageLike) -> Image.Image:
        """The picture in RGB at its own size."""
        return open_image(image, like_original=self.like_original)

    def resized(self, image: Image.Image) -> Tensor:
        """Pixels [3, size, size] in uint8 of a picture in RGB: all that the model needs of it, in 3/4 of a megabyte."""
        return torch.from_numpy(np.array(_resized(image, self.size))).permute(2, 0, 1)

    def normalized(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [..., 3, size, size] in float32 of those that :meth:`resized` returns."""
        return (pixels.float() / 255 - self._mean) / self._std

    def batch(self, images: Sequence[ImageLike]) -> Tensor:
        """Normalised pixels [B, 3, size, size] of pictures of any sizes."""
        if len(images) == 0:
            raise OFAError("there are no images: at least one is needed")
        return torch.stack([self(image) for image in images])
