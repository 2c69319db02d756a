"""Sources of examples: the rows of dataset files, and the drawn world."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random

from PIL import Image

from ..data.examples import Example
from ..data.readers import Source as Rows
from ..data.records import BadRow
from ..data.rows import ShuffledRecords
from ..demo.lessons import LEARNED, Lessons
from ..errors import OFAError
from ..generation.trie import Trie
from ..heads.pipeline import Pipeline
from ..text import Tokenizer
from ..utils.input_files import read_text_file
from .batches import Source
from .lessons import LESSONS as TASK_LESSONS
from .lessons import Lesson, Row, Teach
from .picture_codes import coded_lesson
from .pretraining import Negatives, pretraining_lessons
from .setting_tables import DataSettings
from .settings import TrainingSettings
from .tio_lessons import tio_lessons

#: Everything that can be learned from dataset files, by its name in settings.
LESSONS: dict[str, Lesson] = {**TASK_LESSONS, **pretraining_lessons(), **tio_lessons()}
#: Those that draw wrong captions, answers or absent objects from the files of :class:`Negatives`.
DRAWN_NEGATIVES = ("pretrain", "tio_openimages_detection")
#: The drawn world, which needs no files.
SHAPES = "shapes"


@dataclass(frozen=True)
class FileSource:
    """Examples from the rows of a file."""

    pipeline: Pipeline
    rows: ShuffledRecords
    lesson: Lesson
    seed: int = 0
    #: The answers of which each target is one, where the settings name a file of them.
    answers: Trie | None = None

    def examples(self, index: int) -> list[Example]:
        """Examples of row ``index``.

        Raises:
            BadRow: there is nothing to learn from it.
        """
        record, picture = self.rows.row(index)
        try:
            examples = self.lesson.teach(self.pipeline, Row(record, Random(f"{self.seed}/{index}"), picture))
        except BadRow:
            raise
        except OFAError as error:
            raise BadRow(record.place, str(error)) from None
        if self.answers is not None:
            examples = [example if example.answers else replace(example, answers=self.answers) for example in examples]
        return self._at_own_side(examples) if self.pipeline.other_side else examples

    def _at_own_side(self, examples: list[Example]) -> list[Example]:
        """The examples with pixels of the side at which the task takes its pictures, which is not the model's."""
        pictures = {id(example.image): example.image for example in examples if isinstance(example.image, Image.Image)}
        pixels = {key: self.pipeline.transform(picture) for key, picture in pictures.items()}
        return [replace(example, image=pixels.get(id(example.image), example.image)) for example in examples]

    def take_failures(self) -> list[str]:
        """Errors of the rows whose places others took since this was last asked."""
        return self.rows.take_failures()


def make_source(data: DataSettings, pipeline: Pipeline, seed: int, rows: Rows | None = None) -> Source:
    """The source of one table of the settings; ``pipeline``'s model may be without weights.

    Args:
        data: the table.
        pipeline: the model that learns.
        seed: the order of the rows.
        rows: rows that are in memory, such as a ``datasets.Dataset``, instead of those of the table's ``path``.

    Returns:
        The source.

    Raises:
        OFAError: there is no such task, or its settings or rows are wrong.
    """
    lesson, path = lesson_of(data if rows is None else data.model_copy(update={"path": Path("rows in memory")}))
    if lesson is None or path is None:
        return _shapes(data, pipeline, seed)
    records = ShuffledRecords(
        lesson.format,
        path if rows is None else rows,
        data.images,
        columns=data.columns,
        skip_bad=data.skip_bad,
        seed=seed,
        allow_outside=data.allow_outside,
        options=data.read_options,
    )
    own = pipeline if lesson.spec is None else pipeline.for_task(lesson.spec)
    answers = None if data.answers is None else answers_in(data.answers, pipeline.tokenizer)
    return FileSource(own, records, lesson, seed, answers)


def learned_tasks(settings: TrainingSettings) -> set[str]:
    """The names of what a run teaches: of its lessons, and of the tasks that they belong to."""
    lessons = [(data.task, LESSONS.get(data.task)) for data in settings.data]
    specs = {lesson.spec.name for _, lesson in lessons if lesson is not None and lesson.spec is not None}
    drawn = LEARNED if any(name == SHAPES for name, _ in lessons) else ()
    return {*specs, *drawn, *(name for name, _ in lessons if name != SHAPES)}


def lesson_of(data: DataSettings) -> tuple[Lesson | None, Path | None]:
    """The format and the meaning of a table's rows, and their file; neither for the drawn world.

    Raises:
        OFAError: there is no such task, or its settings are wrong.
    """
    if data.task == SHAPES:
        return None, None
    if data.task not in LESSONS:
        raise OFAError(f"there is no training task {data.task!r}; there are {', '.join([SHAPES, *LESSONS])}")
    if data.path is None or data.options:
        raise OFAError(f"the training task {data.task!r} needs a path and has no options")
    return _lesson(data), data.path


def _lesson(data: DataSettings) -> Lesson:
    """The lesson of a source's rows."""
    lesson = _lesson_with_files(data)
    if not data.text_dropout:
        return lesson
    if data.task != "image_gen":
        raise OFAError(f"the training task {data.task!r} needs its text; text_dropout is for image_gen")
    return replace(lesson, teach=partial(_without_some_texts, lesson.teach, data.text_dropout))


def _without_some_texts(teach: Teach, share: float, pipeline: Pipeline, row: Row) -> list[Example]:
    """The examples of a row, of a ``share`` of rows without their text."""
    if row.random.random() < share:
        row = replace(row, record=replace(row.record, text=""))
    return teach(pipeline, row)


def _lesson_with_files(data: DataSettings) -> Lesson:
    """The lesson, with what makes its image codes, or what its matching draws from."""
    if data.codes_from is not None:
        return coded_lesson(data.task, LESSONS[data.task], data.codes_from, data.codes_cache)
    if data.negatives is None:
        return LESSONS[data.task]
    if data.task not in DRAWN_NEGATIVES:
        raise OFAError(
            f"the training task {data.task!r} draws nothing from negatives; {' and '.join(DRAWN_NEGATIVES)} do"
        )
    negatives = Negatives.from_dir(data.negatives)
    return {**pretraining_lessons(negatives), **tio_lessons(negatives.objects)}[data.task]


def answers_in(path: Path, tokenizer: Tokenizer) -> Trie:
    """The tree of the answers in a text file, one a line, taken as they are written.

    Raises:
        OFAError: it cannot be read, or holds none.
    """
    lines = map(str.strip, read_text_file(path).splitlines())
    return Trie([tokenizer.encode(f" {line}") for line in lines if line])


def _shapes(data: DataSettings, pipeline: Pipeline, seed: int) -> Source:
    """Scenes of the drawn world; ``options`` are those of :class:`~ofa_core.demo.lessons.Lessons`."""
    if data.path is not None:
        raise OFAError(f"the training task {SHAPES!r} draws its pictures and takes no path")
    if "emphasis" in data.options:
        raise OFAError(f"the options of the task {SHAPES!r}: emphasis is called loss_weights now")
    try:
        return Lessons(pipeline, **({"seed": seed} | data.options))
    except TypeError as error:
        raise OFAError(f"the options of the task {SHAPES!r} are wrong: {error}") from None
