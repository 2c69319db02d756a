"""Results files of any form: ours of JSON lines or in one JSON file, and the older one of a JSON list a line."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import JsonValue

from ..errors import OFAError
from ..heads.box_codec import BoxCodec
from ..text.dialog import AGENT
from ..vision.boxes import Box
from .metrics import LABELS, UNIT, pair_iou
from .results import Header, Row, iter_rows
from .single_json import is_single, read_single
from .summary import Kind, task_scores

#: Width and height that stand for a picture whose size the file does not tell: boxes are in thousandths of its sides.
#: IoU does not depend on it.
UNKNOWN_SIZE = (1000, 1000)
#: Columns that scores need.
_NEEDED = ("text_output", "text_gen")
#: Kinds of task that a target and an answer are enough for.
KINDS: tuple[Kind, ...] = ("grounding", "oracle", "selfplay", "answer", "judgement", "reading")
#: Lines looked at to guess the task.
_LOOKED_AT = 64
_BIN = re.compile(r"<bin_(\d+)>")


def read_results(path: Path, task: str | None = None) -> tuple[Header, Iterator[Row]]:
    """The header and the rows, as they are asked for, of a results file in any form.

    The older form is a JSON list of column names (``text_output`` the target, ``text_gen`` the model's answer; also
    ``text_input``, ``index``, ``image_path``), then a JSON list a line. Its task is guessed from what it holds, its
    boxes are those that the bins in its texts say. ``task`` decides instead of header or guess.

    Raises:
        OFAError: the file or a line of it (named by number) is in none of them, or rows of ours are missing.
    """
    if task is not None:
        task_scores(task)  # names an unknown one
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    if start.startswith(b"["):
        return _read_lists(path, task)
    header, rows = read_single(path) if is_single(path) else iter_rows(path)
    return (header if task is None else header.model_copy(update={"task": task})), _without_holes(path, rows)


def _without_holes(path: Path, rows: Iterator[Row]) -> Iterator[Row]:
    for expected, row in enumerate(rows):
        if row.index != expected:
            raise OFAError(f"{path}: sample {row.index} stands where {expected} should: finish the run with --resume")
        yield row


def bins_of(text: str) -> list[int] | None:
    """The four bins of a text, None where there are not just four."""
    numbers = [int(number) for number in _BIN.findall(text)]
    return numbers if len(numbers) == 4 else None


# The older form


def _read_lists(path: Path, task: str | None) -> tuple[Header, Iterator[Row]]:
    lines = _lists(path)
    _, columns = next(lines)
    names = [str(name) for name in columns]
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise OFAError(f"{path}:1: there is no column {missing[0]}; the columns are {', '.join(names)}")
    fields = (_named(path, number, names, values) for number, values in lines)
    first = list(itertools.islice(fields, _LOOKED_AT))
    guessed = task or guess_task([row for _, row in first])
    if task_scores(guessed).kind not in KINDS:
        raise OFAError(f"{path} is in the older form, which holds not enough to score {guessed} by")
    header = Header(
        format="lists",
        task=guessed,
        comment=path.stem,
        model=path.stem,
        model_sha256="",
        data="",
        started="",
        settings=_protocol([row for _, row in first]) if task_scores(guessed).kind == "selfplay" else {},
    )
    read = itertools.chain(first, fields)
    return header, (_row(path, guessed, index, number, row) for index, (number, row) in enumerate(read))


def guess_task(rows: Sequence[dict[str, object]]) -> str:
    """The task of the first rows: a list of pairs is self-play, bins in the target grounding, all else an oracle's."""
    sources = [row.get("text_input") for row in rows]
    targets = [str(row["text_output"]).strip().lower() for row in rows]
    if any(isinstance(source, list) for source in sources):
        answers = [answer.lower() for source in sources for question, answer in _pairs(source) if question and answer]
        closed = bool(answers) and all(answer in LABELS for answer in answers)
        return "guesswhat_grounding_end2end" if closed else "invig_grounding_end2end"
    if any(bins_of(target) for target in targets):
        text = str(sources[0])
        if "which region does the text" in text:
            return "refcoco_grounding"
        return "guesswhat_grounding" if f'#context: "{AGENT}:' in text else "invig_grounding"
    return "guesswhat_oracle" if all(target in LABELS for target in targets) else "invig_oracle"


def _protocol(rows: Sequence[dict[str, object]]) -> dict[str, JsonValue]:
    """The protocol of games: closed ones have no query, which stands as an answer to nothing, at their beginning."""
    first = [next(_pairs(row.get("text_input")), ("", "")) for row in rows]
    return {"protocol": "closed" if first and all(question for question, _ in first) else "open"}


def _lists(path: Path) -> Iterator[tuple[int, list[object]]]:
    """The lists of a file with the numbers of their lines."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except ValueError:
                values = None
            if not isinstance(values, list):
                raise OFAError(f"{path}:{number}: the line should be a JSON list like the first one")
            yield number, values


def _named(path: Path, number: int, names: list[str], values: list[object]) -> tuple[int, dict[str, object]]:
    if len(values) != len(names):
        raise OFAError(f"{path}:{number}: {len(values)} values for the {len(names)} columns {', '.join(names)}")
    return number, dict(zip(names, values, strict=True))


def _row(path: Path, task: str, index: int, number: int, values: dict[str, object]) -> Row:
    target, output = str(values["text_output"]), str(values["text_gen"])
    source, scores = values.get("text_input", ""), task_scores(task)
    turns = _turns(source)
    box = found = iou = None
    try:
        if scores.has_boxes:
            codec = BoxCodec(scores.convention)
            box, found = _box(codec, target), _box(codec, output)
            if box is None:
                raise OFAError(f"text_output is {target!r}; it should hold four bins for the task {task}")
            iou = _iou(codec, target, output)
    except OFAError as error:
        raise OFAError(f"{path}:{number}: {error}") from None
    return Row(
        index=index,
        id=str(values.get("index", index)),
        image=str(values.get("image_path") or ""),
        size=UNKNOWN_SIZE,
        source=source if isinstance(source, str) else "",
        target=target.strip(),
        output=output.strip(),
        box=box,
        found=found,
        iou=iou,
        turns=turns,
        questions=sum(bool(question) for question, _ in _pairs(source)) if scores.kind == "selfplay" else None,
    )


def _box(codec: BoxCodec, text: str, size: tuple[int, int] = UNKNOWN_SIZE) -> Box | None:
    return codec.decode(bins_of(text), size)


def _iou(codec: BoxCodec, target: str, output: str) -> float:
    """IoU of the boxes in two texts, of which the first has one; in fractions where the published scorer has those."""
    size = UNIT if codec.convention == "invig" else UNKNOWN_SIZE
    box = _box(codec, target, size)
    return 0.0 if box is None else pair_iou(box, _box(codec, output, size), codec.convention)


def _pairs(source: object) -> Iterator[tuple[str, str]]:
    """The (question, answer) pairs of a dialog; what is missing is empty."""
    for entry in source if isinstance(source, list) else []:
        first, second = ([*entry, "", ""] if isinstance(entry, list) else [entry, ""])[:2]
        yield str(first or "").strip(), str(second or "").strip()


def _turns(source: object) -> tuple[str, ...]:
    """The turns of a dialog in order; what is empty was not said."""
    return tuple(turn for pair in _pairs(source) for turn in pair if turn)
