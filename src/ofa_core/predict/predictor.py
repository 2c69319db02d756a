"""A callable from rows to answers, as engines of many machines take it: one a process, a batch a call."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..api import OFA, load
from ..data.formats import parse_row
from ..data.images import Images
from ..data.read_options import USUAL
from ..data.records import BadRow
from ..errors import OFAError
from ..heads.pipeline import Pipeline, PreparedImage
from ..heads.tasks import TASKS
from .answers import answer_each, result_fields
from .heads import HEADS, Head
from .requests import ASKED, Question, Request


class Predictor:
    """A loaded model and a head, called with a batch of rows.

    It holds no open file but the pictures', so that it can be made anew in every process of Ray Data, Spark or
    :mod:`multiprocessing`; see ``examples/predict_ray.py``.

    Args:
        head: the name of a head, such as ``ground``.
        model: what :func:`ofa_core.load` takes, or a model that is loaded.
        images: a directory or an archive of the pictures that rows name; None where rows hold them, or their paths from
            the current directory.
        allow_outside: whether rows may name pictures outside of ``images``.
        given: texts that are asked of rows which hold none, by name, such as ``{"text": "the dog"}``.
        shared: arguments of the head's method that are the same for all rows.
        load_options: options of :func:`ofa_core.load`.

    Raises:
        OFAError: there is no such head, or the model cannot be loaded.
    """

    def __init__(
        self,
        head: str,
        model: str | Path | OFA,
        *,
        images: str | Path | None = None,
        allow_outside: bool = False,
        given: Mapping[str, str] | None = None,
        shared: Mapping[str, Any] | None = None,
        load_options: Mapping[str, Any] | None = None,
    ) -> None:
        if head not in HEADS or not HEADS[head].in_bulk:
            names = ", ".join(name for name, one in HEADS.items() if one.in_bulk)
            raise OFAError(f"there is no head {head!r} for rows; there are {names}")
        self.head: Head = HEADS[head]
        self.ofa = model if isinstance(model, OFA) else load(model, **(load_options or {}))
        self.shared = dict(shared or {})
        self.question = Question(self.head, ASKED, given or {})
        self._images = Images.open(None if images is None else Path(images), allow_outside, upright=True)

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline that takes pictures as the head does."""
        spec = next((spec for spec in TASKS.values() if spec.method == self.head.method), None)
        return self.ofa.pipeline if spec is None else self.ofa.pipeline.for_task(spec)

    def answer(
        self, requests: Sequence[Request], pictures: Sequence[PreparedImage | None]
    ) -> list[dict[str, Any] | OFAError]:
        """The line of each request, whose pictures were opened before, or what is wrong with it."""
        columns = [request.columns(self.head) for request in requests]
        samples = [
            asked if picture is None else {"image": picture, **asked}
            for asked, picture in zip(columns, pictures, strict=True)
        ]
        found = answer_each(self.ofa, self.head, samples, self.shared)
        return [
            result if isinstance(result, OFAError) else _line(request, asked, result)
            for request, asked, result in zip(requests, columns, found, strict=True)
        ]

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The line of each row of the plain form; one that cannot be used has a field ``error`` instead of an answer.

        Args:
            rows: fields such as ``image`` (a path, or the encoded picture), ``text`` and ``id``.

        Returns:
            As many lines, with the fields that ``ofa-core predict`` writes but ``index``.
        """
        lines: list[dict[str, Any]] = [{} for _ in rows]
        places: list[int] = []
        requests: list[Request] = []
        pictures: list[PreparedImage | None] = []
        for place, row in enumerate(rows):
            try:
                request, picture = self._opened(row)
            except OFAError as error:
                lines[place] = _bad_line(row, error)
                continue
            places.append(place)
            requests.append(request)
            pictures.append(picture)
        for place, line in zip(places, self.answer(requests, pictures) if requests else [], strict=True):
            lines[place] = _bad_line(rows[place], line) if isinstance(line, OFAError) else line
        return lines

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[str]]:
        """The lines of a batch of columns, in JSON: what ``map_batches`` of Ray Data calls.

        Args:
            batch: as many values for each field; an empty or missing one is None.

        Returns:
            The column ``line``.
        """
        names = list(batch)
        rows = [
            {name: _plain(value) for name, value in zip(names, values, strict=True)}
            for values in zip(*batch.values(), strict=True)
        ]
        return {"line": [json.dumps(line, ensure_ascii=False) for line in self.rows(rows)]}

    def _opened(self, row: Mapping[str, Any]) -> tuple[Request, PreparedImage | None]:
        (record,) = parse_row(ASKED, row, "", USUAL)
        asked = self.question.asked(record)
        if not record.has_picture:
            return Request(0, record, asked), None
        picture = self.pipeline.prepare(self._images.load(record))
        return Request(0, record.fit_to(picture.size), asked), picture


def _line(request: Request, asked: Mapping[str, Any], result: Any) -> dict[str, Any]:
    """The line of an answer: the row's id and picture, what was asked, and the result."""
    record = request.record
    image = {"image": record.image} if record.image else {}
    return {"id": record.id, **image, **asked, **result_fields(result)}


def _bad_line(row: Mapping[str, Any], error: OFAError) -> dict[str, Any]:
    reason = error.reason if isinstance(error, BadRow) else str(error)
    return {**({"id": str(row["id"])} if row.get("id") is not None else {}), "error": reason.removeprefix(": ")}


def _plain(value: Any) -> Any:
    """A value of Python's own type, of those that numpy and pandas give."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return None if isinstance(value, float) and value != value else value
