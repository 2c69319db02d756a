"""GuessWhat?!: games as they were released in 2016 and 2022, and as the hub has them.

What is wrong with things that are not asked about, such as another object, is no error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ...vision.boxes import Box
from ..read_options import ReadOptions
from ..records import (
    BadRow,
    Coordinates,
    Identifier,
    NonEmptyText,
    Record,
    RowPart,
    Text,
    clip_box,
    fields_of,
    fitting_boxes,
    id_of_place,
    parsed,
    read_box,
    was_clipped,
)
from .layout import ImageField, Layout, file_of_url, picture_of

#: The ways in which people's answers are written, and the answers.
ANSWERS: Mapping[str, str] = {"yes": "yes", "no": "no", "n/a": "n/a", "na": "n/a"}


#: A coordinate that no picture has.
_FAR = 1e9


def _answer(text: str) -> str:
    answer = ANSWERS.get(text.strip().lower())
    if answer is None:
        raise ValueError(f"an answer is yes, no or n/a, not {text[:40]!r}")
    return answer


def _whole(value: object) -> object:
    """A whole number that is written with a point."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Side = Annotated[int | None, BeforeValidator(_whole), Field(gt=0)]
SaidAnswer = Annotated[Text, AfterValidator(_answer)]


class _Status(RowPart):
    status: Literal["success", "failure", "incomplete"]


class _GameImage(RowPart):
    file_name: Text | None = None
    width: Side = None
    height: Side = None


class _GameObject(RowPart):
    category: Text | None = None
    bbox: Annotated[list[float], Field(min_length=4, max_length=4)]  # x, y, width, height


class _Asked(RowPart):
    question: NonEmptyText
    answer: SaidAnswer


class _Game(RowPart):
    """A successful game, its fields under the names of 2016."""

    id: Identifier
    image: dict[str, Any]
    objects: list[Any]
    object_id: Identifier
    qas: Annotated[list[dict[str, Any]], Field(min_length=1)]


class _HubGame(RowPart):
    """A successful game of the hub's table."""

    dialog: Annotated[list[Annotated[list[Text], Field(min_length=2, max_length=2)]], Field(min_length=1)]
    bbox: Coordinates  # x0, y0, x1, y1
    image_path: Text | None = None
    image: ImageField = None
    anns_id: Identifier | None = None
    category: Text | None = None
    raw_info: Text | None = None


#: The names that fields have in 2022, by those of 2016.
_NAMES_OF_2022: Mapping[str, str] = {"id": "dialogue_id", "image": "picture"}
_PAIR_NAMES_OF_2022: Mapping[str, str] = {"question": "q", "answer": "a"}


def _renamed(row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """A row with fields under the names of 2016, whichever it has them under."""
    return {**row, **{name: row[other] for name, other in names.items() if name not in row and other in row}}


def _game(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    """Successful games alone, as the published results take them; what others lack is no error."""
    if parsed(_Status, row, place).status != "success":
        return []
    row = _renamed(row, _NAMES_OF_2022)
    objects = row.get("objects")
    if isinstance(objects, Mapping):
        row["objects"] = [{"id": key, **thing} for key, thing in objects.items() if isinstance(thing, Mapping)]
    data = parsed(_Game, row, place)
    image = parsed(_GameImage, data.image, place, "image")
    size = None if image.width is None or image.height is None else (image.width, image.height)
    thing = _target(data, place)
    x, y, width, height = thing.bbox
    box = clip_box((x, y, x + width, y + height), size, place, "bbox")
    pairs = [_renamed(pair, _PAIR_NAMES_OF_2022) for pair in data.qas]
    said = [parsed(_Asked, pair, place, f"qas.{index}") for index, pair in enumerate(pairs)]
    return [
        Record(
            id=data.id,
            image=_file_name(image, data.image, place),
            box=box,
            turns=tuple(turn for pair in said for turn in (pair.question, pair.answer)),
            object_boxes=fitting_boxes(_object_boxes(data), size),
            category=thing.category or "",
            size=size,
            clipped=size is not None and was_clipped((x, y, x + width, y + height), box),
            place=place,
        )
    ]


def _target(data: _Game, place: str) -> _GameObject:
    """The object that the game is about; nothing of the others is looked at but their ids."""
    ids = [_object_id(thing) for thing in data.objects]
    if ids.count(data.object_id) != 1:
        shown = ", ".join(id or "?" for id in ids[:8])
        raise BadRow(
            place,
            f"object_id: {ids.count(data.object_id)} of the objects ({shown}) are {data.object_id}, one should be",
        )
    index = ids.index(data.object_id)
    return parsed(_GameObject, data.objects[index], place, f"objects.{index}")


def _object_boxes(data: _Game) -> Iterator[Box]:
    """The boxes of all objects that have one."""
    for thing in data.objects:
        box = thing.get("bbox") if isinstance(thing, Mapping) else None
        if isinstance(box, Sequence) and len(box) == 4 and all(map(_is_coordinate, box)):
            x, y, width, height = box
            yield (x, y, x + width, y + height)


def _is_coordinate(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < _FAR


def _object_id(thing: object) -> str | None:
    """The id of an object; by the key of a mapping, or a field of either name."""
    if not isinstance(thing, Mapping):
        return None
    own = thing.get("id", thing.get("object_id"))
    return None if own is None else str(own)


def _file_name(image: _GameImage, row: Mapping[str, Any], place: str) -> str:
    names = [(image.file_name or "").strip(), file_of_url(row.get("coco_url")), file_of_url(row.get("flickr_url"))]
    name = next(filter(None, names), "")
    if not name:
        raise BadRow(place, "image.file_name: it is empty or missing, and coco_url names no picture")
    return name


def _hub_game(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    data = parsed(_HubGame, row, place)
    if _status_of(data.raw_info) not in (None, "success"):
        return []
    box, in_fractions = read_box(data.bbox, None, place, "bbox", options.boxes)
    return [
        Record(
            id=data.anns_id or id_of_place(place),
            **picture_of(data.image, data.image_path, place=place, name="image_path"),
            box=box,
            turns=answered(data.dialog, place),
            category=data.category or "",
            in_fractions=in_fractions,
            place=place,
        )
    ]


def answered(pairs: Sequence[Sequence[str]], place: str) -> tuple[str, ...]:
    """The turns of pairs of a question and its answer.

    Raises:
        BadRow: a question is empty, or an answer is none.
    """
    said = [parsed(_Asked, {"question": q, "answer": a}, place, f"dialog.{at}") for at, (q, a) in enumerate(pairs)]
    return tuple(turn for pair in said for turn in (pair.question, pair.answer))


def _status_of(raw_info: str | None) -> str | None:
    """The outcome of a game, where what the hub kept of its row tells."""
    try:
        info = json.loads(raw_info or "{}")
    except (ValueError, RecursionError):
        return None
    status = info.get("status") if isinstance(info, Mapping) else None
    return status if isinstance(status, str) else None


_GAME_FIELDS = fields_of(_Status, _Game) | set(_NAMES_OF_2022.values())
LAYOUTS = (
    Layout("GuessWhat?! as released", ("status",), _game, frozenset(_GAME_FIELDS)),
    Layout("GuessWhat?! of the hub", ("dialog", "bbox"), _hub_game, fields_of(_HubGame), never=("dialog_cn",)),
)
