"""A row of a benchmark's data: what each format must hold, and the one form that all of them become."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..errors import OFAError, first_problem, shortened
from ..vision.boxes import Box

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
    "pretrain",
    "pretrain_text",
    "pretrain_image",
    "pretrain_detection",
]

#: The box of records in formats that have none.
NO_BOX: Box = (0.0, 0.0, 0.0, 0.0)

#: Pixels by which a box may reach over the picture's edge before it is an error; it is clipped to the picture.
BOX_TOLERANCE = 1.0


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
    category: str = ""
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
        if self.things:
            fitted = tuple((check_box(box, size, self.place, "label"), name) for box, name in self.things)
            return replace(self, things=fitted, size=size)
        if self.box == NO_BOX:
            return replace(self, size=size)
        return replace(self, box=check_box(self.box, size, self.place, "box"), size=size)


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
        BadRow: it is not finite, has no area, lies within one pixel (so it was given in fractions), or reaches more
            than :data:`SLACK` over an edge. The row is named by ``place`` and its field by ``name``.
    """
    x0, y0, x1, y1 = box
    shown = f"{name}: ({', '.join(f'{value:g}' for value in box)})"
    width, height = (math.inf, math.inf) if size is None else size
    if not all(map(math.isfinite, box)):
        raise BadRow(place, f"{shown} is not four finite numbers")
    if x0 >= x1 or y0 >= y1:
        raise BadRow(place, f"{shown} has no area: x0 < x1 and y0 < y1 would be right")
    if min(box) >= 0 and max(box) <= 1:
        raise BadRow(place, f"{shown} lies within one pixel: boxes are in pixels, not in fractions")
    fits = (
        x0 >= -BOX_TOLERANCE and y0 >= -BOX_TOLERANCE and x1 <= width + BOX_TOLERANCE and y1 <= height + BOX_TOLERANCE
    )
    clipped = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
    if not fits or clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        picture = "the picture" if size is None else f"the picture of {width} × {height} pixels"
        raise BadRow(place, f"{shown} is not within {picture}")
    return clipped


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


def _answer(text: str) -> str:
    answer = text.strip().lower()
    if answer not in ("yes", "no", "n/a"):
        raise ValueError(f"an answer is yes, no or n/a, not {text[:40]!r}")
    return answer


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

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class _Status(RowPart):
    status: Literal["success", "failure", "incomplete"]


class _GameImage(RowPart):
    file_name: NonEmptyText
    width: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]


class _GameObject(RowPart):
    id: int
    category: Text
    bbox: Annotated[list[float], Field(min_length=4, max_length=4)]  # x, y, width, height


class _Asked(RowPart):
    question: NonEmptyText
    answer: Annotated[Text, AfterValidator(_answer)]


class _Game(RowPart):
    """A successful game of GuessWhat?!, as it was released."""

    id: Identifier
    image: _GameImage
    objects: list[_GameObject]
    object_id: int
    qas: Annotated[list[_Asked], Field(min_length=1)]


class _InlineImage(RowPart):
    """A picture as the library ``datasets`` stores it."""

    encoded: Annotated[bytes | None, Field(alias="bytes")] = None
    path: Text | None = None


class _Dialog(RowPart):
    """A row of InViG."""

    id: Identifier
    bbox: Coordinates
    dialog: list[Annotated[list[Text | None], Field(min_length=2, max_length=2)]]
    image_path: Text | None = None
    image: _InlineImage | bytes | Text | None = None
    category: Text | None = None
    caption: Text | list[Text] | None = None
    captions: Text | list[Text] | None = None


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


def parsed(model: type[P], row: Mapping[str, Any], place: str) -> P:
    """The fields of a row.

    Raises:
        BadRow: one is missing or not what it should be.
    """
    try:
        return model.model_validate(row)
    except ValidationError as error:
        raise BadRow(place, first_problem(error)) from None


def _guesswhat(row: Mapping[str, Any], place: str) -> Record | None:
    """Successful games alone, as the published results take them; what others lack is no error."""
    if parsed(_Status, row, place).status != "success":
        return None
    game = parsed(_Game, row, place)
    found = [thing for thing in game.objects if thing.id == game.object_id]
    if len(found) != 1:
        ids = ", ".join(str(thing.id) for thing in game.objects[:8])
        raise BadRow(place, f"object_id: {len(found)} of the objects ({ids}) are {game.object_id}, one should be")
    x, y, width, height = found[0].bbox
    size = (game.image.width, game.image.height)
    return Record(
        id=game.id,
        image=game.image.file_name,
        box=check_box((x, y, x + width, y + height), size, place, "bbox"),
        turns=tuple(turn for pair in game.qas for turn in (pair.question, pair.answer)),
        category=found[0].category,
        size=size,
        place=place,
    )


def _invig(row: Mapping[str, Any], place: str) -> Record:
    data = parsed(_Dialog, row, place)
    inline = data.image.encoded if isinstance(data.image, _InlineImage) else data.image
    named = data.image.path if isinstance(data.image, _InlineImage) else data.image
    paths = [path for path in (data.image_path, named) if isinstance(path, str) and path.strip()]
    encoded = inline if isinstance(inline, bytes) and inline else None
    if not paths and encoded is None:
        raise BadRow(place, "image_path: the row names no picture and holds none")
    captions = [text for given in (data.caption, data.captions) for text in _listed(given) if text.strip()]
    return Record(
        id=data.id,
        image=paths[0] if paths else "",
        box=check_box(data.bbox, None, place, "bbox"),
        turns=_alternating([text or "" for pair in data.dialog for text in pair], place),
        text=captions[0] if captions else "",
        category=data.category or "",
        inline=encoded,
        place=place,
    )


def _listed(given: str | list[str] | None) -> list[str]:
    return [given] if isinstance(given, str) else given or []


def _alternating(texts: Sequence[str], place: str) -> tuple[str, ...]:
    """The turns of a dialog, the person's query first.

    Only the first text (nothing was asked before the query) and the last ones (nobody answered) may be empty: without
    one in between, everything after it would be in the mouth of the wrong speaker.
    """
    said = [bool(text.strip()) for text in texts]
    if not any(said[:2]):
        raise BadRow(place, "dialog: it does not begin with a query")
    first, last = said.index(True), len(said) - said[::-1].index(True)
    if not all(said[first:last]):
        gap = said.index(False, first)
        raise BadRow(place, f"dialog: pair {gap // 2} holds an empty text, and the dialog goes on after it")
    return tuple(texts[first:last])


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
    "guesswhat": _guesswhat,
    "invig": _invig,
    "refcoco": _refcoco,
    "caption": _caption,
}

#: The fields of a row that are looked at.
FIELDS: Mapping[Format, frozenset[str]] = {
    "guesswhat": fields_of(_Status, _Game),
    "invig": fields_of(_Dialog),
    "refcoco": fields_of(_Phrase),
    "caption": fields_of(CaptionRow),
}
