"""Results that show themselves: with their picture and its boxes in a notebook, as JSON, and as others take them."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from PIL import Image

from ..errors import OFAError
from ..vision.boxes import Box
from ..vision.drawing import COLORS, Mark, draw_marks
from ..vision.images import ImageLike, open_image

Own = TypeVar("Own", bound="Pictured")

#: The shortest and the longest that the longer side of a picture is in a notebook, in pixels.
_SHOWN_SIDE = (480, 800)
#: Rows of a table that a notebook shows at most.
_SHOWN_ROWS = 12


class Source(Protocol):
    """A picture that can be read when it is needed."""

    @property
    def image(self) -> Image.Image:
        """The picture in RGB at its own size, read anew."""


class Probabilities(Mapping[str, float]):
    """The probability of each of several answers, in their order; it does not change."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, float] | Sequence[tuple[str, float]] = ()) -> None:
        self._items = dict(items)

    def __getitem__(self, answer: str) -> float:
        return self._items[answer]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)


@dataclass(frozen=True)
class Region:
    """A box of a result as it is drawn and handed on."""

    box: Box  # xyxy pixels
    label: str
    score: float


class Result:
    """A result: it does not change, and is compared, hashed and pickled by its values."""

    def to_dict(self) -> dict[str, Any]:
        """Its fields as JSON has them: lists for boxes, tables for results within it; without its picture."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {one.name: _plain(getattr(self, one.name)) for one in fields if one.name not in ("picture", "asked")}

    def to_json(self, indent: int | None = None) -> str:
        """:meth:`to_dict` as JSON; a number that is not finite is null."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    def __copy__(self: Any) -> Any:
        return self

    def __deepcopy__(self: Any, memo: dict[int, Any]) -> Any:
        return self


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, Result):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, str) or value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Sequence):
        return [_plain(one) for one in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    raise OFAError(f"a {type(value).__name__} has no form in JSON")


@dataclass(frozen=True, kw_only=True)
class Pictured(Result):
    """A result about a picture, which it can show.

    It holds the picture as it was handed in, so that a path costs nothing, and a picture in memory stays there as long
    as the result. Neither the picture nor what was asked counts where results are compared; a pickled result keeps a
    path alone.
    """

    #: The picture; None for a result that came without one, and for one that lies within another.
    picture: Source | None = field(default=None, repr=False, compare=False)
    #: The text that was asked.
    asked: str = field(default="", repr=False, compare=False)

    def about(self: Own, picture: Source | None, asked: str = "") -> Own:
        """The same result with its picture and what was asked.

        Args:
            picture: what reads the picture; None for none.
            asked: the text that was asked.

        Returns:
            A new result, which equals this one.
        """
        return dataclasses.replace(self, picture=picture, asked=asked)

    def __getstate__(self) -> dict[str, Any]:
        """The fields to pickle: not the pixels, but a path."""
        state = dict(vars(self))
        source = getattr(self.picture, "source", None)
        state["picture"] = self.picture if isinstance(source, str | Path) else None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def marked(self) -> list[Region]:
        """The regions that are drawn."""
        return []

    def said(self) -> list[tuple[str, str]]:
        """Lines under the picture in a notebook: a name and a value each."""
        return []

    def draw(self, image: ImageLike | None = None, *, scale: float = 1.0) -> Image.Image:
        """The picture with the regions and their scores.

        Args:
            image: the picture, where the result does not hold it.
            scale: how many times as large; lines and letters grow less than small pictures.

        Returns:
            A picture in RGB.

        Raises:
            OFAError: there is no picture.
        """
        picture = self._picture(image)
        if scale != 1.0:
            size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
            picture = picture.resize(size, Image.Resampling.BICUBIC)
        several = self.marked()
        return draw_marks(picture, [_mark(region, at, scale, len(several)) for at, region in enumerate(several)])

    def crop(self, image: ImageLike | None = None, *, margin: float = 0.0) -> Image.Image | None:
        """The part of the picture in the first region; None where there is none.

        Args:
            image: the picture, where the result does not hold it.
            margin: how much more to take on each side, as a part of the region's sides.

        Returns:
            The part, at least a pixel of it.

        Raises:
            OFAError: there is no picture.
        """
        regions = self.marked()
        return cropped(self._picture(image), regions[0].box, margin) if regions else None

    def to_coco(self, image_id: int | str, category_id: int | Mapping[str, int] = 1) -> list[dict[str, Any]]:
        """The regions as rows of a COCO results file.

        Args:
            image_id: the picture's number.
            category_id: the category of all, or the number of each label.

        Returns:
            A row for each region: ``bbox`` is x, y, width and height in pixels.

        Raises:
            OFAError: a label has no number.
        """
        rows = []
        for region in self.marked():
            x0, y0, x1, y1 = region.box
            number = category_id if isinstance(category_id, int) else category_id.get(region.label)
            if number is None:
                raise OFAError(f"category_id has no number for the label {region.label!r}")
            bbox = [x0, y0, x1 - x0, y1 - y0]
            rows.append({"image_id": image_id, "category_id": number, "bbox": bbox, "score": region.score})
        return rows

    def to_supervision(self) -> Any:
        """The regions as ``supervision.Detections``, with their labels under ``class_name``.

        Raises:
            OFAError: supervision is not installed.
        """
        try:
            import supervision  # an optional package, needed here alone
        except ImportError:
            raise OFAError("to_supervision needs the package supervision: pip install supervision") from None
        regions = self.marked()
        if not regions:
            return supervision.Detections.empty()
        labels = list(dict.fromkeys(region.label for region in regions))
        return supervision.Detections(
            xyxy=np.array([region.box for region in regions], dtype=np.float32),
            confidence=np.array([region.score for region in regions], dtype=np.float32),
            class_id=np.array([labels.index(region.label) for region in regions]),
            data={"class_name": np.array([region.label for region in regions])},
        )

    def _picture(self, image: ImageLike | None = None) -> Image.Image:
        if image is not None:
            return open_image(image)
        if self.picture is None:
            raise OFAError("this result does not hold its picture: pass it as image")
        return self.picture.image

    def _shown(self) -> Image.Image | None:
        """The picture with its regions at a size to look at; None where there is none to show."""
        try:
            longer = max(self._picture().size)
        except OFAError:  # it came without one, or the file has gone since
            return None
        least, most = _SHOWN_SIDE
        return self.draw(scale=min(max(longer, least), most) / longer)

    def _repr_png_(self) -> bytes | None:
        """The picture as a notebook shows it."""
        shown = self._shown()
        return None if shown is None else encoded(shown, "PNG")

    def _repr_html_(self) -> str:
        """The picture, what was asked and what was found, as a notebook shows them."""
        return page(self, [("asked", self.asked)] * bool(self.asked) + self.said())


def page(result: Pictured, rows: Sequence[tuple[str, str]]) -> str:
    """The picture of a result with its regions, above lines of a name and a value each, as HTML."""
    shown = result._shown()  # a part of the same module
    picture = "" if shown is None else _image_tag(shown, result.asked)
    return f"<div>{picture}{_table(rows)}</div>"


def cropped(picture: Image.Image, box: Box, margin: float = 0.0) -> Image.Image:
    """The part of a picture in ``box`` (xyxy pixels), at least a pixel of it, and ``margin`` of its sides around it."""
    x0, y0, x1, y1 = box
    more_x, more_y = (x1 - x0) * margin, (y1 - y0) * margin
    left, top = max(0, math.floor(x0 - more_x)), max(0, math.floor(y0 - more_y))
    left, top = min(left, picture.width - 1), min(top, picture.height - 1)
    right, bottom = min(picture.width, math.ceil(x1 + more_x)), min(picture.height, math.ceil(y1 + more_y))
    return picture.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


def _mark(region: Region, at: int, scale: float, count: int) -> Mark:
    x0, y0, x1, y1 = (value * scale for value in region.box)
    label = f"{region.label} {region.score:.2f}".strip()
    return Mark((x0, y0, x1, y1), label, COLORS[at % len(COLORS)] if count > 1 else COLORS[0])


def encoded(picture: Image.Image, format: str) -> bytes:
    """The bytes of a picture's file."""
    held = io.BytesIO()
    picture.save(held, format, **({"quality": 88} if format == "JPEG" else {}))
    return held.getvalue()


def _image_tag(picture: Image.Image, text: str) -> str:
    data = base64.b64encode(encoded(picture, "JPEG")).decode()
    return f'<img src="data:image/jpeg;base64,{data}" alt="{html.escape(text)}" style="max-width:100%;height:auto">'


def _table(rows: Sequence[tuple[str, str]]) -> str:
    if not rows:
        return ""
    cells = "".join(
        f'<tr><th style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(value)}</td></tr>'
        for name, value in rows[:_SHOWN_ROWS]
    )
    more = len(rows) - _SHOWN_ROWS
    return f"<table>{cells}</table>" + (f"<p>and {more} more</p>" if more > 0 else "")
