"""The loss of rows that are not learned from: a score of a run that has no benchmark."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..data.examples import Example
from ..errors import OFAError
from ..generation.trie import Trie
from ..model.ofa import OFAModel
from ..text import Tokenizer
from ..utils.distributed import Process
from ..utils.stopping import check_stop
from ..vision.transform import ImageTransform
from .collate import collate
from .losses import LossModule
from .setting_tables import LossSettings
from .sources import FileSource

#: The name of the score. Of all scores it alone is better where it is lower.
HELD_OUT_LOSS = "held_out_loss"


class HeldOutLoss:
    """The mean loss of a target token over all rows of some sources, without smoothing, dropout or dropping."""

    def __init__(
        self,
        sources: Sequence[FileSource],
        tokenizer: Tokenizer,
        transform: ImageTransform,
        settings: LossSettings,
        answers: Trie | None,
        *,
        batch_size: int,
        process: Process,
    ) -> None:
        self.sources, self.tokenizer, self.transform = sources, tokenizer, transform
        changes = {"label_smoothing": 0.0, "rdrop": 0.0, "drop_worst": 0.0, "encouraging": None, "per_sentence": False}
        self.settings = settings.model_copy(update=changes)
        self.answers = answers
        self.batch_size, self.process = batch_size, process
        #: Rows of all sources: a source and a place in it.
        self.rows = [(source, row) for source in sources for row in range(len(source.rows))]

    @torch.no_grad()
    def __call__(self, model: OFAModel, device: torch.device) -> float:
        """The loss of ``model`` on ``device``, the same in every process.

        Raises:
            OFAError: the rows hold no target.
        """
        module = LossModule(model.eval(), self.tokenizer.vocabulary, self.settings, self.answers)
        totals = torch.zeros(2, dtype=torch.float64, device=device)
        share = self.process.world_size * self.batch_size
        for start in range(0, len(self.rows), share):
            check_stop()
            first = start + self.process.rank * self.batch_size
            # a process without rows of its own goes through the first ones, as all compute at once where one is sharded
            rows = self.rows[first : first + self.batch_size] or self.rows[: self.batch_size]
            examples: list[Example] = [example for source, row in rows for example in source.examples(row)]
            if examples:
                batch = collate(examples, self.tokenizer, self.transform)
                loss, counts = module(batch.to(device))
                if first < len(self.rows):
                    totals += torch.stack([loss.double(), counts[0]])
        if self.process.world_size > 1:
            torch.distributed.all_reduce(totals)
        if not totals[1]:
            raise OFAError("the rows of held_out hold no target")
        return float(totals[0] / totals[1])
