"""Conversations about a picture: questions and their answers (VisDial, LLaVA), maybe with a caption."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ..read_options import ReadOptions
from ..records import BadRow, Identifier, NonEmptyText, Record, RowPart, Text, fields_of, id_of_place, parsed
from .layout import ImageField, Layout, picture_of
from .whole_files import rows_under

#: The mark of the picture in LLaVA's first question.
_PICTURE_MARK = "<image>"

Turns = Annotated[list[Annotated[list[NonEmptyText], Field(min_length=2, max_length=2)]], Field(min_length=1)]


class _Plain(RowPart):
    """A picture and pairs of a question and its answer."""

    dialog: Turns
    id: Identifier | None = None
    image: ImageField = None
    file_name: Text | None = None
    caption: Text = ""


class _Said(RowPart):
    speaker: Annotated[Literal["human", "gpt"], Field(alias="from")]
    value: NonEmptyText


class _Llava(RowPart):
    """A picture and turns, of which the human has every other one."""

    id: Identifier | None = None
    image: NonEmptyText
    conversations: Annotated[list[_Said], Field(min_length=2)]


class _Asked(RowPart):
    question: NonEmptyText
    answer: NonEmptyText


class _VisDial(RowPart):
    """A picture of COCO, its caption, and questions with their answers, joined."""

    image_id: int
    split: Text
    caption: Text
    asked: Annotated[list[_Asked], Field(min_length=1)]


def visdial_rows(path: Path, content: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each dialog of VisDial's file, with the texts that it names by number; a last question without answer is none."""
    data = content["data"] if isinstance(content["data"], Mapping) else {}
    texts = {name: data.get(f"{name}s") for name in ("question", "answer")}
    if not all(isinstance(found, list) for found in texts.values()):
        raise BadRow(str(path), "data: it should hold the lists questions, answers and dialogs")
    for place, dialog in rows_under(path, data, "dialogs"):
        pairs = dialog.get("dialog")
        if not isinstance(pairs, list):
            raise BadRow(place, "dialog: it should be a list of numbers of questions and answers")
        said = [_texts(pair, texts, place) for pair in pairs if isinstance(pair, Mapping) and "answer" in pair]
        yield place, {"visdial": {**dialog, "asked": said, "split": content["split"]}}


def _texts(pair: Mapping[str, Any], texts: Mapping[str, Any], place: str) -> dict[str, Any]:
    found = {}
    for name, among in texts.items():
        number = pair.get(name)
        if not isinstance(number, int) or not 0 <= number < len(among):
            raise BadRow(place, f"dialog: {name} {number!r} is none of 0 to {len(among) - 1}")
        found[name] = among[number]
    return found


def _plain(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    data = parsed(_Plain, row, place)
    return [
        Record(
            data.id or id_of_place(place),
            **picture_of(data.image, data.file_name, place=place, name="image"),
            turns=tuple(turn for pair in data.dialog for turn in pair),
            text=data.caption.strip(),
            place=place,
        )
    ]


def _llava(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    data = parsed(_Llava, row, place)
    for number, said in enumerate(data.conversations):
        if said.speaker != ("human", "gpt")[number % 2]:
            raise BadRow(place, f"conversations.{number}.from: human and gpt should speak in turn, human first")
    turns = [said.value.replace(_PICTURE_MARK, "").strip() for said in data.conversations]
    turns = turns[: len(turns) - len(turns) % 2]
    if not all(turns):
        raise BadRow(place, f"conversations.{turns.index('')}.value: it is empty")
    return [Record(data.id or id_of_place(place), data.image, turns=tuple(turns), place=place)]


def _visdial(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    data = parsed(_VisDial, row["visdial"], place)
    turns = tuple(turn for pair in data.asked for turn in (pair.question, pair.answer))
    # its training set has pictures of COCO, the others have pictures of their own
    collection = "" if data.split.startswith("train") else f"VisualDialog_{data.split}_"
    name = f"{collection}{data.image_id:012d}.jpg"
    return [Record(str(data.image_id), name, turns=turns, text=data.caption.strip(), split=data.split, place=place)]


LAYOUTS = (
    Layout("VisDial", ("visdial",), _visdial, frozenset({"visdial"})),
    Layout("LLaVA", ("conversations",), _llava, fields_of(_Llava)),
    Layout("plain rows", ("image|file_name", "dialog"), _plain, fields_of(_Plain)),
)
