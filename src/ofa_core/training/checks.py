"""Everything that a run reads, looked at before anything is loaded: no run of days ends on a file that is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..bench.samples import read_answers
from ..bench.tasks import TASKS, read_samples
from ..data.documents import picture_folder
from ..data.images import Images
from ..data.readers import read_records
from ..data.records import Record
from ..errors import OFAError
from ..model.ofa import OFAModel
from .evaluation import data_files
from .setting_tables import DataSettings, EvaluationSettings
from .settings import TrainingSettings
from .sources import lesson_of
from .stored import image_codes_network


def check_files(settings: TrainingSettings) -> None:
    """Look at every file that ``settings`` name.

    Rows to learn from are all read when the run begins; here they are looked at until a picture is found, and those of
    benchmarks, which are due late, to their end.

    Raises:
        OFAError: a file is missing, of another kind or damaged, or holds nothing that can be used.
    """
    new = settings.new_model
    sources = (*settings.data, *settings.held_out)
    of_data = [path for data in sources for path in (data.answers, data.negatives, data.codes_from)]
    for path in (settings.loss.answers, None if new is None else new.stem, *of_data):
        if path is not None and not path.exists():
            raise OFAError(f"{path} does not exist")
    image_codes_network(settings)
    for data in sources:
        _check_source(data)
    for benchmark in settings.evaluation:
        _check_benchmark(benchmark)


def check_cached(settings: TrainingSettings, model: OFAModel) -> None:
    """See that pictures and the stem of ``model``, whose frozen parts are, stay as they are where features are kept.

    Raises:
        OFAError: they do not.
    """
    stem = model.encoder.image_stem
    if any(parameter.requires_grad for parameter in stem.parameters()):
        raise OFAError('cache_features needs a stem that stays as it is: freeze = ["stem"], or lora')
    if not settings.freeze_batch_norm and settings.lora is None:
        raise OFAError("cache_features needs freeze_batch_norm = true: without it the stem's statistics move")
    if model.config.stem_drop_path:
        raise OFAError(
            f"cache_features needs config.stem_drop_path = 0, not {model.config.stem_drop_path}, by which parts of the "
            "stem are left out by chance"
        )
    if settings.shard:
        raise OFAError("cache_features does not go with shard, which takes the stem apart")
    for data in settings.data:
        lesson, _ = lesson_of(data)
        if lesson is None or lesson.draws_picture:
            raise OFAError(
                f"cache_features needs pictures that stay the same, and the task {data.task!r} draws them anew"
            )


def _check_source(data: DataSettings) -> None:
    lesson, path = lesson_of(data)
    if lesson is None or path is None:
        return
    bad: list[OFAError] = []
    on_bad = bad.append if data.skip_bad else None
    with Images.open(picture_folder(path, data.images), data.allow_outside) as images:
        records = read_records(lesson.format, path, columns=data.columns, options=data.read_options, on_bad=on_bad)
        if not _holds_one(images, records, bad, skip_bad=data.skip_bad):
            raise _nothing(path, "holds no rows to learn from", bad)


def _check_benchmark(benchmark: EvaluationSettings) -> None:
    if benchmark.task not in TASKS:
        raise OFAError(f"there is no benchmark {benchmark.task!r}; there are {', '.join(TASKS)}")
    if benchmark.answers is not None:
        if not TASKS[benchmark.task].takes_answers:
            raise OFAError(f"the benchmark {benchmark.task!r} takes no answers; vqa and classification do")
        read_answers(benchmark.answers)
    bad: list[OFAError] = []
    data = data_files(benchmark)
    with data.open_images() as images:
        samples = read_samples(TASKS[benchmark.task], data, benchmark.limit, bad.append)
        found = _holds_one(images, (sample.record for sample in samples), bad, skip_bad=True)
        for _ in samples:  # a file that is damaged further on
            pass
    if not found:
        raise _nothing(benchmark.path, f"holds no sample of {benchmark.task} that can be used", bad)


def _holds_one(images: Images, records: Iterator[Record], bad: list[OFAError], *, skip_bad: bool) -> bool:
    """Read on until a row and its picture can be used; the first must be, unless bad ones are skipped."""
    for record in records:
        try:
            if record.has_picture:
                images.load(record)
        except OFAError as error:
            if not skip_bad:
                raise
            bad.append(error)
        else:
            return True
    return False


def _nothing(path: Path, problem: str, bad: list[OFAError]) -> OFAError:
    return OFAError(f"{path} {problem}{f'; the first problem is {bad[0]}' if bad else ''}")
