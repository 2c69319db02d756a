"""Lessons in the prompts of TiO's development branch: one pair a row, in a style and at a turn that are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random

from ..data.examples import Example
from ..data.records import Format
from ..heads.grounding import invig_codec
from ..heads.pipeline import Pipeline
from ..text.tio import (
    ABSENT,
    FEWER,
    TIO_TASKS,
    TioPair,
    TioStyle,
    category_text,
    count_turns,
    tio_pair,
    tio_style,
    turns_for,
    visdial_turns,
    without_remark,
)
from .lessons import Lesson, Row, Teach

#: Turns that an InViG dialog has more than, to lose a last remark that asks nothing.
REMARK_AFTER, REMARK_AFTER_IN_GROUNDING = 3, 2
#: The most regions beyond those that are there, which a person may ask for.
MOST_TOO_MANY = 4

Bins = Sequence[int]


def dialog_pair(name: str, style: int, turns: Sequence[str], turn: int, region: Bins | None = None) -> TioPair:
    """A turn of a dialog behind those before it; ``region`` is there where the task has one."""
    form = tio_style(name, style)
    context, said = turns_for(form, _asked(name, turns), turn)
    return tio_pair(form, context, region, text=said)


def grounding_pair(name: str, style: int, turns: Sequence[str], region: Bins) -> TioPair:
    """A whole dialog, or a phrase, and its region."""
    return tio_pair(tio_style(name, style), _asked(name, turns), regions=[region])


def _asked(name: str, turns: Sequence[str]) -> list[str]:
    """The turns that a task takes: InViG's without a last remark, VisDial's with marks of a question and its answer."""
    if name.startswith("visdial"):
        return visdial_turns(turns)
    if not name.startswith("invig"):
        return list(turns)
    return without_remark(turns, REMARK_AFTER_IN_GROUNDING if name.endswith("grounding") else REMARK_AFTER)


def text_pair(name: str, style: int, text: str, region: Bins | None = None, question: str = "") -> TioPair:
    """A text about a picture or a region; ``question`` is there where it is the instruction itself."""
    return tio_pair(tio_style(name, style), (), region, text=text, question=question)


def detection_pair(
    style: int, category: str, regions: Sequence[Bins], *, fewer: int = 1, more: int = 1, random: Random | None = None
) -> TioPair:
    """The regions of a category.

    Args:
        style: number of a style of ``openimages_detection``.
        category: its name; for the style that asks for what is not there, the name of that.
        regions: four bins for each, equal ones too: they are said once, but counted.
        fewer: the number that is asked for where it is one of those that there are.
        more: the number that is asked for where there are not so many.
        random: what draws the fewer ones, which may be drawn twice; None for the first ones.

    Returns:
        The pair.
    """
    distinct = list(dict.fromkeys(map(tuple, regions)))
    if style == FEWER:
        chosen = random.choices(list(map(tuple, regions)), k=fewer) if random else list(map(tuple, regions))[:fewer]
        distinct = list(chosen)
    name = category_text(category)
    return tio_pair(
        tio_style("openimages_detection", style),
        regions=() if style == ABSENT else distinct,
        count=len(regions),
        fewer=fewer,
        more=more,
        category=name,
        absent=name,
    )


# What is drawn for a row


def _draw_style(name: str, random: Random, never: Sequence[int] = ()) -> int:
    weights = [0.0 if number in never else style.weight for number, style in enumerate(TIO_TASKS[name].styles)]
    return random.choices(range(len(weights)), weights)[0]


def _bins(pipeline: Pipeline, row: Row) -> list[int]:
    return invig_codec(pipeline).encode(row.record.box, row.size)


def _example(pipeline: Pipeline, row: Row, pair: TioPair) -> list[Example]:
    return [Example(pair.source_ids(pipeline.tokenizer), pair.target_ids(pipeline.tokenizer), row.image)]


def _turn(name: str, pipeline: Pipeline, row: Row) -> list[Example]:
    """Any turn of the speaker who is to be learned; nothing of a dialog in which the speaker has none."""
    number = _draw_style(name, row.random)
    style = tio_style(name, number)
    possible = _possible_turns(name, style, row.record.turns)
    if not possible:
        return []
    region = _bins(pipeline, row) if style.region else None
    return _example(pipeline, row, dialog_pair(name, number, row.record.turns, row.random.choice(possible), region))


def _possible_turns(name: str, style: TioStyle, turns: Sequence[str]) -> range:
    """Numbers of turns that may be drawn; the opening of an InViG dialog has a style of its own."""
    count = count_turns(style, _asked(name, turns))
    if name != "invig_answer":
        return range(count)
    return range(min(count, 1)) if style.first is None else range(1, count)


def _grounding(name: str, pipeline: Pipeline, row: Row) -> list[Example]:
    pair = grounding_pair(name, _draw_style(name, row.random), row.record.turns, _bins(pipeline, row))
    return _example(pipeline, row, pair)


def _phrase(pipeline: Pipeline, row: Row) -> list[Example]:
    return _example(pipeline, row, grounding_pair("refcoco_grounding", 0, [row.record.text], _bins(pipeline, row)))


def _region_caption(pipeline: Pipeline, row: Row) -> list[Example]:
    return _example(pipeline, row, text_pair("refcoco_caption", 0, row.record.text, _bins(pipeline, row)))


def _caption(name: str, pipeline: Pipeline, row: Row) -> list[Example]:
    """A caption; nothing of a row that has none."""
    if not row.record.text:
        return []
    return _example(pipeline, row, text_pair(name, _draw_style(name, row.random), row.record.text))


def _first_answer(name: str, pipeline: Pipeline, row: Row) -> list[Example]:
    """The first question as the instruction, and its answer."""
    question, said = row.record.turns[:2]
    return _example(pipeline, row, text_pair(name, 0, said, question=question))


def _things(absent: Sequence[str], pipeline: Pipeline, row: Row) -> list[Example]:
    """The regions of a category of the picture, or one that is not in it; ``absent`` are names to draw it from."""
    codec = invig_codec(pipeline)
    by_name: dict[str, list[list[int]]] = {}
    for box, thing in row.record.things:
        by_name.setdefault(thing, []).append(codec.encode(box, row.size))
    others = [name for name in absent if name not in by_name]
    style = _draw_style("openimages_detection", row.random, () if others else (ABSENT,))
    if style == ABSENT:
        return _example(pipeline, row, detection_pair(style, row.random.choice(others), []))
    name = row.random.choice(list(by_name))
    count = len(by_name[name])
    fewer, more = row.random.randint(1, count), count + row.random.randint(1, MOST_TOO_MANY)
    pair = detection_pair(style, name, by_name[name], fewer=fewer, more=more, random=row.random)
    return _example(pipeline, row, pair)


def tio_lessons(absent: Sequence[str] = ()) -> dict[str, Lesson]:
    """The lessons by name, ``tio_`` before the task's; without names of ``absent`` things none is asked for."""
    taught: dict[str, tuple[Format, Teach]] = {
        "invig_question": ("invig", partial(_turn, "invig_question")),
        "invig_answer": ("invig", partial(_turn, "invig_answer")),
        "invig_grounding": ("invig", partial(_grounding, "invig_grounding")),
        "guesswhat_question": ("guesswhat", partial(_turn, "guesswhat_question")),
        "guesswhat_answer": ("guesswhat", partial(_turn, "guesswhat_answer")),
        "guesswhat_grounding": ("guesswhat", partial(_grounding, "guesswhat_grounding")),
        "visdial_question": ("conversation", partial(_turn, "visdial_question")),
        "visdial_answer": ("conversation", partial(_turn, "visdial_answer")),
        "visdial_caption": ("conversation", partial(_caption, "visdial_caption")),
        "refcoco_grounding": ("refcoco", _phrase),
        "refcoco_caption": ("refcoco", _region_caption),
        "cc_sbu_align_caption": ("caption", partial(_caption, "cc_sbu_align_caption")),
        "llava_instruct_150k": ("conversation", partial(_turn, "llava_instruct_150k")),
        "llava_conversation_58k": ("conversation", partial(_turn, "llava_conversation_58k")),
        "llava_complex_reasoning_77k": ("conversation", partial(_first_answer, "llava_complex_reasoning_77k")),
        "llava_detail_23k": ("conversation", partial(_first_answer, "llava_detail_23k")),
        "openimages_detection": ("pretrain_detection", partial(_things, absent)),
    }
    return {f"tio_{name}": Lesson(format, teach) for name, (format, teach) in taught.items()}
