"""The plain form: ``image`` beside ``text``, ``box``, ``boxes``, ``dialog``, ``question``, ``answer``, ``label``, ...

The same fields stand in a folder of pictures with ``metadata.jsonl``, where ``file_name`` names the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ..read_options import ReadOptions
from ..records import (
    BadRow,
    Coordinates,
    Identifier,
    NonEmptyText,
    Record,
    RowPart,
    Text,
    check_one_unit,
    fields_of,
    id_of_place,
    parsed,
    read_box,
    was_clipped_from,
)
from ..task_records import best_answer, soft_answers
from ..templates import BOX, templates_of
from .guesswhat import answered
from .invig import alternating, up_to_last_question
from .layout import ImageField, Layout, picture_of


class _Plain(RowPart):
    """The fields of every plain row."""

    id: Identifier | None = None
    image: ImageField = None
    file_name: Text | None = None
    width: Annotated[int | None, Field(gt=0)] = None
    height: Annotated[int | None, Field(gt=0)] = None
    split: Text = ""

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of the picture, where the row tells."""
        return None if self.width is None or self.height is None else (self.width, self.height)


class _Phrase(_Plain):
    text: NonEmptyText
    box: Coordinates


class _Phrases(_Plain):
    text: NonEmptyText
    boxes: list[Coordinates]


class _Caption(_Plain):
    text: NonEmptyText | Annotated[list[NonEmptyText], Field(min_length=1)]


class _Question(_Plain):
    question: NonEmptyText
    answer: NonEmptyText | Annotated[list[NonEmptyText], Field(min_length=1)]
    objects: list[Text] | None = None


class _Hypothesis(_Plain):
    text: NonEmptyText
    label: NonEmptyText
    caption: Text = ""


class _Class(_Plain):
    label: NonEmptyText


class _Match(_Plain):
    text: NonEmptyText
    label: NonEmptyText


class _AnswerMatch(_Plain):
    question: NonEmptyText
    answer: NonEmptyText
    label: NonEmptyText


class _Things(_Plain):
    boxes: Annotated[list[Coordinates], Field(min_length=1)]
    label: list[NonEmptyText]


def _pairs(value: object) -> object:
    """Turns in one list, or in pairs."""
    if isinstance(value, list) and value and all(isinstance(turn, str) for turn in value):
        return [value]
    return value


class _Own(_Plain):
    """A row of a task of one's own, whose other columns are those that its templates name."""

    box: Coordinates | None = None


class _Asked(_Plain):
    """Columns of what is asked, without what is right: whatever of these a head takes."""

    text: NonEmptyText | None = None
    question: NonEmptyText | None = None
    caption: NonEmptyText | None = None
    answer: NonEmptyText | None = None
    dialog: Annotated[list[list[Text | None]] | None, BeforeValidator(_pairs)] = None
    box: Coordinates | None = None


class _Dialog(_Plain):
    """A dialog as a list of turns or of pairs, and the region that it is about."""

    dialog: Annotated[list[list[Text | None]], BeforeValidator(_pairs), Field(min_length=1)]
    box: Coordinates
    category: Text | None = None


def _record(data: _Plain, place: str) -> Record:
    return Record(
        data.id or id_of_place(place),
        **picture_of(data.image, data.file_name, place=place, name="image"),
        size=data.size,
        split=data.split,
        place=place,
    )


def _with_boxes(record: Record, boxes: Sequence[Sequence[float]], name: str, options: ReadOptions) -> Record:
    """A record with ``boxes``, all of which are in one unit."""
    check_one_unit(boxes, record.place, name, options.boxes)
    read = [read_box(box, record.size, record.place, name, options.boxes) for box in boxes]
    clipped = any(was_clipped_from(told, box, record.size) for told, (box, _) in zip(boxes, read, strict=True))
    return replace(
        record, boxes=tuple(box for box, _ in read), in_fractions=any(part for _, part in read), clipped=clipped
    )


def _with_box(record: Record, box: Sequence[float], options: ReadOptions) -> Record:
    record = _with_boxes(record, [box], "box", options)
    return replace(record, box=record.boxes[0], boxes=())


def _phrase(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    data = parsed(_Phrase, row, place)
    return [_with_box(replace(_record(data, place), text=data.text), data.box, options)]


def _phrases(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    data = parsed(_Phrases, row, place)
    return [_with_boxes(replace(_record(data, place), text=data.text), data.boxes, "boxes", options)]


def _caption(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    """A record for each caption of a picture."""
    data = parsed(_Caption, row, place)
    texts = [data.text] if isinstance(data.text, str) else data.text
    record = _record(data, place)
    record = replace(record, references=tuple(texts), row_id=record.id if len(texts) > 1 else "")
    ids = [record.id] if len(texts) == 1 else [f"{record.id}/{number}" for number in range(1, len(texts) + 1)]
    return [replace(record, id=id, text=text) for id, text in zip(ids, texts, strict=True)]


def _question(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    """One answer, or those of several people."""
    data = parsed(_Question, row, place)
    answers = [data.answer] if isinstance(data.answer, str) else data.answer
    weight, answer = (1.0, answers[0]) if len(answers) == 1 else best_answer(soft_answers(answers))
    return [
        replace(
            _record(data, place),
            text=data.question,
            answer=answer,
            agreement=weight,
            references=tuple(answers) if len(answers) > 1 else (),
            weighed=tuple(soft_answers(answers)) if len(answers) > 1 else ((1.0, answers[0]),),
            objects=None if data.objects is None else tuple(data.objects),
        )
    ]


def _hypothesis(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    data = parsed(_Hypothesis, row, place)
    return [replace(_record(data, place), text=data.text, text2=data.caption, answer=data.label.strip())]


def _class(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    return [replace(_record(data := parsed(_Class, row, place), place), answer=data.label)]


def _match(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    data = parsed(_Match, row, place)
    return [replace(_record(data, place), text=data.text, answer=data.label.strip())]


def _answer_match(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    data = parsed(_AnswerMatch, row, place)
    return [replace(_record(data, place), text=data.question, text2=data.answer, answer=data.label.strip())]


def _things(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    data = parsed(_Things, row, place)
    if len(data.label) != len(data.boxes):
        raise BadRow(place, f"label: there are {len(data.label)} names for {len(data.boxes)} boxes")
    record = _with_boxes(_record(data, place), data.boxes, "boxes", options)
    return [replace(record, things=tuple(zip(record.boxes, data.label, strict=True)), boxes=())]


def _own(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    """A source and a target with the row's columns; a picture and a box where there are some."""
    source, target = templates_of(options)
    with_box = source.has_box or target.has_box
    data = parsed(_Own, row if with_box else {name: value for name, value in row.items() if name != BOX}, place)
    record = Record(
        data.id or id_of_place(place),
        **_picture_or_none(data, place),
        source=source.fill(row, place),
        target=target.fill(row, place),
        size=data.size,
        split=data.split,
        place=place,
    )
    if not with_box:
        return [record]
    if data.box is None or not record.has_picture:
        missing = "box: a template names it, and the row has none" if data.box is None else "image: a box is on none"
        raise BadRow(place, missing)
    return [_with_box(record, data.box, options)]


def _asked(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    """The texts and turns of a row as they are, in ``kept``; its box like any other."""
    data = parsed(_Asked, row, place)
    kept: dict[str, Any] = {name: text for name in ASKED_TEXTS if (text := getattr(data, name)) is not None}
    if data.dialog is not None:
        kept["dialog"] = [text or "" for pair in data.dialog for text in pair]
    record = Record(
        data.id or id_of_place(place),
        **_picture_or_none(data, place),
        size=data.size,
        split=data.split,
        kept=kept,
        place=place,
    )
    return [record if data.box is None else _with_box(record, data.box, options)]


def _picture_or_none(data: _Plain, place: str) -> dict[str, Any]:
    given = (data.image, data.file_name)
    return picture_of(data.image, data.file_name, place=place, name="image") if any(given) else {"image": ""}


def _dialog(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    """A dialog whose first turn is the person's query, or an empty text before it."""
    data = parsed(_Dialog, row, place)
    turns = alternating([text or "" for pair in data.dialog for text in pair], place)
    turns = turns if options.keep_last_turn else up_to_last_question(turns)
    return [_with_box(replace(_record(data, place), turns=turns, category=data.category or ""), data.box, options)]


def _game(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    """Questions and their answers: yes, no or n/a."""
    data = parsed(_Dialog, row, place)
    turns = [text or "" for pair in data.dialog for text in pair]
    if len(turns) % 2:
        raise BadRow(place, "dialog: the last question has no answer")
    said = answered([turns[at : at + 2] for at in range(0, len(turns), 2)], place)
    return [_with_box(replace(_record(data, place), turns=said, category=data.category or ""), data.box, options)]


#: The texts that a row may ask with.
ASKED_TEXTS = ("text", "question", "caption", "answer")

_PICTURE = "image|file_name"
PHRASE = Layout("plain rows", (_PICTURE, "text", "box"), _phrase, fields_of(_Phrase))
PHRASES = Layout("plain rows", (_PICTURE, "text", "boxes"), _phrases, fields_of(_Phrases))
CAPTION = Layout("plain rows", (_PICTURE, "text"), _caption, fields_of(_Caption))
QUESTION = Layout("plain rows", (_PICTURE, "question", "answer"), _question, fields_of(_Question))
HYPOTHESIS = Layout("plain rows", (_PICTURE, "text", "label"), _hypothesis, fields_of(_Hypothesis))
CLASS = Layout("plain rows", (_PICTURE, "label"), _class, fields_of(_Class))
WRITING = Layout("plain rows", (_PICTURE, "text"), _caption, fields_of(_Caption))
MATCH = Layout("plain rows", (_PICTURE, "text", "label"), _match, fields_of(_Match))
ANSWER_MATCH = Layout("plain rows", (_PICTURE, "question", "answer", "label"), _answer_match, fields_of(_AnswerMatch))
THINGS = Layout("plain rows", (_PICTURE, "boxes", "label"), _things, fields_of(_Things))
OWN = Layout("rows of one's own", (), _own, fields_of(_Own), takes_all=True)
ASKED = Layout("what is asked", (), _asked, fields_of(_Asked))
DIALOG = Layout("plain rows", (_PICTURE, "dialog", "box"), _dialog, fields_of(_Dialog))
GAME = Layout("plain rows", (_PICTURE, "dialog", "box"), _game, fields_of(_Dialog))
