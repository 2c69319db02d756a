"""Pictures of any kind to the model's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..errors import OFAError

#: A picture as users have it: a path, a PIL image of any mode, an array [h, w, 3] of uint8, or a tensor
#: [3, h, w] of uint8 or of floats from 0 to 1.
ImageLike: TypeAlias = "str | PathLike[str] | Image.Image | np.ndarray[Any, Any] | Tensor"

#: Mean and standard deviation of each channel: OFA's own, and ImageNet's for models trained with it.
OFA_STATISTICS = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def open_image(image: ImageLike) -> Image.Image:
    """``image`` as PIL in RGB, at its own size, by Pillow's own conversion from any mode, as the original does.

    So an orientation noted in EXIF is ignored, and 16-bit grey saturates at 255.

    Raises:
        OFAError: a path without a readable picture, or an array or tensor of another layout.
    """
    if isinstance(image, str | PathLike):
        return _read(Path(image))
    if isinstance(image, Image.Image):
        if 0 in image.size:
            raise OFAError(f"the image has no pixels: it is {image.width} × {image.height}")
        return _to_rgb(image, "the image")
    if isinstance(image, Tensor):
        return Image.fromarray(_tensor_to_array(image))
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise OFAError(f"an image array must be uint8 [height, width, 3], not {image.dtype} {list(image.shape)}")
        return Image.fromarray(image)
    raise OFAError(f"an image is a path, a PIL image, an array or a tensor, not {type(image).__name__}")


def _read(path: Path) -> Image.Image:
    if not path.exists():
        raise OFAError(f"image {path} does not exist")
    if path.is_dir():
        raise OFAError(f"image {path} is a directory")
    try:
        with Image.open(path) as image:
            return _to_rgb(image, f"image {path}")
    except UnidentifiedImageError:
        raise OFAError(f"image {path} cannot be read: it is not a picture in a known format") from None
    except (OSError, Image.DecompressionBombError) as error:
        raise OFAError(f"image {path} cannot be read: {error}") from None


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """``image`` in RGB; where it was opened but not read yet, this is when its file turns out to be damaged."""
    try:
        return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise OFAError(f"{name} cannot be read: {error}") from None


def _tensor_to_array(image: Tensor) -> np.ndarray[Any, Any]:
    if image.dim() != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise OFAError(f"an image tensor must be [3, height, width], not {list(image.shape)}")
    image = image.detach()
    if image.is_floating_point():
        if not (float(image.min()) >= 0 and float(image.max()) <= 1):
            raise OFAError(f"an image tensor of floats must lie in 0..1, not {image.min():.3g}..{image.max():.3g}")
        image = (image.float() * 255).round().to(torch.uint8)
    if image.dtype != torch.uint8:
        raise OFAError(f"an image tensor must be uint8 or float, not {image.dtype}")
    return image.permute(1, 2, 0).cpu().numpy()


def _resized(image: Image.Image, side: int) -> Image.Image:
    """``image`` resized to a square with the bicubic filter, its width first.

    Pillow rounds to 8 bits between its two passes, so their order counts. The original's Pillow always began with the
    width; newer ones begin with the height where that is less work, unless they are asked for one pass at a time.
    """
    return image.resize((side, image.height), Image.Resampling.BICUBIC).resize((side, side), Image.Resampling.BICUBIC)


class ImageTransform:
    """RGB, resized to a square with PIL's bicubic filter (the aspect ratio is not kept), normalised.

    :class:`~ofa_core.heads.box_codec.BoxCodec` holds the way back for boxes.
    """

    def __init__(self, size: int = 512, imagenet_normalization: bool = False) -> None:
        self.size = size
        mean, std = IMAGENET_STATISTICS if imagenet_normalization else OFA_STATISTICS
        self._mean = torch.tensor(mean)[:, None, None]
        self._std = torch.tensor(std)[:, None, None]

    def __call__(self, image: ImageLike) -> Tensor:
        """Normalised pixels [3, size, size] in float32."""
        pixels = torch.from_numpy(np.array(_resized(open_image(image), self.size))).permute(2, 0, 1).float() / 255
        return (pixels - self._mean) / self._std

    def batch(self, images: Sequence[ImageLike]) -> Tensor:
        """Normalised pixels [B, 3, size, size] of pictures of any sizes."""
        if len(images) == 0:
            raise OFAError("there are no images: at least one is needed")
        return torch.stack([self(image) for image in images])
