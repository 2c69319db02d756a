"""VQAv2: questions with what the file of annotations says about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ...errors import OFAError
from ..read_options import ReadOptions
from ..records import Identifier, NonEmptyText, Record, RowPart, Text, fields_of, parsed
from ..task_records import best_answer, soft_answers
from .layout import Layout
from .whole_files import read_json, rows_under

_QUESTIONS, _ANNOTATIONS = "questions", "annotations"


class _Said(RowPart):
    answer: Text
    answer_id: Identifier | None = None


class _Question(RowPart):
    """A question and its answers, joined."""

    question_id: Identifier
    question: NonEmptyText
    picture: NonEmptyText
    answers: Annotated[list[_Said], Field(min_length=1)]
    multiple_choice_answer: Text = ""
    question_type: Text = ""
    answer_type: Text = ""


def question_rows(path: Path, content: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The questions of a file, each with its annotation out of the file beside it.

    Raises:
        OFAError: there is no such file, or it is of another data set.
    """
    beside = _annotations_beside(path)
    annotated = {str(one.get("question_id")): one for _, one in rows_under(beside, read_json(beside), _ANNOTATIONS)}
    subtype = content.get("data_subtype")
    for place, row in rows_under(path, content, _QUESTIONS):
        found = annotated.get(str(row.get("question_id")))
        if found is None:
            raise OFAError(f"{place}: question {row.get('question_id')} has no annotation in {beside}")
        yield place, {**row, **found, "picture": _picture(row, subtype)}


def _picture(row: Mapping[str, Any], subtype: object) -> str:
    """The file name of COCO, which knows the picture's number and its part of the data set."""
    number = row.get("image_id")
    if isinstance(number, int) and isinstance(subtype, str):
        return f"COCO_{subtype}_{number:012d}.jpg"
    return str(number or "")


def _annotations_beside(path: Path) -> Path:
    """The file that is named as the questions are, or the only one of annotations in the directory."""
    found = annotation_files(path)
    if len(found) != 1:
        raise OFAError(f"{path} needs the file of its annotations beside it: {_annotations_name(path)}")
    return found[0]


def annotation_files(path: Path) -> list[Path]:
    """The file of annotations that goes with a file of questions; where none has its name, all that there are."""
    named = path.with_name(_annotations_name(path))
    if named != path and named.is_file():
        return [named]
    return sorted(path.parent.glob(f"*{_ANNOTATIONS}*.json"))


def _annotations_name(path: Path) -> str:
    return path.name.replace("OpenEnded_", "").replace(_QUESTIONS, _ANNOTATIONS)


def _record(row: Mapping[str, Any], place: str, options: ReadOptions) -> list[Record]:
    data = parsed(_Question, row, place)
    answers = [one.answer for one in data.answers]
    weighed = soft_answers(answers)
    weight, answer = best_answer(weighed)
    return [
        Record(
            id=data.question_id,
            image=data.picture,
            text=data.question,
            answer=answer,
            agreement=weight,
            references=tuple(answers),
            weighed=tuple(weighed),
            category=data.question_type,
            kept=_kept(data),
            place=place,
        )
    ]


def _kept(data: _Question) -> dict[str, Any]:
    """The kind of the answer; and whether its people are told apart, where they are not."""
    ids = [one.answer_id for one in data.answers]
    alike = len({*ids}) < len(ids) and None not in ids
    kept: dict[str, Any] = {"answer_type": data.answer_type} if data.answer_type else {}
    return kept | ({"answer_ids_distinct": False} if alike else {})


LAYOUTS = (Layout("VQAv2", ("question_id", "question", "answers"), _record, fields_of(_Question)),)
