"""A benchmark as one call in Python, on files or on rows that are in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..api import OFA
from ..data.loading import DataFiles
from ..data.readers import Source
from ..errors import OFAError
from ..utils.distributed import Process
from .runner import Run, make_header, run_task
from .samples import Models, Settings
from .summary import Summary
from .tasks import TASKS


def evaluate(
    ofa: OFA,
    task: str,
    data: Source | DataFiles,
    *,
    images: Path | None = None,
    settings: Settings | None = None,
    out: Path | None = None,
    comment: str = "python",
    skip_bad: bool = False,
) -> Summary:
    """Score a model on one benchmark.

    Args:
        ofa: the model.
        task: the name of the benchmark, such as ``refcoco_grounding``.
        data: a path, a ``datasets.Dataset``, a list of rows, or several files as :class:`~.loading.DataFiles`.
        images: a directory or archive of the pictures, unless rows hold them.
        settings: changes to batch size, search and answers.
        out: a directory for the results file, which ``ofa-core score`` and ``compare`` read; None leaves none.
        comment: the name of the run in it.
        skip_bad: leave out rows that cannot be used, instead of stopping at the first.

    Returns:
        The scores.

    Raises:
        OFAError: there is no such task, or a row or a picture cannot be used.
    """
    if task not in TASKS:
        raise OFAError(f"there is no benchmark {task!r}; there are {', '.join(TASKS)}")
    chosen, models = settings or Settings(), Models(ofa, ofa)
    files = data if isinstance(data, DataFiles) else DataFiles(data, images)
    header = make_header(
        TASKS[task], models, chosen, comment=comment, model="in memory", model_sha256="", data=files.name
    )
    with tempfile.TemporaryDirectory() as temporary:
        run = Run(TASKS[task], files, models, chosen, header, out or Path(temporary), skip_bad=skip_bad, quiet=True)
        outcome = run_task(run, Process())
    if outcome is None:
        raise OFAError("the first process alone has scores")  # and this is the only one
    return outcome.summary
