"""Pictures as grids of image codes, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ..errors import OFAError
from ..vision.images import ImageLike, open_image
from ..vision.vqgan import VQGAN, decode_tiled, to_pixels

#: The codes of one picture [rows, columns]: rows of the picture first.
Codes: TypeAlias = npt.NDArray[np.int64]


def encode_image(
    vqgan: VQGAN, image: ImageLike, side: int, *, noise: int | None = None, like_original: bool = False
) -> Codes:
    """The codes of a picture's middle square, ``side`` pixels wide; see :meth:`ofa_core.OFA.encode_image`.

    Raises:
        OFAError: the picture cannot be read, the side is no multiple of a code's pixels, or there is no encoder.
    """
    size = vqgan.config.code_size
    if side < size or side % size:
        raise OFAError(f"a side of {side} pixels is not a multiple of {size}, one code's pixels")
    square = middle_square(open_image(image, like_original=like_original), side)
    return encode_pixels(vqgan, np.asarray(square)[None], noise=noise)[0]


@torch.inference_mode()
def encode_pixels(vqgan: VQGAN, pixels: npt.NDArray[np.uint8], *, noise: int | None = None) -> npt.NDArray[np.int64]:
    """Codes [B, rows, columns] of bytes [B, H, W, 3]; drawn with ``noise`` as seed, the best without."""
    weight = vqgan.post_quant_conv.weight
    tensor = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).to(weight.device)
    generator = None if noise is None else torch.Generator().manual_seed(noise)
    codes: npt.NDArray[np.int64] = vqgan.encode((tensor / 127.5 - 1).to(weight.dtype), generator).cpu().numpy()
    return codes


def middle_square(image: Image.Image, side: int) -> Image.Image:
    """``image`` with its shorter side brought to ``side`` pixels (Lanczos), and of the longer one the middle."""
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    resized = image.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - side) // 2, (height - side) // 2
    return resized.crop((left, top, left + side, top + side))


@torch.inference_mode()
def decode_codes(vqgan: VQGAN, codes: object, *, tile: int | None = None) -> Image.Image:
    """The picture of one grid of codes; see :meth:`ofa_core.OFA.decode_codes`.

    Raises:
        OFAError: the codes are no grid of codes.
    """
    grid = torch.from_numpy(code_grid(codes))[None].to(vqgan.post_quant_conv.weight.device)
    decoded = vqgan.decode(grid) if tile is None else decode_tiled(vqgan, grid, tile)
    return Image.fromarray(to_pixels(decoded)[0].cpu().numpy())


def code_grid(codes: object) -> Codes:
    """Codes as an array [rows, columns]; a list of all codes of a square, row by row, becomes its rows.

    Raises:
        OFAError: they are none.
    """
    array = codes.cpu().numpy() if isinstance(codes, Tensor) else np.asarray(codes)
    if array.dtype.kind not in "iu" or not array.size:
        raise OFAError(f"codes are whole numbers [rows, columns], not {array.dtype} {list(array.shape)}")
    if array.ndim == 1:
        side = int(array.size**0.5)
        if side * side != array.size:
            raise OFAError(f"{array.size} codes in one list are no square; they should be [rows, columns]")
        array = array.reshape(side, side)
    if array.ndim != 2:
        raise OFAError(f"codes are [rows, columns], not {list(array.shape)}")
    return array.astype(np.int64)


def codes_of_tokens(tokens: Sequence[int], code_start: int, columns: int) -> Codes:
    """The codes [rows, columns] that token ids stand for; a last row that is not whole is left out."""
    whole = len(tokens) // columns * columns
    return np.asarray(tokens[:whole], dtype=np.int64).reshape(-1, columns) - code_start
