"""Rows of the original's tab-separated files: what each must hold, and the record that it becomes.

Texts alone have no picture; rows without an id of their own are known by the number of their line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ..heads.glue import takes_two
from ..heads.tasks import GLUE, TASKS
from ..vision.boxes import Box
from .records import (
    BadRow,
    CaptionRow,
    Coordinates,
    Format,
    Identifier,
    NonEmptyText,
    PicturedRow,
    Record,
    RowPart,
    Text,
    check_box,
    fields_of,
    parsed,
    with_picture,
)


def _numbers(value: object) -> object:
    """The numbers of "5 8191 0"."""
    if not isinstance(value, str):
        return value
    try:
        return [int(part) for part in value.split()]
    except ValueError:
        raise ValueError(f"it should be whole numbers with spaces between them, not {value[:60]!r}") from None


Codes = Annotated[list[Annotated[int, Field(ge=0)]], BeforeValidator(_numbers), Field(min_length=1)]


def _weighed_answers(value: object) -> object:
    """The answers of "1.0|!+yes&&0.3|!+maybe" with their weights; a text without weights is one answer."""
    if not isinstance(value, str):
        return value
    pairs = [part.split("|!+", 1) if "|!+" in part else ["1", part] for part in value.split("&&")]
    try:
        return [(float(weight), answer) for weight, answer in pairs]
    except ValueError:
        raise ValueError(f"it should be weight|!+answer&&..., not {value[:60]!r}") from None


WeighedAnswers = Annotated[
    list[tuple[Annotated[float, Field(ge=0, le=1)], NonEmptyText]],
    BeforeValidator(_weighed_answers),
    Field(min_length=1),
]


def best_answer(answers: Sequence[tuple[float, str]]) -> tuple[float, str]:
    """The weight and the text of the answer with the largest weight.

    Of one that is given twice the later weight counts, of equal weights the first.
    """
    weights = _last_weights(answers)
    answer = max(weights, key=lambda one: weights[one])
    return weights[answer], answer


def _last_weights(answers: Sequence[tuple[float, str]]) -> dict[str, float]:
    """The weights of answers; of one that is given twice the later one."""
    return {answer: weight for weight, answer in answers}


#: The part of an answer's worth that each person adds who gives it, and VQA's score grants.
_WORTH = 0.3


def soft_answers(answers: Sequence[str]) -> list[tuple[float, str]]:
    """The answers of several people, each once with its weight: VQA's score of it, which ten of them judge."""
    return [(min(1.0, round(_WORTH * answers.count(answer), 1)), answer) for answer in dict.fromkeys(answers)]


class _Question(CaptionRow):
    """A row of OFA's VQA files, its columns by name."""

    answers: Annotated[WeighedAnswers, Field(alias="answer")]
    objects: Text | None = None


class _Hypothesis(PicturedRow):
    """A row of SNLI-VE: the text in question, another caption of the picture, and the label."""

    id: Annotated[Identifier, Field(alias="uniq-id")]
    text: NonEmptyText
    caption: Text = ""
    label: NonEmptyText


class _Class(PicturedRow):
    """A row of an image classification: a picture and the name of its class."""

    label: NonEmptyText


class _Writing(PicturedRow):
    """A row of OCR: a picture and what is written on it."""

    id: Annotated[Identifier, Field(alias="uniq-id")]
    text: NonEmptyText


class _Drawing(RowPart):
    """A row of image generation: the codes of a picture and its caption."""

    id: Annotated[Identifier, Field(alias="uniq-id")]
    codes: Codes
    text: NonEmptyText


class _Article(RowPart):
    """A row of Gigaword: an article and its summary."""

    text: NonEmptyText
    summary: NonEmptyText


class _Judged(RowPart):
    """A row of GLUE: one text and its label."""

    text: NonEmptyText
    label: NonEmptyText


class _JudgedPair(_Judged):
    """A row of GLUE: two texts and their label."""

    text2: NonEmptyText


class _Match(PicturedRow):
    """A picture, a text and whether they match."""

    id: Annotated[Identifier, Field(alias="uniq-id")]
    text: NonEmptyText
    label: NonEmptyText


class _AnswerMatch(_Match):
    """A picture, a question, an answer and whether it is right."""

    answer: NonEmptyText


Kind = Literal["caption", "qa", "visual_grounding"]


class _Pretraining(PicturedRow):
    """A row of pre-training about a picture: a caption, a question with its answers, or a phrase with its box."""

    id: Annotated[Identifier, Field(alias="uniq-id")]
    caption: Text
    question: Text
    refs: Text
    objects: Text
    dataset: Text
    type: Kind


class _Refs(RowPart):
    """The answers of a pre-training row."""

    answers: Annotated[WeighedAnswers, Field(alias="refs")]


class _Region(RowPart):
    """The box of a pre-training row."""

    box: Annotated[Coordinates, Field(alias="refs")]


class _Plain(RowPart):
    """A line of text."""

    text: NonEmptyText


class _Coded(PicturedRow):
    """A picture, and the codes of its middle."""

    codes: Codes


def _things(value: object) -> object:
    """The boxes and names of "x0,y0,x1,y1,id,name&&..."; a name may hold commas."""
    if not isinstance(value, str):
        return value
    found = []
    for part in value.strip().split("&&"):
        cells = part.strip().split(",", 5)
        try:
            found.append(([float(cell) for cell in cells[:4]], cells[5]))
        except (ValueError, IndexError):
            raise ValueError(f"it should be x0,y0,x1,y1,id,name&&..., not {part[:60]!r}") from None
    return found


class _Things(PicturedRow):
    """A picture and everything in it."""

    things: Annotated[
        list[tuple[Annotated[list[float], Field(min_length=4, max_length=4)], NonEmptyText]],
        BeforeValidator(_things),
        Field(min_length=1, alias="label"),
    ]


def _vqa(row: Mapping[str, Any], place: str) -> Record:
    data = parsed(_Question, row, place)
    weight, answer = best_answer(data.answers)
    record = replace(with_picture(data, place), answer=answer, agreement=weight, objects=names_in(data.objects))
    return replace(record, weighed=tuple((one, said) for said, one in _last_weights(data.answers).items()))


def names_in(cell: str | None) -> tuple[str, ...] | None:
    """The names of "man&&tree", of which some may be empty; no space is dropped within."""
    return None if cell is None else tuple(cell.strip().split("&&"))


def _hypothesis(row: Mapping[str, Any], place: str) -> Record:
    data = parsed(_Hypothesis, row, place)
    return replace(with_picture(data, place), text2=data.caption, answer=data.label.strip())


def _class(row: Mapping[str, Any], place: str) -> Record:
    return replace(with_picture(data := parsed(_Class, row, place), place), answer=data.label)


def _writing(row: Mapping[str, Any], place: str) -> Record:
    return with_picture(parsed(_Writing, row, place), place)


def _line(place: str) -> str:
    return place.rpartition(":")[2]


def _drawing(row: Mapping[str, Any], place: str) -> Record:
    data = parsed(_Drawing, row, place)
    return Record(data.id, "", text=data.text, codes=tuple(data.codes), place=place)


def _article(row: Mapping[str, Any], place: str) -> Record:
    data = parsed(_Article, row, place)
    return Record(_line(place), "", text=data.text, text2=data.summary, place=place)


def _judged(row: Mapping[str, Any], place: str) -> Record:
    data = parsed(_Judged, row, place)
    return Record(_line(place), "", text=data.text, answer=data.label.strip(), place=place)


def _judged_pair(row: Mapping[str, Any], place: str) -> Record:
    data = parsed(_JudgedPair, row, place)
    return Record(_line(place), "", text=data.text, text2=data.text2, answer=data.label.strip(), place=place)


def _match(row: Mapping[str, Any], place: str) -> Record:
    data = parsed(_Match, row, place)
    return replace(with_picture(data, place), answer=data.label.strip())


def _answer_match(row: Mapping[str, Any], place: str) -> Record:
    data = parsed(_AnswerMatch, row, place)
    return replace(with_picture(data, place), text2=data.answer, answer=data.label.strip())


def _pretraining(row: Mapping[str, Any], place: str) -> Record:
    data = parsed(_Pretraining, row, place)
    record = replace(with_picture(data, place), kind=data.type, dataset=data.dataset)
    text = data.question if data.type == "qa" else data.caption
    if not text.strip():
        raise BadRow(place, f"{'question' if data.type == 'qa' else 'caption'}: it is empty")
    record = replace(record, text=text, objects=names_in(data.objects) if data.objects.strip() else None)
    if data.type == "qa":
        weight, answer = best_answer(parsed(_Refs, row, place).answers)
        return replace(record, answer=answer, agreement=weight)
    if data.type == "visual_grounding":
        return replace(record, box=check_box(parsed(_Region, row, place).box, None, place, "refs"))
    return record


def _plain(row: Mapping[str, Any], place: str) -> Record:
    return Record(_line(place), "", text=parsed(_Plain, row, place).text, place=place)


def _coded(row: Mapping[str, Any], place: str) -> Record:
    return replace(with_picture(data := parsed(_Coded, row, place), place), codes=tuple(data.codes))


def _detection(row: Mapping[str, Any], place: str) -> Record:
    data = parsed(_Things, row, place)
    things: list[tuple[Box, str]] = [(check_box(box, None, place, "label"), name) for box, name in data.things]
    return replace(with_picture(data, place), things=tuple(things))


RECORDS: Mapping[Format, Callable[[Mapping[str, Any], str], Record | None]] = {
    "vqa": _vqa,
    "snli_ve": _hypothesis,
    "image_classify": _class,
    "image_gen": _drawing,
    "ocr": _writing,
    "gigaword": _article,
    **{name: _judged_pair if takes_two(TASKS[name]) else _judged for name in GLUE},
    "matching": _match,
    "answer_matching": _answer_match,
    "pretrain": _pretraining,
    "pretrain_text": _plain,
    "pretrain_image": _coded,
    "pretrain_detection": _detection,
}

FIELDS: Mapping[Format, frozenset[str]] = {
    "vqa": fields_of(_Question),
    "snli_ve": fields_of(_Hypothesis),
    "image_classify": fields_of(_Class),
    "image_gen": fields_of(_Drawing),
    "ocr": fields_of(_Writing),
    "gigaword": fields_of(_Article),
    **{name: fields_of(_JudgedPair if takes_two(TASKS[name]) else _Judged) for name in GLUE},
    "matching": fields_of(_Match),
    "answer_matching": fields_of(_AnswerMatch),
    "pretrain": fields_of(_Pretraining),
    "pretrain_text": fields_of(_Plain),
    "pretrain_image": fields_of(_Coded),
    "pretrain_detection": fields_of(_Things),
}
