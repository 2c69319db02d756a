"""Pictures of an evaluation's first samples with the boxes that were due and found, or with what was said."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from PIL import Image

from ..bench.results import Row, iter_rows
from ..bench.tasks import Task, read_samples
from ..data.loading import DataFiles
from ..errors import OFAError, shortened
from ..vision.boxes import Box
from ..vision.drawing import COLOR, draw_box

#: Samples that are shown of each benchmark, and the longer side of their pictures in pixels.
COUNT, SIDE = 4, 400
#: The colour of a box that was due.
DUE = (20, 150, 60)


def sample_pictures(task: Task, data: DataFiles, limit: int | None, results: Path) -> list[Image.Image]:
    """The first samples of a results file that have a picture.

    Args:
        task: the benchmark.
        data: its rows and pictures.
        limit: the most samples that it asked.
        results: its file.

    Returns:
        At most :data:`COUNT` pictures.
    """
    _, rows = iter_rows(results)
    by_index = {row.index: row for row in islice(rows, COUNT)}
    last = max(by_index, default=-1)
    shown = []
    with data.open_images() as images:
        for sample in islice(read_samples(task, data, limit, lambda bad: None), last + 1):
            row = by_index.get(sample.index)
            if row is None or not sample.record.has_picture:
                continue
            try:
                shown.append(drawn(images.load(sample.record), row))
            except OFAError:  # a picture that has gone since: the run does not end for it
                continue
    return shown


def drawn(picture: Image.Image, row: Row) -> Image.Image:
    """A small copy of a row's picture with its boxes; where it has none, with the answer."""
    width, _ = picture.size
    small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    scale = small.width / width
    boxes = [(DUE, row.box, ""), *((DUE, one.box, one.label) for one in row.targets or ())]
    found = [(COLOR, row.found, ""), *((COLOR, one.box, one.label) for one in row.detected)]
    for color, box, label in (*boxes, *found):
        if box is not None:
            small = draw_box(small, _scaled(box, scale), label, color)
    has_answer = row.found is None and not row.detected
    return draw_box(small, None, shortened(row.output.strip() or "(nothing)", 60)) if has_answer else small


def _scaled(box: Box, scale: float) -> Box:
    x0, y0, x1, y1 = box
    return (x0 * scale, y0 * scale, x1 * scale, y1 * scale)
