"""A row of a benchmark's data: what each format must hold, and the one form that all of them become."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..errors import OFAError, first_problem, shortened
from ..vision.boxes import Box
from .read_options import BoxUnit

Format = Literal[
    "guesswhat",
    "invig",
    "refcoco",
    "caption",
    "vqa",
    "snli_ve",
    "image_classify",
    "image_gen",
    "ocr",
    "gigaword",
    "cola",
    "mnli",
    "rte",
    "mrpc",
    "qnli",
    "qqp",
    "sst2",
    "matching",
    "answer_matching",
    "grefcoco",
    "ref_l4",
    "conversation",
    "pretrain",
    "pretrain_text",
    "pretrain_image",
    "pretrain_detection",
    "custom",
    "asked",
]

#: A text in pieces; None stands for the four bins of a box.
Pieces = tuple[str | None, ...]

#: The box of records in formats that have none.
NO_BOX: Box = (0.0, 0.0, 0.0, 0.0)

#: Pixels, and share of the side, by which a box may reach over the picture's edge before it is an error: it is clipped
#: to the picture, and counted where it reached over by more than what rounding does.
BOX_TOLERANCE = 3.0
BOX_TOLERANCE_SHARE = 0.02
_ROUNDING = 1e-3
#: The largest coordinate that could be meant as a fraction, and lies over the edge.
_NEARLY_FRACTION = 1.5


@dataclass(frozen=True)
class Record:
    """One valid row of any format."""

    #: The id in the row, which others of the file may have too; where rows have none, their number.
    id: str
    #: Name or path of the picture as the row has it; "" where the picture is only inline.
    image: str
    #: x0, y0, x1, y1 in pixels of the original picture; :data:`NO_BOX` for a caption or a question.
    box: Box = NO_BOX
    #: The dialog's turns in order. GuessWhat?!: question, answer, ...; InViG: query, question, answer, ...
    turns: tuple[str, ...] = ()
    #: The phrase (RefCOCO) or the question (VQA), else the first caption or "".
    text: str = ""
    #: A second text: the caption beside a hypothesis (SNLI-VE), the second of two texts (GLUE), the summary of an
    #: article, the answer to be judged.
    text2: str = ""
    #: The answer to a question that people agree on most (VQA), as it is written, or the label of a class.
    answer: str = ""
    #: The share of people who agree on it, from 0 to 1.
    agreement: float = 1.0
    #: Names of what a detector saw (VQA), or of what a caption names (pre-training); None: the row has no such column.
    objects: tuple[str, ...] | None = None
    #: The kind of a pre-training row, and the data set that it is of.
    kind: str = ""
    dataset: str = ""
    #: Image codes: of the picture, or of what is missing in it.
    codes: tuple[int, ...] = ()
    #: Everything in the picture, each with its name (detection).
    things: tuple[tuple[Box, str], ...] = ()
    #: Pixels of each thing's outline, where rows tell.
    areas: tuple[float, ...] = ()
    #: Groups of things, each with its name and its pixels: no one thing's box.
    crowds: tuple[tuple[Box, str, float], ...] = ()
    #: The text that is read in a task of one's own, and the one that is said; None stands for the bins of ``box``.
    source: Pieces = ()
    target: Pieces = ()
    #: The boxes that a phrase means, of none, one or several (gRefCOCO).
    boxes: tuple[Box, ...] = ()
    #: Every object in the picture that a game might be about, its own among them; what does not fit the picture is left
    #: out, since nobody asks about it.
    object_boxes: tuple[Box, ...] = ()
    #: Box and boxes are in fractions of the sides of a picture whose size is not known yet.
    in_fractions: bool = False
    #: A box was clipped, since it reached over the edge of the picture.
    clipped: bool = False
    category: str = ""
    #: The part of the data set that it is of, where rows tell.
    split: str = ""
    #: All captions of the picture, or all answers to the question.
    references: tuple[str, ...] = ()
    #: Answers with their weights, where rows give some (VQA).
    weighed: tuple[tuple[float, str], ...] = ()
    #: The id of what several records of one row are of, such as a picture with its captions; "" where there is one.
    row_id: str = ""
    #: Fields that are kept for results as they are.
    kept: Mapping[str, Any] = field(default_factory=dict, hash=False)
    #: Width and height of the picture in pixels, where the row tells.
    size: tuple[int, int] | None = None
    #: The encoded picture.
    inline: bytes | None = field(default=None, repr=False)
    #: "file:line", or "file:row" where there are no lines, counted from 1; for messages.
    place: str = ""
    #: Its number among all rows of the data, from 1; with the id it tells it from all others.
    row: int | None = field(default=None, compare=False)

    @property
    def has_picture(self) -> bool:
        """True if the row names a picture or holds one."""
        return bool(self.image) or self.inline is not None

    def fit_to(self, size: tuple[int, int]) -> Record:
        """This record on a picture that turned out to be of ``size`` (width, height), its box clipped to it.

        Raises:
            BadRow: the row tells another size, or the box is not within the picture.
        """
        if self.size is not None and self.size != size:
            told, found = (f"{width} × {height}" for width, height in (self.size, size))
            raise BadRow(
                self.place, f"picture {shortened(self.image or self.id)} is {found} pixels, the row says {told}"
            )
        fitted = replace(
            self,
            box=self.box if self.box == NO_BOX else self._fitted(self.box, size, "box"),
            boxes=tuple(self._fitted(box, size, "boxes") for box in self.boxes),
            things=tuple((self._fitted(box, size, "label"), name) for box, name in self.things),
            object_boxes=fitting_boxes(self._pixels(size, self.object_boxes), size),
            size=size,
            in_fractions=False,
        )
        before = self._pixels(size, [self.box, *self.boxes, *(box for box, _ in self.things)])
        after = [fitted.box, *fitted.boxes, *(box for box, _ in fitted.things)]
        return replace(fitted, clipped=self.clipped or any(map(was_clipped, before, after)))

    def _fitted(self, box: Box, size: tuple[int, int], name: str) -> Box:
        (in_pixels,) = self._pixels(size, [box])
        return clip_box(in_pixels, size, self.place, name)

    def _pixels(self, size: tuple[int, int], boxes: Sequence[Box]) -> list[Box]:
        if not self.in_fractions:
            return list(boxes)
        width, height = size
        return [(x0 * width, y0 * height, x1 * width, y1 * height) for x0, y0, x1, y1 in boxes]


class BadRow(OFAError):  # noqa: N818, it is the row that is named
    """A row that cannot be used: "file:line: field: reason"."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(place, reason)
        self.place = place
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}" if self.place else self.reason


def check_box(box: Sequence[float], size: tuple[int, int] | None, place: str, name: str) -> Box:
    """``box`` (x0, y0, x1, y1) in pixels, clipped to a picture of ``size`` (width, height) where that is known.

    Raises:
        BadRow: it is as :func:`clip_box` refuses it, or lies within one pixel (so it was given in fractions). The row
            is named by ``place`` and its field by ``name``.
    """
    _check_area(box, place, name)
    if min(box) >= 0 and max(box) <= 1:
        raise BadRow(place, f"{_shown(box, name)} lies within one pixel: boxes are in pixels, not in fractions")
    return clip_box(box, size, place, name)


def clip_box(box: Sequence[float], size: tuple[int, int] | None, place: str, name: str) -> Box:
    """``box`` in pixels, however small, clipped to a picture of ``size`` where that is known.

    Without a size, a box that reaches far below zero stays as it is, to be judged beside its picture.

    Raises:
        BadRow: it is not finite, has no area, or reaches over an edge by more than :data:`BOX_TOLERANCE` pixels and
            :data:`BOX_TOLERANCE_SHARE` of the side.
    """
    _check_area(box, place, name)
    x0, y0, x1, y1 = box
    if size is None and min(x0, y0) < -BOX_TOLERANCE and min(x1, y1) > 0:
        return (x0, y0, x1, y1)
    width, height = (math.inf, math.inf) if size is None else size
    over = max(-x0, x1 - width) - _tolerance(width), max(-y0, y1 - height) - _tolerance(height)
    clipped = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
    if max(over) > 0 or clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        picture = "the picture" if size is None else f"the picture of {width} × {height} pixels"
        raise BadRow(place, f"{_shown(box, name)} is not within {picture}")
    return clipped


def fitting_boxes(boxes: Iterable[Sequence[float]], size: tuple[int, int] | None) -> tuple[Box, ...]:
    """Those of ``boxes`` that :func:`clip_box` takes, clipped to a picture of ``size`` where that is known."""
    fitting = []
    for box in boxes:
        with suppress(BadRow):
            fitting.append(clip_box(box, size, "", ""))
    return tuple(fitting)


def read_box(
    box: Sequence[float], size: tuple[int, int] | None, place: str, name: str, unit: BoxUnit | None
) -> tuple[Box, bool]:
    """A box of a format in which it may be in pixels or in fractions of the sides, and True while it is in fractions.

    Fractions are taken for such where the row tells the picture's size and all four lie in 0 to 1. Otherwise ``unit``
    says it; it is never guessed. A box in fractions of a picture of unknown size stays so until the picture is there.

    Raises:
        BadRow: it is not told which unit is meant, or the box does not fit the picture in it.
    """
    _check_area(box, place, name)
    if unit is None and min(box) > -_NEARLY_FRACTION and max(box) <= _NEARLY_FRACTION:
        if size is None or min(box) < 0 or max(box) > 1:
            raise BadRow(
                place,
                f"{_shown(box, name)} is within one pixel, or in fractions of the sides: "
                "pass --boxes fractions or pixels",
            )
        unit = "fractions"
    if unit != "fractions":
        return clip_box(box, size, place, name), False
    if min(box) < -BOX_TOLERANCE_SHARE or max(box) > 1 + BOX_TOLERANCE_SHARE:
        raise BadRow(place, f"{_shown(box, name)} is not in fractions of the sides, from 0 to 1")
    x0, y0, x1, y1 = box
    if size is None:
        return (x0, y0, x1, y1), True
    width, height = size
    return clip_box((x0 * width, y0 * height, x1 * width, y1 * height), size, place, name), False


def check_one_unit(boxes: Sequence[Sequence[float]], place: str, name: str, unit: BoxUnit | None) -> None:
    """Refuse boxes of one row of which some can only be in pixels while others look like fractions.

    Raises:
        BadRow: they do, and ``unit`` does not say which is meant.
    """
    small = [box for box in boxes if max(box) <= 1]
    if unit is None and small and len(small) < len(boxes):
        raise BadRow(place, f"{_shown(small[0], name)} is within one pixel and others are not: pass --boxes pixels")


def was_clipped(box: Sequence[float], clipped: Sequence[float]) -> bool:
    """Tell whether a box was clipped by more than what rounding does."""
    return any(abs(before - after) > _ROUNDING for before, after in zip(box, clipped, strict=True))


def was_clipped_from(told: Sequence[float], box: Sequence[float], size: tuple[int, int] | None) -> bool:
    """Tell whether :func:`read_box` clipped what a row told, in either unit, to a picture of ``size``."""
    if size is None:
        return False
    scaled = [value * side for value, side in zip(told, (*size, *size), strict=True)]
    return was_clipped(told, box) and was_clipped(scaled, box)


def _tolerance(side: float) -> float:
    return BOX_TOLERANCE if math.isinf(side) else max(BOX_TOLERANCE, BOX_TOLERANCE_SHARE * side)


def _shown(box: Sequence[float], name: str) -> str:
    return f"{name}: ({', '.join(f'{value:g}' for value in box)})"


def _check_area(box: Sequence[float], place: str, name: str) -> None:
    x0, y0, x1, y1 = box
    if not all(map(math.isfinite, box)):
        raise BadRow(place, f"{_shown(box, name)} is not four finite numbers")
    if x0 >= x1 or y0 >= y1:
        raise BadRow(place, f"{_shown(box, name)} has no area: x0 < x1 and y0 < y1 would be right")


# What the rows of each format must hold. Other fields are ignored.


def _writable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair, which no file can") from None
    return text


def _not_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("it is empty")
    return text


def _identifier(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _coordinates(value: object) -> object:
    """The numbers of "x0,y0,x1,y1"."""
    if not isinstance(value, str):
        return value
    try:
        return [float(part) for part in value.split(",")]
    except ValueError:
        raise ValueError(f"it should be x0,y0,x1,y1, not {value[:60]!r}") from None


def _encoded_picture(value: object) -> object:
    """The bytes of base64, in either of its alphabets."""
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value.translate(str.maketrans("-_", "+/")), validate=True)
    except ValueError:
        raise ValueError("it is not base64") from None


Text = Annotated[str, AfterValidator(_writable)]
NonEmptyText = Annotated[Text, AfterValidator(_not_empty)]
Identifier = Annotated[NonEmptyText, BeforeValidator(_identifier)]
Coordinates = Annotated[list[float], Field(min_length=4, max_length=4), BeforeValidator(_coordinates)]


class RowPart(BaseModel):
    """Base of what rows must hold; other fields of a row are ignored."""

    model_config: ClassVar[ConfigDict] = ConfigDict(strict=True, frozen=True, extra="ignore")


class PicturedRow(RowPart):
    """A tab-separated row of OFA about a picture, its columns by name."""

    image_id: Annotated[Text, Field(alias="image-id")] = ""
    image: Annotated[bytes | None, BeforeValidator(_encoded_picture)] = None


class CaptionRow(PicturedRow):
    """A row of OFA's caption files; others have more columns."""

    id: Annotated[Identifier, Field(alias="uniq-id")]
    text: NonEmptyText


class _Phrase(CaptionRow):
    """A row of OFA's RefCOCO files, its columns by name."""

    box: Annotated[Coordinates, Field(alias="region-coord")]


# From rows to records.

P = TypeVar("P", bound=RowPart)


def parsed(model: type[P], row: object, place: str, within: str = "") -> P:
    """The fields of a row, or of a part of it that messages call ``within``.

    Raises:
        BadRow: one is missing or not what it should be.
    """
    try:
        return model.model_validate(row)
    except ValidationError as error:
        problem = first_problem(error)
        raise BadRow(place, f"{within}.{problem}" if within else problem) from None


def id_of_place(place: str) -> str:
    """File and row number, which stand in for an id: ``test.jsonl:3``."""
    return PurePath(place).name


def _refcoco(row: Mapping[str, Any], place: str) -> Record:
    data = parsed(_Phrase, row, place)
    return replace(with_picture(data, place), box=check_box(data.box, None, place, "region-coord"))


def _caption(row: Mapping[str, Any], place: str) -> Record:
    return with_picture(parsed(CaptionRow, row, place), place)


def with_picture(data: PicturedRow, place: str) -> Record:
    """The record of a tab-separated row with the fields that all such formats share."""
    if not data.image and not data.image_id.strip():
        raise BadRow(place, "image-id: the row names no picture and holds none")
    text = getattr(data, "text", "")
    return Record(_id(data, place), data.image_id.strip(), text=text, inline=data.image or None, place=place)


def _id(data: RowPart, place: str) -> str:
    """The row's own id, or the number of its line."""
    return getattr(data, "id", None) or place.rpartition(":")[2]


def fields_of(*models: type[BaseModel]) -> frozenset[str]:
    """The names, in a row, of all fields of ``models``."""
    return frozenset(info.alias or name for model in models for name, info in model.model_fields.items())


#: The record of a row by its format; :mod:`~ofa_core.data.formats` has them all.
RECORDS: Mapping[Format, Callable[[Mapping[str, Any], str], Record | None]] = {
    "refcoco": _refcoco,
    "caption": _caption,
}

#: The fields of a row that are looked at.
FIELDS: Mapping[Format, frozenset[str]] = {
    "refcoco": fields_of(_Phrase),
    "caption": fields_of(CaptionRow),
}
