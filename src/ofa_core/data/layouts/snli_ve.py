"""SNLI-VE: hypotheses about pictures of Flickr30k, in JSON lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AliasChoices, Field

from ..read_options import ReadOptions
from ..records import BadRow, Identifier, NonEmptyText, Record, RowPart, Text, id_of_place, parsed
from .layout import Layout

#: The label of a pair on which people do not agree; it is left out, as everywhere.
_NO_LABEL = "-"
#: The names under which versions of the files have the picture's id.
_PICTURE_IDS = ("Flickr30K_ID", "Flickr30kID", "Flikr30kID")


class _Pair(RowPart):
    label: Annotated[NonEmptyText, Field(alias="gold_label")]
    hypothesis: Annotated[NonEmptyText, Field(alias="sentence2")]
    caption: Annotated[Text, Field(alias="sentence1")] = ""
    id: Annotated[Identifier | None, Field(alias="pairID")] = None
    picture: Annotated[Identifier, Field(validation_alias=AliasChoices(*_PICTURE_IDS))]


def _record(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    data = parsed(_Pair, row, place)
    if data.label.strip() == _NO_LABEL:
        return []
    name = PurePosixPath(data.picture.strip())
    if not name.name:
        raise BadRow(place, f"{_PICTURE_IDS[0]}: it names no picture")
    return [
        Record(
            id=data.id or id_of_place(place),
            image=str(name if name.suffix else name.with_suffix(".jpg")),
            text=data.hypothesis,
            text2=data.caption,
            answer=data.label.strip(),
            place=place,
        )
    ]


_FIELDS = frozenset({"gold_label", "sentence1", "sentence2", "pairID", *_PICTURE_IDS})
LAYOUTS = (Layout("SNLI-VE", ("gold_label", "sentence2", "|".join(_PICTURE_IDS)), _record, _FIELDS),)
