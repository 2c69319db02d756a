"""Names that parsers offer, without what they name: help and wrong usage wait for no model, and no torch.

Each stands a second time where it is used, in a table of what it stands for; a test holds the two equal.
"""

from __future__ import annotations

#: Every task that there are data for.
ALL = "all"
#: The tasks of ``bench``.
BENCHMARKS = (
    *("refcoco_grounding", "guesswhat_grounding", "guesswhat_oracle", "invig_grounding", "invig_oracle"),
    *("guesswhat_grounding_end2end", "invig_grounding_end2end", "grefcoco", "ref_l4", "detection", "caption", "vqa"),
    *("classification", "guesswhat_question", "invig_question", "custom", "snli_ve", "ocr", "cola", "mnli", "rte"),
    *("mrpc", "qnli", "qqp", "sst2", "image_text_matching", "answer_matching", "text_infilling"),
)
#: The formats of rows that they read.
DATA_FORMATS = (
    *("guesswhat", "invig", "refcoco", "caption", "vqa", "snli_ve", "image_classify", "ocr", "cola", "mnli", "rte"),
    *("mrpc", "qnli", "qqp", "sst2", "matching", "answer_matching", "grefcoco", "ref_l4", "pretrain_text"),
    *("pretrain_detection", "custom"),
)
#: The tasks that ``score`` knows.
SCORED = BENCHMARKS
#: The ways in which games of GuessWhat?! are played.
PROTOCOLS = ("open", "closed")
#: The formats of rows that ``calibrate`` reads.
CALIBRATION_FORMATS = ("refcoco", "grefcoco")
#: The files that ``shapes`` writes, and the worlds that it draws.
SHAPES_FILES = (
    "images", "phrases.tsv", "names.tsv", "guesswhat.{split}.jsonl.gz", "invig.{split}.jsonl",
    "grefcoco.{split}.jsonl", "detection.{split}.jsonl", "questions.{split}.jsonl", "counting.{split}.jsonl",
)  # fmt: skip
SHAPES_SPLITS = ("train", "test")
#: The kinds of dialogs, of conversations and of listing what is in a picture.
STYLES = ("guesswhat", "invig", "invig_dev")
CHAT_STYLES = ("invig", "tio", "tio_tasks", "freeform", "freeform_grounding", "guesser")
DETECTION_STYLES = ("ofa", "tio")
#: The ways in which a terminal shows pictures: as it is told by its environment, by a protocol, or not at all.
TERMINAL_PICTURES = ("auto", "kitty", "iterm", "sixel", "file")
