"""Boxes in pixels to bins and back, in the two conventions OFA's checkpoints were trained with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from ..errors import OFAError
from ..vision.boxes import Box

Convention = Literal["refcoco", "invig"]

#: Fractions of a side to which the InViG convention clips.
INVIG_RANGE = (0.001, 0.999)


class BoxCodec:
    """Turns boxes (x0, y0, x1, y1) in pixels of a picture (width, height) into four bins and back.

    ``refcoco`` (OFA): coordinates on the resized picture, over ``max_image_size`` (whatever the picture is resized to),
    times ``num_bins`` - 1; the way back is the exact inverse.

    ``invig`` (InViG, TiO): fractions of the picture's sides, clipped to 0.001..0.999, times ``num_bins`` - 1; the way
    back divides by ``num_bins`` and clips again.

    Raises:
        OFAError: boxes, sizes or bins out of range.
    """

    def __init__(
        self,
        convention: Convention = "refcoco",
        *,
        num_bins: int = 1000,
        image_size: int = 512,
        max_image_size: int = 512,
    ) -> None:
        if convention not in ("refcoco", "invig"):
            raise OFAError(f"a box convention is 'refcoco' or 'invig', not {convention!r}")
        self.convention = convention
        self.num_bins = num_bins
        self.image_size = image_size
        self.max_image_size = max_image_size

    def encode(self, box: Sequence[float], size: tuple[int, int]) -> list[int]:
        """Turn a box into bins.

        Args:
            box: (x0, y0, x1, y1) in pixels, within the picture and of positive area, not within its first pixel alone.
            size: width and height of the picture in pixels.

        Returns:
            Four bins, those of x0, y0, x1 and y1.

        Raises:
            OFAError: the box is not within the picture, has no area, or is in fractions of the sides; or it reaches
                beyond the last bin, since pictures are resized to more than ``max_image_size``.
        """
        width, height = size
        x0, y0, x1, y1 = checked_box(box, size)
        if self.convention == "refcoco":
            # float32 and this order of operations are the original's, and decide some halves
            ratios = torch.tensor([self.image_size / width, self.image_size / height] * 2, dtype=torch.float32)
            fractions = torch.tensor([x0, y0, x1, y1], dtype=torch.float32) * ratios / self.max_image_size
        else:
            sides = torch.tensor([width, height, width, height], dtype=torch.float64)
            fractions = (torch.tensor([x0, y0, x1, y1], dtype=torch.float64) / sides).clamp(*INVIG_RANGE)
        bins = self._bins(fractions)
        if max(bins) >= self.num_bins:
            self.check_image_size()
        return bins

    def encode_fractions(self, box: Sequence[float]) -> list[int]:
        """Turn a box in fractions of the sides, as OpenImages has them, into four bins of the InViG convention.

        Raises:
            OFAError: the box has no area or reaches over the picture, or the convention is another.
        """
        if self.convention != "invig":
            raise OFAError("boxes in fractions of the sides have bins in the invig convention alone")
        x0, y0, x1, y1 = map(float, box)
        if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
            raise OFAError(
                f"box {tuple(box)} is not 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1, in fractions of the sides"
            )
        return self._bins(torch.tensor([x0, y0, x1, y1], dtype=torch.float64).clamp(*INVIG_RANGE))

    def _bins(self, fractions: torch.Tensor) -> list[int]:
        return (fractions * (self.num_bins - 1)).round().long().tolist()  # half to even, as Python and torch do

    def check_image_size(self) -> None:
        """Raise where a part of the resized picture has no bins.

        Raises:
            OFAError: ``image_size`` is more than ``max_image_size``.
        """
        if self.image_size > self.max_image_size:
            raise OFAError(
                f"image_size {self.image_size} is more than max_image_size {self.max_image_size}, beyond which no bin "
                f"lies: set max_image_size={self.image_size} too, or a smaller image_size"
            )

    def decode_within(self, bins: Sequence[float] | None, size: tuple[int, int]) -> Box | None:
        """Turn bins into a box within the picture, which :meth:`encode` takes.

        Args:
            bins: bins of x0, y0, x1 and y1, or places between bins.
            size: width and height of the picture in pixels.

        Returns:
            (x0, y0, x1, y1) in pixels, cut off at the picture's sides; None where there are not four bins, where they
            are reversed or enclose nothing, and where they lie within the picture's first pixel.

        Raises:
            OFAError: a bin is out of range.
        """
        box = self.decode(bins, size)
        if box is None:
            return None
        x0, y0, x1, y1 = (min(value, float(side)) for value, side in zip(box, size * 2, strict=True))
        return None if _problem((x0, y0, x1, y1), size) else (x0, y0, x1, y1)

    def decode(self, bins: Sequence[float] | None, size: tuple[int, int]) -> Box | None:
        """Turn bins into a box, in float32 and in the order of operations that published scores rest upon.

        It may lie a rounding error outside of the picture, and is reversed where the bins are.

        Args:
            bins: bins of x0, y0, x1 and y1.
            size: width and height of the picture in pixels.

        Returns:
            (x0, y0, x1, y1) in pixels; None where there are not four bins: an answer that is no box never becomes one.

        Raises:
            OFAError: a bin is out of range.
        """
        width, height = _checked_size(size)
        if bins is None or len(bins) != 4:
            return None
        if not all(0 <= number < self.num_bins for number in bins):
            raise OFAError(f"bins {list(bins)} are not all in 0..{self.num_bins - 1}")
        if self.convention == "refcoco":
            values = torch.tensor(bins, dtype=torch.float32) / (self.num_bins - 1) * self.max_image_size
            ratios = torch.tensor([self.image_size / width, self.image_size / height] * 2, dtype=torch.float32)
            x0, y0, x1, y1 = (values / ratios).tolist()
        else:
            low, high = INVIG_RANGE
            fractions = [min(max(number / self.num_bins, low), high) for number in bins]
            x0, y0, x1, y1 = (fraction * side for fraction, side in zip(fractions, (width, height) * 2, strict=True))
        return (x0, y0, x1, y1)


def checked_box(box: Sequence[float], size: tuple[int, int]) -> Box:
    """The box as four floats.

    Raises:
        OFAError: it is none in pixels of a picture of ``size`` (width, height).
    """
    size = _checked_size(size)
    try:
        x0, y0, x1, y1 = map(float, box)
    except (TypeError, ValueError):
        raise OFAError(f"a box is (x0, y0, x1, y1), not {box!r}") from None
    problem = _problem((x0, y0, x1, y1), size)
    if problem:
        given = getattr(box, "tolist", lambda: box)()  # arrays and tensors as plain numbers
        raise OFAError(f"box {tuple(given)} {problem}")
    return (x0, y0, x1, y1)


def _problem(box: Box, size: tuple[int, int]) -> str:
    """The reason why a box is none in pixels of a picture of ``size`` (width, height); "" where it is one."""
    (x0, y0, x1, y1), (width, height) = box, size
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        return f"is not 0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}"
    if max(x1, y1) <= 1 < min(width, height):
        return "lies within one pixel: boxes are in pixels, not fractions of the sides"
    return ""


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    width, height = size
    if width <= 0 or height <= 0:
        raise OFAError(f"a picture's size is (width, height) in pixels, not {size}")
    return width, height
