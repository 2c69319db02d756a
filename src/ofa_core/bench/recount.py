"""Results files scored anew: every IoU computed from the boxes that the rows hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from ..data.images import Images
from ..data.records import Record
from ..errors import OFAError
from .legacy_results import read_results
from .metrics import scored_iou
from .results import Header, Row
from .summary import TaskScores, task_scores

#: IoU further apart than this are not the same.
_SAME_IOU = 1e-6


class Recount:
    """Reads results and computes every IoU anew from the boxes in the row."""

    def __init__(self) -> None:
        #: Rows so far whose own IoU was another.
        self.differing = 0

    def read(self, path: Path, task: str | None = None) -> tuple[Header, Iterator[Row]]:
        """Header and rows of a results file in any form; see :func:`~.legacy_results.read_results`."""
        header, rows = read_results(path, task)
        scores = task_scores(header.task)
        boxes = header.format != "lists" and scores.has_boxes  # lists hold none but those their bins say
        return header, (self._recounted(path, row, scores) for row in rows) if boxes else rows

    def _recounted(self, path: Path, row: Row, scores: TaskScores) -> Row:
        if row.box is None:
            raise OFAError(f"{path}: sample {row.id!r} has no target box, which its task is scored by")
        try:
            iou = scored_iou(row.box, row.found, row.size, scores.convention)
        except OFAError as error:
            raise OFAError(f"{path}: sample {row.id!r}: {error}") from None
        if row.iou is None or abs(iou - row.iou) > _SAME_IOU:
            self.differing += 1
        return row.model_copy(update={"iou": iou})


def picture_of(images: Images, header: Header, row: Row) -> Image.Image | None:
    """The picture of a row; None where it names none."""
    if not row.image:
        return None
    size = None if header.format == "lists" else row.size
    anywhere = (0.0, 0.0, 2.0, 2.0)  # the row's box was checked long ago; it is the picture that is looked for
    return images.load(Record(id=row.id, image=row.image, box=anywhere, size=size))
