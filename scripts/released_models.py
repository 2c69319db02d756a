"""Write what is said about released checkpoints: the package's table, README.md and the documentation.

Without arguments it writes both pages from the package's table; a test holds that nothing differs. ``--from LIST.tsv``
first makes that table anew from a list with the columns name, family, size, task, file, url and published.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Mapping
from pathlib import Path

from page_tables import filled, rewrite

from checkpoints_convert.hub_settings import MODELSCOPE_TASKS
from ofa_core.checkpoint.released import COLUMNS, TABLE, Family, Released, released
from ofa_core.cli.models import methods_of
from ofa_core.heads.tasks import PRETRAINING

ROOT = Path(__file__).parent.parent
#: Pages with tables of released checkpoints.
PAGES = tuple(ROOT / page for page in ("docs/models.md", "docs/start/real_checkpoint.md"))

#: Names of models whose published figure `ofa-core reproduce` has met on the released weights.
VERIFIED: frozenset[str] = frozenset()
#: The place that a kind comes from.
FROM: dict[Family, str] = {
    "fairseq": "OFA's own files",
    "mmpretrain": "OpenMMLab",
    "hub": "Hugging Face hub",
    "modelscope": "ModelScope (downloaded by its own tool)",
    "text-only": "OFA's own files; not an OFA with pictures, refused",
    "speech": "ModelScope; reads speech, refused",
}
#: Beginnings of the list's families -> the table's.
FAMILIES: dict[str, Family] = {
    "ofa-fairseq": "fairseq",
    "ofa-cn-fairseq": "fairseq",
    "text-only": "text-only",
    "hf": "hub",
    "hf-fork": "hub",
    "hub": "hub",
    "fairseq": "hub",  # a fairseq file within a repository of the hub
    "mmpretrain": "mmpretrain",
    "modelscope": "modelscope",
}
#: The list's tasks -> fairseq's.
TRAINED_FOR: dict[str, str] = {
    "pretrain": PRETRAINING,
    "caption": "caption",
    "vqa": "vqa_gen",
    "refcoco": "refcoco",
    "refcocoplus": "refcoco",
    "refcocog": "refcoco",
    "snli_ve": "snli_ve",
    "image_gen": "image_gen",
    "imagenet_1k": "image_classify",
    "gigaword": "gigaword",
    "ofa_ocr": "ocr",
}
#: Splits of the figures that stand there with slashes between, by the list's task.
SPLITS: dict[str, tuple[str, ...]] = {
    "refcoco": ("val", "testA", "testB"),
    "refcocoplus": ("val", "testA", "testB"),
    "refcocog": ("val", "test"),
    "snli_ve": ("dev", "test"),
    "vqa": ("test-dev", "test-std"),
}
#: Models of the pre-training whose task the list names by what they were tried on.
_PRETRAINED = re.compile(r"zeroshot")


def read_list(path: Path) -> list[Released]:
    """The entries of a list."""
    with path.open(encoding="utf-8", newline="") as file:
        return [_entry(row) for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def _entry(row: Mapping[str, str]) -> Released:
    family = FAMILIES[row["family"].split(" ")[0].rstrip(",")]
    task, published = row["task"], row["published"]
    if "mmspeech" in row["name"]:
        family = "speech"
    whole, _, more = published.partition("released file")
    return Released(
        name=row["name"],
        family=family,
        size=row["size"],
        task=task,
        trained_for=_trained_for(row["name"], task),
        file=row["file"] if "/" not in row["name"] or "/" in row["file"] else "",
        url=row["url"],
        figures=_figures(whole, task),
        of_file=_figures(more, task),
        published=published,
    )


def _trained_for(name: str, task: str) -> str:
    if _PRETRAINED.search(name):
        return PRETRAINING
    if task in TRAINED_FOR:
        return TRAINED_FOR[task]
    word = task.split("_")[1] if task.startswith("ofa_") else ""
    return {**MODELSCOPE_TASKS, "summarization": "gigaword", "image-caption": "caption"}.get(word, "")


def _figures(text: str, task: str) -> dict[str, float]:
    """The figures by split: ``90.05/92.93/85.26``, or ``testA 90.49 testB 83.63``."""
    splits = SPLITS.get(task, ())
    told = {split: float(value) for split in splits for value in re.findall(rf"\b{split} ([0-9.]+)", text)}
    numbers = re.match(r"\s*([0-9.]+(?:/[0-9.]+)+)", text)
    if told or numbers is None:
        return told
    return dict(zip(splits, map(float, numbers[1].split("/")), strict=True)) if splits else {}


def write_table(entries: list[Released]) -> None:
    """Write the package's table."""
    lines = ["\t".join(COLUMNS)]
    lines += ["\t".join(_cell(getattr(entry, column)) for column in COLUMNS) for entry in entries]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(value: str | Mapping[str, float]) -> str:
    return value if isinstance(value, str) else " ".join(f"{name}={number}" for name, number in value.items())


def expected_table() -> str:
    """The released models with figures by split, beside their names."""
    lines = ["| model | trained for | published figures | |", "|---|---|---|---|"]
    for entry in released().values():
        if entry.figures:
            more = f" (of the released file: {_told(entry.of_file)})" if entry.of_file else ""
            lines.append(f"| `{entry.name}` | {entry.task} | {_told(entry.figures)}{more} | {status(entry)} |")
    return "\n".join(lines) + "\n"


def whole_table() -> str:
    """Every released model."""
    lines = ["| name | size | task | methods it answers | from | published | |", "|---" * 7 + "|"]
    for entry in released().values():
        methods = ", ".join(f"`{method}`" for method in methods_of(entry))
        mark = status(entry) if entry.published else ""
        cells = (f"`{entry.name}`", entry.size, entry.task, methods, FROM[entry.family], entry.published, mark)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def status(entry: Released) -> str:
    """*verified by us* where a score of ours agreed with the published one, else *published*."""
    return "*verified by us*" if entry.name in VERIFIED else "*published*"


def _told(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{split} {figure:.2f}" for split, figure in figures.items())


TABLES = {"expected": expected_table, "all": whole_table}


def with_tables(text: str) -> str:
    """A page with its tables as the package has them."""
    return filled("models", TABLES, text)


def main() -> None:
    """Write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="list", type=Path, metavar="LIST.tsv", help="make the package's table of this")
    args = parser.parse_args()
    if args.list is not None:
        write_table(read_list(args.list))
        released.cache_clear()
    for page in PAGES:
        rewrite(page, with_tables)


if __name__ == "__main__":
    main()
