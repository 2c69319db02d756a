"""Rows of files as what is asked of a head: the plain form without answers, and every published layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

from ..data.loading import DataFiles
from ..data.readers import COLUMNS
from ..data.records import BadRow, Format, Record
from ..errors import OFAError, shortened
from ..text.dialog import STYLES
from .heads import Head

#: The plain form: a picture beside texts, a dialog or a box.
ASKED: Format = "asked"
#: The first turn of a dialog that is a question of the agent.
_FIRST_QUESTIONS: Mapping[str, int] = {"guesswhat": 0, "invig": 1}
#: Rows that are looked at to tell the format of a file, whose first ones may be bad.
_LOOKED_AT = 20
#: Ends of the names of files whose columns have no names.
_WITHOUT_NAMES = (".tsv", ".tsv.gz")


@dataclass(frozen=True)
class Request:
    """A row that is asked once."""

    #: Its place among all that is asked, bad rows included, from 0.
    index: int
    record: Record
    #: Arguments of the head but the picture and the box, which depends on the picture's size.
    asked: Mapping[str, Any]

    def columns(self, head: Head) -> dict[str, Any]:
        """The arguments of the head but the picture, once the record fits it."""
        box = {"box": self.record.box} if "box" in head.columns else {}
        return {**self.asked, **box}


@dataclass(frozen=True)
class Question:
    """A head, the format of the rows that are put to it, and what is asked of rows that do not say it themselves."""

    head: Head
    format: Format
    given: Mapping[str, str]

    def requests(
        self, data: DataFiles, on_bad: Callable[[int, BadRow], None], limit: int | None = None
    ) -> Iterator[Request]:
        """The requests of all rows that can be used, numbered with the others, of which ``on_bad`` is told.

        Raises:
            OFAError: at once: there is no such file, or it is of another kind. While reading: it is damaged.
        """
        return islice(self._numbered(data, on_bad), limit)

    def _numbered(self, data: DataFiles, on_bad: Callable[[int, BadRow], None]) -> Iterator[Request]:
        index, seen = 0, set[tuple[str, int]]()

        def bad_row(bad: BadRow) -> None:
            nonlocal index
            index, place = index + 1, index
            on_bad(place, bad)

        for record in data.records(self.format, bad_row):
            if self._is_seen(record, seen):
                continue
            try:
                several = [self.asked(part) for part in self._parts(record)]
            except BadRow as bad:
                bad_row(bad)
                continue
            for number, asked in enumerate(several, 1):
                id = f"{record.id}/{number}" if len(several) > 1 else record.id
                yield Request(index, replace(record, id=id, kept={}), asked)
                index += 1

    def _parts(self, record: Record) -> Iterator[Record]:
        """The record; of a published dialog that an oracle is asked about, its questions with what was said before."""
        if self.head.name != "oracle" or self.format == ASKED:
            yield record
            return
        for turn in range(_FIRST_QUESTIONS[self.format], len(record.turns) - 1, 2):
            yield replace(record, turns=record.turns[:turn], text=record.turns[turn])

    def _is_seen(self, record: Record, seen: set[tuple[str, int]]) -> bool:
        """Tell whether a row of a published format shows a picture again, of which nothing but it is asked."""
        if self.format == ASKED or set(self.head.columns) != {"image"}:
            return False
        key = (record.image, hash(record.inline))
        if key in seen:
            return True
        seen.add(key)
        return False

    def asked(self, record: Record) -> dict[str, Any]:
        """The arguments of a record.

        Raises:
            BadRow: it lacks one.
        """
        has = _plain_columns(record) if self.format == ASKED else _published_columns(record, self.head)
        wanted = [name for name in (*self.head.columns, *self.head.optional) if name not in ("image", "box")]
        found = {name: has.get(name, self.given.get(name)) for name in wanted}
        missing = [name for name in self.head.columns if name in found and found[name] is None]
        if self.head.needs_image and not record.has_picture:
            missing.insert(0, "image")
        if "box" in self.head.columns and not any(record.box):
            missing.append("box")
        if missing:
            raise BadRow(record.place, f"{missing[0]}: {self.head.name} takes one, and the row has none")
        return {name: value for name, value in found.items() if value is not None}


def _plain_columns(record: Record) -> dict[str, Any]:
    return dict(record.kept)


def _published_columns(record: Record, head: Head) -> dict[str, Any]:
    """The columns of a record of a published format, by the names of the head's arguments."""
    caption = {"caption": record.text2} if head.name == "entails" and record.text2 else {}
    dialog = {"dialog": list(record.turns)} if "dialog" in (*head.columns, *head.optional) else {}
    text = {"text": record.text, "question": record.text} if record.text else {}
    return {**text, **caption, **dialog}


def told_question(head: Head, data: DataFiles, given: Mapping[str, str], format: str | None = None) -> Question:
    """The question of a head to rows, whose format is told by the first of them where it is not given.

    Raises:
        OFAError: the rows are of no format that the head takes, or there is no such file.
    """
    if format is not None:
        return Question(head, cast(Format, format), given)
    source = data.path
    if isinstance(source, Path) and not source.exists():
        raise OFAError(f"data {source} does not exist")
    formats = [cast(Format, name) for name in (ASKED, *head.formats)]
    if isinstance(source, Path) and source.name.lower().endswith(_WITHOUT_NAMES):
        formats = [name for name in formats if name in COLUMNS]
    reasons: dict[str, str] = {}
    for name in formats:
        question = Question(head, name, given)
        reasons[name] = _reason_against(question, data)
        if not reasons[name]:
            return question
    tried = "; ".join(f"{name}: {shortened(reason, 120)}" for name, reason in reasons.items())
    raise OFAError(f"{data.name} holds no rows that {head.name} takes ({tried})")


def _reason_against(question: Question, data: DataFiles) -> str:
    """The reason why the first rows are of another format; "" if one of them is of this one."""
    bad_rows: list[str] = []

    def on_bad(_: int, bad: BadRow) -> None:
        bad_rows.append(bad.reason)
        if len(bad_rows) == _LOOKED_AT:
            raise bad

    try:
        if next(question.requests(data, on_bad), None) is not None:
            return ""
    except OFAError as error:
        return bad_rows[0] if bad_rows else str(error)
    return bad_rows[0] if bad_rows else "there are no rows"


def usual_style(head: Head, format: Format) -> dict[str, str]:
    """The kind of dialog of rows of a format that is one itself."""
    return {"style": format} if "style" in head.shared and format in STYLES else {}
